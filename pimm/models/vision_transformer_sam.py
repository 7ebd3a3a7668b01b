"""The image encoder of Segment Anything (https://arxiv.org/abs/2304.02643): a vision transformer with windows.

Attention is among the patches of a window but in a few blocks, and biases are of rows and of columns
(https://arxiv.org/abs/2203.16527).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Attention,
    ClassifierHead,
    Conv2d,
    LayerNorm,
    LayerNorm2d,
    PatchDropout,
    PatchEmbed,
    attend,
    calculate_drop_path_rates,
    resample_abs_pos_embed_nhwc,
    zeros_,
)
from pimm.layers.resample import resize_matrix
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_take_indices
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features
from pimm.models.vision_transformer_blocks import Block

__all__ = ["VisionTransformerSAM", "checkpoint_filter_fn"]


def relative_positions(size, table):
    """Return the vectors of the distance of each pair of places in a line, [size, size, C].

    Args:
        size: number of places.
        table: vectors of all distances, [2 * places - 1, C], resized if it is of another number of places.
    """
    count = 2 * size - 1
    if table.shape[0] != count:
        matrix = resize_matrix(table.shape[0], count, "bilinear", False)
        table = paddle.matmul(paddle.to_tensor(matrix.astype("float32")).astype(table.dtype), table)
    index = np.arange(size)[:, None] - np.arange(size)[None] + size - 1
    return paddle.index_select(table, paddle.to_tensor(index.reshape(-1)), axis=0).reshape([size, size, -1])


class SamAttention(Attention):
    """Attention of the places of feature maps [N, H, W, dim], with biases of rows and of columns.

    Args:
        use_rel_pos: whether there are biases.
        input_size: height and width of the feature maps; the other arguments are those of `Attention`.
    """

    def __init__(self, dim, num_heads, use_rel_pos=False, input_size=None, **kwargs):
        super().__init__(dim, num_heads, **kwargs)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            zero = nn.initializer.Constant(0.0)
            height, width = (2 * side - 1 for side in input_size)
            self.rel_pos_h = self.create_parameter([height, self.head_dim], default_initializer=zero)
            self.rel_pos_w = self.create_parameter([width, self.head_dim], default_initializer=zero)

    def bias(self, q, height, width):
        """Return the bias [N, heads, H * W, H * W] of queries [N, heads, H * W, head_dim]."""
        heads, places = q.shape[1], height * width
        q = q.reshape([-1, height, width, self.head_dim])
        # Paddle's products have gradients only where both factors have as many axes
        rows = relative_positions(height, self.rel_pos_h).transpose([0, 2, 1]).unsqueeze(0)  # [1, H, head_dim, H]
        columns = relative_positions(width, self.rel_pos_w).transpose([0, 2, 1]).unsqueeze(0)
        of_rows = paddle.matmul(q, rows).unsqueeze(-1)  # [N * heads, H, W, H, 1]
        of_columns = paddle.matmul(q.transpose([0, 2, 1, 3]), columns).transpose([0, 2, 1, 3]).unsqueeze(-2)
        return (of_rows + of_columns).reshape([-1, heads, places, places])

    def forward(self, x, attn_mask=None, is_causal=False):
        height, width = x.shape[1:3]
        count = height * width
        qkv = self.qkv(x).reshape([-1, count, 3, self.num_heads, self.head_dim])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4])
        q, k = self.q_norm(q), self.k_norm(k)
        bias = self.bias(q, height, width) if self.use_rel_pos else None
        found = attend(q, k, v, None, bias, self.attn_drop.p if self.training else 0.0)
        found = found.transpose([0, 2, 1, 3]).reshape([-1, height, width, self.attn_dim])
        return self.proj_drop(self.proj(found))


class SamBlock(Block):
    """`Block` of feature maps [N, H, W, dim].

    Args:
        window_size: rows, and columns, of a window of attention; 0 for attention among all places.
        input_size: height and width of the feature maps.
        use_rel_pos: as in `SamAttention`; the other arguments are those of `Block`.
    """

    def __init__(self, dim, num_heads, window_size=0, input_size=None, use_rel_pos=False, **kwargs):
        size = (window_size, window_size) if window_size else input_size

        def attention(*args, **settings):
            return SamAttention(*args, use_rel_pos=use_rel_pos, input_size=size, **settings)

        super().__init__(dim, num_heads, attn_layer=attention, **kwargs)
        self.window_size = window_size

    def attend(self, x):
        """Return the attention of normalised feature maps, in windows if the block has any."""
        if not self.window_size:
            return self.attn(x)
        height, width = x.shape[1:3]
        windows, grid = split_windows(x, self.window_size)
        return join_windows(self.attn(windows), grid)[:, :height, :width]

    def forward(self, x):
        x = x + self.drop_path1(self.ls1(self.attend(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class VisionTransformerSAM(TokenModel):
    """Patches in rows and columns, transformer blocks with windows, convolutions (the neck), pooling and a classifier.

    Args:
        img_size, patch_size, in_chans, num_classes, embed_dim, depth, num_heads, qkv_bias: as in `VisionTransformer`.
        pre_norm: whether patches are normalised before the blocks.
        drop_rate, pos_drop_rate, patch_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate: as in
            `VisionTransformer`.
        norm_layer: class of the normalisations; None for layer normalisation with an epsilon of 1e-5.
        use_abs_pos: whether there are position embeddings.
        use_rel_pos: whether attention has relative position biases.
        window_size: rows, and columns, of a window.
        global_attn_indexes: numbers of the blocks without windows.
        neck_chans: channels after the neck; None for a normalisation in its place.
        global_pool: pooling, as in `pimm.layers.ClassifierHead`.
        kwargs: further arguments of the blocks, as those of `Block`.
    """

    def __init__(
        self,
        img_size=1024,
        patch_size=16,
        in_chans=3,
        num_classes=768,
        embed_dim=768,
        depth=12,
        num_heads=12,
        qkv_bias=True,
        pre_norm=False,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        patch_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=None,
        use_abs_pos=True,
        use_rel_pos=False,
        window_size=14,
        global_attn_indexes=(),
        neck_chans=256,
        global_pool="avg",
        **kwargs,
    ):
        super().__init__()
        norm_layer = norm_layer or partial(LayerNorm, eps=1e-5)
        self.num_classes, self.in_chans, self.embed_dim, self.global_pool = (
            num_classes,
            in_chans,
            embed_dim,
            global_pool,
        )
        patches = {"output_fmt": "NHWC", "strict_img_size": False, "bias": not pre_norm}
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim, **patches)
        grid = self.patch_embed.grid_size
        self.pos_embed = self.create_parameter([1, *grid, embed_dim]) if use_abs_pos else None
        if use_abs_pos:
            zeros_(self.pos_embed)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, 0)
        self.norm_pre = norm_layer(embed_dim) if pre_norm else nn.Identity()
        kwargs.update(qkv_bias=qkv_bias, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, norm_layer=norm_layer)
        kwargs.update(use_rel_pos=use_rel_pos, input_size=grid)
        self.blocks = nn.Sequential()
        for number, rate in enumerate(calculate_drop_path_rates(drop_path_rate, depth)):
            window = 0 if number in global_attn_indexes else window_size
            self.blocks.append(SamBlock(embed_dim, num_heads, window_size=window, drop_path=rate, **kwargs))
        self.feature_info = block_features(depth, embed_dim, self.patch_embed.feat_ratio())
        self.num_features = neck_chans or embed_dim
        self.neck = _neck(embed_dim, neck_chans) if neck_chans else LayerNorm2d(embed_dim)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features

    def embed(self, x):
        """Return patches of images, [N, H, W, embed_dim], and no further arguments of blocks."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resample_abs_pos_embed_nhwc(self.pos_embed, x.shape[1:3])
        return self.norm_pre(self.patch_drop(self.pos_drop(x))), ()

    def norm(self, x):
        """Return the neck's output [N, num_features, H, W] for patches [N, H, W, embed_dim]."""
        return self.neck(x.transpose([0, 3, 1, 2]))

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of the outputs of blocks, in forward order.

        Arguments and errors are as in `TokenModel.forward_intermediates`; the neck is the last normalisation, and
        ``output_fmt`` must be ``NCHW``.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is NCHW, for this net")
        taken, last = feature_take_indices(len(self.blocks), indices)
        x, found = self.run_blocks(*self.embed(x), last + 1 if stop_early else None, set(taken))
        found = [self.norm(each) if norm else each.transpose([0, 3, 1, 2]) for each in found]
        return found if intermediates_only else (self.norm(x), found)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the blocks after those whose outputs are wanted, and return the numbers of these.

        Args:
            indices: which blocks, as in `forward_intermediates`.
            prune_norm: whether to take out the neck.
            prune_head: whether to take out pooling and classifier. They go too when channels change.

        Raises:
            ConfigError: if there is no such block.
        """
        taken, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = nn.Sequential(*list(self.blocks)[: last + 1])
        changed = prune_norm and self.num_features != self.embed_dim
        if prune_norm:
            self.neck, self.num_features = nn.Identity(), self.embed_dim
        if prune_head or changed:
            self.reset_classifier(0, "")
        return taken

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {"pos_embed", "dist_token"}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block; ``coarse`` has no effect."""
        return {"stem": r"^pos_embed|patch_embed", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier; arguments and errors are those of `ClassifierHead.reset`."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, in_features=self.num_features)
        self.head_hidden_size = self.head.num_features
        self.global_pool = self.global_pool if global_pool is None else global_pool


def _neck(channels, neck_chans):
    """Return two convolutions, each with a normalisation."""
    return nn.Sequential(
        Conv2d(channels, neck_chans, 1, bias=False),
        LayerNorm2d(neck_chans),
        Conv2d(neck_chans, neck_chans, 3, padding=1, bias=False),
        LayerNorm2d(neck_chans),
    )


_ENCODER = "image_encoder."


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of a checkpoint; of those of a whole Segment Anything, the image encoder's.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the net that takes them.
    """
    if f"{_ENCODER}patch_embed.proj.weight" not in state_dict:
        return state_dict
    names = {name: name[len(_ENCODER) :] for name in state_dict if name.startswith(_ENCODER)}
    return {ours.replace("mlp.lin", "mlp.fc"): state_dict[name] for name, ours in names.items()}


def _size(embed_dim, depth, num_heads, **arguments):
    """Return the arguments of a net in which the last block of each quarter of the blocks has no windows."""
    step = depth // 4
    every = list(range(step - 1, depth, step))
    size = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "global_attn_indexes": every}
    return {**size, "use_rel_pos": True, **arguments}


VARIANTS = {
    "samvit_base_patch16": _size(768, 12, 12),
    "samvit_large_patch16": _size(1024, 24, 16),
    "samvit_huge_patch16": _size(1280, 32, 16),
    "samvit_base_patch16_224": _size(768, 12, 12, use_abs_pos=False, img_size=224, neck_chans=None),
}


register_variants(VARIANTS, VisionTransformerSAM)
