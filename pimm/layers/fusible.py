"""Layers with batch norm, which `fuse` makes one layer without it for inference."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers.conv import Conv2d
from pimm.layers.fuse import conv_with, fuse_norm, linear_with, norm_scale
from pimm.layers.linear import Linear
from pimm.layers.norm import BatchNorm2d
from pimm.layers.weight_init import constant_, trunc_normal_, zeros_


class ConvBn(nn.Layer):
    """Convolution without bias, and batch norm.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: size of the kernel.
        stride: stride of the convolution.
        padding: pixels around the image.
        groups: groups of channels that do not mix.
        bn_weight_init: initial weight of batch norm; 0 in the last layer of a branch beside a shortcut.
        conv_name: name of the convolution in the state dict.
    """

    def __init__(
        self, in_chs, out_chs, kernel_size=1, stride=1, padding=0, groups=1, bn_weight_init=1.0, conv_name="conv"
    ):
        super().__init__()
        conv = Conv2d(in_chs, out_chs, kernel_size, stride, padding, groups=groups, bias=False)
        self.add_sublayer(conv_name, conv)
        self.bn = BatchNorm2d(out_chs)
        constant_(self.bn.weight, bn_weight_init)
        self._conv_name = conv_name

    def forward(self, x):
        return self.bn(getattr(self, self._conv_name)(x))

    @paddle.no_grad()
    def fuse(self):
        """Return the convolution with a bias that computes the same in evaluation mode."""
        conv = getattr(self, self._conv_name)
        return conv_with(*fuse_norm(conv.weight, self.bn), conv._stride, groups=conv._groups, padding=conv._padding)


class LinearBn(nn.Layer):
    """Linear layer of tokens without bias, and batch norm over all tokens of all images.

    Args:
        in_features: channels of the input, [N, tokens, in_features].
        out_features: channels of the output.
        bn_weight_init: initial weight of batch norm; 0 in the last layer of a branch beside a shortcut.
    """

    def __init__(self, in_features, out_features, bn_weight_init=1.0):
        super().__init__()
        self.linear = Linear(in_features, out_features, bias=False)
        self.bn = BatchNorm2d(out_features)
        constant_(self.bn.weight, bn_weight_init)

    def forward(self, x):
        x = self.linear(x)
        tokens, channels = x.shape[-2:]
        return self.bn(x.reshape([-1, channels, 1, 1])).reshape([-1, tokens, channels])

    @paddle.no_grad()
    def fuse(self):
        """Return the linear layer with a bias that computes the same in evaluation mode."""
        scale, shift = norm_scale(self.bn)
        return linear_with(self.linear.weight * scale, shift)


class BnLinear(nn.Layer):
    """Batch norm of pooled features, dropout and a linear layer: a classifier.

    Args:
        in_features: channels of the input, [N, in_features].
        out_features: classes.
        drop: dropout between batch norm and the linear layer.
    """

    def __init__(self, in_features, out_features, drop=0.0):
        super().__init__()
        self.bn = BatchNorm2d(in_features)
        self.drop = nn.Dropout(drop)
        self.linear = Linear(in_features, out_features)
        trunc_normal_(self.linear.weight, std=0.02)
        zeros_(self.linear.bias)

    def forward(self, x):
        x = self.bn(x.unsqueeze(-1).unsqueeze(-1)).flatten(1)
        return self.linear(self.drop(x))

    @paddle.no_grad()
    def fuse(self):
        """Return the linear layer that computes the same in evaluation mode."""
        (scale, shift), weight = norm_scale(self.bn), self.linear.weight
        return linear_with(weight * scale.unsqueeze(-1), F.linear(shift, weight, self.linear.bias))
