"""Blocks and stages of cross stage partial networks.

Arguments that all blocks share:

    in_chs, out_chs: channels of the input and the output, which are added: they are equal.
    dilation: of the 3x3 convolution.
    bottle_ratio: channels inside the block, as a share of ``out_chs``.
    groups: groups of channels of the 3x3 convolution.
    act_layer, norm_layer: class or name of activation and normalisation.
    attn_layer: what creates the attention, ``attn_layer(channels, act_layer=...)``; None for none.
    drop_block: class of a layer between normalisation and activation.
    drop_path: rate of stochastic depth.

Arguments that all stages share:

    in_chs, out_chs: channels of the input and the output.
    stride: of the convolution at the beginning.
    dilation: of the blocks.
    depth: number of blocks.
    block_ratio: channels between the blocks, as a share of ``out_chs``.
    first_dilation: of the convolution at the beginning; None for ``dilation``.
    avg_down: whether pooling shrinks images, instead of a stride.
    block_dpr: rates of stochastic depth of the blocks; None for 0.
    block_fn: class of the blocks, which take the other arguments.
    aa_layer: as in `pimm.layers.create_aa`, for the stride.
"""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.layers import BatchNorm2d, ConvNormAct, DropPath, create_act_layer, zeros_


def _attention(attn_layer, channels, act_layer):
    return attn_layer(channels, act_layer=act_layer) if attn_layer else nn.Identity()


class BottleneckBlock(nn.Layer):
    """Convolutions of 1x1, 3x3 and 1x1 pixels, added to the input before the last activation."""

    def __init__(
        self,
        in_chs,
        out_chs,
        dilation=1,
        bottle_ratio=0.25,
        groups=1,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        attn_last=False,
        attn_layer=None,
        drop_block=None,
        drop_path=0.0,
    ):
        super().__init__()
        mid_chs, layers = round(out_chs * bottle_ratio), {"act_layer": act_layer, "norm_layer": norm_layer}
        inner = {"dilation": dilation, "groups": groups, "drop_layer": drop_block}
        self.conv1 = ConvNormAct(in_chs, mid_chs, 1, **layers)
        self.conv2 = ConvNormAct(mid_chs, mid_chs, 3, **inner, **layers)
        self.attn2 = _attention(None if attn_last else attn_layer, mid_chs, act_layer)
        self.conv3 = ConvNormAct(mid_chs, out_chs, 1, apply_act=False, **layers)
        self.attn3 = _attention(attn_layer if attn_last else None, out_chs, act_layer)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.act3 = create_act_layer(act_layer)

    def zero_init_last(self):
        """Let the block begin as the identity."""
        zeros_(self.conv3.bn.weight)

    def forward(self, x):
        residual = self.attn3(self.conv3(self.attn2(self.conv2(self.conv1(x)))))
        return self.act3(self.drop_path(residual) + x)


class _TwoConvBlock(nn.Layer):
    """Two convolutions with attention between them, added to the input; the kernels are a class attribute."""

    kernels = (1, 3)

    def __init__(
        self,
        in_chs,
        out_chs,
        dilation=1,
        bottle_ratio=0.5,
        groups=1,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        attn_layer=None,
        drop_block=None,
        drop_path=0.0,
    ):
        super().__init__()
        mid_chs, layers = round(out_chs * bottle_ratio), {"act_layer": act_layer, "norm_layer": norm_layer}
        of_kernel = {3: {"dilation": dilation, "groups": groups, "drop_layer": drop_block}, 1: {}}
        first, second = self.kernels
        self.conv1 = ConvNormAct(in_chs, mid_chs, first, **of_kernel[first], **layers)
        self.attn = _attention(attn_layer, mid_chs, act_layer)
        self.conv2 = ConvNormAct(mid_chs, out_chs, second, **of_kernel[second], **layers)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def zero_init_last(self):
        """Let the block begin as the identity."""
        zeros_(self.conv2.bn.weight)

    def forward(self, x):
        return self.drop_path(self.conv2(self.attn(self.conv1(x)))) + x


class DarkBlock(_TwoConvBlock):
    """Convolutions of 1x1 and 3x3 pixels, as in DarkNet."""


class EdgeBlock(_TwoConvBlock):
    """Convolutions of 3x3 and 1x1 pixels."""

    kernels = (3, 1)


def _downsample(in_chs, out_chs, stride, dilation, groups, avg_down, aa_layer, layers):
    """Return the convolution that shrinks images."""
    if avg_down:
        pool = nn.AvgPool2D(2) if stride == 2 else nn.Identity()
        return nn.Sequential(pool, ConvNormAct(in_chs, out_chs, 1, groups=groups, **layers))
    arguments = {"stride": stride, "dilation": dilation, "groups": groups, "aa_layer": aa_layer}
    return ConvNormAct(in_chs, out_chs, 3, **arguments, **layers)


