"""Gates of channels, and then of pixels (https://arxiv.org/abs/1807.06521)."""

import paddle
from paddle import nn

from pimm.layers.conv import Conv2d
from pimm.layers.conv_norm_act import ConvNormAct
from pimm.layers.create_act import create_act_layer
from pimm.layers.helpers import global_avg_pool2d
from pimm.layers.se_module import pooled, reduced_channels


class ChannelAttn(nn.Layer):
    """Gates of channels from their means and their maxima.

    Args:
        channels: channels of the images.
        rd_ratio: hidden channels of the gate, as a share of ``channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        act_layer: class or name of the activation between the convolutions.
        gate_layer: class or name of the activation that makes the gate.
        mlp_bias: whether the convolutions have biases.
    """

    def __init__(
        self,
        channels,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=1,
        act_layer=nn.ReLU,
        gate_layer="sigmoid",
        mlp_bias=False,
    ):
        super().__init__()
        rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor)
        self.fc1 = Conv2d(channels, rd_channels, 1, bias=mlp_bias)
        self.act = create_act_layer(act_layer)
        self.fc2 = Conv2d(rd_channels, channels, 1, bias=mlp_bias)
        self.gate = create_act_layer(gate_layer)

    def mlp(self, x):
        """Return what the two convolutions make of [N, C, 1, 1]."""
        return self.fc2(self.act(self.fc1(x)))

    def forward(self, x):  # [N, C, H, W]
        gate = self.mlp(global_avg_pool2d(x)) + self.mlp(x.amax([2, 3], keepdim=True))
        return x * self.gate(gate)


class LightChannelAttn(ChannelAttn):
    """`ChannelAttn` that computes one gate from the mean of both."""

    def forward(self, x):  # [N, C, H, W]
        return x * paddle.nn.functional.sigmoid(self.mlp(pooled(x, add_maxpool=True)))


class SpatialAttn(nn.Layer):
    """Gates of pixels from the mean and the maximum of their channels, with a convolution of ``kernel_size``."""

    def __init__(self, kernel_size=7, gate_layer="sigmoid"):
        super().__init__()
        self.conv = ConvNormAct(2, 1, kernel_size, apply_act=False)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate = paddle.concat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], axis=1)
        return x * self.gate(self.conv(gate))


class LightSpatialAttn(nn.Layer):
    """`SpatialAttn` that convolves the mean of both."""

    def __init__(self, kernel_size=7, gate_layer="sigmoid"):
        super().__init__()
        self.conv = ConvNormAct(1, 1, kernel_size, apply_act=False)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate = 0.5 * x.mean(1, keepdim=True) + 0.5 * x.amax(1, keepdim=True)
        return x * self.gate(self.conv(gate))


class CbamModule(nn.Layer):
    """Gates of channels, then of pixels; ``spatial_kernel_size`` for the latter, the rest as in `ChannelAttn`."""

    def __init__(
        self,
        channels,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=1,
        spatial_kernel_size=7,
        act_layer=nn.ReLU,
        gate_layer="sigmoid",
        mlp_bias=False,
    ):
        super().__init__()
        arguments = (channels, rd_ratio, rd_channels, rd_divisor, act_layer, gate_layer, mlp_bias)
        self.channel, self.spatial = self.create_parts(arguments, spatial_kernel_size, gate_layer)

    def create_parts(self, arguments, kernel_size, gate_layer):
        """Create the gates of channels and those of pixels."""
        return ChannelAttn(*arguments), SpatialAttn(kernel_size, gate_layer)

    def forward(self, x):  # [N, C, H, W]
        return self.spatial(self.channel(x))


class LightCbamModule(CbamModule):
    """`CbamModule` of the lighter parts, whose gates are sigmoids."""

    def create_parts(self, arguments, kernel_size, gate_layer):
        """Create the gates of channels and those of pixels."""
        return LightChannelAttn(*arguments), LightSpatialAttn(kernel_size)
