"""Initial values of parameters, set in place, under timm's names; under `paddle.LazyGuard` when values are drawn."""

import math

from paddle import nn

__all__ = ["constant_", "lecun_normal_", "normal_", "ones_", "trunc_normal_", "trunc_normal_tf_", "zeros_"]

_CUT_STD = 0.87962566103423978  # of the standard normal distribution, cut at -2 and 2


def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0):
    """Draw values from N(mean, std) between ``a`` and ``b``."""
    nn.initializer.TruncatedNormal(mean, std, a, b)(tensor)


def trunc_normal_tf_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0):
    """Draw values from N(0, 1) between ``a`` and ``b``, as TensorFlow does, then scale by ``std`` and add ``mean``."""
    nn.initializer.TruncatedNormal(mean, std, mean + a * std, mean + b * std)(tensor)


def lecun_normal_(layer_weight, fan_in):
    """Draw values of variance 1 / ``fan_in`` from a normal distribution that is cut at two standard deviations."""
    trunc_normal_tf_(layer_weight, std=math.sqrt(1 / fan_in) / _CUT_STD)


def normal_(tensor, mean=0.0, std=1.0):
    """Draw values from N(mean, std)."""
    nn.initializer.Normal(mean, std)(tensor)


def constant_(tensor, value):
    """Set all values to one number; None, for a parameter that a layer does not have, stays None."""
    if tensor is not None:
        nn.initializer.Constant(value)(tensor)


def zeros_(tensor):
    """Set all values to 0."""
    constant_(tensor, 0.0)


def ones_(tensor):
    """Set all values to 1."""
    constant_(tensor, 1.0)
