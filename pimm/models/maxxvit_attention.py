"""The attention of CoAtNet and MaxViT: of all pixels, in windows and in grids; names in the state are timm's."""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Conv2d,
    ConvMlp,
    DropPath,
    LayerScale,
    LayerScale2d,
    Linear,
    Mlp,
    RelPosBias,
    RelPosBiasTf,
    RelPosMlp,
    create_pool2d,
    get_act_layer,
    get_norm_layer,
)
from pimm.layers.windows import join_windows, split_windows


def _rel_pos(cfg, window_size, num_heads):
    """Return the layer of the bias of relative positions, or None."""
    layers = {"mlp": partial(RelPosMlp, hidden_dim=cfg.rel_pos_dim), "bias": RelPosBias, "bias_tf": RelPosBiasTf}
    layer = layers.get(cfg.rel_pos_type)
    return layer(window_size=window_size, num_heads=num_heads) if layer else None


class Attention2d(nn.Layer):
    """Attention of all pixels of feature maps [N, C, H, W].

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        cfg: the `MaxxVitTransformerCfg`.
        feat_size: size of the feature maps.
    """

    def __init__(self, dim, dim_out, cfg, feat_size):
        super().__init__()
        dim_attn = dim_out if cfg.expand_first else dim
        self.num_heads, self.dim_head = dim_attn // cfg.dim_head, cfg.dim_head
        self.qkv = Conv2d(dim, dim_attn * 3, 1, bias=cfg.attn_bias)
        self.rel_pos = _rel_pos(cfg, feat_size, self.num_heads)
        self.attn_drop = nn.Dropout(cfg.attn_drop)
        self.proj = Conv2d(dim_attn, dim_out, 1, bias=cfg.attn_bias)
        self.proj_drop = nn.Dropout(cfg.proj_drop)

    def forward(self, x):
        height, width = x.shape[2:]
        qkv = self.qkv(x).reshape([-1, self.num_heads, self.dim_head * 3, height * width])
        q, k, v = qkv.chunk(3, axis=2)  # [N, heads, dim_head, H * W]
        attention = paddle.matmul(q * self.dim_head**-0.5, k, transpose_x=True)
        attention = attention if self.rel_pos is None else self.rel_pos(attention)
        attention = self.attn_drop(F.softmax(attention, axis=-1))
        x = paddle.matmul(v, attention, transpose_y=True)
        x = x.reshape([-1, self.num_heads * self.dim_head, height, width])
        return self.proj_drop(self.proj(x))


class AttentionCl(nn.Layer):
    """Attention inside of windows [N * windows, height, width, C].

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        cfg: the `MaxxVitTransformerCfg`.
        window_size: size of the windows.

    Raises:
        ConfigError: if the channels are no multiple of those of a head.
    """

    def __init__(self, dim, dim_out, cfg, window_size):
        super().__init__()
        if dim % cfg.dim_head:
            raise ConfigError(f"dim_head is {cfg.dim_head}; must divide the {dim} channels of a stage")
        self.num_heads, self.dim_head, self.head_first = dim // cfg.dim_head, cfg.dim_head, cfg.head_first
        self.qkv = Linear(dim, dim * 3, bias=cfg.attn_bias)
        self.rel_pos = _rel_pos(cfg, window_size, self.num_heads)
        self.attn_drop = nn.Dropout(cfg.attn_drop)
        self.proj = Linear(dim, dim_out, bias=cfg.attn_bias)
        self.proj_drop = nn.Dropout(cfg.proj_drop)

    def forward(self, x):
        height, width, dim = x.shape[1:]
        qkv = self.qkv(x)
        if self.head_first:
            qkv = qkv.reshape([-1, height * width, self.num_heads, 3, self.dim_head]).transpose([3, 0, 2, 1, 4])
        else:
            qkv = qkv.reshape([-1, height * width, 3, self.num_heads, self.dim_head]).transpose([2, 0, 3, 1, 4])
        q, k, v = qkv.unbind(0)  # [N * windows, heads, area, dim_head]
        attention = paddle.matmul(q * self.dim_head**-0.5, k, transpose_y=True)
        attention = attention if self.rel_pos is None else self.rel_pos(attention)
        attention = self.attn_drop(F.softmax(attention, axis=-1))
        x = paddle.matmul(attention, v).transpose([0, 2, 1, 3]).reshape([-1, height, width, dim])
        return self.proj_drop(self.proj(x))


