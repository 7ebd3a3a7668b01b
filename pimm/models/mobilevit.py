"""MobileViT (https://arxiv.org/abs/2110.02178) and its V2 (https://arxiv.org/abs/2206.02680), as timm has them.

The nets are `ByobNet`, with blocks of this module.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import Conv2d, ConvMlp, DropPath, GroupNorm1, make_divisible, to_pair
from pimm.models.byobnet_blocks import num_groups
from pimm.models.byobnet_net import BLOCKS, ByoBlockCfg, ByobNet, ByoModelCfg
from pimm.models.registry import register_variants
from pimm.models.vision_transformer_blocks import Block


def _whole_patches(size, patch_size):
    """Return how many patches cover a feature map, in rows and columns."""
    return [-(-side // patch) for side, patch in zip(size, patch_size)]


class MobileVitBlock(nn.Layer):
    """Convolutions around transformer blocks, in which each pixel attends to pixels in the same place of other patches.

    Args:
        in_chs, out_chs: channels of the input and of the output.
        kernel_size, stride, dilation, group_size: of the first convolution.
        bottle_ratio: channels of the transformer for each channel, if ``transformer_dim`` is None.
        layers: the `LayerFn`.
        drop_path_rate: stochastic depth.
        transformer_dim, transformer_depth, num_heads, mlp_ratio: channels, number of blocks, heads, and hidden channels
            for each channel of the transformer.
        patch_size: size of the patches.
        attn_drop, drop: dropout of the attention and of linear layers.
        no_fusion: whether the input is not convolved together with the output at the end.
        kwargs: arguments of other kinds of blocks, without effect here.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        stride=1,
        bottle_ratio=1.0,
        group_size=None,
        dilation=(1, 1),
        mlp_ratio=2.0,
        transformer_dim=None,
        transformer_depth=2,
        patch_size=8,
        num_heads=4,
        attn_drop=0.0,
        drop=0.0,
        no_fusion=False,
        drop_path_rate=0.0,
        layers=None,
        **kwargs,
    ):
        super().__init__()
        dim = transformer_dim or make_divisible(bottle_ratio * in_chs)
        convolution = {"stride": stride, "groups": num_groups(group_size, in_chs), "dilation": dilation[0]}
        self.conv_kxk = layers.conv_norm_act(in_chs, in_chs, kernel_size, **convolution)
        self.conv_1x1 = Conv2d(in_chs, dim, 1, bias=False)
        transformer = {
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": True,
            "attn_drop": attn_drop,
            "proj_drop": drop,
            "drop_path": drop_path_rate,
            "act_layer": layers.act,
            "norm_layer": nn.LayerNorm,
        }
        self.transformer = nn.Sequential(*(Block(dim, **transformer) for _ in range(transformer_depth)))
        self.norm = nn.LayerNorm(dim)
        self.conv_proj = layers.conv_norm_act(dim, out_chs, 1)
        self.conv_fusion = None
        if not no_fusion:
            self.conv_fusion = layers.conv_norm_act(in_chs + out_chs, out_chs, kernel_size)
        self.patch_size = to_pair(patch_size)

    def forward(self, x):  # [N, in_chs, H, W]
        shortcut, x = x, self.conv_1x1(self.conv_kxk(x))
        channels, *size = x.shape[1:]
        (height, width), (rows, columns) = self.patch_size, _whole_patches(size, self.patch_size)
        resized = [rows * height, columns * width]
        if resized != size:
            x = F.interpolate(x, resized, mode="bilinear")
        x = x.reshape([-1, channels, rows, height, columns, width]).transpose([0, 3, 5, 2, 4, 1])
        x = self.norm(self.transformer(x.reshape([-1, rows * columns, channels])))  # [N * area, patches, channels]
        x = x.reshape([-1, height, width, rows, columns, channels]).transpose([0, 5, 3, 1, 4, 2])
        x = x.reshape([-1, channels, *resized])
        if resized != size:
            x = F.interpolate(x, size, mode="bilinear")
        x = self.conv_proj(x)
        if self.conv_fusion is None:
            return x
        return self.conv_fusion(paddle.concat([shortcut, x], axis=1))


