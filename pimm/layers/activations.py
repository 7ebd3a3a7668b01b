"""Activation functions, and the layers made of them.

Every function and layer takes ``inplace``, as timm's do, and ignores it: Paddle's kernels need their input for the
gradient.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm import ops

__all__ = [
    "GELU",
    "GELUTanh",
    "HardMish",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "QuickGELU",
    "Sigmoid",
    "Swish",
    "Tanh",
    "gelu",
    "gelu_tanh",
    "hard_mish",
    "hard_sigmoid",
    "hard_swish",
    "mish",
    "quick_gelu",
    "sigmoid",
    "swish",
    "tanh",
]


def swish(x, inplace=False):
    """Return ``x * sigmoid(x)`` (https://arxiv.org/abs/1710.05941)."""
    # Inference engines fuse Paddle's swish, but not silu and not an operator of ours
    return ops.swish(x) if paddle.in_dynamic_mode() else F.swish(x)


def mish(x, inplace=False):
    """Return ``x * tanh(softplus(x))`` (https://arxiv.org/abs/1908.08681)."""
    return F.mish(x)


def sigmoid(x, inplace=False):
    """Return ``1 / (1 + exp(-x))``."""
    return F.sigmoid(x)


def tanh(x, inplace=False):
    """Return the hyperbolic tangent."""
    return paddle.tanh(x)


def hard_swish(x, inplace=False):
    """Return ``x * relu6(x + 3) / 6`` (https://arxiv.org/abs/1905.02244)."""
    return F.hardswish(x)


def hard_sigmoid(x, inplace=False):
    """Return ``relu6(x + 3) / 6``."""
    # Paddle's default slope is 0.1666667, which is not one sixth
    return F.hardsigmoid(x, slope=1 / 6, offset=0.5)


def hard_mish(x, inplace=False):
    """Return ``x / 2 * min(relu(x + 2), 2)``."""
    return 0.5 * x * paddle.clip(F.relu(x + 2), max=2.0)


def gelu(x, inplace=False):
    """Return ``x`` times the normal distribution function of ``x`` (https://arxiv.org/abs/1606.08415)."""
    return F.gelu(x)


def gelu_tanh(x, inplace=False):
    """Return `gelu`, approximated by a hyperbolic tangent."""
    return F.gelu(x, approximate=True)


def quick_gelu(x, inplace=False):
    """Return ``x * sigmoid(1.702 * x)``, with which OpenAI's CLIP approximates `gelu`."""
    return x * F.sigmoid(1.702 * x)


class _Activation(nn.Layer):
    def __init__(self, inplace=False):
        super().__init__()


class Swish(_Activation):
    """Layer of `swish`."""

    def forward(self, x):
        return swish(x)


class Mish(_Activation):
    """Layer of `mish`."""

    def forward(self, x):
        return mish(x)


class Sigmoid(_Activation):
    """Layer of `sigmoid`."""

    def forward(self, x):
        return sigmoid(x)


class Tanh(_Activation):
    """Layer of `tanh`."""

    def forward(self, x):
        return tanh(x)


class HardSwish(_Activation):
    """Layer of `hard_swish`."""

    def forward(self, x):
        return hard_swish(x)


class HardSigmoid(_Activation):
    """Layer of `hard_sigmoid`."""

    def forward(self, x):
        return hard_sigmoid(x)


class HardMish(_Activation):
    """Layer of `hard_mish`."""

    def forward(self, x):
        return hard_mish(x)


class GELU(_Activation):
    """Layer of `gelu`."""

    def forward(self, x):
        return gelu(x)


class GELUTanh(_Activation):
    """Layer of `gelu_tanh`."""

    def forward(self, x):
        return gelu_tanh(x)


class QuickGELU(_Activation):
    """Layer of `quick_gelu`."""

    def forward(self, x):
        return quick_gelu(x)