class Downsample2d(nn.Layer):
    """Pooling that halves the image, and a convolution of one pixel where the channels change.

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        pool_type: ``max`` or ``avg`` of 3x3 pixels, ``max2`` or ``avg2`` of 2x2.
        padding: ``same`` for TensorFlow's padding, or "".
        bias: whether the convolution has a bias.

    Raises:
        ConfigError: for another ``pool_type``.
    """

    def __init__(self, dim, dim_out, pool_type="avg2", padding="", bias=True):
        super().__init__()
        pools = {
            "max": partial(create_pool2d, "max", 3, stride=2, padding=padding or 1),
            "max2": partial(create_pool2d, "max", 2, padding=padding or 0),
            "avg": partial(create_pool2d, "avg", 3, stride=2, padding=padding or 1, count_include_pad=False),
            "avg2": partial(create_pool2d, "avg", 2, padding=padding or 0),
        }
        if pool_type not in pools:
            raise ConfigError(f"pool_type is {pool_type!r:.80}; valid are {', '.join(pools)}")
        self.pool = pools[pool_type]()
        self.expand = Conv2d(dim, dim_out, 1, bias=bias) if dim != dim_out else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        return self.expand(self.pool(x))


def _layer_scale(layer, dim, init_values):
    return layer(dim, init_values=init_values) if init_values else nn.Identity()


def _drop_path(rate):
    return DropPath(rate) if rate > 0.0 else nn.Identity()


class TransformerBlock2d(nn.Layer):
    """Attention of all pixels and two convolutions of one pixel, [N, C, H, W].

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        stride: 2 to halve the image, or 1.
        cfg: the `MaxxVitTransformerCfg`.
        feat_size: size of the feature maps after the stride.
        drop_path: stochastic depth.
    """

    def __init__(self, dim, dim_out, stride, cfg, feat_size, drop_path=0.0):
        super().__init__()
        norm_layer = partial(get_norm_layer(cfg.norm_layer), eps=cfg.norm_eps)
        self.shortcut, self.norm1 = nn.Identity(), norm_layer(dim)
        if stride == 2:
            self.shortcut = Downsample2d(dim, dim_out, pool_type=cfg.pool_type, bias=cfg.shortcut_bias)
            self.norm1 = nn.Sequential(("norm", self.norm1), ("down", Downsample2d(dim, dim, pool_type=cfg.pool_type)))
        self.attn = Attention2d(dim, dim_out, cfg, feat_size)
        self.ls1 = _layer_scale(LayerScale2d, dim_out, cfg.init_values)
        self.drop_path1 = _drop_path(drop_path)
        self.norm2 = norm_layer(dim_out)
        act_layer = get_act_layer(cfg.act_layer)
        self.mlp = ConvMlp(dim_out, int(dim_out * cfg.expand_ratio), act_layer=act_layer, drop=cfg.proj_drop)
        self.ls2 = _layer_scale(LayerScale2d, dim_out, cfg.init_values)
        self.drop_path2 = _drop_path(drop_path)

    def set_input_size(self, feat_size, window_size, grid_size):
        """Make the attention take feature maps of another size; it has no windows or grids."""
        if self.attn.rel_pos is not None:
            self.attn.rel_pos.set_window_size(feat_size)

    def forward(self, x):
        x = self.shortcut(x) + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def split_grids(x, size):
    """Return pixels of feature maps at even distances together, and how many grids there are in an image.

    Args:
        x: feature maps, [N, H, W, C].
        size: height and width of a grid, which divide those of the feature maps.

    Returns:
        grids [N * rows * columns, height, width, C], and (rows, columns).
    """
    (high, wide), (height, width, channels) = size, x.shape[1:]
    rows, columns = height // high, width // wide
    x = x.reshape([-1, high, rows, wide, columns, channels]).transpose([0, 2, 4, 1, 3, 5])
    return x.reshape([-1, high, wide, channels]), (rows, columns)