class LinearSelfAttention(nn.Layer):
    """Attention to one context for each place in a patch, [N, C, area, patches], linear in the number of patches.

    Args:
        embed_dim: channels.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
        bias: whether the convolutions have a bias.
    """

    def __init__(self, embed_dim, attn_drop=0.0, proj_drop=0.0, bias=True):
        super().__init__()
        self.embed_dim = embed_dim
        self.qkv_proj = Conv2d(embed_dim, 1 + 2 * embed_dim, 1, bias=bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.out_proj = Conv2d(embed_dim, embed_dim, 1, bias=bias)
        self.out_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        query, key, value = paddle.split(self.qkv_proj(x), [1, self.embed_dim, self.embed_dim], axis=1)
        scores = self.attn_drop(F.softmax(query, axis=-1))
        context = (key * scores).sum(-1, keepdim=True)
        return self.out_drop(self.out_proj(F.relu(value) * context))


class LinearTransformerBlock(nn.Layer):
    """`LinearSelfAttention` and two convolutions of one pixel, each after a normalisation and beside a shortcut.

    Args:
        embed_dim: channels.
        mlp_ratio: hidden channels for each channel.
        drop, attn_drop, drop_path: dropout of layers and of the attention, and stochastic depth.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self, embed_dim, mlp_ratio=2.0, drop=0.0, attn_drop=0.0, drop_path=0.0, act_layer=nn.Silu, norm_layer=GroupNorm1
    ):
        super().__init__()
        self.norm1 = norm_layer(embed_dim)
        self.attn = LinearSelfAttention(embed_dim, attn_drop, drop)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(embed_dim)
        self.mlp = ConvMlp(embed_dim, int(embed_dim * mlp_ratio), act_layer=act_layer, drop=drop)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class MobileVitV2Block(nn.Layer):
    """Convolutions around blocks of `LinearSelfAttention`; arguments are those of `MobileVitBlock`, without heads."""

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        bottle_ratio=1.0,
        group_size=1,
        dilation=(1, 1),
        mlp_ratio=2.0,
        transformer_dim=None,
        transformer_depth=2,
        patch_size=8,
        attn_drop=0.0,
        drop=0.0,
        drop_path_rate=0.0,
        layers=None,
        **kwargs,
    ):
        super().__init__()
        dim, groups = transformer_dim or make_divisible(bottle_ratio * in_chs), num_groups(group_size, in_chs)
        self.conv_kxk = layers.conv_norm_act(in_chs, in_chs, kernel_size, groups=groups, dilation=dilation[0])
        self.conv_1x1 = Conv2d(in_chs, dim, 1, bias=False)
        drops = {"attn_drop": attn_drop, "drop": drop, "drop_path": drop_path_rate}
        self.transformer = nn.Sequential(
            *(LinearTransformerBlock(dim, mlp_ratio, act_layer=layers.act, **drops) for _ in range(transformer_depth))
        )
        self.norm = GroupNorm1(dim)
        self.conv_proj = layers.conv_norm_act(dim, out_chs, 1, apply_act=False)
        self.patch_size = to_pair(patch_size)

    def forward(self, x):  # [N, in_chs, H, W]
        (height, width), (rows, columns) = self.patch_size, _whole_patches(x.shape[2:], self.patch_size)
        resized = [rows * height, columns * width]
        if resized != x.shape[2:]:
            x = F.interpolate(x, resized, mode="bilinear", align_corners=True)
        x = self.conv_1x1(self.conv_kxk(x))
        channels = x.shape[1]
        x = x.reshape([-1, channels, rows, height, columns, width]).transpose([0, 1, 3, 5, 2, 4])
        x = self.norm(self.transformer(x.reshape([-1, channels, height * width, rows * columns])))
        x = x.reshape([-1, channels, height, width, rows, columns]).transpose([0, 1, 4, 2, 5, 3])
        return self.conv_proj(x.reshape([-1, channels, *resized]))


BLOCKS.update(mobilevit=MobileVitBlock, mobilevit2=MobileVitV2Block)
_BOTTLE = {"bottle_in": True, "linear_out": True}


def _residual(depth, width, stride, ratio=4.0):
    return ByoBlockCfg("bottle", depth, width, stride, gs=1, br=ratio, block_kwargs=_BOTTLE)


def _attention(width, ratio, dim, depth):
    """Return the blocks of a stage of MobileViT."""
    transformer = {"transformer_dim": dim, "transformer_depth": depth, "patch_size": 2}
    return _residual(1, width, 2, ratio), ByoBlockCfg("mobilevit", 1, width, 1, block_kwargs=transformer)


def _attention_v2(width, depth):
    """Return the blocks of a stage of MobileViT V2."""
    transformer = {"transformer_depth": depth, "patch_size": 2}
    return (
        _residual(1, width, 2, 2.0),
        ByoBlockCfg("mobilevit2", 1, width, 1, gs=1, br=0.5, block_kwargs=transformer),
    )


_COMMON = {"stem_type": "3x3", "stem_pool": "", "downsample": "", "act_layer": "silu"}


def _v1(widths, dims, num_features, ratio=4.0):
    first, second, *others = widths
    stages = [_attention(*ends, depth) for *ends, depth in zip(others, (ratio,) * 3, dims, (2, 4, 3))]
    blocks = (_residual(1, first, 1, ratio), _residual(3, second, 2, ratio), *stages)
    return ByoModelCfg(blocks=blocks, stem_chs=16, num_features=num_features, **_COMMON)


def _v2(factor):
    first, second, *others = (int(width * factor) for width in (64, 128, 256, 384, 512))
    stages = [_attention_v2(width, depth) for width, depth in zip(others, (2, 4, 3))]
    blocks = (_residual(1, first, 1, 2.0), _residual(2, second, 2, 2.0), *stages)
    return ByoModelCfg(blocks=blocks, stem_chs=int(32 * factor), **_COMMON)


VARIANTS = {
    "mobilevit_xxs": _v1((16, 24, 48, 64, 80), (64, 80, 96), 320, ratio=2.0),
    "mobilevit_xs": _v1((32, 48, 64, 80, 96), (96, 120, 144), 384),
    "mobilevit_s": _v1((32, 64, 96, 128, 160), (144, 192, 240), 640),
    **{f"mobilevitv2_{percent:03}": _v2(percent / 100) for percent in (50, 75, 100, 125, 150, 175, 200)},
}


def _create(variant, **kwargs):
    return ByobNet(variant, **kwargs)


register_variants(VARIANTS, _create)
