"""Blocks and stages of ResNets that normalise before the convolutions."""

from __future__ import annotations

from paddle import nn

from pimm.layers import DropPath, GroupNormAct, StdConv2d, make_divisible, zeros_
from pimm.layers.downsample import downsample_pool


class _Block(nn.Layer):
    """Create the shortcut and stochastic depth of a block, whose arguments are these.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output; None for ``in_chs``.
        bottle_ratio: channels inside the block, as a share of the output's.
        stride: of the convolution of 3x3 pixels, the first of two.
        dilation: of the block.
        first_dilation: of the convolution with the stride; None for ``dilation``.
        groups: groups of channels of the convolutions of 3x3 pixels.
        act_layer: class of the last activation, in blocks that normalise after convolutions.
        conv_layer: creates the convolutions.
        norm_layer: creates the normalisations with activation.
        proj_layer: class of the shortcut; None for the input itself.
        drop_path_rate: stochastic depth.
    """

    preact = True

    def __init__(
        self,
        in_chs,
        out_chs=None,
        bottle_ratio=0.25,
        stride=1,
        dilation=1,
        first_dilation=None,
        groups=1,
        act_layer=nn.ReLU,
        conv_layer=StdConv2d,
        norm_layer=GroupNormAct,
        proj_layer=None,
        drop_path_rate=0.0,
    ):
        super().__init__()
        out_chs, first_dilation = out_chs or in_chs, first_dilation or dilation
        self.downsample = None
        if proj_layer is not None and self.needs_projection(in_chs, out_chs, stride, dilation, first_dilation):
            self.downsample = proj_layer(in_chs, out_chs, stride, dilation, self.preact, conv_layer, norm_layer)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        mid_chs = make_divisible(out_chs * bottle_ratio)
        spatial = {"stride": stride, "dilation": first_dilation, "groups": groups}
        self.create_layers(in_chs, mid_chs, out_chs, spatial, dilation, conv_layer, norm_layer)

    def needs_projection(self, in_chs, out_chs, stride, dilation, first_dilation):
        """Return whether the shortcut is more than the input; in most blocks it is wherever a class is given."""
        return True

    def create_layers(self, in_chs, mid_chs, out_chs, spatial, dilation, conv_layer, norm_layer):
        """Create the layers of the branch, in forward order.

        Args:
            in_chs: channels of the input.
            mid_chs: channels inside the block.
            out_chs: channels of the output.
            spatial: arguments of the convolution with the stride.
            dilation: of the other convolutions of 3x3 pixels.
            conv_layer: creates the convolutions.
            norm_layer: creates the normalisations with activation.
        """
        raise NotImplementedError


class PreActBasic(_Block):
    """Two convolutions of 3x3 pixels, each after a normalisation; further arguments as in `_Block`."""

    def needs_projection(self, in_chs, out_chs, stride, dilation, first_dilation):
        """Return whether shape or dilation change."""
        return stride != 1 or first_dilation != dilation or in_chs != out_chs

    def create_layers(self, in_chs, mid_chs, out_chs, spatial, dilation, conv_layer, norm_layer):
        """Create the layers of the branch, in forward order; arguments as in `_Block`."""
        self.norm1 = norm_layer(in_chs)
        self.conv1 = conv_layer(in_chs, mid_chs, 3, **spatial)
        self.norm2 = norm_layer(mid_chs)
        self.conv2 = conv_layer(mid_chs, out_chs, 3, dilation=dilation, groups=spatial["groups"])

    def zero_init_last(self):
        """Let the branch begin as 0."""
        zeros_(self.conv2.weight)

    def forward(self, x):
        preact = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(preact)
        return self.drop_path(self.conv2(self.norm2(self.conv1(preact)))) + shortcut


