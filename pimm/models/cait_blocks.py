"""Blocks of CaiT (https://arxiv.org/abs/2103.17239)."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import DropPath, Linear, Mlp


class ClassAttn(nn.Layer):
    """Attention of the class token alone, to all tokens.

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have biases.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, qkv_bias=False, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.k = Linear(dim, dim, bias=qkv_bias)
        self.v = Linear(dim, dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def _heads(self, x):
        return x.reshape([0, 0, self.num_heads, -1]).transpose([0, 2, 1, 3])

    def forward(self, x):
        """Return the class token, [N, 1, dim], of tokens [N, tokens, dim] of which it is the first."""
        q, k, v = self._heads(self.q(x[:, :1])) * self.scale, self._heads(self.k(x)), self._heads(self.v(x))
        attention = self.attn_drop(F.softmax(q.matmul(k, transpose_y=True), axis=-1))
        return self.proj_drop(self.proj(attention.matmul(v).transpose([0, 2, 1, 3]).flatten(2)))


class TalkingHeadAttn(nn.Layer):
    """Attention whose heads are mixed before and after softmax (https://arxiv.org/abs/2003.02436).

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have biases.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, qkv_bias=False, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_l = Linear(num_heads, num_heads)
        self.proj_w = Linear(num_heads, num_heads)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape([0, 0, 3, self.num_heads, -1]).transpose([2, 0, 3, 1, 4]).unbind(0)
        attention = (q * self.scale).matmul(k, transpose_y=True)  # [N, num_heads, tokens, tokens]
        attention = F.softmax(self.proj_l(attention.transpose([0, 2, 3, 1])), axis=2)
        attention = self.attn_drop(self.proj_w(attention).transpose([0, 3, 1, 2]))
        return self.proj_drop(self.proj(attention.matmul(v).transpose([0, 2, 1, 3]).flatten(2)))


class LayerScaleBlock(nn.Layer):
    """Attention and two layers, each with normalisation before it, a learnt scale, and beside a shortcut.

    Args:
        dim: channels.
        num_heads: heads.
        attention: class of attention.
        mlp_ratio: width of the layers relative to ``dim``.
        qkv_bias: whether queries, keys and values have biases.
        proj_drop: dropout of outputs.
        attn_drop: dropout of attention.
        drop_path: probability of leaving out a branch.
        norm_layer: class of the normalisations.
        init_values: initial scales.
    """

    def __init__(
        self,
        dim,
        num_heads,
        attention=TalkingHeadAttn,
        mlp_ratio=4.0,
        qkv_bias=False,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        norm_layer=nn.LayerNorm,
        init_values=1e-4,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attention(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        scale = nn.initializer.Constant(init_values)
        self.gamma_1 = self.create_parameter([dim], default_initializer=scale)
        self.gamma_2 = self.create_parameter([dim], default_initializer=scale)

    def forward(self, x):
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class LayerScaleBlockClassAttn(LayerScaleBlock):
    """A `LayerScaleBlock` that changes the class token alone."""

    def forward(self, x, x_cls):
        """Return the class token, [N, 1, dim], for the patches and the token before."""
        attended = self.attn(self.norm1(paddle.concat([x_cls, x], axis=1)))
        x_cls = x_cls + self.drop_path(self.gamma_1 * attended)
        return x_cls + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x_cls)))
