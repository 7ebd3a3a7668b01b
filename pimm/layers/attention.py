"""Attention of tokens to each other, under timm's names and arguments."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.linear import Linear


def attend(q, k, v, scale=None, bias=None, dropout=0.0, is_causal=False):
    """Return the mean of the values by attention, softmax(q k' scale + bias) v.

    On a GPU, Paddle's fused kernels compute it where they can, in half precision.

    Args:
        q: queries, [N, heads, L, size].
        k, v: keys and values, [N, heads, M, size].
        scale: factor of the products; None for 1 / sqrt(size).
        bias: added to the scaled products, of a shape that broadcasts to [N, heads, L, M]; where it is of booleans,
            False forbids.
        dropout: the probability of leaving out a value.
        is_causal: whether a token sees none after itself, in place of ``bias``.
    """
    if _fusible(q, v, scale):
        q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))
        mask = None if is_causal else bias
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal).transpose([0, 2, 1, 3])
    scores = paddle.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k, transpose_y=True)
    if is_causal:
        bias = paddle.tril(paddle.ones(scores.shape[-2:], dtype="bool"))
    if bias is not None:
        scores = scores + (paddle.where(bias, 0.0, float("-inf")).astype(scores.dtype) if _is_bool(bias) else bias)
    weights = F.softmax(scores, axis=-1)
    return paddle.matmul(F.dropout(weights, dropout) if dropout else weights, v)


def _is_bool(bias):
    return bias.dtype == paddle.bool


def _fusible(q, v, scale):
    """Tell whether a fused kernel takes these queries and values: half precision on a GPU, with the usual scale."""
    half = q.dtype in (paddle.float16, paddle.bfloat16) and q.shape[-1] == v.shape[-1]
    return half and scale is None and paddle.in_dynamic_mode() and q.place.is_gpu_place()


class Attention(nn.Layer):
    """Attention of tokens [N, L, dim] to each other by several heads.

    Args:
        dim: channels of the input.
        num_heads: number of heads.
        attn_head_dim: channels of a head; None for ``dim / num_heads``.
        dim_out: channels of the output; None for ``dim``.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        scale_norm: whether the heads' results are normalised.
        proj_bias: whether the last layer has a bias.
        gated: whether a gate of the input multiplies the heads' results.
        attn_drop: dropout of the attention.
        proj_drop: dropout after the last layer.
        norm_layer: class of these normalisations.

    Raises:
        ConfigError: if the channels do not divide into the heads, or a normalisation has no class.
    """

    def __init__(
        self,
        dim,
        num_heads=8,
        attn_head_dim=None,
        dim_out=None,
        qkv_bias=False,
        qk_norm=False,
        scale_norm=False,
        proj_bias=True,
        gated=False,
        attn_drop=0.0,
        proj_drop=0.0,
        norm_layer=None,
    ):
        super().__init__()
        head_dim = attn_head_dim or head_size(dim, num_heads)
        if (qk_norm or scale_norm) and norm_layer is None:
            raise ConfigError("qk_norm and scale_norm need norm_layer, the class of the normalisation")
        self.num_heads, self.head_dim = num_heads, head_dim
        self.attn_dim, self.scale = num_heads * head_dim, head_dim**-0.5
        self.qkv = Linear(dim, self.attn_dim * 3, bias=qkv_bias)
        self.q_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm_layer(self.attn_dim) if scale_norm else nn.Identity()
        self.gate = Linear(dim, self.attn_dim, bias=qkv_bias) if gated else None
        self.proj = Linear(self.attn_dim, dim_out or dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x, attn_mask=None, is_causal=False):
        count = x.shape[1]
        q, k, v = self.qkv(x).reshape([-1, count, 3, self.num_heads, self.head_dim]).transpose([2, 0, 3, 1, 4])
        dropout = self.attn_drop.p if self.training else 0.0
        found = attend(self.q_norm(q), self.k_norm(k), v, None, attn_mask, dropout, is_causal)
        found = self.norm(found.transpose([0, 2, 1, 3]).reshape([-1, count, self.attn_dim]))
        if self.gate is not None:
            found = found * F.sigmoid(self.gate(x))
        return self.proj_drop(self.proj(found))


def head_size(dim, num_heads):
    """Return the channels of a head. Raises `ConfigError` if the channels do not divide into the heads."""
    if dim % num_heads:
        raise ConfigError(f"{dim} channels do not divide into {num_heads} heads")
    return dim // num_heads
