"""EdgeNeXt (https://arxiv.org/abs/2206.10589), with the names, arguments and numbers of timm."""

from __future__ import annotations

import math
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
    LayerNorm,
    LayerNorm2d,
    Linear,
    Mlp,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
    create_conv2d,
    trunc_normal_tf_,
)
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants
from pimm.models.torch_names import torch_names

_NORM = partial(LayerNorm, eps=1e-6)
_NORM_2D = partial(LayerNorm2d, eps=1e-6)


class PositionalEncodingFourier(nn.Layer):
    """Sines and cosines of positions, mixed by a convolution of one pixel.

    Args:
        hidden_dim: numbers for each of the two coordinates.
        dim: channels of the output.
        temperature: ratio of the longest wavelength to the shortest one.
    """

    def __init__(self, hidden_dim=32, dim=768, temperature=10000.0):
        super().__init__()
        self.token_projection = Conv2d(hidden_dim * 2, dim, 1)
        self.hidden_dim, self.temperature = hidden_dim, temperature

    def _waves(self, length):
        """Return the encoding of positions 1 to ``length``, [length, hidden_dim]."""
        position = paddle.arange(1, length + 1, dtype="float32")
        position = position / (position[-1] + 1e-6) * (2 * math.pi)
        pair = paddle.arange(self.hidden_dim // 2, dtype="float32")
        angle = position.unsqueeze(1) / self.temperature ** (2 * pair / self.hidden_dim)
        return paddle.stack([angle.sin(), angle.cos()], axis=2).flatten(1)

    def forward(self, size):
        """Return the encoding of all pixels of a feature map, [1, dim, H, W], for its size (H, W)."""
        height, width = size
        rows = self._waves(height).unsqueeze(1).expand([height, width, self.hidden_dim])
        columns = self._waves(width).unsqueeze(0).expand([height, width, self.hidden_dim])
        encoding = paddle.concat([rows, columns], axis=2).transpose([2, 0, 1]).unsqueeze(0)
        return self.token_projection(encoding.astype(self.token_projection.weight.dtype))


def _layer_scale(layer, dim, init_value):
    """Return a parameter for the layer scale of a layer, or None if its initial value is 0."""
    if init_value <= 0:
        return None
    return layer.create_parameter([dim], default_initializer=nn.initializer.Constant(init_value))


class ConvBlock(nn.Layer):
    """Depthwise convolution, normalisation and two linear layers, beside a shortcut.

    Args:
        dim: channels of the input.
        dim_out: channels of the output; None for ``dim``.
        kernel_size: size of the depthwise kernel.
        stride: stride of the depthwise convolution.
        conv_bias: whether the depthwise convolution has a bias.
        expand_ratio: hidden channels for each channel.
        ls_init_value: initial value of the layer scale; 0 for no layer scale.
        act_layer: class of the activations.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        dim,
        dim_out=None,
        kernel_size=7,
        stride=1,
        conv_bias=True,
        expand_ratio=4,
        ls_init_value=1e-6,
        act_layer=nn.GELU,
        drop_path=0.0,
    ):
        super().__init__()
        dim_out = dim_out or dim
        self.shortcut_after_dw = stride > 1 or dim != dim_out
        self.conv_dw = create_conv2d(dim, dim_out, kernel_size, stride=stride, depthwise=True, bias=conv_bias)
        self.norm = _NORM(dim_out)
        self.mlp = Mlp(dim_out, int(expand_ratio * dim_out), act_layer=act_layer)
        self.gamma = _layer_scale(self, dim_out, ls_init_value)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        shortcut, x = x, self.conv_dw(x)
        shortcut = x if self.shortcut_after_dw else shortcut
        x = self.mlp(self.norm(x.transpose([0, 2, 3, 1])))
        x = x if self.gamma is None else self.gamma * x
        return shortcut + self.drop_path(x.transpose([0, 3, 1, 2]))


class CrossCovarianceAttn(nn.Layer):
    """Attention between channels (https://arxiv.org/abs/2106.09681).

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads=8, qkv_bias=False, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = self.create_parameter([num_heads, 1, 1], default_initializer=nn.initializer.Constant(1.0))
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):  # [N, L, dim]
        length, dim = x.shape[1:]
        qkv = self.qkv(x).reshape([-1, length, 3, self.num_heads, dim // self.num_heads])
        q, k, v = qkv.transpose([2, 0, 3, 4, 1]).unbind(0)  # [N, heads, channels, L]
        attention = paddle.matmul(F.normalize(q, axis=-1), F.normalize(k, axis=-1), transpose_y=True)
        attention = self.attn_drop(F.softmax(attention * self.temperature, axis=-1))
        x = paddle.matmul(attention, v).transpose([0, 3, 1, 2]).flatten(2)
        return self.proj_drop(self.proj(x))


class SplitTransposeBlock(nn.Layer):
    """A cascade of depthwise convolutions, attention between channels and two linear layers, beside a shortcut.

    Args:
        dim: channels.
        num_scales: parts of the channels; each part but the last is convolved, together with the part before it.
        num_heads: heads of the attention.
        expand_ratio: hidden channels for each channel.
        use_pos_emb: whether positions are added before the attention.
        conv_bias: whether the convolutions have a bias.
        qkv_bias: whether queries, keys and values have a bias.
        ls_init_value: initial value of the layer scales; 0 for no layer scale.
        act_layer: class of the activations.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        dim,
        num_scales=1,
        num_heads=8,
        expand_ratio=4,
        use_pos_emb=True,
        conv_bias=True,
        qkv_bias=True,
        ls_init_value=1e-6,
        act_layer=nn.GELU,
        drop_path=0.0,
    ):
        super().__init__()
        width, count = -(-dim // num_scales), max(1, num_scales - 1)
        self.parts = [width] * count + [dim - width * count]
        self.convs = nn.LayerList(create_conv2d(width, width, 3, depthwise=True, bias=conv_bias) for _ in range(count))
        self.pos_embd = PositionalEncodingFourier(dim=dim) if use_pos_emb else None
        self.norm_xca = _NORM(dim)
        self.gamma_xca = _layer_scale(self, dim, ls_init_value)
        self.xca = CrossCovarianceAttn(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.norm = _NORM(dim)
        self.mlp = Mlp(dim, int(expand_ratio * dim), act_layer=act_layer)
        self.gamma = _layer_scale(self, dim, ls_init_value)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def _cascade(self, x):
        *parts, last = paddle.split(x, self.parts, axis=1)
        found = []
        for part, conv in zip(parts, self.convs):
            found.append(conv(part + found[-1] if found else part))
        return paddle.concat([*found, last], axis=1)

    def forward(self, x):  # [N, dim, H, W]
        shortcut, x = x, self._cascade(x)
        channels, height, width = x.shape[1:]
        if self.pos_embd is not None:
            x = x + self.pos_embd((height, width))
        x = x.flatten(2).transpose([0, 2, 1])  # [N, H * W, dim]
        attended = self.xca(self.norm_xca(x))
        x = x + self.drop_path(attended if self.gamma_xca is None else self.gamma_xca * attended)
        x = self.mlp(self.norm(x))
        x = x if self.gamma is None else self.gamma * x
        x = x.transpose([0, 2, 1]).reshape([-1, channels, height, width])
        return shortcut + self.drop_path(x)


class EdgeNeXtStage(nn.Layer):
    """Downsampling, and blocks, of which the last ones have attention.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: stride of the downsampling.
        depth: number of blocks.
        num_global_blocks: number of blocks with attention.
        num_heads: heads of the attention.
        scales: parts of the channels in blocks with attention.
        kernel_size: size of the kernels in blocks without attention.
        use_pos_emb: whether positions are added before the attention.
        downsample_block: whether the first block shrinks the image, in place of a convolution before the blocks.
        drop_path_rates: stochastic depth of each block.
        block: further arguments of all blocks; ``conv_bias`` is for the downsampling, too.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        stride=2,
        depth=2,
        num_global_blocks=1,
        num_heads=4,
        scales=2,
        kernel_size=7,
        use_pos_emb=False,
        downsample_block=False,
        drop_path_rates=None,
        **block,
    ):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = nn.Identity()
        if not downsample_block and stride > 1:
            convolution = Conv2d(in_chs, out_chs, 2, stride=2, bias=block.get("conv_bias", True))
            self.downsample = nn.Sequential(_NORM_2D(in_chs), convolution)
            in_chs, stride = out_chs, 1
        blocks = []
        for index, rate in enumerate(drop_path_rates or [0.0] * depth):
            if index < depth - num_global_blocks:
                convolution = {"kernel_size": kernel_size, "stride": 1 if index else stride}
                blocks.append(ConvBlock(in_chs, out_chs, drop_path=rate, **convolution, **block))
            else:
                attention = {"num_scales": scales, "num_heads": num_heads, "use_pos_emb": use_pos_emb}
                blocks.append(SplitTransposeBlock(in_chs, drop_path=rate, **attention, **block))
            in_chs = out_chs
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):  # [N, in_chs, H, W]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


_STEMS = {"patch": {"kernel_size": 4}, "overlap": {"kernel_size": 9, "padding": 4}}


class EdgeNeXt(StagedModel):
    """Classify images with stages of `ConvBlock` and `SplitTransposeBlock`.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling: ``avg``, ``max``, ``avgmax``, or ``""`` for none.
        dims, depths: channels and number of blocks of each stage.
        global_block_counts: blocks with attention of each stage.
        kernel_sizes, heads, d2_scales, use_pos_emb: of each stage, as in `EdgeNeXtStage`.
        ls_init_value: initial value of the layer scales; 0 for no layer scale.
        head_init_scale: factor of the classifier's initial weights.
        expand_ratio: hidden channels for each channel.
        downsample_block: as in `EdgeNeXtStage`.
        conv_bias: whether convolutions have a bias.
        stem_type: ``patch`` or ``overlap``.
        head_norm_first: whether the last normalisation comes before the pooling.
        act_layer: class of the activations.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        drop_rate: dropout before the classifier.

    Raises:
        ConfigError: for an unknown ``stem_type``.
    """

    norm_name = "norm_pre"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        dims=(24, 48, 88, 168),
        depths=(3, 3, 9, 3),
        global_block_counts=(0, 1, 1, 1),
        kernel_sizes=(3, 5, 7, 9),
        heads=(8, 8, 8, 8),
        d2_scales=(2, 2, 3, 4),
        use_pos_emb=(False, True, False, False),
        ls_init_value=1e-6,
        head_init_scale=1.0,
        expand_ratio=4,
        downsample_block=False,
        conv_bias=True,
        stem_type="patch",
        head_norm_first=False,
        act_layer=nn.GELU,
        drop_path_rate=0.0,
        drop_rate=0.0,
    ):
        super().__init__()
        if stem_type not in _STEMS:
            raise ConfigError(f"stem_type is {stem_type!r:.80}; valid are {', '.join(_STEMS)}")
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        stem = Conv2d(in_chans, dims[0], stride=4, bias=conv_bias, **_STEMS[stem_type])
        self.stem = nn.Sequential(stem, _NORM_2D(dims[0]))

        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        self.feature_info, stages = [], []
        for i, dim in enumerate(dims):
            stage = EdgeNeXtStage(
                dims[max(i - 1, 0)],
                dim,
                2 if i else 1,
                depths[i],
                global_block_counts[i],
                heads[i],
                d2_scales[i],
                kernel_sizes[i],
                use_pos_emb[i],
                downsample_block,
                rates[i],
                conv_bias=conv_bias,
                expand_ratio=expand_ratio,
                ls_init_value=ls_init_value,
                act_layer=act_layer,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dim, 4 << i))
        self.stages = nn.Sequential(*stages)
        self.num_features = dims[-1]
        pooling = {"pool_type": global_pool, "drop_rate": drop_rate}
        if head_norm_first:
            self.norm_pre = _NORM_2D(self.num_features)
            self.head = ClassifierHead(self.num_features, num_classes, **pooling)
        else:
            self.norm_pre = nn.Identity()
            self.head = NormMlpClassifierHead(self.num_features, num_classes, norm_layer=_NORM_2D, **pooling)
        self.head_hidden_size = self.head.num_features
        init_truncated(self, (nn.Conv2D, nn.Linear), head_scale=head_init_scale, draw=trunc_normal_tf_)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm_pre", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_RENAMED = (  # of the paper's checkpoints
    (r"downsample_layers\.0\.", "stem."),
    (r"stages\.([0-9]+)\.([0-9]+)", r"stages.\1.blocks.\2"),
    (r"downsample_layers\.([0-9]+)\.([0-9]+)", r"stages.\1.downsample.\2"),
    (r"dwconv", "conv_dw"),
    (r"pwconv", "mlp.fc"),
    (r"head\.", "head.fc."),
    (r"^norm\.", "head.norm."),
)


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the paper's checkpoints under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `EdgeNeXt` that takes them.
    """
    if "head.norm.weight" in state_dict or "norm_pre.weight" in state_dict:
        return state_dict
    shapes, renamed = dict(torch_names(model)), {}
    for name, value in state_dict.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        matrix = value.ndim == 2 and name in shapes and not name.startswith("head.")
        renamed[name] = value.reshape(shapes[name]) if matrix else value
    return renamed


VARIANTS = {
    "edgenext_xx_small": {"depths": (2, 2, 6, 2), "dims": (24, 48, 88, 168), "heads": (4, 4, 4, 4)},
    "edgenext_x_small": {"depths": (3, 3, 9, 3), "dims": (32, 64, 100, 192), "heads": (4, 4, 4, 4)},
    "edgenext_small": {"depths": (3, 3, 9, 3), "dims": (48, 96, 160, 304)},
    "edgenext_base": {"depths": (3, 3, 9, 3), "dims": (80, 160, 288, 584)},
    "edgenext_small_rw": {
        "depths": (3, 3, 9, 3),
        "dims": (48, 96, 192, 384),
        "downsample_block": True,
        "conv_bias": False,
        "stem_type": "overlap",
    },
}


register_variants(VARIANTS, EdgeNeXt)
