"""Pool tokens by the attention of a learnt query, under timm's name and arguments."""

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.attention import attend, head_size
from pimm.layers.linear import Linear
from pimm.layers.mlp import Mlp
from pimm.layers.weight_init import trunc_normal_tf_

_POOLS = {"token": lambda x: x[:, 0], "avg": lambda x: x.mean(1)}


class AttentionPoolLatent(nn.Layer):
    """Let learnt queries attend to tokens [N, L, in_features], followed by a residual `Mlp`.

    Args:
        in_features: channels of the tokens.
        out_features: channels of the output; None for those of the tokens, 0 for the heads' results alone.
        embed_dim: channels of all heads; None for those of the tokens.
        num_heads: number of heads.
        feat_size: number of tokens, which position embeddings need.
        mlp_ratio: hidden channels of the `Mlp` for each of its inputs.
        qkv_bias: whether queries, keys and values have a bias.
        q_proj: whether the queries go through a layer.
        qk_norm: whether queries and keys are normalised.
        latent_len: number of queries.
        latent_dim: channels of the queries; None for those of the heads.
        pos_embed: ``abs`` to add position embeddings to the tokens.
        pool_type: ``token`` for the first query's result, ``avg`` for the mean, "" for all.
        norm_layer: class of the normalisations.
        act_layer: class of the activation of the `Mlp`.
        drop: dropout.

    Raises:
        ConfigError: for sizes that do not fit.
    """

    def __init__(
        self,
        in_features,
        out_features=None,
        embed_dim=None,
        num_heads=8,
        feat_size=None,
        mlp_ratio=4.0,
        qkv_bias=True,
        q_proj=True,
        qk_norm=False,
        latent_len=1,
        latent_dim=None,
        pos_embed="",
        pool_type="token",
        norm_layer=None,
        act_layer=nn.GELU,
        drop=0.0,
    ):
        super().__init__()
        embed_dim = embed_dim or in_features
        out_features = in_features if out_features is None else out_features
        self.num_heads, self.head_dim = num_heads, head_size(embed_dim, num_heads)
        self.embed_dim, self.feat_size, self.pool, self.latent_len = embed_dim, feat_size, pool_type, latent_len
        self.latent_dim = latent_dim or embed_dim
        self.pos_embed = None
        if pos_embed == "abs":
            if feat_size is None:
                raise ConfigError("position embeddings need feat_size, the number of tokens")
            self.pos_embed = self.create_parameter([feat_size, in_features])
            trunc_normal_tf_(self.pos_embed, std=in_features**-0.5)
        if not q_proj and self.latent_dim != embed_dim:
            raise ConfigError(f"without q_proj, latent_dim must be {embed_dim}, got {self.latent_dim}")
        self.latent = self.create_parameter([1, latent_len, self.latent_dim])
        trunc_normal_tf_(self.latent, std=self.latent_dim**-0.5)
        self.q = Linear(self.latent_dim, embed_dim, bias=qkv_bias) if q_proj else nn.Identity()
        self.kv = Linear(embed_dim, embed_dim * 2, bias=qkv_bias)
        qk_layer = norm_layer or nn.LayerNorm
        self.q_norm = qk_layer(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_layer(self.head_dim) if qk_norm else nn.Identity()
        self.proj = Linear(embed_dim, out_features) if out_features else nn.Identity()
        self.proj_drop = nn.Dropout(drop)
        self.norm = norm_layer(out_features) if norm_layer and out_features else nn.Identity()
        self.mlp = None
        if out_features:
            self.mlp = Mlp(out_features, int(out_features * mlp_ratio), out_features, act_layer=act_layer)
        self.out_features = out_features or embed_dim

    def forward(self, x, attn_mask=None):
        count, heads = x.shape[1], [self.num_heads, self.head_dim]
        if self.pos_embed is not None:
            x = x + self.pos_embed.unsqueeze(0).astype(x.dtype)
        latent = self.latent.expand([x.shape[0], -1, -1])
        q = self.q(latent).reshape([-1, self.latent_len, *heads]).transpose([0, 2, 1, 3])
        k, v = self.kv(x).reshape([-1, count, 2, *heads]).transpose([2, 0, 3, 1, 4])
        x = attend(self.q_norm(q), self.k_norm(k), v, bias=attn_mask)
        x = x.transpose([0, 2, 1, 3]).reshape([-1, self.latent_len, self.embed_dim])
        x = self.proj_drop(self.proj(x))
        if self.mlp is not None:
            x = x + self.mlp(self.norm(x))
        return _POOLS.get(self.pool, lambda x: x)(x)


class AttentionPoolPrr(nn.Layer):
    """Let tokens [N, L, dim] attend to each other without parameters, and pool them.

    Args:
        dim: channels of the tokens.
        num_heads: number of heads.
        pool_type: ``token`` for the first token's result, ``avg`` for the mean.
        pre_norm: whether the tokens are normalised before.
        post_norm: whether the results are normalised.
        norm_layer: class of the normalisations; None for `LayerNorm`.

    Raises:
        ConfigError: for another pooling, and if the channels do not divide into the heads.
    """

    def __init__(self, dim, num_heads=8, pool_type="token", pre_norm=False, post_norm=False, norm_layer=None):
        super().__init__()
        if pool_type not in _POOLS:
            raise ConfigError(f"pool_type is {pool_type!r:.80}; valid are token and avg")
        norm_layer = norm_layer or nn.LayerNorm
        self.num_heads, self.head_dim, self.pool = num_heads, head_size(dim, num_heads), pool_type
        self.out_features = dim
        self.pre_norm = norm_layer(dim) if pre_norm else nn.Identity()
        self.post_norm = norm_layer(dim) if post_norm else nn.Identity()

    def forward(self, x):
        count = x.shape[1]
        x = self.pre_norm(x).reshape([-1, count, self.num_heads, self.head_dim]).transpose([0, 2, 1, 3])
        x = attend(x, x, x).transpose([0, 2, 1, 3]).reshape([-1, count, self.out_features])
        return _POOLS[self.pool](self.post_norm(x))
