"""Activations, where timm keeps them."""

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

__all__ = [
    "HardMish",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "Sigmoid",
    "Swish",
    "Tanh",
    "hard_mish",
    "hard_sigmoid",
    "hard_swish",
    "mish",
    "sigmoid",
    "swish",
    "tanh",
]
