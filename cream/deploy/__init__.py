"""A trained net outside of training: how it sees images, its export, and the classes of images."""
