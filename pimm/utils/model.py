"""A net inside its wrappers, and its weights."""

from __future__ import annotations

from paddle import nn

_WRAPPED_AS = ("ema", "module", "_layers")  # by ModelEma, ModelEmaV2 and later, paddle.DataParallel


def unwrap_model(model):
    """The net inside an averaged or a data-parallel model, or the net itself."""
    for name in _WRAPPED_AS:
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Layer):
            return unwrap_model(inner)
    return model


def get_state_dict(model):
    """Weights and running statistics of the net inside ``model``, by name."""
    return unwrap_model(model).state_dict()
