"""Normalisations of each place over its channels, or over groups of channels; names and arguments are timm's.

``num_channels`` comes first, so that one can stand for another. Names that end in ``2d`` are for images [N, C, H, W],
the others for [..., C]; names that end in ``Fp32`` compute in float32 whatever the input is.
"""

import functools

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.norm import BatchNorm2d
from pimm.messages import did_you_mean


class GroupNorm(nn.GroupNorm):
    """Normalise groups of channels of images; ``affine`` tells whether there are a weight and a bias."""

    def __init__(self, num_channels, num_groups=32, eps=1e-5, affine=True):
        attr = None if affine else False
        super().__init__(num_groups, num_channels, epsilon=eps, weight_attr=attr, bias_attr=attr)


class GroupNorm1(GroupNorm):
    """`GroupNorm` of one group."""

    def __init__(self, num_channels, eps=1e-5, affine=True):
        super().__init__(num_channels, 1, eps, affine)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of [..., C]; ``affine`` tells whether there are a weight and a bias."""

    def __init__(self, num_channels, eps=1e-6, affine=True):
        attr = None if affine else False
        super().__init__(num_channels, epsilon=eps, weight_attr=attr, bias_attr=attr)


class LayerNormFp32(LayerNorm):
    """`LayerNorm` in float32."""

    def forward(self, x):
        return in_float32(super().forward, x)


class LayerNorm2d(LayerNorm):
    """`LayerNorm` of images [N, C, H, W]."""

    def forward(self, x):
        return channels_last(super().forward, x)


class LayerNorm2dFp32(LayerNorm2d):
    """`LayerNorm2d` in float32."""

    def forward(self, x):
        return in_float32(super().forward, x)


class _ScaleNorm(nn.Layer):
    """Divide channels by a measure of their size; there is no bias.

    Args:
        channels: number of channels.
        eps: added to the square of the measure.
        affine: whether there is a weight.
    """

    axis = -1

    def __init__(self, channels, eps=1e-6, affine=True):
        super().__init__()
        self.eps = eps
        self.weight = None
        if affine:
            self.weight = self.create_parameter([channels], default_initializer=nn.initializer.Constant(1.0))

    def measure(self, x):
        """Return the square of the measure."""
        raise NotImplementedError

    def forward(self, x):
        x = x * paddle.rsqrt(self.measure(x) + self.eps)
        if self.weight is None:
            return x
        return x * (self.weight if self.axis == -1 else self.weight.reshape([1, -1, 1, 1]))


class RmsNorm(_ScaleNorm):
    """Divide by the root of the mean square (https://arxiv.org/abs/1910.07467)."""

    def measure(self, x):
        """Return the mean square."""
        return x.square().mean(self.axis, keepdim=True)


class RmsNorm2d(RmsNorm):
    """`RmsNorm` of images [N, C, H, W]."""

    axis = 1


class SimpleNorm(_ScaleNorm):
    """Divide by the standard deviation, without taking off the mean."""

    def measure(self, x):
        """Return the unbiased variance."""
        squares = (x - x.mean(self.axis, keepdim=True)).square().sum(self.axis, keepdim=True)
        return squares / (x.shape[self.axis] - 1)


class SimpleNorm2d(SimpleNorm):
    """`SimpleNorm` of images [N, C, H, W]."""

    axis = 1


def _fp32(layer):
    """Return the class that computes in float32."""

    def forward(self, x):
        return in_float32(functools.partial(layer.forward, self), x)

    return type(f"{layer.__name__}Fp32", (layer,), {"forward": forward, "__doc__": f"`{layer.__name__}` in float32."})


RmsNormFp32, RmsNorm2dFp32 = _fp32(RmsNorm), _fp32(RmsNorm2d)
SimpleNormFp32, SimpleNorm2dFp32 = _fp32(SimpleNorm), _fp32(SimpleNorm2d)


def in_float32(function, x):
    """Return ``function(x)`` computed in float32, in the type of ``x``."""
    if x.dtype in (paddle.float32, paddle.float64):
        return function(x)
    with paddle.amp.auto_cast(enable=False):
        return function(x.astype("float32")).astype(x.dtype)


def channels_last(function, x):
    """Return ``function`` of images [N, C, H, W] computed on [N, H, W, C]."""
    return function(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])


_NORMS = {
    "batchnorm": BatchNorm2d,
    "batchnorm2d": BatchNorm2d,
    "batchnorm1d": nn.BatchNorm1D,
    "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1,
    **{
        norm.__name__.lower(): norm
        for norm in (
            *(LayerNorm, LayerNorm2d, LayerNormFp32, LayerNorm2dFp32),
            *(RmsNorm, RmsNorm2d, RmsNormFp32, RmsNorm2dFp32),
            *(SimpleNorm, SimpleNorm2d, SimpleNormFp32, SimpleNorm2dFp32),
        )
    },
}


def get_norm_layer(norm_layer):
    """Return the class of normalisations of a name, without regard to underscores and capitals.

    Args:
        norm_layer: the name; a class, or a function that makes layers, returns itself; None and "" return None.

    Raises:
        ConfigError: for an unknown name.
    """
    if not isinstance(norm_layer, str):
        return norm_layer
    if not norm_layer:
        return None
    name = norm_layer.replace("_", "").lower()
    if name not in _NORMS:
        hint = did_you_mean(name, _NORMS, count=3) or f"; valid are {', '.join(_NORMS)}"
        raise ConfigError(f"unknown normalisation {norm_layer[:60]!r}{hint}")
    return _NORMS[name]


def create_norm_layer(layer_name, num_features, **kwargs):
    """Return a normalisation of a name, as `get_norm_layer` finds it, for a number of channels."""
    return get_norm_layer(layer_name)(num_features, **kwargs)
