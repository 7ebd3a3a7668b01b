"""Object detection: a small RetinaNet on the feature maps of any pimm model."""
