"""Swin transformers (https://arxiv.org/abs/2103.14030), and those that a search found (https://arxiv.org/abs/2111.14725).

The names, arguments and numbers are timm's.
"""

from __future__ import annotations

import math

import paddle
from paddle import nn

from pimm.layers import (
    Linear,
    PatchEmbed,
    gen_relative_position_index,
    num_relative_distances,
    resize_bias_table,
    resize_rel_pos_bias_table,
    trunc_normal_,
)
from pimm.models.registry import register_variants
from pimm.models.swin_base import SIZES, WindowTransformer, filter_checkpoint
from pimm.models.swin_windows import WindowBlock, add_bias, patch_merging_input
from pimm.models.vision_transformer_init import init_weights_vit


class WindowAttention(nn.Layer):
    """Attention inside of windows, with a learned bias for each relative position.

    Args:
        dim: channels.
        num_heads: heads.
        head_dim: channels of a head; None for ``dim / num_heads``.
        window_size: size of the windows.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, head_dim=None, window_size=(7, 7), qkv_bias=True, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        head_dim = head_dim or dim // num_heads
        self.num_heads, self.scale = num_heads, head_dim**-0.5
        self.relative_position_bias_table = self.create_parameter([num_relative_distances(window_size), num_heads])
        self.qkv = Linear(dim, head_dim * num_heads * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(head_dim * num_heads, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self._set_index(window_size)

    def _set_index(self, window_size):
        self.window_size = window_size
        index = paddle.to_tensor(gen_relative_position_index(window_size).flatten())
        self.register_buffer("relative_position_index", index, persistable=False)

    def set_window_size(self, window_size):
        """Make the attention take windows of another size; the bias is resampled."""
        if window_size != self.window_size:
            resize_bias_table(self, window_size, [num_relative_distances(window_size), self.num_heads])
            self._set_index(window_size)

    def _bias(self):
        area = math.prod(self.window_size)
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.reshape([area, area, self.num_heads]).transpose([2, 0, 1])  # [heads, area, area]

    def forward(self, x, mask=None):  # [N * windows, area, dim], [windows, area, area]
        area = x.shape[1]
        qkv = self.qkv(x).reshape([-1, area, 3, self.num_heads, self.qkv.out_features // 3 // self.num_heads])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        attention = paddle.matmul(q * self.scale, k, transpose_y=True)
        attention = add_bias(attention, self._bias(), mask)
        attention = self.attn_drop(nn.functional.softmax(attention, axis=-1))
        x = paddle.matmul(attention, v).transpose([0, 2, 1, 3]).flatten(2)
        return self.proj_drop(self.proj(x))


class SwinTransformerBlock(WindowBlock):
    """A `WindowBlock` with normalisation before the attention and before the fully connected layers.

    Args:
        dim: channels.
        input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path: as in `WindowBlock`.
        num_heads, head_dim, qkv_bias, attn_drop, proj_drop: as in `WindowAttention`.
        mlp_ratio: hidden channels for each channel.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        input_resolution,
        num_heads=4,
        head_dim=None,
        window_size=7,
        shift_size=0,
        always_partition=False,
        dynamic_mask=False,
        mlp_ratio=4.0,
        qkv_bias=True,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        act_layer=nn.GELU,
        norm_layer=nn.LayerNorm,
    ):
        super().__init__(input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path)
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, num_heads, head_dim, self.window_size, qkv_bias, attn_drop, proj_drop)
        self.norm2 = norm_layer(dim)
        self._create_mlp(dim, mlp_ratio, act_layer, proj_drop)

    def forward(self, x):  # [N, H, W, dim]
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class PatchMerging(nn.Layer):
    """Four neighbouring pixels become one, by a normalisation and a linear layer.

    Args:
        dim: channels of the input.
        out_dim: channels of the output; None for twice as many.
        norm_layer: class of the normalisation.
    """

    def __init__(self, dim, out_dim=None, norm_layer=nn.LayerNorm):
        super().__init__()
        self.norm = norm_layer(4 * dim)
        self.reduction = Linear(4 * dim, out_dim or 2 * dim, bias=False)

    def forward(self, x):  # [N, H, W, dim]
        return self.reduction(self.norm(patch_merging_input(x)))  # [N, H / 2, W / 2, out_dim]


class SwinTransformer(WindowTransformer):
    """Classify images with stages of attention inside of windows.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        embed_dim: channels of the first stage; they double from stage to stage. Or a list for all stages.
        depths: number of blocks of each stage.
        num_heads: heads of each stage.
        head_dim: channels of a head, one or one for each stage; None for ``dim / num_heads``.
        window_size: size of the windows, one or one for each stage.
        always_partition: whether windows stay as large as they are in feature maps that are smaller.
        strict_img_size: whether all images must be of the size ``img_size``.
        dynamic_img_size: the same as ``strict_img_size=False``.
        mlp_ratio: hidden channels for each channel, one or one for each stage.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after each linear layer of blocks.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        embed_layer: class of the patch embedding.
        norm_layer: class of the normalisation.
        weight_init: way to draw the initial weights, a mode of `init_weights_vit`.
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
        head_dim=None,
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
        embed_layer=PatchEmbed,
        norm_layer=nn.LayerNorm,
        weight_init="",
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
            embed_layer=embed_layer,
            block=SwinTransformerBlock,
            num_heads=num_heads,
            head_dim=head_dim,
            mlp_ratio=mlp_ratio,
            always_partition=always_partition,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop_rate,
            attn_drop=attn_drop_rate,
        )
        init_weights_vit(self, weight_init)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {name for name, _ in self.named_parameters() if "relative_position_bias_table" in name}


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of a checkpoint under this net's names; the tables of biases are resampled.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `SwinTransformer` that takes them.
    """
    attentions = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, WindowAttention)}

    def resized(name, value):
        layer = attentions.get(name.rpartition(".")[0])
        if layer is None or not name.endswith("relative_position_bias_table"):
            return value
        shape, (height, width) = tuple(layer.relative_position_bias_table.shape), layer.window_size
        if value.shape == shape and height == width:
            return value
        return resize_rel_pos_bias_table(value, layer.window_size, shape)

    return filter_checkpoint(state_dict, model, resized)


VARIANTS = {
    "swin_tiny_patch4_window7_224": {"window_size": 7, **SIZES["tiny"]},
    "swin_small_patch4_window7_224": {"window_size": 7, **SIZES["small"]},
    "swin_base_patch4_window7_224": {"window_size": 7, **SIZES["base"]},
    "swin_base_patch4_window12_384": {"window_size": 12, **SIZES["base"]},
    "swin_large_patch4_window7_224": {"window_size": 7, **SIZES["large"]},
    "swin_large_patch4_window12_384": {"window_size": 12, **SIZES["large"]},
    "swin_s3_tiny_224": {"window_size": (7, 7, 14, 7), **SIZES["tiny"]},
    "swin_s3_small_224": {"window_size": (14, 14, 14, 7), **SIZES["small"]},
    "swin_s3_base_224": {"window_size": (7, 7, 14, 7), **SIZES["tiny"], "depths": (2, 2, 30, 2)},
}


register_variants(VARIANTS, SwinTransformer)
