"""Blocks of vision transformers: attention and layers beside shortcuts, in the orders that papers tried."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Attention,
    DiffAttention,
    DifferenceOfAttentions,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    Mlp,
    attend,
)
from pimm.layers.attention import head_size
from pimm.layers.weight_init import constant_

_ATTENTIONS = {"": Attention, "attn": Attention, "diff": DiffAttention}


def create_attention(attn_layer, dim, depth, **kwargs):
    """Create the attention of a block.

    Args:
        attn_layer: a class of attention, or a function that creates one, or ``attn`` or ``diff`` (`DiffAttention`).
        dim: channels of the tokens.
        depth: number of the block, from 0.
        kwargs: further arguments of the class.

    Raises:
        ConfigError: for another name.
    """
    if isinstance(attn_layer, str):
        if attn_layer not in _ATTENTIONS:
            raise ConfigError(f"attn_layer is {attn_layer!r:.80}; valid are attn, diff, and classes")
        attn_layer = _ATTENTIONS[attn_layer]
    if isinstance(attn_layer, type) and issubclass(attn_layer, DiffAttention):
        kwargs["depth"] = depth
    return attn_layer(dim, **kwargs)


def create_scale(dim, init_values):
    """Return a `LayerScale` that begins at ``init_values``, or for None or 0 the identity."""
    return LayerScale(dim, init_values) if init_values else nn.Identity()


class Block(nn.Layer):
    """Attention, then layers, each after a normalisation and beside a shortcut (https://arxiv.org/abs/2010.11929).

    Args:
        dim: channels of the tokens.
        num_heads: heads of attention.
        mlp_ratio: hidden channels of the layers for each channel.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        scale_attn_norm: whether the heads' results are normalised.
        scale_mlp_norm: whether the hidden channels are normalised.
        proj_bias: whether the other layers have a bias.
        proj_drop: dropout of the layers.
        attn_drop: dropout of attention.
        init_values: first value of `LayerScale`; None for none.
        drop_path: rate of stochastic depth.
        act_layer: class of the activation.
        norm_layer: class of the normalisations.
        mlp_layer: class of the layers.
        attn_layer: class or name of the attention, as in `create_attention`.
        depth: number of the block, from 0.
    """

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        qkv_bias=False,
        qk_norm=False,
        scale_attn_norm=False,
        scale_mlp_norm=False,
        proj_bias=True,
        proj_drop=0.0,
        attn_drop=0.0,
        init_values=None,
        drop_path=0.0,
        act_layer=nn.GELU,
        norm_layer=LayerNorm,
        mlp_layer=Mlp,
        attn_layer=Attention,
        depth=0,
    ):
        super().__init__()
        attention = {"num_heads": num_heads, "qkv_bias": qkv_bias, "qk_norm": qk_norm, "scale_norm": scale_attn_norm}
        attention.update(proj_bias=proj_bias, attn_drop=attn_drop, proj_drop=proj_drop, norm_layer=norm_layer)
        layers = {"act_layer": act_layer, "norm_layer": norm_layer if scale_mlp_norm else None}
        layers.update(hidden_features=int(dim * mlp_ratio), bias=proj_bias, drop=proj_drop)
        self.create(
            dim,
            lambda: create_attention(attn_layer, dim, depth, **attention),
            lambda: mlp_layer(dim, **layers),
            norm_layer,
            init_values,
            drop_path,
        )

    def create(self, dim, attention, layers, norm_layer, init_values, drop_path):
        """Create the block's layers in forward order.

        Args:
            dim, norm_layer, init_values, drop_path: as in the constructor.
            attention: a function that creates the attention.
            layers: a function that creates the layers.
        """
        self.norm1 = norm_layer(dim)
        self.attn = attention()
        self.ls1 = create_scale(dim, init_values)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = layers()
        self.ls2 = create_scale(dim, init_values)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x, attn_mask=None, is_causal=False):
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask, is_causal)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class ResPostBlock(Block):
    """`Block` with the normalisations after attention and layers, as Swin v2 has them (https://arxiv.org/abs/2111.09883).

    The weights of the normalisations begin at ``init_values``.
    """

    def create(self, dim, attention, layers, norm_layer, init_values, drop_path):
        self.init_values = init_values
        self.attn = attention()
        self.norm1 = norm_layer(dim)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = layers()
        self.norm2 = norm_layer(dim)
        self.drop_path2 = DropPath(drop_path)
        self.init_weights()

    def init_weights(self):
        """Set the weights of the normalisations to ``init_values``."""
        for norm in (self.norm1, self.norm2):
            if self.init_values is not None:
                constant_(norm.weight, self.init_values)

    def forward(self, x, attn_mask=None, is_causal=False):
        x = x + self.drop_path1(self.norm1(self.attn(x, attn_mask, is_causal)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class ParallelScalingBlock(nn.Layer):
    """Attention and layers side by side, their first layers in one (https://arxiv.org/abs/2302.05442).

    Arguments are those of `Block`; there is one normalisation, and none of the heads' results or hidden channels.
    ``mlp_layer`` and ``attn_layer`` have no effect.

    Args:
        fuse_out_proj: whether the last layers are one, too.

    Raises:
        ConfigError: if the channels do not divide into the heads, or for ``scale_attn_norm`` or ``scale_mlp_norm``.
    """

    num_attentions = 1

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        qkv_bias=False,
        qk_norm=False,
        scale_attn_norm=False,
        scale_mlp_norm=False,
        proj_bias=True,
        proj_drop=0.0,
        attn_drop=0.0,
        init_values=None,
        drop_path=0.0,
        act_layer=nn.GELU,
        norm_layer=LayerNorm,
        mlp_layer=None,
        attn_layer=None,
        depth=0,
        fuse_out_proj=False,
    ):
        super().__init__()
        if scale_attn_norm or scale_mlp_norm:
            raise ConfigError(f"{type(self).__name__} takes neither scale_attn_norm nor scale_mlp_norm")
        self.num_heads, hidden = num_heads, int(mlp_ratio * dim)
        self.head_dim = head_size(dim, num_heads) // self.num_attentions  # of queries and keys
        self.in_norm = norm_layer(dim)
        self.in_proj = Linear(dim, hidden + 3 * dim, bias=qkv_bias)
        self.in_split = [hidden, dim, dim, dim]
        # The bias of queries, keys and values holds that of the layers, too
        self.mlp_bias = None if qkv_bias else self.create_parameter([hidden], is_bias=True)
        self.q_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.mlp_drop = nn.Dropout(proj_drop)
        self.mlp_act = act_layer()
        self.create_last(dim, hidden, proj_bias, fuse_out_proj)
        self.ls = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path = DropPath(drop_path)

    def create_last(self, dim, hidden, bias, fused):
        """Create the last layers: one, or one of the attention and one of the layers' ``hidden`` channels."""
        self.out_proj = Linear(dim + hidden, dim, bias=bias) if fused else None
        self.attn_out_proj = None if fused else Linear(dim, dim, bias=bias)
        self.mlp_out_proj = None if fused else Linear(hidden, dim, bias=bias)

    def attention(self, q, k, v, attn_mask, is_causal):
        """Return the heads' results [N, L, dim] of queries, keys and values, [N, L, dim]."""
        count, dropout = q.shape[1], self.attn_drop.p if self.training else 0.0
        q, k, v = (x.reshape([-1, count, self.num_heads, self.head_dim]).transpose([0, 2, 1, 3]) for x in (q, k, v))
        found = attend(self.q_norm(q), self.k_norm(k), v, None, attn_mask, dropout, is_causal)
        return found.transpose([0, 2, 1, 3]).reshape([-1, count, self.num_heads * self.head_dim])

    def forward(self, x, attn_mask=None, is_causal=False):
        hidden, q, k, v = self.in_proj(self.in_norm(x)).split(self.in_split, axis=-1)
        hidden = hidden if self.mlp_bias is None else hidden + self.mlp_bias
        hidden = self.mlp_drop(self.mlp_act(hidden))
        found = self.attention(q, k, v, attn_mask, is_causal)
        if self.out_proj is None:
            found = self.attn_out_proj(found) + self.mlp_out_proj(hidden)
        else:
            found = self.out_proj(paddle.concat([found, hidden], axis=-1))
        return x + self.drop_path(self.ls(found))


class DiffParallelScalingBlock(DifferenceOfAttentions, ParallelScalingBlock):
    """`ParallelScalingBlock` with differential attention (https://arxiv.org/abs/2410.05258), its last layers in one.

    Args:
        depth, dual_lambda: as in `DifferenceOfAttentions.create_factor`; the other arguments are those of `Block`.
    """

    num_attentions = 2

    def __init__(self, dim, num_heads, depth=0, dual_lambda=False, **kwargs):
        super().__init__(dim, num_heads, fuse_out_proj=True, **kwargs)
        self.create_factor(self.head_dim, depth, dual_lambda)

    def attention(self, q, k, v, attn_mask, is_causal):
        return self.difference(q, k, v, attn_mask, is_causal)


class ParallelThingsBlock(nn.Layer):
    """Several attentions side by side, then several layers side by side (https://arxiv.org/abs/2203.09795).

    Args:
        num_parallel: how many of each; the other arguments are those of `Block`.
    """

    def __init__(self, dim, num_heads, num_parallel=2, **kwargs):
        super().__init__()
        blocks = [Block(dim, num_heads, **kwargs) for _ in range(num_parallel)]
        self.attns = nn.LayerList(
            nn.Sequential(("norm", one.norm1), ("attn", one.attn), ("ls", one.ls1), ("drop_path", one.drop_path1))
            for one in blocks
        )
        self.ffns = nn.LayerList(
            nn.Sequential(("norm", one.norm2), ("mlp", one.mlp), ("ls", one.ls2), ("drop_path", one.drop_path2))
            for one in blocks
        )

    def forward(self, x, attn_mask=None, is_causal=False):
        x = x + sum(one.drop_path(one.ls(one.attn(one.norm(x), attn_mask, is_causal))) for one in self.attns)
        return x + sum(one(x) for one in self.ffns)
