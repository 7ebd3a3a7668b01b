"""Swin transformers V2 (https://arxiv.org/abs/2111.09883), with the names, arguments and numbers of timm."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import Linear, gen_relative_position_index, get_act_layer, to_pair, zeros_
from pimm.models.initial_values import init_truncated
from pimm.models.registry import register_variants
from pimm.models.swin_base import SIZES, WindowTransformer, filter_checkpoint
from pimm.models.swin_windows import WindowBlock, cosine_attention, patch_merging_input


def relative_coords_table(window_size, pretrained_window_size):
    """Return all relative positions in a window, on a logarithmic scale, [2 height - 1, 2 width - 1, 2].

    Args:
        window_size: size of the windows.
        pretrained_window_size: size of the windows that the net was trained with, whose largest distance is 1; zeros
            for ``window_size``.
    """
    reference = pretrained_window_size if pretrained_window_size[0] > 0 else window_size
    axes = [
        np.arange(1 - side, side, dtype=np.float32) / np.float32(max(largest - 1, 1))
        for side, largest in zip(window_size, reference)
    ]
    table = 8 * np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return (np.sign(table) * np.log2(np.abs(table) + 1) / np.float32(math.log2(8))).astype(np.float32)


class WindowAttention(nn.Layer):
    """Cosine attention inside of windows, with a bias that a small net computes from each relative position.

    Args:
        dim: channels.
        window_size: size of the windows.
        num_heads: heads.
        qkv_bias: whether queries and values have a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
        pretrained_window_size: size of the windows that the net was trained with; zeros for ``window_size``.
    """

    def __init__(
        self,
        dim,
        window_size,
        num_heads,
        qkv_bias=True,
        attn_drop=0.0,
        proj_drop=0.0,
        pretrained_window_size=(0, 0),
    ):
        super().__init__()
        constant = nn.initializer.Constant
        self.window_size, self.pretrained_window_size = window_size, pretrained_window_size
        self.num_heads = num_heads
        self.logit_scale = self.create_parameter([num_heads, 1, 1], default_initializer=constant(math.log(10)))
        self.cpb_mlp = nn.Sequential(Linear(2, 512), nn.ReLU(), Linear(512, num_heads, bias=False))
        self.qkv = Linear(dim, dim * 3, bias=False)
        self.q_bias = self.v_bias = None
        if qkv_bias:
            self.q_bias = self.create_parameter([dim], default_initializer=constant(0.0))
            self.v_bias = self.create_parameter([dim], default_initializer=constant(0.0))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self._create_tables()

    def _create_tables(self):
        table = relative_coords_table(self.window_size, self.pretrained_window_size)
        index = gen_relative_position_index(self.window_size).flatten()
        self.register_buffer("relative_coords_table", paddle.to_tensor(table), persistable=False)
        self.register_buffer("relative_position_index", paddle.to_tensor(index), persistable=False)

    def set_window_size(self, window_size):
        """Make the attention take windows of another size."""
        if window_size != self.window_size:
            self.window_size = window_size
            self._create_tables()

    def _bias(self):
        area = math.prod(self.window_size)
        table = self.cpb_mlp(self.relative_coords_table).reshape([-1, self.num_heads])
        bias = table[self.relative_position_index].reshape([area, area, self.num_heads])
        return 16 * F.sigmoid(bias.transpose([2, 0, 1]))  # [heads, area, area]

    def forward(self, x, mask=None):  # [N * windows, area, dim], [windows, area, area]
        _, area, dim = x.shape
        qkv = self.qkv(x)
        if self.q_bias is not None:
            qkv = qkv + paddle.concat([self.q_bias, paddle.zeros_like(self.v_bias), self.v_bias])
        qkv = qkv.reshape([-1, area, 3, self.num_heads, dim // self.num_heads])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        x = cosine_attention(q, k, v, self.logit_scale, self._bias(), mask, self.attn_drop)
        return self.proj_drop(self.proj(x))


class SwinTransformerV2Block(WindowBlock):
    """A `WindowBlock` with normalisation after the attention and after the fully connected layers.

    Args:
        dim: channels.
        input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path: as in `WindowBlock`.
        num_heads, qkv_bias, attn_drop, proj_drop, pretrained_window_size: as in `WindowAttention`.
        mlp_ratio: hidden channels for each channel.
        act_layer: name or class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        input_resolution,
        num_heads,
        window_size=7,
        shift_size=0,
        always_partition=False,
        dynamic_mask=False,
        mlp_ratio=4.0,
        qkv_bias=True,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        act_layer="gelu",
        norm_layer=nn.LayerNorm,
        pretrained_window_size=0,
    ):
        super().__init__(input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path)
        trained = to_pair(pretrained_window_size)
        self.attn = WindowAttention(dim, self.window_size, num_heads, qkv_bias, attn_drop, proj_drop, trained)
        self.norm1 = norm_layer(dim)
        self._create_mlp(dim, mlp_ratio, get_act_layer(act_layer), proj_drop)
        self.norm2 = norm_layer(dim)

    def forward(self, x):  # [N, H, W, dim]
        x = x + self.drop_path1(self.norm1(self._attend(x)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class PatchMerging(nn.Layer):
    """Four neighbouring pixels become one, by a linear layer and a normalisation.

    Args:
        dim: channels of the input.
        out_dim: channels of the output; None for twice as many.
        norm_layer: class of the normalisation.
    """

    def __init__(self, dim, out_dim=None, norm_layer=nn.LayerNorm):
        super().__init__()
        self.reduction = Linear(4 * dim, out_dim or 2 * dim, bias=False)
        self.norm = norm_layer(out_dim or 2 * dim)

    def forward(self, x):  # [N, H, W, dim]
        return self.norm(self.reduction(patch_merging_input(x)))  # [N, H / 2, W / 2, out_dim]


class SwinTransformerV2(WindowTransformer):
    """Classify images with stages of cosine attention inside of windows.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        embed_dim: channels of the first stage; they double from stage to stage. Or a list for all stages.
        depths: number of blocks of each stage.
        num_heads: heads of each stage.
        window_size: size of the windows, one or one for each stage.
        always_partition: whether windows stay as large as they are in feature maps that are smaller.
        strict_img_size: whether all images must be of the size ``img_size``.
        dynamic_img_size: the same as ``strict_img_size=False``.
        mlp_ratio: hidden channels for each channel.
        qkv_bias: whether queries and values have a bias.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after each linear layer of blocks.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        act_layer: name or class of the activations.
        norm_layer: class of the normalisation.
        pretrained_window_sizes: size of the windows that the net was trained with, for each stage; 0 for
            ``window_size``.
    """

    def __init__(
        self,
        img_size=224,
        patch_size=4,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        always_partition=False,
        strict_img_size=True,
        dynamic_img_size=False,
        mlp_ratio=4.0,
        qkv_bias=True,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.1,
        act_layer="gelu",
        norm_layer=nn.LayerNorm,
        pretrained_window_sizes=(0, 0, 0, 0),
    ):
        super().__init__()
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
            block=SwinTransformerV2Block,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            always_partition=always_partition,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop_rate,
            attn_drop=attn_drop_rate,
            act_layer=act_layer,
            pretrained_window_size=pretrained_window_sizes,
        )
        init_truncated(self)
        for layer in self.sublayers():
            if isinstance(layer, SwinTransformerV2Block):  # which begins as the identity
                for norm in (layer.norm1, layer.norm2):
                    zeros_(norm.weight)
                    zeros_(norm.bias)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {name for name, _ in self.named_parameters() if "cpb_mlp" in name or "logit_scale" in name}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        return {**super().group_matcher(coarse), "stem": r"^absolute_pos_embed|patch_embed"}


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of a checkpoint under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `SwinTransformerV2` that takes them.
    """
    return filter_checkpoint(state_dict, model)


_FROM_12 = {"pretrained_window_sizes": (12, 12, 12, 6)}

VARIANTS = {
    "swinv2_tiny_window16_256": {"window_size": 16, **SIZES["tiny"]},
    "swinv2_tiny_window8_256": {"window_size": 8, **SIZES["tiny"]},
    "swinv2_small_window16_256": {"window_size": 16, **SIZES["small"]},
    "swinv2_small_window8_256": {"window_size": 8, **SIZES["small"]},
    "swinv2_base_window16_256": {"window_size": 16, **SIZES["base"]},
    "swinv2_base_window8_256": {"window_size": 8, **SIZES["base"]},
    "swinv2_base_window12_192": {"window_size": 12, **SIZES["base"]},
    "swinv2_base_window12to16_192to256": {"window_size": 16, **SIZES["base"], **_FROM_12},
    "swinv2_base_window12to24_192to384": {"window_size": 24, **SIZES["base"], **_FROM_12},
    "swinv2_large_window12_192": {"window_size": 12, **SIZES["large"]},
    "swinv2_large_window12to16_192to256": {"window_size": 16, **SIZES["large"], **_FROM_12},
    "swinv2_large_window12to24_192to384": {"window_size": 24, **SIZES["large"], **_FROM_12},
}


register_variants(VARIANTS, SwinTransformerV2)
