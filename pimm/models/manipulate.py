"""List the parameters of a net, with or without its head."""

from __future__ import annotations

from pimm.optim.layout import mark_linear_weights


def model_parameters(model, exclude_head=False):
    """Return the trainable parameters of a net.

    Args:
        model: the net.
        exclude_head: whether to leave out the classifier, as adaptive gradient clipping does: the layer that the net's
            ``get_classifier()`` returns, or the last two parameters of a net without that method.
    """
    mark_linear_weights(model)
    params = [param for param in model.parameters() if not param.stop_gradient]
    if not exclude_head:
        return params
    if not hasattr(model, "get_classifier"):
        return params[:-2]
    head = {param.name for param in model.get_classifier().parameters()}
    return [param for param in params if param.name not in head]
