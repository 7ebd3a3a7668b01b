"""Attention of all pixels to all pixels: non-local blocks, plain and by bilinear transforms.

See https://arxiv.org/abs/1711.07971 and, for the latter, "Non-Local Neural Networks With Grouped Bilinear Attentional
Transforms" (CVPR 2020).
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d
from pimm.layers.conv_norm_act import ConvNormAct
from pimm.layers.norm import BatchNorm2d
from pimm.layers.se_module import reduced_channels
from pimm.layers.weight_init import zeros_


class NonLocalAttn(nn.Layer):
    """Add to each pixel what it attends to; the branch begins as 0.

    Args:
        in_channels: channels of the images.
        use_scale: whether similarities are divided by the root of ``in_channels``.
        rd_ratio: hidden channels, as a share of ``in_channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        kwargs: ignored, so that a net can exchange its attention.
    """

    def __init__(self, in_channels, use_scale=True, rd_ratio=1 / 8, rd_channels=None, rd_divisor=8, **kwargs):
        super().__init__()
        rd_channels = reduced_channels(in_channels, rd_ratio, rd_channels, rd_divisor, round_limit=0.9)
        self.scale = in_channels**-0.5 if use_scale else 1.0
        self.t = Conv2d(in_channels, rd_channels, 1)
        self.p = Conv2d(in_channels, rd_channels, 1)
        self.g = Conv2d(in_channels, rd_channels, 1)
        self.z = Conv2d(rd_channels, in_channels, 1)
        self.norm = BatchNorm2d(in_channels)
        for conv in (self.t, self.p, self.g, self.z):
            nn.initializer.Normal(0.0, math.sqrt(2 / conv.out_channels))(conv.weight)
            zeros_(conv.bias)
        zeros_(self.norm.weight)

    def forward(self, x):  # [N, C, H, W]
        query, key, value = (conv(x).flatten(2) for conv in (self.t, self.p, self.g))  # [N, hidden, H * W]
        attention = F.softmax(paddle.matmul(query, key, transpose_x=True) * self.scale, axis=2)
        found = paddle.matmul(value, attention, transpose_y=True)
        found = found.reshape([0, 0, *x.shape[2:]])
        return self.norm(self.z(found)) + x


class BilinearAttnTransform(nn.Layer):
    """Mix rows and columns of the blocks of an image by matrices that the image makes.

    Args:
        in_channels: channels of the images.
        block_size: rows and columns of blocks.
        groups: groups of channels with matrices of their own.
        act_layer: class or name of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(self, in_channels, block_size, groups, act_layer=nn.ReLU, norm_layer=BatchNorm2d):
        super().__init__()
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        self.conv1 = ConvNormAct(in_channels, groups, 1, **layers)
        self.conv_p = Conv2d(groups, block_size * block_size * groups, (block_size, 1))
        self.conv_q = Conv2d(groups, block_size * block_size * groups, (1, block_size))
        self.conv2 = ConvNormAct(in_channels, in_channels, 1, **layers)
        self.block_size, self.groups, self.in_channels = block_size, groups, in_channels

    def matrices(self, x, conv, axis):
        """Return the matrix of each channel, [N, C, block_size, block_size], whose sums along ``axis`` are 1."""
        size = self.block_size
        matrices = F.sigmoid(conv(x).reshape([-1, self.groups, size, size]))
        matrices = matrices / matrices.sum(axis, keepdim=True)
        return matrices.repeat_interleave(self.in_channels // self.groups, axis=1)

    def grown(self, matrices, times):
        """Return matrices in which each number stands on the diagonal of a block of ``times`` rows and columns."""
        if times <= 1:
            return matrices
        blocks = matrices.unsqueeze([3, 5]) * paddle.eye(times, dtype=matrices.dtype).unsqueeze([0, 2])
        return blocks.flatten(4, 5).flatten(2, 3)

    def forward(self, x):  # [N, C, H, W]
        height, width, size = *x.shape[2:], self.block_size
        if paddle.in_dynamic_mode() and (height % size or width % size):
            raise ConfigError(
                f"a bilinear attention of {size}x{size} blocks got {height}x{width} pixels: take multiples"
            )
        out = self.conv1(x)
        rows = self.matrices(F.adaptive_max_pool2d(out, (size, 1)), self.conv_p, 3)
        columns = self.matrices(F.adaptive_max_pool2d(out, (1, size)), self.conv_q, 2)
        x = self.grown(rows, height // size).matmul(x).matmul(self.grown(columns, width // size))
        return self.conv2(x)


class BatNonLocalAttn(nn.Layer):
    """Add to the image what a `BilinearAttnTransform` makes of it.

    Args:
        in_channels: channels of the images.
        block_size: rows and columns of blocks, of which height and width must be multiples.
        groups: groups of channels with matrices of their own.
        rd_ratio: hidden channels, as a share of ``in_channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        drop_rate: dropout of whole channels of what is added.
        act_layer: class or name of the activations.
        norm_layer: class of the normalisation.
        kwargs: ignored, so that a net can exchange its attention.
    """

    def __init__(
        self,
        in_channels,
        block_size=7,
        groups=2,
        rd_ratio=0.25,
        rd_channels=None,
        rd_divisor=8,
        drop_rate=0.2,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        **kwargs,
    ):
        super().__init__()
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        rd_channels = reduced_channels(in_channels, rd_ratio, rd_channels, rd_divisor, round_limit=0.9)
        self.conv1 = ConvNormAct(in_channels, rd_channels, 1, **layers)
        self.ba = BilinearAttnTransform(rd_channels, block_size, groups, **layers)
        self.conv2 = ConvNormAct(rd_channels, in_channels, 1, **layers)
        self.dropout = nn.Dropout2D(drop_rate)

    def forward(self, x):  # [N, C, H, W]
        return self.dropout(self.conv2(self.ba(self.conv1(x)))) + x
