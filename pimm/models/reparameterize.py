"""Replace branches that were trained apart by one layer that computes the same in inference."""

import copy


def reparameterize_model(model, inplace=False):
    """Return the net with each layer fused that has ``fuse()``, ``reparameterize()`` or ``switch_to_deploy()``.

    The results in evaluation mode are the same up to rounding, with fewer layers; the names in the state dict change.

    Args:
        model: the net, in evaluation mode.
        inplace: whether to change the net itself instead of a copy.
    """
    model = model if inplace else copy.deepcopy(model)
    fuse_children(model)
    return model


def fuse_children(layer):
    """Fuse the layers inside a layer, in place, as `reparameterize_model` says."""
    for name, child in list(layer.named_children()):
        if hasattr(child, "fuse"):
            child = child.fuse()
            layer.add_sublayer(name, child)
        elif hasattr(child, "reparameterize"):
            child.reparameterize()
        elif hasattr(child, "switch_to_deploy"):
            child.switch_to_deploy()
        fuse_children(child)
