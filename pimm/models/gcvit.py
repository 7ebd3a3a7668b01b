"""Global context vision transformers (https://arxiv.org/abs/2206.09959), with timm's names, arguments and numbers."""

from __future__ import annotations

import math
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
    LayerScale,
    Linear,
    Mlp,
    RelPosBias,
    SEModule,
    calculate_drop_path_rates,
    get_act_layer,
    get_norm_layer,
    to_pair,
)
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.recompute import checkpoint
from pimm.models.registry import register_variants
from pimm.models.swin_windows import stage_window_sizes


class MbConvBlock(nn.Layer):
    """Depthwise convolution, squeeze and excitation, and a convolution of one pixel, beside a shortcut.

    Args:
        dim: channels.
        act_layer: class of the activations.
    """

    def __init__(self, dim, act_layer=nn.GELU):
        super().__init__()
        self.conv_dw = Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.act = act_layer()
        self.se = SEModule(dim, rd_ratio=0.25, bias=False, act_layer=act_layer)
        self.conv_pw = Conv2d(dim, dim, 1, bias=False)

    def forward(self, x):  # [N, dim, H, W]
        return x + self.conv_pw(self.se(self.act(self.conv_dw(x))))


class Downsample2d(nn.Layer):
    """A block and a convolution that halves the image, between two normalisations.

    Args:
        dim: channels of the input.
        dim_out: channels of the output; None for ``dim``.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(self, dim, dim_out=None, act_layer=nn.GELU, norm_layer=LayerNorm2d):
        super().__init__()
        dim_out = dim_out or dim
        self.norm1 = norm_layer(dim)
        self.conv_block = MbConvBlock(dim, act_layer)
        self.reduction = Conv2d(dim, dim_out, 3, stride=2, padding=1, bias=False)
        self.norm2 = norm_layer(dim_out)

    def forward(self, x):  # [N, dim, H, W]
        return self.norm2(self.reduction(self.conv_block(self.norm1(x))))


class FeatureBlock(nn.Layer):
    """Blocks, each with a pooling that halves the image, which make global queries; one block for 0 levels.

    Args:
        dim: channels.
        levels: how often the image is halved.
        act_layer: class of the activations.
    """

    def __init__(self, dim, levels, act_layer=nn.GELU):
        super().__init__()
        layers = []
        for level in range(1, max(1, levels) + 1):
            layers.append((f"conv{level}", MbConvBlock(dim, act_layer)))
            if levels:
                layers.append((f"pool{level}", nn.MaxPool2D(3, stride=2, padding=1)))
        self.blocks = nn.Sequential(*layers)

    def forward(self, x):  # [N, dim, H, W]
        return self.blocks(x)


class Stem(nn.Layer):
    """A convolution that halves the image, and a `Downsample2d`.

    Args:
        in_chs: channels of the images.
        out_chs: channels of the output.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(self, in_chs=3, out_chs=96, act_layer=nn.GELU, norm_layer=LayerNorm2d):
        super().__init__()
        self.conv1 = Conv2d(in_chs, out_chs, 3, stride=2, padding=1)
        self.down = Downsample2d(out_chs, act_layer=act_layer, norm_layer=norm_layer)

    def forward(self, x):  # [N, in_chs, H, W]
        return self.down(self.conv1(x))


