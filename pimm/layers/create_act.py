"""Activations by name."""

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import activations as ours
from pimm.messages import did_you_mean

_ACTIVATIONS = {  # name: (function, layer)
    "relu": (F.relu, nn.ReLU),
    "relu6": (F.relu6, nn.ReLU6),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU),
    "prelu": (F.prelu, nn.PReLU),
    "elu": (F.elu, nn.ELU),
    "celu": (F.celu, nn.CELU),
    "selu": (F.selu, nn.SELU),
    "gelu": (ours.gelu, ours.GELU),
    "gelu_tanh": (ours.gelu_tanh, ours.GELUTanh),
    "quick_gelu": (ours.quick_gelu, ours.QuickGELU),
    "identity": (lambda x: x, nn.Identity),
    "swish": (ours.swish, ours.Swish),
    "silu": (ours.swish, ours.Swish),
    "mish": (ours.mish, ours.Mish),
    "sigmoid": (ours.sigmoid, ours.Sigmoid),
    "tanh": (ours.tanh, ours.Tanh),
    "hard_swish": (ours.hard_swish, ours.HardSwish),
    "hard_sigmoid": (ours.hard_sigmoid, ours.HardSigmoid),
    "hard_mish": (ours.hard_mish, ours.HardMish),
}


def get_act_fn(name="relu"):
    """Return the activation function of this name. Raises `ConfigError`, which lists near names, if there is none."""
    return _find(name)[0]


def get_act_layer(name="relu"):
    """Return the class of activation layers of this name; a class as it is, and None for None or ``""``.

    Raises:
        ConfigError: for an unknown name, as `get_act_fn` does.
    """
    if name is None or name == "" or callable(name):
        return name or None
    return _find(name)[1]


def create_act_layer(name, **kwargs):
    """Create the activation layer of a name or a class with ``kwargs``; return None where `get_act_layer` does."""
    layer = get_act_layer(name)
    return None if layer is None else layer(**kwargs)


def _find(name):
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        hint = did_you_mean(name, _ACTIVATIONS, count=3) or f"; valid are {', '.join(_ACTIVATIONS)}"
        raise ConfigError(f"unknown activation {str(name)[:60]!r}{hint}")
    return _ACTIVATIONS[name]
