"""The residual blocks of ByobNet, whose layers a table chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import DropPath, make_divisible
from pimm.layers.downsample import downsample_pool
from pimm.layers.weight_init import zeros_


@dataclass(frozen=True)
class LayerFn:
    """Hold the functions that create the layers of a net.

    Attributes:
        conv_norm_act: creates a convolution with normalisation and activation.
        norm_act: creates a normalisation with activation.
        act: creates an activation.
        attn: creates a gate of channels or pixels from the number of channels; None for no gates.
        self_attn: creates an attention of pixels to pixels from the number of channels; None where no block has one.
    """

    conv_norm_act: Any
    norm_act: Any
    act: Any
    attn: Any = None
    self_attn: Any = None


def num_groups(group_size, channels):
    """Return the number of groups of this size, 1 for size 0 or None.

    Raises:
        ConfigError: if the channels do not make whole groups.
    """
    if not group_size:
        return 1
    if channels % group_size:
        raise ConfigError(f"{channels} channels do not make whole groups of {group_size}")
    return channels // group_size


class DownsampleAvg(nn.Layer):
    """Pool, and change the number of channels by a 1x1 convolution, as ResNet-D's shortcuts do."""

    def __init__(self, in_chs, out_chs, stride, dilation, layers):
        super().__init__()
        self.pool = downsample_pool(stride, dilation)
        self.conv = layers.conv_norm_act(in_chs, out_chs, 1, apply_act=False)

    def forward(self, x):
        return self.conv(self.pool(x))


def _strided_shortcut(in_chs, out_chs, stride, dilation, layers):
    return layers.conv_norm_act(in_chs, out_chs, kernel_size=1, stride=stride, dilation=dilation, apply_act=False)


_SHORTCUTS = {"avg": DownsampleAvg, "conv1x1": _strided_shortcut, "": lambda *_: None}


def create_shortcut(downsample, in_chs, out_chs, stride, dilation, layers):
    """Return what is added to a block's output: the identity where the shape stays, None for nothing.

    Args:
        downsample: what is added where the shape changes: ``avg``, ``conv1x1``, or ``""`` for nothing.
        in_chs: channels of the block's input.
        out_chs: channels of the block's output.
        stride: of the block.
        dilation: that of the block's first convolution, and that of the blocks after it.
        layers: the `LayerFn`.

    Raises:
        ConfigError: for another ``downsample``.
    """
    if downsample not in _SHORTCUTS:
        raise ConfigError(f"downsample is {downsample!r:.80}; valid are 'avg', 'conv1x1' and ''")
    if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
        return nn.Identity()
    return _SHORTCUTS[downsample](in_chs, out_chs, stride, dilation[0], layers)


class ResidualBlock(nn.Layer):
    """Apply convolutions with a gate before or after the last one, and add the shortcut.

    A kind of block defines `create_convs`, and names its layers in forward order.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: of the convolutions that are not 1x1.
        stride: of the block.
        dilation: that of the block's first convolution, and that of the blocks after it.
        bottle_ratio: channels inside for each channel of the output.
        group_size: channels of a group of the grouped convolution; 0 for no groups.
        downsample: shortcut where the shape changes, as in `create_shortcut`.
        attn_last: whether the gate comes after the last convolution; None for as usual for this kind of block.
        linear_out: whether the block ends without an activation.
        bottle_in: whether ``bottle_ratio`` is of the input's channels.
        layers: the `LayerFn`.
        drop_block: creates a layer that drops areas of feature maps, or None.
        drop_path_rate: stochastic depth.
        kwargs: arguments of the kind of block's `create_convs`.
    """

    first: tuple = ()  # names of the layers before the gate
    last = ""  # name of the last convolution
    gate_is_last = False

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        stride=1,
        dilation=(1, 1),
        bottle_ratio=1.0,
        group_size=None,
        downsample="avg",
        attn_last=None,
        linear_out=False,
        bottle_in=False,
        layers=None,
        drop_block=None,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        inner = make_divisible((in_chs if bottle_in else out_chs) * bottle_ratio)
        attn_last = self.gate_is_last if attn_last is None else attn_last
        self.shortcut = create_shortcut(downsample, in_chs, out_chs, stride, dilation, layers)
        self.create_convs(
            layers,
            (in_chs, inner, out_chs),
            {"kernel_size": kernel_size, "groups": num_groups(group_size, inner), "drop_layer": drop_block},
            stride,
            dilation,
            **kwargs,
        )
        self.create_gates(layers, inner, out_chs, attn_last)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.act = nn.Identity() if linear_out else layers.act()

    def create_convs(self, layers, widths, kxk, stride, dilation):
        """Set the convolutions.

        Args:
            layers: the `LayerFn`.
            widths: channels of input, inside and output.
            kxk: arguments of the grouped convolution.
            stride: of the block.
            dilation: of the first and of a second convolution that is not 1x1.
        """
        raise NotImplementedError

    def create_gates(self, layers, inner, out_chs, attn_last):
        """Set the gate, before or after the last convolution, and the identity in the other place."""
        attn = layers.attn or (lambda channels: nn.Identity())
        self.attn = nn.Identity() if attn_last else attn(inner)
        self.attn_last = attn(out_chs) if attn_last else nn.Identity()

    def init_weights(self, zero_init_last=False):
        """Let the gates draw their values, and the branch begin with zeros if it has a shortcut and should."""
        norm = getattr(self, self.last).bn
        if zero_init_last and self.shortcut is not None:
            zeros_(getattr(norm, "weight", None))
        for attn in (self.attn, self.attn_last):
            if hasattr(attn, "reset_parameters"):
                attn.reset_parameters()

    def forward(self, x):
        shortcut = x
        for name in self.first:
            x = getattr(self, name)(x)
        x = self.attn(x)
        x = getattr(self, self.last)(x)
        x = self.drop_path(self.attn_last(x))
        if self.shortcut is not None:
            x = x + self.shortcut(shortcut)
        return self.act(x)


