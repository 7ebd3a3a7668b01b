"""Activations by name."""

import difflib

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.activations import (
    HardMish,
    HardSigmoid,
    HardSwish,
    Mish,
    Sigmoid,
    Swish,
    Tanh,
    hard_mish,
    hard_sigmoid,
    hard_swish,
    mish,
    sigmoid,
    swish,
    tanh,
)

_ACTIVATIONS = {  # name: (function, layer)
    "relu": (F.relu, nn.ReLU),
    "relu6": (F.relu6, nn.ReLU6),
    "swish": (swish, Swish),
    "silu": (swish, Swish),
    "mish": (mish, Mish),
    "sigmoid": (sigmoid, Sigmoid),
    "tanh": (tanh, Tanh),
    "hard_swish": (hard_swish, HardSwish),
    "hard_sigmoid": (hard_sigmoid, HardSigmoid),
    "hard_mish": (hard_mish, HardMish),
}


def get_act_fn(name="relu"):
    """Activation function called ``name``; raises `ConfigError` if there is none."""
    return _find(name)[0]


def get_act_layer(name="relu"):
    """Activation layer class called ``name``; raises `ConfigError` if there is none."""
    return _find(name)[1]


def _find(name):
    if name not in _ACTIVATIONS:
        near = difflib.get_close_matches(name, _ACTIVATIONS) or sorted(_ACTIVATIONS)
        raise ConfigError(f"unknown activation {name!r}; did you mean {', '.join(near)}?")
    return _ACTIVATIONS[name]
