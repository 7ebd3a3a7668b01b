"""Convolution with attention over its splits, for ResNeSt (https://arxiv.org/abs/2004.08955)."""

import paddle.nn.functional as F
from paddle import nn

from pimm.layers.conv import Conv2d
from pimm.layers.helpers import global_avg_pool2d, make_divisible


class RadixSoftmax(nn.Layer):
    """Softmax over the splits of each cardinal group, or sigmoid if there is one split.

    Args:
        radix: number of splits.
        cardinality: number of cardinal groups.
    """

    def __init__(self, radix, cardinality):
        super().__init__()
        self.radix, self.cardinality = radix, cardinality

    def forward(self, x):  # [N, cardinality * radix * channels, 1, 1]
        if self.radix == 1:
            return F.sigmoid(x)
        x = x.reshape([0, self.cardinality, self.radix, -1]).transpose([0, 2, 1, 3])
        return F.softmax(x, axis=1).flatten(1).unsqueeze([2, 3])  # [N, radix * channels, 1, 1]


class SplitAttn(nn.Layer):
    """Convolve to ``radix`` splits, and sum these, each channel as much as an attention says.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; None for ``in_channels``.
        kernel_size: a number.
        stride: a number.
        padding: a number; None keeps an image's size at stride 1.
        dilation: a number.
        groups: cardinal groups.
        bias: whether the convolution has a bias.
        radix: number of splits.
        rd_ratio: hidden channels of the attention, as a share of ``in_channels * radix``.
        rd_channels: hidden channels of the attention for each split, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        act_layer: class of the activations.
        norm_layer: class of the normalisation; None for none.
        drop_layer: class of a layer before the first activation.
    """

    def __init__(
        self,
        in_channels,
        out_channels=None,
        kernel_size=3,
        stride=1,
        padding=None,
        dilation=1,
        groups=1,
        bias=False,
        radix=2,
        rd_ratio=0.25,
        rd_channels=None,
        rd_divisor=8,
        act_layer=nn.ReLU,
        norm_layer=None,
        drop_layer=None,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        mid_chs = out_channels * radix
        attn_chs = make_divisible(in_channels * radix * rd_ratio, min_value=32, divisor=rd_divisor)
        attn_chs = rd_channels * radix if rd_channels else attn_chs
        padding = kernel_size // 2 if padding is None else padding
        self.radix = radix
        self.conv = Conv2d(in_channels, mid_chs, kernel_size, stride, padding, dilation, groups * radix, bias)
        self.bn0 = norm_layer(mid_chs) if norm_layer else nn.Identity()
        self.drop = drop_layer() if drop_layer else nn.Identity()
        self.act0 = act_layer()
        self.fc1 = Conv2d(out_channels, attn_chs, 1, groups=groups)
        self.bn1 = norm_layer(attn_chs) if norm_layer else nn.Identity()
        self.act1 = act_layer()
        self.fc2 = Conv2d(attn_chs, mid_chs, 1, groups=groups)
        self.rsoftmax = RadixSoftmax(radix, groups)

    def forward(self, x):  # [N, in_channels, H, W]
        splits = self.act0(self.drop(self.bn0(self.conv(x)))).chunk(self.radix, axis=1)
        attention = self.act1(self.bn1(self.fc1(global_avg_pool2d(sum(splits)))))
        shares = self.rsoftmax(self.fc2(attention)).chunk(self.radix, axis=1)
        return sum(split * share for split, share in zip(splits, shares))  # [N, out_channels, H', W']
