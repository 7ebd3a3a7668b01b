"""Convolution, normalisation and activation."""

from paddle import nn

from pimm.layers.blur_pool import create_aa
from pimm.layers.conv import create_conv2d
from pimm.layers.create_norm_act import get_norm_act_layer
from pimm.layers.norm import BatchNorm2d


class ConvNormAct(nn.Layer):
    """Convolution ``conv``, normalisation with activation ``bn``, and with ``aa_layer`` a blur ``aa`` with the stride.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: as in `create_conv2d`.
        stride: a number.
        padding: as in `create_conv2d`.
        dilation: a number.
        groups: groups of channels.
        bias: whether the convolution has a bias.
        apply_norm: whether there are normalisation and activation.
        apply_act: whether there is an activation.
        norm_layer: as in `get_norm_act_layer`.
        act_layer: class or name of the activation; None for none.
        aa_layer: as in `get_aa_layer`; used where the stride is above 1.
        drop_layer: class of a layer between normalisation and activation.
        conv_kwargs: further arguments of the convolution.
        norm_kwargs: further arguments of the normalisation.
        act_kwargs: arguments of the activation.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=1,
        stride=1,
        padding="",
        dilation=1,
        groups=1,
        bias=False,
        apply_norm=True,
        apply_act=True,
        norm_layer=BatchNorm2d,
        act_layer=nn.ReLU,
        aa_layer=None,
        drop_layer=None,
        conv_kwargs=None,
        norm_kwargs=None,
        act_kwargs=None,
    ):
        super().__init__()
        use_aa = aa_layer is not None and stride > 1
        self.conv = create_conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=1 if use_aa else stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            **(conv_kwargs or {}),
        )
        dropping = {"drop_layer": drop_layer} if drop_layer else {}
        if apply_norm:
            norm_kwargs = {**(norm_kwargs or {}), **dropping}
            layer = get_norm_act_layer(norm_layer, act_layer)
            self.bn = layer(out_channels, apply_act=apply_act, act_kwargs=act_kwargs, **norm_kwargs)
        else:
            self.bn = drop_layer() if drop_layer else nn.Identity()
        self.aa = create_aa(aa_layer, out_channels, stride, enable=use_aa, noop=None)

    @property
    def in_channels(self):
        """Return the channels of the input."""
        return self.conv.in_channels

    @property
    def out_channels(self):
        """Return the channels of the output."""
        return self.conv.out_channels

    def forward(self, x):
        x = self.bn(self.conv(x))
        return x if self.aa is None else self.aa(x)


ConvNormActAa = ConvNormAct
