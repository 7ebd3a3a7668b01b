"""Pyramid vision transformers V2 (https://arxiv.org/abs/2106.13797), with the names, arguments and numbers of timm."""

from __future__ import annotations

import re

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Conv2d, DropPath, LayerNorm, Linear, attend, calculate_drop_path_rates, to_pair
from pimm.models.features import feature_map
from pimm.models.headed import LinearHeadModel
from pimm.models.initial_values import init_convolutions, init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


class MlpWithDepthwiseConv(nn.Layer):
    """Two linear layers with a depthwise convolution between them, of feature maps [N, H, W, C].

    Args:
        in_features: channels.
        hidden_features: channels between the two layers.
        drop: dropout.
        extra_relu: whether an activation comes before the convolution.
    """

    def __init__(self, in_features, hidden_features, drop=0.0, extra_relu=False):
        super().__init__()
        self.fc1 = Linear(in_features, hidden_features)
        self.relu = nn.ReLU() if extra_relu else nn.Identity()
        self.dwconv = Conv2d(hidden_features, hidden_features, 3, padding=1, groups=hidden_features)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        x = self.relu(self.fc1(x)).transpose([0, 3, 1, 2])
        x = self.act(self.dwconv(x).transpose([0, 2, 3, 1]))
        return self.drop(self.fc2(self.drop(x)))


class Attention(nn.Layer):
    """Attention of all pixels of feature maps [N, H, W, C] to a smaller feature map.

    Args:
        dim: channels.
        num_heads: heads.
        sr_ratio: by how much the sides of the smaller feature map are divided.
        linear_attn: whether the smaller feature map has 7x7 pixels, whatever the image.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.

    Raises:
        ConfigError: if the channels are no multiple of the heads.
    """

    def __init__(self, dim, num_heads=8, sr_ratio=1, linear_attn=False, qkv_bias=True, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads is {num_heads}; must divide the {dim} channels of a stage")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, dim * 2, bias=qkv_bias)
        self.attn_drop = attn_drop
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.pool = self.sr = self.norm = self.act = None
        if linear_attn:
            self.pool, self.sr, self.act = nn.AdaptiveAvgPool2D(7), Conv2d(dim, dim, 1), nn.GELU()
        elif sr_ratio > 1:
            self.sr = Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
        if self.sr is not None:
            self.norm = nn.LayerNorm(dim)

    def _smaller(self, x):
        if self.sr is None:
            return x
        x = x.transpose([0, 3, 1, 2])
        x = self.sr(x if self.pool is None else self.pool(x)).transpose([0, 2, 3, 1])
        x = self.norm(x)
        return x if self.act is None else self.act(x)

    def forward(self, x):
        height, width, dim = x.shape[1:]
        q = self.q(x).reshape([-1, height * width, self.num_heads, self.head_dim]).transpose([0, 2, 1, 3])
        smaller = self.kv(self._smaller(x)).flatten(1, 2)
        kv = smaller.reshape([-1, smaller.shape[1], 2, self.num_heads, self.head_dim])
        k, v = kv.transpose([2, 0, 3, 1, 4]).unbind(0)
        x = attend(q, k, v, dropout=self.attn_drop if self.training else 0.0).transpose([0, 2, 1, 3])
        return self.proj_drop(self.proj(x.reshape([-1, height, width, dim])))


class Block(nn.Layer):
    """Attention and linear layers, each after a normalisation and beside a shortcut.

    Args:
        dim: channels.
        num_heads, sr_ratio, linear_attn, qkv_bias, attn_drop, proj_drop: as in `Attention`.
        mlp_ratio: hidden channels for each channel.
        drop_path: stochastic depth.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        sr_ratio=1,
        linear_attn=False,
        qkv_bias=False,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        norm_layer=LayerNorm,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, sr_ratio, linear_attn, qkv_bias, attn_drop, proj_drop)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = MlpWithDepthwiseConv(dim, int(dim * mlp_ratio), drop=proj_drop, extra_relu=linear_attn)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, H, W, dim]
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class OverlapPatchEmbed(nn.Layer):
    """A convolution whose kernel is larger than its stride, and a normalisation; [N, C, H, W] becomes [N, H, W, C].

    Args:
        patch_size: size of the kernel.
        stride: stride of the convolution.
        in_chans: channels of the input.
        embed_dim: channels of the output.
    """

    def __init__(self, patch_size=7, stride=4, in_chans=3, embed_dim=768):
        super().__init__()
        padding = tuple(side // 2 for side in to_pair(patch_size))
        self.proj = Conv2d(in_chans, embed_dim, patch_size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x):
        return self.norm(self.proj(x).transpose([0, 2, 3, 1]))


class PyramidVisionTransformerStage(nn.Layer):
    """Downsampling, blocks and a normalisation; the output is [N, C, H, W].

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        downsample: whether the image is halved first; if not, the input is [N, H, W, C].
        drop_path: stochastic depth of each block.
        norm_layer: class of the normalisation.
        kwargs: further arguments of the blocks.
    """

    def __init__(self, dim, dim_out, downsample, drop_path, norm_layer=LayerNorm, **kwargs):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = OverlapPatchEmbed(3, 2, dim, dim_out) if downsample else nn.Identity()
        kwargs = {**kwargs, "norm_layer": norm_layer}
        self.blocks = nn.Sequential(*(Block(dim_out, drop_path=rate, **kwargs) for rate in drop_path))
        self.norm = norm_layer(dim_out)

    def forward(self, x):
        x = self.downsample(x)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return self.norm(x).transpose([0, 3, 1, 2])


class PyramidVisionTransformerV2(LinearHeadModel):
    """Classify images with stages of attention to smaller feature maps.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``avg``, or "" for none.
        depths, embed_dims: number of blocks and channels of each stage.
        num_heads, sr_ratios: heads and ``sr_ratio`` of each stage's `Attention`.
        mlp_ratios: hidden channels for each channel, of each stage.
        qkv_bias: whether queries, keys and values have a bias.
        linear: ``linear_attn`` of the `Attention`.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after linear layers.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        norm_layer: class of the normalisation.
    """

    norm_name = ""

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        depths=(3, 4, 6, 3),
        embed_dims=(64, 128, 256, 512),
        num_heads=(1, 2, 4, 8),
        sr_ratios=(8, 4, 2, 1),
        mlp_ratios=(8.0, 8.0, 4.0, 4.0),
        qkv_bias=True,
        linear=False,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
    ):
        super().__init__()
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.patch_embed = OverlapPatchEmbed(7, 4, in_chans, embed_dims[0])
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        self.feature_info, stages = [], []
        for i, dim in enumerate(embed_dims):
            stage = PyramidVisionTransformerStage(
                embed_dims[max(i - 1, 0)],
                dim,
                i > 0,
                rates[i],
                norm_layer,
                num_heads=num_heads[i],
                sr_ratio=sr_ratios[i],
                mlp_ratio=mlp_ratios[i],
                linear_attn=linear,
                qkv_bias=qkv_bias,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dim, 4 << i))
        self.stages = nn.Sequential(*stages)
        self._create_head(num_classes, global_pool, drop_rate)
        init_truncated(self)
        init_convolutions(self, "group_fan_out", zero_biases=True)

    def embed(self, x):
        """Return patches of images, [N, H, W, embed_dim]."""
        return self.patch_embed(x)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by stage."""
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)"}