class BasicBlock(ResidualBlock):
    """Apply two convolutions of full width, of which the second is grouped."""

    first, last, gate_is_last = ("conv1_kxk",), "conv2_kxk", True

    def create_convs(self, layers, widths, kxk, stride, dilation):
        """Set the convolutions; arguments as in `ResidualBlock.create_convs`."""
        ins, inner, outs = widths
        self.conv1_kxk = layers.conv_norm_act(ins, inner, kxk["kernel_size"], stride=stride, dilation=dilation[0])
        self.conv2_kxk = layers.conv_norm_act(inner, outs, dilation=dilation[1], apply_act=False, **kxk)


class BottleneckBlock(ResidualBlock):
    """Apply a 1x1, a grouped, if ``extra_conv`` a second grouped, and a 1x1 convolution."""

    first, last = ("conv1_1x1", "conv2_kxk", "conv2b_kxk"), "conv3_1x1"

    def create_convs(self, layers, widths, kxk, stride, dilation, extra_conv=False):
        """Set the convolutions; arguments as in `ResidualBlock.create_convs`."""
        ins, inner, outs = widths
        self.conv1_1x1 = layers.conv_norm_act(ins, inner, 1)
        self.conv2_kxk = layers.conv_norm_act(inner, inner, stride=stride, dilation=dilation[0], **kxk)
        self.conv2b_kxk = nn.Identity()
        if extra_conv:
            kxk = {**kxk, "drop_layer": None}
            self.conv2b_kxk = layers.conv_norm_act(inner, inner, dilation=dilation[1], **kxk)
        self.conv3_1x1 = layers.conv_norm_act(inner, outs, 1, apply_act=False)


class DarkBlock(ResidualBlock):
    """Apply a 1x1 and a grouped convolution, as DarkNet does."""

    first, last, gate_is_last = ("conv1_1x1",), "conv2_kxk", True

    def create_convs(self, layers, widths, kxk, stride, dilation):
        """Set the convolutions; arguments as in `ResidualBlock.create_convs`."""
        ins, inner, outs = widths
        self.conv1_1x1 = layers.conv_norm_act(ins, inner, 1)
        self.conv2_kxk = layers.conv_norm_act(inner, outs, stride=stride, dilation=dilation[0], apply_act=False, **kxk)


class EdgeBlock(ResidualBlock):
    """Apply a grouped and a 1x1 convolution, as EfficientNet-EdgeTPU does."""

    first, last = ("conv1_kxk",), "conv2_1x1"

    def create_convs(self, layers, widths, kxk, stride, dilation):
        """Set the convolutions; arguments as in `ResidualBlock.create_convs`."""
        ins, inner, outs = widths
        self.conv1_kxk = layers.conv_norm_act(ins, inner, stride=stride, dilation=dilation[0], **kxk)
        self.conv2_1x1 = layers.conv_norm_act(inner, outs, 1, apply_act=False)


class SelfAttnBlock(ResidualBlock):
    """Apply a 1x1 convolution, if ``extra_conv`` a grouped one, attention of pixels to pixels, and a 1x1 convolution.

    ``feat_size`` is the height and width of the attention's input where it needs them; ``post_attn_na`` tells whether
    normalisation and activation follow the attention.
    """

    first, last = ("conv1_1x1", "conv2_kxk", "self_attn", "post_attn"), "conv3_1x1"

    def create_convs(self, layers, widths, kxk, stride, dilation, extra_conv=False, post_attn_na=True, feat_size=None):
        """Set the convolutions and the attention; arguments as in `ResidualBlock.create_convs`."""
        ins, inner, outs = widths
        self.conv1_1x1 = layers.conv_norm_act(ins, inner, 1)
        self.conv2_kxk = nn.Identity()
        if extra_conv:
            self.conv2_kxk = layers.conv_norm_act(inner, inner, stride=stride, dilation=dilation[0], **kxk)
            stride = 1
        size = {} if feat_size is None else {"feat_size": feat_size}
        self.self_attn = layers.self_attn(inner, stride=stride, **size)
        self.post_attn = layers.norm_act(inner) if post_attn_na else nn.Identity()
        self.conv3_1x1 = layers.conv_norm_act(inner, outs, 1, apply_act=False)

    def create_gates(self, layers, inner, out_chs, attn_last):
        """Set no gates: the attention takes their place."""
        self.attn = self.attn_last = nn.Identity()

    def init_weights(self, zero_init_last=False):
        """Let the attention draw its values too."""
        super().init_weights(zero_init_last)
        self.self_attn.reset_parameters()
