"""Differential attention (https://arxiv.org/abs/2410.05258): the difference of two attentions, under timm's names."""

import math

import paddle
from paddle import nn

from pimm.layers.attention import attend, head_size
from pimm.layers.layer_norm import RmsNorm
from pimm.layers.linear import Linear

_NUMBERS = ("lambda_a", "lambda_b")
_VECTORS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class DifferenceOfAttentions(nn.Layer):
    """Compute differential attention of queries, keys and values; a subclass calls `create_factor`."""

    def create_factor(self, head_dim, depth, dual_lambda):
        """Create the parameters of the second attention's factor, and the normalisation of the heads' results.

        Args:
            head_dim: channels of a head's queries and keys, half of those of its values.
            depth: number of the block, from 0; the factor begins at 0.8 - 0.6 exp(-0.3 depth).
            dual_lambda: whether two numbers are learnt, instead of four vectors of ``head_dim`` numbers.
        """
        self.head_dim, self.lambda_init = head_dim, 0.8 - 0.6 * math.exp(-0.3 * depth)
        shape, start = (
            ([], nn.initializer.Constant(0.0)) if dual_lambda else ([head_dim], nn.initializer.Normal(std=0.1))
        )
        self.lambda_names = (
            ("lambda_a", "lambda_b") if dual_lambda else tuple(f"lambda_{n}" for n in ("q1", "k1", "q2", "k2"))
        )
        for name in self.lambda_names:
            setattr(self, name, self.create_parameter(shape, default_initializer=start))
        self.sub_norm = RmsNorm(2 * head_dim, eps=1e-5)

    def factor(self):
        """Return the factor of the second attention, a number."""
        values = [getattr(self, name) for name in self.lambda_names]
        if self.lambda_names == _VECTORS:
            values = [(values[0] * values[1]).sum(), (values[2] * values[3]).sum()]
        first, second = values
        return paddle.exp(first) - paddle.exp(second) + self.lambda_init

    def difference(self, q, k, v, attn_mask, is_causal):
        """Return the heads' results, [N, L, channels].

        Args:
            q, k, v: queries, keys and values, [N, L, channels]; those of a head are one after another, and the first
                half of its queries and keys is of the first attention.
            attn_mask, is_causal: as ``bias`` and ``is_causal`` of `pimm.layers.attend`.
        """
        count, dropout = q.shape[1], self.attn_drop.p if self.training else 0.0
        q, k = (x.reshape([-1, count, 2 * self.num_heads, self.head_dim]).transpose([0, 2, 1, 3]) for x in (q, k))
        q, k = self.q_norm(q), self.k_norm(k)
        v = v.reshape([-1, count, self.num_heads, 2 * self.head_dim]).transpose([0, 2, 1, 3])
        first, second = (
            attend(q[:, which::2], k[:, which::2], v, None, attn_mask, dropout, is_causal) for which in (0, 1)
        )
        found = self.sub_norm(first - self.factor().astype(q.dtype) * second) * (1 - self.lambda_init)
        return found.transpose([0, 2, 1, 3]).reshape([-1, count, 2 * self.head_dim * self.num_heads])


class DiffAttention(DifferenceOfAttentions):
    """Differential attention of tokens [N, L, dim] to each other by several heads.

    Args:
        dim: channels of the input and the output.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        scale_norm: whether the heads' results are normalised once more.
        proj_bias: whether the last layer has a bias.
        attn_drop: dropout of the attention.
        proj_drop: dropout after the last layer.
        norm_layer: class of these normalisations; None for `RmsNorm`.
        depth, dual_lambda: as in `DifferenceOfAttentions.create_factor`.

    Raises:
        ConfigError: if the channels do not divide into the heads.
    """

    def __init__(
        self,
        dim,
        num_heads=8,
        qkv_bias=False,
        qk_norm=False,
        scale_norm=False,
        proj_bias=True,
        attn_drop=0.0,
        proj_drop=0.0,
        norm_layer=None,
        depth=0,
        dual_lambda=False,
    ):
        super().__init__()
        norm_layer, head_dim = norm_layer or RmsNorm, head_size(dim, num_heads) // 2
        self.num_heads = num_heads
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.q_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm_layer(dim) if scale_norm else nn.Identity()
        self.proj = Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)
        self.create_factor(head_dim, depth, dual_lambda)

    def forward(self, x, attn_mask=None, is_causal=False):
        x = self.difference(*self.qkv(x).chunk(3, axis=2), attn_mask, is_causal)
        return self.proj_drop(self.proj(self.norm(x)))