def _create_blocks(in_chs, block_chs, depth, block_dpr, block_fn, **kwargs):
    rates, blocks = block_dpr or [0.0] * depth, []
    for rate in rates:
        blocks.append(block_fn(in_chs, block_chs, drop_path=rate, **kwargs))
        in_chs = block_chs
    return nn.Sequential(*blocks)


class _CrossStage(nn.Layer):
    """Stage in which blocks take one half of the channels.

    Args:
        expand_ratio: channels of both halves, as a share of ``out_chs``.
        down_growth: whether the convolution at the beginning changes the number of channels.
        cross_linear: whether the convolution before the halves has no activation. The other arguments are those that
            this module names.
    """

    has_transition_b = False

    def __init__(
        self,
        in_chs,
        out_chs,
        stride,
        dilation,
        depth,
        block_ratio=1.0,
        bottle_ratio=1.0,
        expand_ratio=1.0,
        groups=1,
        first_dilation=None,
        avg_down=False,
        down_growth=False,
        cross_linear=False,
        block_dpr=None,
        block_fn=BottleneckBlock,
        aa_layer=None,
        **block_kwargs,
    ):
        super().__init__()
        layers = {name: block_kwargs.get(name) for name in ("act_layer", "norm_layer")}
        first_dilation, expanded = first_dilation or dilation, round(out_chs * expand_ratio)
        self.conv_down = nn.Identity()
        if stride != 1 or first_dilation != dilation:
            channels = out_chs if down_growth else in_chs
            downsampled = out_chs if avg_down else channels
            self.conv_down = _downsample(
                in_chs, downsampled, stride, first_dilation, groups, avg_down, aa_layer, layers
            )
            in_chs = channels
        self.conv_exp = ConvNormAct(in_chs, expanded, 1, apply_act=not cross_linear, **layers)
        block_chs = round(out_chs * block_ratio)
        block_kwargs.update(dilation=dilation, bottle_ratio=bottle_ratio, groups=groups)
        self.blocks = _create_blocks(expanded // 2, block_chs, depth, block_dpr, block_fn, **block_kwargs)
        if self.has_transition_b:
            self.conv_transition_b = ConvNormAct(block_chs if depth else expanded // 2, expanded // 2, 1, **layers)
        self.conv_transition = ConvNormAct(expanded, out_chs, 1, **layers)

    def halves(self, x):
        """Return both halves of the channels."""
        return paddle.chunk(self.conv_exp(self.conv_down(x)), 2, axis=1)


class CrossStage(_CrossStage):
    """Stage of CSPNet, whose blocks take the second half and are followed by a convolution (`_CrossStage`)."""

    has_transition_b = True

    def forward(self, x):
        kept, changed = self.halves(x)
        changed = self.conv_transition_b(self.blocks(changed))
        return self.conv_transition(paddle.concat([kept, changed], axis=1))


class CrossStage3(_CrossStage):
    """Stage of a later CSPNet with one convolution less, whose blocks take the first half (`_CrossStage`)."""

    def forward(self, x):
        changed, kept = self.halves(x)
        return self.conv_transition(paddle.concat([self.blocks(changed), kept], axis=1))


class DarkStage(nn.Layer):
    """Stage of DarkNet, whose blocks take all channels; arguments as this module says."""

    def __init__(
        self,
        in_chs,
        out_chs,
        stride,
        dilation,
        depth,
        block_ratio=1.0,
        bottle_ratio=1.0,
        groups=1,
        first_dilation=None,
        avg_down=False,
        block_fn=BottleneckBlock,
        block_dpr=None,
        aa_layer=None,
        **block_kwargs,
    ):
        super().__init__()
        layers = {name: block_kwargs.get(name) for name in ("act_layer", "norm_layer")}
        first_dilation = first_dilation or dilation
        self.conv_down = _downsample(in_chs, out_chs, stride, first_dilation, groups, avg_down, aa_layer, layers)
        block_kwargs.update(dilation=dilation, bottle_ratio=bottle_ratio, groups=groups)
        block_chs = round(out_chs * block_ratio)
        self.blocks = _create_blocks(out_chs, block_chs, depth, block_dpr, block_fn, **block_kwargs)

    def forward(self, x):
        return self.blocks(self.conv_down(x))


BLOCKS = {"dark": DarkBlock, "edge": EdgeBlock, "bottle": BottleneckBlock}
STAGES = {"dark": DarkStage, "csp": CrossStage, "cs3": CrossStage3}
