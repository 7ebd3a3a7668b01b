"""A net's parameters, with and without its head."""

from __future__ import annotations

from pimm.optim.layout import mark_linear_weights


def model_parameters(model, exclude_head=False):
    """The trainable parameters of a net, without those of its classifier if ``exclude_head``, as AGC wants them.

    The classifier is what ``get_classifier()`` gives; of a net without it, the last two parameters.
    """
    mark_linear_weights(model)
    params = [param for param in model.parameters() if not param.stop_gradient]
    if not exclude_head:
        return params
    if not hasattr(model, "get_classifier"):
        return params[:-2]
    head = {param.name for param in model.get_classifier().parameters()}
    return [param for param in params if param.name not in head]