_RENAMED = (  # of the paper's checkpoints, which number the stages from 1
    (r"^patch_embed1", lambda found: "patch_embed"),
    (r"^patch_embed([2-4])", lambda found: f"stages.{int(found[1]) - 1}.downsample"),
    (r"dwconv\.dwconv", lambda found: "dwconv"),
    (r"block(\d+)\.(\d+)", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}"),
    (r"^norm(\d+)", lambda found: f"stages.{int(found[1]) - 1}.norm"),
)


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the paper's checkpoints under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `PyramidVisionTransformerV2` that takes them.
    """
    if "patch_embed.proj.weight" in state_dict:
        return state_dict
    renamed = {}
    for name, value in state_dict.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _variant(depths, embed_dims=(64, 128, 320, 512), **kwargs):
    return {"depths": depths, "embed_dims": embed_dims, "num_heads": (1, 2, 5, 8), **kwargs}


VARIANTS = {
    "pvt_v2_b0": _variant((2, 2, 2, 2), (32, 64, 160, 256)),
    "pvt_v2_b1": _variant((2, 2, 2, 2)),
    "pvt_v2_b2": _variant((3, 4, 6, 3)),
    "pvt_v2_b3": _variant((3, 4, 18, 3)),
    "pvt_v2_b4": _variant((3, 8, 27, 3)),
    "pvt_v2_b5": _variant((3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
    "pvt_v2_b2_li": _variant((3, 4, 6, 3), linear=True),
}


register_variants(VARIANTS, PyramidVisionTransformerV2)
