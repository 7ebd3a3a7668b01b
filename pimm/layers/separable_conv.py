"""Convolutions of each channel, followed by one of one pixel, normalisation and activation."""

from paddle import nn

from pimm.layers.conv import create_conv2d
from pimm.layers.create_norm_act import get_norm_act_layer
from pimm.layers.norm import BatchNorm2d


class SeparableConvNormAct(nn.Layer):
    """Separable convolution ``conv_dw`` and ``conv_pw``, and normalisation with activation ``bn``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the convolution of each channel.
        stride: of the same.
        dilation: of the same.
        padding: as in `create_conv2d`.
        bias: whether the second convolution has a bias.
        channel_multiplier: channels between the convolutions, as a multiple of ``in_channels``.
        pw_kernel_size: kernel of the second convolution.
        norm_layer: as in `get_norm_act_layer`.
        act_layer: class or name of the activation.
        apply_act: whether there is an activation.
        drop_layer: class of a layer between normalisation and activation.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=3,
        stride=1,
        dilation=1,
        padding="",
        bias=False,
        channel_multiplier=1.0,
        pw_kernel_size=1,
        norm_layer=BatchNorm2d,
        act_layer=nn.ReLU,
        apply_act=True,
        drop_layer=None,
    ):
        super().__init__()
        mid = int(in_channels * channel_multiplier)
        conv = {"stride": stride, "dilation": dilation, "padding": padding}
        self.conv_dw = create_conv2d(in_channels, mid, kernel_size, depthwise=True, **conv)
        self.conv_pw = create_conv2d(mid, out_channels, pw_kernel_size, padding=padding, bias=bias)
        dropping = {"drop_layer": drop_layer} if drop_layer else {}
        self.bn = get_norm_act_layer(norm_layer, act_layer)(out_channels, apply_act=apply_act, **dropping)

    def forward(self, x):
        return self.bn(self.conv_pw(self.conv_dw(x)))
