"""Swin transformers V2 as Christoph Reich implemented them, with the names, arguments and numbers of timm.

Feature maps are [N, C, H, W] between the stages, and biases of positions are computed from logarithms of distances.
"""

from __future__ import annotations

import math

import numpy as np
import paddle
from paddle import nn

from pimm.layers import Linear, Mlp, gen_relative_log_coords, gen_relative_position_index, to_pair
from pimm.models.registry import register_variants
from pimm.models.swin_base import SIZES, WindowStage, WindowTransformer
from pimm.models.swin_transformer import PatchMerging
from pimm.models.swin_windows import WindowBlock, cosine_attention, window_sizes_by_ratio


class WindowMultiHeadAttention(nn.Layer):
    """Cosine attention inside of windows, with a bias that a small net computes from each relative position.

    Args:
        dim: channels.
        num_heads: heads.
        window_size: size of the windows.
        drop_attn: dropout of the attention.
        drop_proj: dropout of the output.
        meta_hidden_dim: hidden channels of the small net.
    """

    def __init__(self, dim, num_heads, window_size, drop_attn=0.0, drop_proj=0.0, meta_hidden_dim=384):
        super().__init__()
        self.window_size, self.num_heads = window_size, num_heads
        self.qkv = Linear(dim, dim * 3)
        self.attn_drop = nn.Dropout(drop_attn)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop_proj)
        self.meta_mlp = Mlp(2, meta_hidden_dim, num_heads, act_layer=nn.ReLU, drop=(0.125, 0.0))
        self.logit_scale = self.create_parameter([num_heads], default_initializer=nn.initializer.Constant(math.log(10)))
        self._create_tables()

    def _create_tables(self):
        coordinates = gen_relative_log_coords(self.window_size, mode="cr")
        index = gen_relative_position_index(self.window_size).flatten()
        self.register_buffer("relative_coordinates_log", paddle.to_tensor(coordinates), persistable=False)
        self.register_buffer("relative_position_index", paddle.to_tensor(index), persistable=False)

    def set_window_size(self, window_size):
        """Make the attention take windows of another size."""
        if window_size != self.window_size:
            self.window_size = window_size
            self._create_tables()

    def _bias(self):
        area = math.prod(self.window_size)
        table = self.meta_mlp(self.relative_coordinates_log).reshape([-1, self.num_heads])
        bias = table[self.relative_position_index].reshape([area, area, self.num_heads])
        return bias.transpose([2, 0, 1])  # [heads, area, area]

    def forward(self, x, mask=None):  # [N * windows, area, dim], [windows, area, area]
        _, area, dim = x.shape
        qkv = self.qkv(x).reshape([-1, area, 3, self.num_heads, dim // self.num_heads])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        scale = self.logit_scale.reshape([-1, 1, 1])
        return self.proj_drop(self.proj(cosine_attention(q, k, v, scale, self._bias(), mask, self.attn_drop)))


class SwinTransformerV2CrBlock(WindowBlock):
    """A `WindowBlock` with normalisation after the attention and after the fully connected layers.

    Args:
        dim: channels.
        input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path: as in `WindowBlock`.
        num_heads: heads.
        mlp_ratio: hidden channels for each channel.
        init_values: initial weight of the normalisation; None for 1.
        proj_drop: dropout after linear layers.
        drop_attn: dropout of the attention.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        input_resolution,
        num_heads,
        window_size,
        shift_size=0,
        always_partition=False,
        dynamic_mask=False,
        mlp_ratio=4.0,
        init_values=0.0,
        proj_drop=0.0,
        drop_attn=0.0,
        drop_path=0.0,
        norm_layer=nn.LayerNorm,
    ):
        super().__init__(input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path)
        self.attn = WindowMultiHeadAttention(dim, num_heads, self.window_size, drop_attn, proj_drop)
        self.norm1 = norm_layer(dim)
        self._create_mlp(dim, mlp_ratio, nn.GELU, proj_drop)
        self.norm2 = norm_layer(dim)
        self.norm3 = nn.Identity()
        if init_values is not None:
            for norm in (self.norm1, self.norm2):
                nn.initializer.Constant(init_values)(norm.weight)

    def forward(self, x):  # [N, H, W, dim]
        x = x + self.drop_path1(self.norm1(self._attend(x)))
        return self.norm3(x + self.drop_path2(self.norm2(self.mlp(x))))


class SwinTransformerV2CrStage(WindowStage):
    """A `WindowStage` for feature maps [N, C, H, W], with a third normalisation in some blocks.

    Args:
        dim, out_dim, input_resolution, depth, merging, block, window_size, drop_path, norm_layer, kwargs: as in
            `WindowStage`.
        extra_norm_period: after how many blocks a third normalisation follows; 0 for never.
        extra_norm_stage: whether it follows the last block.
    """

    def __init__(self, dim, out_dim, *args, depth, norm_layer, extra_norm_period, extra_norm_stage, **kwargs):
        super().__init__(dim, out_dim, *args, depth=depth, norm_layer=norm_layer, **kwargs)
        for number, block in enumerate(self.blocks, start=1):
            periodic = extra_norm_period and number % extra_norm_period == 0
            if periodic or (extra_norm_stage and number == depth):
                block.norm3 = norm_layer(out_dim)

    def forward(self, x):  # [N, dim, H, W]
        x = WindowStage.forward(self, x.transpose([0, 2, 3, 1]))  # an export cannot resolve super()
        return x.transpose([0, 3, 1, 2])


class SwinTransformerV2Cr(WindowTransformer):
    """Classify images with stages of cosine attention inside of windows.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        window_size: size of the windows, one or one for each stage; None for what ``window_ratio`` gives.
        window_ratio: windows along each side of the grid of patches, a number or one for each stage.
        always_partition: whether windows stay as large as they are in feature maps that are smaller.
        strict_img_size: whether all images must be of the size ``img_size``.
        dynamic_img_size: the same as ``strict_img_size=False``.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: number of blocks of each stage.
        num_heads: heads of each stage.
        mlp_ratio: hidden channels for each channel.
        init_values: initial weight of the normalisation of blocks; None for 1.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after each linear layer of blocks.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        norm_layer: class of the normalisation.
        extra_norm_period, extra_norm_stage: as in `SwinTransformerV2CrStage`; the last stage always has the latter.
        global_pool: pooling, as in `ClassifierHead`.
    """

    stages_name = "stages"
    norm_name = ""
    axes = output_fmt = "NCHW"

    def __init__(
        self,
        img_size=224,
        patch_size=4,
        window_size=None,
        window_ratio=8,
        always_partition=False,
        strict_img_size=True,
        dynamic_img_size=False,
        in_chans=3,
        num_classes=1000,
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        mlp_ratio=4.0,
        init_values=0.0,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=nn.LayerNorm,
        extra_norm_period=0,
        extra_norm_stage=False,
        global_pool="avg",
    ):
        super().__init__()
        if window_size is None:
            grid = [side // patch for side, patch in zip(to_pair(img_size), to_pair(patch_size))]
            window_size = window_sizes_by_ratio(grid, window_ratio, len(depths))
        self._build(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depths=depths,
            window_size=window_size,
            strict_img_size=strict_img_size and not dynamic_img_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            norm_layer=norm_layer,
            merging=PatchMerging,
            stage_class=SwinTransformerV2CrStage,
            block=SwinTransformerV2CrBlock,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            always_partition=always_partition,
            init_values=init_values,
            proj_drop=proj_drop_rate,
            drop_attn=attn_drop_rate,
            extra_norm_period=extra_norm_period,
            extra_norm_stage=[extra_norm_stage] * (len(depths) - 1) + [True],
        )

    def embed(self, x):
        """Return patches of images, [N, embed_dim, H, W]."""
        return self.patch_embed(x).transpose([0, 3, 1, 2])


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the original implementation's checkpoints under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `SwinTransformerV2Cr` that takes them.
    """
    if "head.fc.weight" in state_dict:
        return state_dict
    renamed = {}
    for name, value in state_dict.items():
        if "tau" in name:
            name, value = name.replace("tau", "logit_scale"), np.log(1 / value)
        renamed[name.replace("head.", "head.fc.")] = value
    return renamed


_NS = {"extra_norm_stage": True}
_HUGE = {"embed_dim": 352, "depths": (2, 2, 18, 2), "extra_norm_period": 6}
_GIANT = {"embed_dim": 512, "depths": (2, 2, 42, 2), "num_heads": (16, 32, 64, 128), "extra_norm_period": 6}

VARIANTS = {
    **{f"swinv2_cr_{name}_{size}": sizes for name, sizes in SIZES.items() for size in (384, 224)},
    "swinv2_cr_tiny_ns_224": {**SIZES["tiny"], **_NS},
    "swinv2_cr_small_ns_224": {**SIZES["small"], **_NS},
    "swinv2_cr_small_ns_256": {**SIZES["small"], **_NS},
    "swinv2_cr_base_ns_224": {**SIZES["base"], **_NS},
    "swinv2_cr_huge_384": {**_HUGE, "num_heads": (11, 22, 44, 88)},
    "swinv2_cr_huge_224": {**_HUGE, "num_heads": (8, 16, 32, 64)},
    "swinv2_cr_giant_384": _GIANT,
    "swinv2_cr_giant_224": _GIANT,
}


register_variants(VARIANTS, SwinTransformerV2Cr)