def join_grids(grids, count):
    """Return the feature maps [N, H, W, C] of grids, the reverse of `split_grids`; ``count`` is (rows, columns)."""
    (rows, columns), (high, wide, channels) = count, grids.shape[1:]
    x = grids.reshape([-1, rows, columns, high, wide, channels]).transpose([0, 3, 1, 4, 2, 5])
    return x.reshape([-1, high * rows, wide * columns, channels])


_PARTITIONS = {"block": (split_windows, join_windows), "grid": (split_grids, join_grids)}


def _attend(attention, x, kind, partition_size):
    """Return the attention inside of the windows (kind ``block``) or grids of feature maps [N, H, W, C]."""
    size, (split, join) = x.shape[1:3], _PARTITIONS[kind]
    if paddle.in_dynamic_mode() and any(side % part for side, part in zip(size, partition_size)):
        sizes = "x".join(map(str, size)), "x".join(map(str, partition_size))
        raise ConfigError(f"a feature map of {sizes[0]} pixels cannot be cut into parts of {sizes[1]}; give img_size")
    parts, count = split(x, partition_size)
    return join(attention(parts), count)


class _PartitionBlock(nn.Layer):
    """Normalisation, layer scales and two linear layers around attention in parts of feature maps [N, H, W, C].

    A subclass creates the attention, and defines `_attention`.

    Args:
        dim: channels.
        cfg: the `MaxxVitTransformerCfg`.
        partition_size: size of the parts.
        drop_path: stochastic depth.
    """

    def __init__(self, dim, cfg, partition_size, drop_path=0.0):
        super().__init__()
        norm_layer = partial(get_norm_layer(cfg.norm_layer_cl), eps=cfg.norm_eps)
        self.partition_size = partition_size
        self.norm1 = norm_layer(dim)
        self.ls1 = _layer_scale(LayerScale, dim, cfg.init_values)
        self.drop_path1 = _drop_path(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * cfg.expand_ratio), act_layer=get_act_layer(cfg.act_layer), drop=cfg.proj_drop)
        self.ls2 = _layer_scale(LayerScale, dim, cfg.init_values)
        self.drop_path2 = _drop_path(drop_path)

    def set_partition_size(self, partition_size):
        """Make the attention take parts of another size."""
        self.partition_size = partition_size
        for layer in self.sublayers():
            if isinstance(layer, AttentionCl) and layer.rel_pos is not None:
                layer.rel_pos.set_window_size(partition_size)

    def forward(self, x):
        x = x + self.drop_path1(self.ls1(self._attention(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class PartitionAttentionCl(_PartitionBlock):
    """Attention inside of windows (``partition_type`` ``block``) or grids (``grid``), and two linear layers."""

    def __init__(self, dim, cfg, partition_type="block", drop_path=0.0):
        super().__init__(dim, cfg, cfg.window_size if partition_type == "block" else cfg.grid_size, drop_path)
        self.partition_type = partition_type
        self.attn = AttentionCl(dim, dim, cfg, self.partition_size)

    def _attention(self, x):
        return _attend(self.attn, x, self.partition_type, self.partition_size)


class ParallelPartitionAttention(_PartitionBlock):
    """Attention inside of windows and inside of grids, side by side, and two linear layers."""

    def __init__(self, dim, cfg, drop_path=0.0):
        if cfg.window_size != cfg.grid_size:
            raise ConfigError(f"blocks 'PM' need windows as large as grids; got {cfg.window_size}, {cfg.grid_size}")
        super().__init__(dim, cfg, cfg.window_size, drop_path)
        self.attn_block = AttentionCl(dim, dim // 2, cfg, self.partition_size)
        self.attn_grid = AttentionCl(dim, dim // 2, cfg, self.partition_size)

    def _attention(self, x):
        parts = {"block": self.attn_block, "grid": self.attn_grid}
        return paddle.concat([_attend(part, x, kind, self.partition_size) for kind, part in parts.items()], axis=-1)
