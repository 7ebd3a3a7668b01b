"""Convolutions with standardized weights: every filter has mean 0 and variance 1 when it is applied.

`StdConv2d` follows https://arxiv.org/abs/1903.10520 and serves BiT's ResNetV2; `ScaledStdConv2d` follows
https://arxiv.org/abs/2101.08692 and serves nets without normalisation. Arguments are timm's.
"""

import math

from paddle import nn

from pimm.layers.conv import Conv2d, conv2d, conv2d_same
from pimm.layers.padding import get_padding, get_padding_value


def standardize(weight, eps=1e-6, gain=None):
    """Return filters with mean 0 and variance 1, multiplied by a gain.

    Args:
        weight: filters, [O, C, kernel height, kernel width].
        eps: what is added to the (biased) variance.
        gain: [O, 1, 1, 1], or None for 1.
    """
    centered = weight - weight.mean([1, 2, 3], keepdim=True)
    scale = (centered.square().mean([1, 2, 3], keepdim=True) + eps).rsqrt()
    return centered * (scale if gain is None else scale * gain)


class StdConv2d(Conv2d):
    """`Conv2d` with standardized weights; ``padding`` None keeps an image's size at stride 1."""

    def __init__(
        self,
        in_channel,
        out_channels,
        kernel_size,
        stride=1,
        padding=None,
        dilation=1,
        groups=1,
        bias=False,
        eps=1e-6,
    ):
        if padding is None:
            padding = get_padding(kernel_size, stride, dilation)
        super().__init__(in_channel, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.eps = eps

    def standard_weight(self):
        """Return the filters as they are applied."""
        return standardize(self.weight, self.eps)

    def forward(self, x):
        weight = self.standard_weight()
        return conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StdConv2dSame(StdConv2d):
    """`StdConv2d` whose ``padding`` is a word or a number, see `pimm.layers.get_padding_value`."""

    def __init__(
        self,
        in_channel,
        out_channels,
        kernel_size,
        stride=1,
        padding="SAME",
        dilation=1,
        groups=1,
        bias=False,
        eps=1e-6,
    ):
        padding, same_pad = get_padding_value(padding, kernel_size, stride=stride, dilation=dilation)
        super().__init__(in_channel, out_channels, kernel_size, stride, padding, dilation, groups, bias, eps)
        self.same_pad = same_pad

    def forward(self, x):
        if not self.same_pad:
            return super().forward(x)
        return conv2d_same(x, self.standard_weight(), self.bias, self.stride, self.dilation, self.groups)


class ScaledStdConv2d(StdConv2d):
    """`StdConv2d` with a learned gain of every filter, and filters scaled by gamma / sqrt(fan_in).

    Args:
        gamma: the gain of the activation before it, which makes the variance of the output that of the input.
        gain_init: initial value of the learned gain.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=None,
        dilation=1,
        groups=1,
        bias=True,
        gamma=1.0,
        eps=1e-6,
        gain_init=1.0,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, eps)
        self.scale = gamma / math.sqrt(math.prod(self.weight.shape[1:]))
        self.gain = self.create_parameter(
            [out_channels, 1, 1, 1], default_initializer=nn.initializer.Constant(gain_init)
        )

    def standard_weight(self):
        """Return the filters as they are applied."""
        return standardize(self.weight, self.eps, self.gain * self.scale)


class ScaledStdConv2dSame(ScaledStdConv2d):
    """`ScaledStdConv2d` whose ``padding`` is a word or a number, see `pimm.layers.get_padding_value`."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding="SAME",
        dilation=1,
        groups=1,
        bias=True,
        gamma=1.0,
        eps=1e-6,
        gain_init=1.0,
    ):
        padding, same_pad = get_padding_value(padding, kernel_size, stride=stride, dilation=dilation)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, gamma, eps, gain_init
        )
        self.same_pad = same_pad

    def forward(self, x):
        if not self.same_pad:
            return super().forward(x)
        return conv2d_same(x, self.standard_weight(), self.bias, self.stride, self.dilation, self.groups)