class WindowAttentionGlobal(nn.Layer):
    """Attention inside of windows, with queries of the window's own or with global queries.

    Args:
        dim: channels.
        num_heads: heads.
        window_size: size of the windows.
        use_global: whether the queries are global.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, window_size, use_global=True, qkv_bias=True, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads, self.head_dim, self.use_global = num_heads, dim // num_heads, use_global
        self.rel_pos = RelPosBias(window_size=window_size, num_heads=num_heads)
        self.qkv = Linear(dim, dim * (2 if use_global else 3), bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def _heads(self, x, area, parts):
        x = x.reshape([-1, area, parts, self.num_heads, self.head_dim])
        return x.transpose([2, 0, 3, 1, 4]).unbind(0)  # of each part [N * windows, heads, area, head_dim]

    def forward(self, x, q_global, windows):
        """Return the attention in windows.

        Args:
            x: the windows, [N * windows, area, dim].
            q_global: global queries, [N, height, width, dim], as large as a window.
            windows: the number of windows of an image.
        """
        area = x.shape[1]
        if self.use_global:
            k, v = self._heads(self.qkv(x), area, 2)
            (q,) = self._heads(q_global, area, 1)
            q = q.repeat_interleave(windows, axis=0)
        else:
            q, k, v = self._heads(self.qkv(x), area, 3)
        attention = self.rel_pos(paddle.matmul(q * self.head_dim**-0.5, k, transpose_y=True))
        attention = self.attn_drop(F.softmax(attention, axis=-1))
        x = paddle.matmul(attention, v).transpose([0, 2, 1, 3]).flatten(2)
        return self.proj_drop(self.proj(x))


class GlobalContextVitBlock(nn.Layer):
    """Attention in windows of feature maps [N, H, W, C], and linear layers.

    Args:
        dim: channels.
        num_heads, window_size, use_global, qkv_bias, attn_drop, proj_drop: as in `WindowAttentionGlobal`.
        mlp_ratio: hidden channels for each channel.
        layer_scale: initial value of the layer scales; None for no layer scale.
        drop_path: stochastic depth.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        num_heads,
        window_size,
        mlp_ratio=4.0,
        use_global=True,
        qkv_bias=True,
        layer_scale=None,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        act_layer=nn.GELU,
        norm_layer=nn.LayerNorm,
    ):
        super().__init__()
        self.window_size = window_size
        scale = nn.Identity if layer_scale is None else partial(LayerScale, init_values=layer_scale)
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttentionGlobal(dim, num_heads, window_size, use_global, qkv_bias, attn_drop, proj_drop)
        self.ls1 = scale(dim)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = scale(dim)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def _attend(self, x, q_global):
        windows, grid = split_windows(x, self.window_size)
        windows = self.attn(windows.flatten(1, 2), q_global, math.prod(grid))
        return join_windows(windows.reshape([-1, *self.window_size, x.shape[3]]), grid)

    def forward(self, x, q_global):
        x = x + self.drop_path1(self.ls1(self._attend(self.norm1(x), q_global)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class GlobalContextVitStage(nn.Layer):
    """Downsampling, a block that makes global queries, and blocks of which every second uses them.

    Args:
        dim: channels of the output.
        depth: number of blocks.
        downsample: whether the image is halved first; the input has half as many channels then.
        feat_size: size of the feature maps.
        window_size: size of the windows.
        stage_norm: whether a normalisation follows the blocks.
        drop_path: stochastic depth of each block.
        norm_layer: class of the normalisation of downsampling.
        norm_layer_cl: class of the blocks' normalisation.
        kwargs: further arguments of the blocks.

    Raises:
        ConfigError: for feature maps that cannot be cut into windows.
    """

    def __init__(
        self, dim, depth, downsample, feat_size, window_size, stage_norm, drop_path, norm_layer, norm_layer_cl, **kwargs
    ):
        super().__init__()
        self.grad_checkpointing = False
        if any(side % window for side, window in zip(feat_size, window_size)) or not all(window_size):
            raise ConfigError(f"feature maps of {feat_size} pixels cannot be cut into windows of {window_size}")
        self.downsample = Downsample2d(dim // 2, dim, norm_layer=norm_layer) if downsample else nn.Identity()
        self.global_block = FeatureBlock(dim, int(math.log2(min(feat_size) / min(window_size))))
        kwargs = {**kwargs, "window_size": window_size, "norm_layer": norm_layer_cl}
        self.blocks = nn.LayerList(
            GlobalContextVitBlock(dim, use_global=index % 2 == 1, drop_path=drop_path[index], **kwargs)
            for index in range(depth)
        )
        self.norm = norm_layer_cl(dim) if stage_norm else nn.Identity()

    def forward(self, x):  # [N, channels, H, W]
        x = self.downsample(x)
        q_global = self.global_block(x).transpose([0, 2, 3, 1])
        x = x.transpose([0, 2, 3, 1])
        for block in self.blocks:
            x = checkpoint(block, x, q_global) if self.grad_checkpointing else block(x, q_global)
        return self.norm(x).transpose([0, 3, 1, 2])


class GlobalContextVit(StagedModel):
    """Classify images with stages of attention in windows, with global queries in every second block.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        img_size: size of the images.
        window_ratio: pixels of an image for each pixel of a window, a number or one for each stage.
        window_size: in place of ``window_ratio``, size of the windows, one or one for each stage.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths, num_heads: number of blocks and heads of each stage.
        mlp_ratio: hidden channels for each channel.
        qkv_bias: whether queries, keys and values have a bias.
        layer_scale: initial value of the layer scales; None for no layer scale.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after linear layers.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        act_layer: name of the activations.
        norm_layer, norm_layer_cl: names of the normalisation [N, C, H, W] and [N, H, W, C].
        norm_eps: number that the normalisation adds to the variance.
    """

    norm_name = ""

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        img_size=224,
        window_ratio=(32, 32, 16, 32),
        window_size=None,
        embed_dim=64,
        depths=(3, 4, 19, 5),
        num_heads=(2, 4, 8, 16),
        mlp_ratio=3.0,
        qkv_bias=True,
        layer_scale=None,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        act_layer="gelu",
        norm_layer="layernorm2d",
        norm_layer_cl="layernorm",
        norm_eps=1e-5,
    ):
        super().__init__()
        act_layer, count, img_size = get_act_layer(act_layer), len(depths), to_pair(img_size)
        norm_layer, norm_layer_cl = (
            partial(get_norm_layer(name), eps=norm_eps) for name in (norm_layer, norm_layer_cl)
        )
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.num_features = embed_dim << (count - 1)
        if window_size is None:
            ratios = window_ratio if isinstance(window_ratio, (tuple, list)) else (window_ratio,) * count
            window_size = [tuple(side // ratio for side in img_size) for ratio in ratios]
        window_size = stage_window_sizes(window_size, count)
        self.stem = Stem(in_chans, embed_dim, act_layer, norm_layer)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        self.feature_info, stages = [], []
        for i, depth in enumerate(depths):
            stage = GlobalContextVitStage(
                embed_dim << i,
                depth,
                i > 0,
                tuple(side // 4 >> i for side in img_size),
                window_size[i],
                i == count - 1,
                rates[i],
                norm_layer,
                norm_layer_cl,
                num_heads=num_heads[i],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                layer_scale=layer_scale,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                act_layer=act_layer,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, embed_dim << i, 4 << i))
        self.stages = nn.Sequential(*stages)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {name for name, _ in self.named_parameters() if "relative_position_bias_table" in name}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by stage."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}


_SMALL = {"depths": (3, 4, 19, 5), "mlp_ratio": 2, "layer_scale": 1e-5}

VARIANTS = {
    "gcvit_xxtiny": {"depths": (2, 2, 6, 2)},
    "gcvit_xtiny": {"depths": (3, 4, 6, 5)},
    "gcvit_tiny": {"depths": (3, 4, 19, 5)},
    "gcvit_small": {**_SMALL, "num_heads": (3, 6, 12, 24), "embed_dim": 96},
    "gcvit_base": {**_SMALL, "num_heads": (4, 8, 16, 32), "embed_dim": 128},
}


register_variants(VARIANTS, GlobalContextVit)