class PreActBottleneck(_Block):
    """Convolutions of 1x1, 3x3 and 1x1 pixels, each after a normalisation; further arguments as in `_Block`."""

    def create_layers(self, in_chs, mid_chs, out_chs, spatial, dilation, conv_layer, norm_layer):
        """Create the layers of the branch, in forward order; arguments as in `_Block`."""
        self.norm1 = norm_layer(in_chs)
        self.conv1 = conv_layer(in_chs, mid_chs, 1)
        self.norm2 = norm_layer(mid_chs)
        self.conv2 = conv_layer(mid_chs, mid_chs, 3, **spatial)
        self.norm3 = norm_layer(mid_chs)
        self.conv3 = conv_layer(mid_chs, out_chs, 1)

    def zero_init_last(self):
        """Let the branch begin as 0."""
        zeros_(self.conv3.weight)

    def forward(self, x):
        preact = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(preact)
        x = self.conv2(self.norm2(self.conv1(preact)))
        return self.drop_path(self.conv3(self.norm3(x))) + shortcut


class Bottleneck(_Block):
    """Convolutions of 1x1, 3x3 and 1x1 pixels, each before a normalisation, for the stems of vision transformers.

    Arguments are those of `_Block`.
    """

    preact = False

    def __init__(self, in_chs, out_chs=None, act_layer=nn.ReLU, **kwargs):
        super().__init__(in_chs, out_chs, act_layer=act_layer, **kwargs)
        self.act3 = act_layer()

    def create_layers(self, in_chs, mid_chs, out_chs, spatial, dilation, conv_layer, norm_layer):
        """Create the layers of the branch, in forward order; arguments as in `_Block`."""
        self.conv1 = conv_layer(in_chs, mid_chs, 1)
        self.norm1 = norm_layer(mid_chs)
        self.conv2 = conv_layer(mid_chs, mid_chs, 3, **spatial)
        self.norm2 = norm_layer(mid_chs)
        self.conv3 = conv_layer(mid_chs, out_chs, 1)
        self.norm3 = norm_layer(out_chs, apply_act=False)

    def zero_init_last(self):
        """Let the branch begin as 0."""
        if getattr(self.norm3, "weight", None) is not None:
            zeros_(self.norm3.weight)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.act3(self.drop_path(self.norm3(self.conv3(x))) + shortcut)


class DownsampleConv(nn.Layer):
    """Shortcut of a convolution of one pixel, which has the stride.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: of the block.
        dilation: of the block.
        preact: whether the input is normalised; without it the output is.
        conv_layer: creates the convolution.
        norm_layer: creates the normalisation.
    """

    def __init__(self, in_chs, out_chs, stride, dilation, preact, conv_layer, norm_layer):
        super().__init__()
        self.conv = conv_layer(in_chs, out_chs, 1, stride=stride)
        self.norm = nn.Identity() if preact else norm_layer(out_chs, apply_act=False)

    def forward(self, x):
        return self.norm(self.conv(x))


class DownsampleAvg(DownsampleConv):
    """Shortcut of average pooling, which has the stride, and a convolution of one pixel.

    Arguments are those of `DownsampleConv`.
    """

    def __init__(self, in_chs, out_chs, stride, dilation, preact, conv_layer, norm_layer):
        super().__init__(in_chs, out_chs, 1, dilation, preact, conv_layer, norm_layer)
        self.pool = downsample_pool(stride, dilation)

    def forward(self, x):
        return super().forward(self.pool(x))


class ResNetStage(nn.Layer):
    """Blocks, of which the first has the stride and a shortcut of its own.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: of the first block.
        dilation: of the stage.
        rates: stochastic depth of each block.
        block_fn: class of the blocks.
        avg_down: whether the shortcut with the stride pools the average.
        kwargs: further arguments of the blocks.
    """

    def __init__(self, in_chs, out_chs, stride, dilation, rates, block_fn=PreActBottleneck, avg_down=False, **kwargs):
        super().__init__()
        shortcut = DownsampleAvg if avg_down else DownsampleConv
        first_dilation = 1 if dilation in (1, 2) else 2
        first = {"stride": stride, "first_dilation": first_dilation, "proj_layer": shortcut}
        self.blocks = nn.Sequential(
            *(
                block_fn(
                    out_chs if number else in_chs,
                    out_chs,
                    dilation=dilation,
                    drop_path_rate=rate,
                    **({} if number else first),
                    **kwargs,
                )
                for number, rate in enumerate(rates)
            )
        )

    def forward(self, x):
        return self.blocks(x)
