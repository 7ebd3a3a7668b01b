"""Dual attention vision transformers (https://arxiv.org/abs/2204.03645), with the names, arguments and numbers of timm.

Variants ``_fl`` are the image towers of Florence-2 (https://arxiv.org/abs/2311.06242).
"""

from __future__ import annotations

import re
from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    ClassifierHead,
    Conv2d,
    DropPath,
    LayerNorm2d,
    Linear,
    Mlp,
    NormMlpClassifierHead,
    attend,
    calculate_drop_path_rates,
    get_norm_layer,
    to_pair,
)
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel, with_head_norm
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


def _pad_to_multiple(x, height, width):
    """Pad images [N, C, H, W] at the bottom and on the right to multiples of a size."""
    bottom, right = -x.shape[2] % height, -x.shape[3] % width
    return F.pad(x, [0, right, 0, bottom]) if bottom or right else x


class ConvPosEnc(nn.Layer):
    """Add a depthwise convolution to its input, which tells positions apart.

    Args:
        dim: channels.
        k: size of the kernel.
        act: whether an activation follows the convolution.
    """

    def __init__(self, dim, k=3, act=False):
        super().__init__()
        self.proj = Conv2d(dim, dim, k, padding=k // 2, groups=dim)
        self.act = nn.GELU() if act else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        return x + self.act(self.proj(x))


class Stem(nn.Layer):
    """A convolution of stride 4 and a normalisation.

    Args:
        in_chs: channels of the images.
        out_chs: channels of the output.
        norm_layer: class of the normalisation.
    """

    def __init__(self, in_chs=3, out_chs=96, norm_layer=LayerNorm2d):
        super().__init__()
        self.conv = Conv2d(in_chs, out_chs, 7, stride=4, padding=3)
        self.norm = norm_layer(out_chs)

    def forward(self, x):  # [N, in_chs, H, W]
        return self.norm(self.conv(_pad_to_multiple(x, 4, 4)))


class Downsample(nn.Layer):
    """A normalisation and a convolution of stride 2.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: size of the kernel.
        norm_layer: class of the normalisation.
    """

    def __init__(self, in_chs, out_chs, kernel_size=3, norm_layer=LayerNorm2d):
        super().__init__()
        self.norm = norm_layer(in_chs)
        self.even = kernel_size % 2 == 0
        self.conv = Conv2d(in_chs, out_chs, kernel_size, stride=2, padding=0 if self.even else kernel_size // 2)

    def forward(self, x):  # [N, in_chs, H, W]
        x = self.norm(x)
        return self.conv(_pad_to_multiple(x, *self.conv.kernel_size) if self.even else x)


class _Attention(nn.Layer):
    """Queries, keys and values in heads, and the linear layer after the attention; a subclass defines `_attend`.

    Args:
        dim: channels.
        num_heads: heads, or groups of channels.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, dim, num_heads=8, qkv_bias=True):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x):  # [N, L, dim]
        qkv = self.qkv(x).reshape([-1, x.shape[1], 3, self.num_heads, self.head_dim])
        x = self._attend(*qkv.transpose([2, 0, 3, 1, 4]).unbind(0))  # [N, heads, L, head_dim]
        return self.proj(x.transpose([0, 2, 1, 3]).flatten(2))


class ChannelAttention(_Attention):
    """Attention between the channels of a head, scaled by the channels of a head."""

    def _attend(self, q, k, v):
        attention = F.softmax(paddle.matmul(k * self.head_dim**-0.5, v, transpose_x=True), axis=-1)
        return paddle.matmul(q, attention, transpose_y=True)


class ChannelAttentionV2(_Attention):
    """Attention between the channels of a head, scaled by the number of pixels."""

    def _attend(self, q, k, v):
        attention = F.softmax(paddle.matmul(q * q.shape[2] ** -0.5, k, transpose_x=True), axis=-1)
        return paddle.matmul(v, attention, transpose_y=True)


class WindowAttention(_Attention):
    """Attention between the pixels of a window."""

    def _attend(self, q, k, v):
        return attend(q, k, v)


class _Block(nn.Layer):
    """Attention and two linear layers, each after a `ConvPosEnc`; a subclass defines `_attend`.

    Args:
        dim: channels.
        attn: the attention.
        mlp_ratio: hidden channels for each channel.
        drop_path: stochastic depth.
        norm_layer: class of the normalisation.
        ffn: whether there are the two linear layers.
        cpe_act: ``act`` of the `ConvPosEnc`.
    """

    def __init__(self, dim, attn, mlp_ratio=4.0, drop_path=0.0, norm_layer=nn.LayerNorm, ffn=True, cpe_act=False):
        super().__init__()
        self.cpe1 = ConvPosEnc(dim, act=cpe_act)
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.cpe2 = ConvPosEnc(dim, act=cpe_act)
        self.norm2 = self.mlp = None
        if ffn:
            self.norm2 = norm_layer(dim)
            self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU)
            self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        x = self.cpe1(x).transpose([0, 2, 3, 1])
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        x = self.cpe2(x.transpose([0, 3, 1, 2]))
        if self.mlp is None:
            return x
        x = x.transpose([0, 2, 3, 1])
        return (x + self.drop_path2(self.mlp(self.norm2(x)))).transpose([0, 3, 1, 2])


class ChannelBlock(_Block):
    """A block with attention between channels; arguments are those of the attention and of the block."""

    def __init__(self, dim, num_heads, qkv_bias=False, v2=False, **kwargs):
        attention = ChannelAttentionV2 if v2 else ChannelAttention
        super().__init__(dim, attention(dim, num_heads, qkv_bias), **kwargs)

    def _attend(self, x):
        height, width, dim = x.shape[1:]
        return self.attn(x.flatten(1, 2)).reshape([-1, height, width, dim])


class SpatialBlock(_Block):
    """A block with attention inside of windows; arguments are those of the attention and of the block."""

    def __init__(self, dim, num_heads, window_size=7, qkv_bias=True, **kwargs):
        super().__init__(dim, WindowAttention(dim, num_heads, qkv_bias), **kwargs)
        self.window_size = to_pair(window_size)

    def _attend(self, x):
        height, width, dim = x.shape[1:]
        windows, grid = split_windows(x, self.window_size)
        windows = self.attn(windows.flatten(1, 2)).reshape([-1, *self.window_size, dim])
        return join_windows(windows, grid)[:, :height, :width]


class DaVitStage(nn.Layer):
    """Downsampling, and pairs of blocks.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        depth: number of pairs.
        downsample: whether the image is halved first.
        attn_types: the attention of the blocks of a pair: ``spatial`` or ``channel``.
        window_size: size of the windows.
        drop_path_rates: stochastic depth of each pair.
        norm_layer: class of the normalisation before the downsampling.
        norm_layer_cl: class of the blocks' normalisation.
        down_kernel_size: kernel of the downsampling.
        named_blocks: whether the blocks of a pair have names in the state, instead of numbers.
        channel_attn_v2: whether attention between channels is scaled by the number of pixels.
        kwargs: further arguments of the blocks.

    Raises:
        ConfigError: for other ``attn_types``.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        depth,
        downsample,
        attn_types,
        window_size,
        drop_path_rates,
        norm_layer,
        norm_layer_cl,
        down_kernel_size,
        named_blocks,
        channel_attn_v2,
        **kwargs,
    ):
        super().__init__()
        self.grad_checkpointing = False
        kinds = {
            "spatial": partial(SpatialBlock, out_chs, window_size=window_size),
            "channel": partial(ChannelBlock, out_chs, v2=channel_attn_v2),
        }
        unknown = [kind for kind in attn_types if kind not in kinds]
        if unknown:
            raise ConfigError(f"attn_types has {unknown[0]!r:.80}; valid are {', '.join(kinds)}")
        self.downsample = nn.Identity()
        if downsample:
            self.downsample = Downsample(in_chs, out_chs, down_kernel_size, norm_layer)
        pairs = []
        for index in range(depth):
            arguments = {**kwargs, "drop_path": drop_path_rates[index], "norm_layer": norm_layer_cl}
            blocks = [(f"{kind}_block", kinds[kind](**arguments)) for kind in attn_types]
            pairs.append(nn.Sequential(*(blocks if named_blocks else [block for _, block in blocks])))
        self.blocks = nn.Sequential(*pairs)

    def forward(self, x):  # [N, in_chs, H, W]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class DaVit(StagedModel):
    """Classify images with stages of attention inside of windows and between channels.

    Args:
        in_chans: channels of the images.
        depths, embed_dims, num_heads: pairs of blocks, channels, and heads of each stage.
        window_size: size of the windows.
        mlp_ratio: hidden channels for each channel.
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer, norm_layer_cl: names of the normalisation [N, C, H, W] and [N, H, W, C].
        norm_eps: number that the normalisation adds to the variance.
        attn_types, down_kernel_size, channel_attn_v2, named_blocks: as in `DaVitStage`.
        ffn: whether blocks have linear layers after the attention.
        cpe_act: whether an activation follows the convolutions of positions.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last blocks; it grows linearly.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        head_norm_first: whether the last normalisation comes before the pooling.
    """

    norm_name = "norm_pre"

    def __init__(
        self,
        in_chans=3,
        depths=(1, 1, 3, 1),
        embed_dims=(96, 192, 384, 768),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer="layernorm2d",
        norm_layer_cl="layernorm",
        norm_eps=1e-5,
        attn_types=("spatial", "channel"),
        ffn=True,
        cpe_act=False,
        down_kernel_size=2,
        channel_attn_v2=False,
        named_blocks=False,
        drop_rate=0.0,
        drop_path_rate=0.0,
        num_classes=1000,
        global_pool="avg",
        head_norm_first=False,
    ):
        super().__init__()
        if not len(embed_dims) == len(num_heads) == len(depths):
            raise ConfigError(f"embed_dims, num_heads and depths differ in length: {embed_dims}, {num_heads}, {depths}")
        norm_layer, norm_layer_cl = (
            partial(get_norm_layer(name), eps=norm_eps) for name in (norm_layer, norm_layer_cl)
        )
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, embed_dims[-1]
        self.drop_rate = drop_rate
        self.stem = Stem(in_chans, embed_dims[0], norm_layer)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        self.feature_info, stages = [], []
        for i, dim in enumerate(embed_dims):
            stage = DaVitStage(
                embed_dims[max(i - 1, 0)],
                dim,
                depths[i],
                i > 0,
                attn_types,
                window_size,
                rates[i],
                norm_layer,
                norm_layer_cl,
                down_kernel_size,
                named_blocks,
                channel_attn_v2,
                num_heads=num_heads[i],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                ffn=ffn,
                cpe_act=cpe_act,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dim, 4 << i))
        self.stages = nn.Sequential(*stages)
        pooling = {"pool_type": global_pool, "drop_rate": drop_rate}
        if head_norm_first:
            self.norm_pre = norm_layer(self.num_features)
            self.head = ClassifierHead(self.num_features, num_classes, **pooling)
        else:
            self.norm_pre = nn.Identity()
            self.head = NormMlpClassifierHead(self.num_features, num_classes, norm_layer=norm_layer, **pooling)
        self.head_hidden_size = self.head.num_features
        init_truncated(self)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by pair of blocks, or by stage if ``coarse``."""
        blocks = [
            (r"^stages\.(\d+).downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm_pre", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_FLORENCE = "vision_tower."
_RENAMED_FLORENCE = (
    (r"convs\.([0-9]+)", r"stages.\1.downsample"),
    (r"blocks\.([0-9]+)", r"stages.\1.blocks"),
    (r"downsample\.proj", "downsample.conv"),
    (r"stages\.0\.downsample", "stem"),
    (r"(window|channel)_attn\.norm\.", "norm1."),
    (r"(window|channel)_attn\.fn\.", "attn."),
    (r"ffn\.norm\.", "norm2."),
    (r"ffn\.fn\.net\.", "mlp."),
    (r"conv1\.fn\.dw", "cpe1.proj"),
    (r"conv2\.fn\.dw", "cpe2.proj"),
)
_RENAMED = (  # of the paper's checkpoints
    (r"patch_embeds\.([0-9]+)", r"stages.\1.downsample"),
    (r"main_blocks\.([0-9]+)", r"stages.\1.blocks"),
    (r"downsample\.proj", "downsample.conv"),
    (r"stages\.0\.downsample", "stem"),
    (r"head\.", "head.fc."),
    (r"norms\.", "head.norm."),
    (r"cpe\.0", "cpe1"),
    (r"cpe\.1", "cpe2"),
)


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the paper's checkpoints, or of Florence-2's, under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `DaVit` that takes them.
    """
    if "stem.conv.weight" in state_dict:
        return state_dict
    prefix, rules = "", _RENAMED
    if f"{_FLORENCE}convs.0.proj.weight" in state_dict:
        prefix, rules = _FLORENCE, _RENAMED_FLORENCE
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith(prefix):
            name = name[len(prefix) :]
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            renamed[name] = value
    return with_head_norm(renamed, model)


def _variant(width, heads, depths, **kwargs):
    dims, num_heads = (tuple(first << i for i in range(4)) for first in (width, heads))
    return {"embed_dims": dims, "num_heads": num_heads, "depths": depths, **kwargs}


_FL = {"window_size": 12, "down_kernel_size": 3, "channel_attn_v2": True, "named_blocks": True}

VARIANTS = {
    "davit_tiny": _variant(96, 3, (1, 1, 3, 1)),
    "davit_small": _variant(96, 3, (1, 1, 9, 1)),
    "davit_base": _variant(128, 4, (1, 1, 9, 1)),
    "davit_large": _variant(192, 6, (1, 1, 9, 1)),
    "davit_huge": _variant(256, 8, (1, 1, 9, 1)),
    "davit_giant": _variant(384, 12, (1, 1, 12, 3)),
    "davit_base_fl": _variant(128, 4, (1, 1, 9, 1), **_FL),
    "davit_huge_fl": _variant(256, 8, (1, 1, 9, 1), **_FL),
}


register_variants(VARIANTS, DaVit)
