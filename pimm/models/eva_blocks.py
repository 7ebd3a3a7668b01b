"""Blocks of EVA and of vision transformers with rotary embeddings: attention, and layers beside a shortcut."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import DropPath, GluMlp, Linear, Mlp, SwiGLU, Swish, apply_rot_embed_cat, attend

ATTENTION_TYPES = ("eva", "rope")


class EvaAttention(nn.Layer):
    """Attention with rotary embeddings of the patches.

    Args:
        dim: channels of the tokens.
        num_heads: heads of queries.
        qkv_bias: whether queries, keys and values have biases; keys of the type ``eva`` have none.
        qkv_fused: whether one layer makes queries, keys and values.
        attn_type: ``eva`` or ``rope``: whether biases of the layer that makes all three are ``q_bias`` and ``v_bias``,
            or that layer's own.
        num_kv_heads: heads of keys and values; None for as many as of queries.
        num_prefix_tokens: tokens before the patches, which are not rotated.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
        norm_layer: class of the normalisations.
        qk_norm: whether queries and keys are normalised.
        scale_norm: whether the output of all heads is normalised.
        rotate_half: order of channels, as ``half`` of `apply_rot_embed_cat`.

    Raises:
        ConfigError: for another ``attn_type``, and if heads of queries cannot share those of keys.
    """

    def __init__(
        self,
        dim,
        num_heads,
        qkv_bias=True,
        qkv_fused=True,
        attn_type="eva",
        num_kv_heads=None,
        num_prefix_tokens=1,
        attn_drop=0.0,
        proj_drop=0.0,
        norm_layer=None,
        qk_norm=False,
        scale_norm=False,
        rotate_half=False,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_heads
        if attn_type not in ATTENTION_TYPES:
            raise ConfigError(f"attn_type is {attn_type!r:.80}; valid are {' and '.join(ATTENTION_TYPES)}")
        if num_heads % kv_heads or (kv_heads != num_heads and (qkv_fused or attn_type != "rope")):
            raise ConfigError(
                f"{num_heads} heads cannot share {kv_heads} heads of keys: that takes a divisor, attn_type='rope' and "
                "qkv_fused=False"
            )
        self.num_heads, self.kv_heads, self.head_dim = num_heads, kv_heads, dim // num_heads
        self.num_prefix_tokens, self.rotate_half, self.attn_drop = num_prefix_tokens, rotate_half, attn_drop
        self._create_projections(dim, qkv_bias, qkv_fused, attn_type == "eva")
        self.q_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.norm = norm_layer(self.num_heads * self.head_dim) if scale_norm else nn.Identity()
        self.proj = Linear(self.num_heads * self.head_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def _create_projections(self, dim, qkv_bias, qkv_fused, of_eva):
        width, kv_width = self.num_heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_bias = self.v_bias = None
        self.fused = qkv_fused
        if qkv_fused:
            self.qkv = Linear(dim, 3 * width, bias=qkv_bias and not of_eva)
            if qkv_bias and of_eva:
                self.q_bias = self.create_parameter([width], is_bias=True)
                self.v_bias = self.create_parameter([width], is_bias=True)
            return
        self.q_proj = Linear(dim, width, bias=qkv_bias)
        self.k_proj = Linear(dim, kv_width, bias=qkv_bias and not of_eva)
        self.v_proj = Linear(dim, kv_width, bias=qkv_bias)

    def _queries_keys_values(self, x):
        """Return queries, keys and values, [N, heads, tokens, head_dim]."""
        if not self.fused:
            found = [layer(x).reshape([0, 0, -1, self.head_dim]) for layer in (self.q_proj, self.k_proj, self.v_proj)]
            return [each.transpose([0, 2, 1, 3]) for each in found]
        if self.q_bias is None:
            x = self.qkv(x)
        else:
            bias = paddle.concat([self.q_bias, paddle.zeros_like(self.q_bias), self.v_bias])
            x = F.linear(x, self.qkv.weight, bias)
        x = x.reshape([0, 0, 3, self.num_heads, self.head_dim])
        return x.transpose([2, 0, 3, 1, 4]).unbind(0)

    def _rotated(self, x, rope):
        count = self.num_prefix_tokens
        if not count:
            return apply_rot_embed_cat(x, rope, self.rotate_half)
        return paddle.concat([x[:, :, :count], apply_rot_embed_cat(x[:, :, count:], rope, self.rotate_half)], axis=2)

    def forward(self, x, rope=None):
        """Return the attended tokens, [N, tokens, dim].

        Args:
            x: tokens, [N, tokens, dim].
            rope: rotary embeddings of the patches, [..., patches, 2 * head_dim]; None for none.
        """
        q, k, v = self._queries_keys_values(x)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = self._rotated(q, rope), self._rotated(k, rope)
        if self.kv_heads < self.num_heads:
            k, v = (each.repeat_interleave(self.num_heads // self.kv_heads, axis=1) for each in (k, v))
        x = attend(q, k, v, dropout=self.attn_drop if self.training else 0.0)
        x = x.transpose([0, 2, 1, 3]).flatten(2)
        return self.proj_drop(self.proj(self.norm(x)))


def create_mlp(dim, hidden_dim, swiglu, align_to, norm_layer, drop):
    """Return the two layers of a block.

    Args:
        dim: channels of the tokens.
        hidden_dim: width.
        swiglu: whether the layers have a gate (https://arxiv.org/abs/2002.05202).
        align_to: what the width of a gated layer is made a multiple of; 0 leaves it.
        norm_layer: class of the normalisation before the last layer; None for none.
        drop: dropout.
    """
    if not swiglu:
        return Mlp(dim, hidden_dim, norm_layer=norm_layer, drop=drop)
    if norm_layer or align_to:
        return SwiGLU(dim, hidden_dim, norm_layer=norm_layer, drop=drop, align_to=align_to)
    return GluMlp(dim, 2 * hidden_dim, act_layer=Swish, gate_last=False, drop=drop)


class EvaBlock(nn.Layer):
    """Attention and two layers, each with normalisation before it and beside a shortcut.

    Args:
        dim: channels of the tokens.
        num_heads: heads.
        mlp_ratio: width of the layers relative to ``dim``.
        swiglu_mlp: whether the layers have a gate.
        swiglu_align_to: what the width of a gated layer is made a multiple of.
        scale_mlp: whether there is a normalisation before the last layer.
        scale_attn_inner: whether the output of all heads is normalised.
        proj_drop: dropout of outputs.
        drop_path: probability of leaving out a branch.
        init_values: initial scale of the branches; None for branches without scales.
        attn_only_layer_scale: whether attention alone is scaled.
        norm_layer: class of the normalisations.
        attention: further arguments of `EvaAttention`.
    """

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        swiglu_mlp=False,
        swiglu_align_to=0,
        scale_mlp=False,
        scale_attn_inner=False,
        proj_drop=0.0,
        drop_path=0.0,
        init_values=None,
        attn_only_layer_scale=False,
        norm_layer=None,
        **attention,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = EvaAttention(
            dim, num_heads, norm_layer=norm_layer, scale_norm=scale_attn_inner, proj_drop=proj_drop, **attention
        )
        self.norm2 = norm_layer(dim)
        inner_norm = norm_layer if scale_mlp else None
        self.mlp = create_mlp(dim, int(dim * mlp_ratio), swiglu_mlp, swiglu_align_to, inner_norm, proj_drop)
        self.gamma_1 = self._scale(dim, init_values)
        self.gamma_2 = self._scale(dim, None if attn_only_layer_scale else init_values)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def _scale(self, dim, value):
        if value is None:
            return None
        return self.create_parameter([dim], default_initializer=nn.initializer.Constant(value))

    def forward(self, x, rope=None):
        branch = self.attn(self.norm1(x), rope)
        x = x + self.drop_path1(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path2(branch if self.gamma_2 is None else self.gamma_2 * branch)


class EvaBlockPostNorm(EvaBlock):
    """Attention and two layers, each with normalisation after it and beside a shortcut; branches have no scales."""

    def forward(self, x, rope=None):
        x = x + self.drop_path1(self.norm1(self.attn(x, rope)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))
