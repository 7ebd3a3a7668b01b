"""Vision transformers with relative position biases, as those of Swin v2 (https://arxiv.org/abs/2111.09883)."""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Attention,
    LayerNorm,
    PatchEmbed,
    RelPosBias,
    RelPosMlp,
    calculate_drop_path_rates,
    get_act_layer,
    get_norm_layer,
    trunc_normal_,
)
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features, remember_input_size
from pimm.models.vision_transformer_blocks import Block, ResPostBlock
from pimm.models.vision_transformer_init import init_weights_vit
from pimm.models.vision_transformer_variants import named

__all__ = ["VisionTransformerRelPos"]

_BIASES = {"bias": (RelPosBias, {}), "mlp": (RelPosMlp, {}), "mlp_swin": (RelPosMlp, {"mode": "swin"})}


class RelPosAttention(Attention):
    """Attention to which a bias of relative positions is added.

    Args:
        rel_pos_cls: class of the bias, ``rel_pos_cls(num_heads=...)``; None for the bias that blocks share, if any. The
            other arguments are those of `Attention`.
    """

    def __init__(self, dim, num_heads=8, rel_pos_cls=None, **kwargs):
        super().__init__(dim, num_heads, **kwargs)
        self.rel_pos = rel_pos_cls(num_heads=num_heads) if rel_pos_cls else None

    def forward(self, x, shared_rel_pos=None, is_causal=False):
        return super().forward(x, shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias())


class VisionTransformerRelPos(TokenModel):
    """A vision transformer with relative position biases in place of position embeddings.

    Args:
        img_size, patch_size, in_chans, num_classes, embed_dim, depth, num_heads, qkv_bias: as in `VisionTransformer`.
        global_pool: ``avg`` for the mean of the patches, ``token`` for the class token, "" for all tokens.
        init_values: first value of `LayerScale`, or of the weights of the normalisations of `ResPostBlock`.
        class_token: whether there is a class token.
        fc_norm: whether the last normalisation is after the pooling.
        rel_pos_type: ``bias`` for a bias of each distance; ``mlp`` for a small net, ``mlp_swin`` for that of Swin v2.
        rel_pos_dim: width of the net.
        shared_rel_pos: whether all blocks have the same bias.
        drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate, norm_layer, act_layer, block_fn: as in
            `VisionTransformer`.
        weight_init, fix_init: as ``mode`` and ``fix_init`` of `init_weights_vit`.
        embed_layer: class of the patch embedding.
        kwargs: further arguments of the blocks, as those of `Block`.

    Raises:
        ConfigError: for pooling or biases that there are not, and for pooling that needs a class token.
    """

    pools = ("", "avg", "token")

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dim=768,
        depth=12,
        num_heads=12,
        qkv_bias=True,
        init_values=1e-6,
        class_token=False,
        fc_norm=False,
        rel_pos_type="mlp",
        rel_pos_dim=None,
        shared_rel_pos=False,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        weight_init="reset",
        fix_init=False,
        embed_layer=PatchEmbed,
        norm_layer=None,
        act_layer=None,
        block_fn=Block,
        **kwargs,
    ):
        super().__init__()
        norm_layer = get_norm_layer(norm_layer) or LayerNorm
        self.in_chans, self.has_class_token, self.num_prefix_tokens = in_chans, class_token, int(class_token)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.check_pool(global_pool)
        self.global_pool = global_pool
        self.patch_embed = embed_layer(img_size, patch_size, in_chans, embed_dim)
        bias = self.bias_class(rel_pos_type, rel_pos_dim)
        self.shared_rel_pos = bias(num_heads=num_heads) if shared_rel_pos else None
        self.cls_token = self.create_parameter([1, 1, embed_dim]) if class_token else None
        if class_token:
            trunc_normal_(self.cls_token, std=1e-6)
        kwargs.update(qkv_bias=qkv_bias, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, norm_layer=norm_layer)
        kwargs.update(act_layer=act_layer if callable(act_layer) else get_act_layer(act_layer or "gelu"))
        kwargs.update(init_values=init_values)
        attention = partial(RelPosAttention, rel_pos_cls=None if shared_rel_pos else bias)
        rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.LayerList(
            block_fn(embed_dim, num_heads, drop_path=rate, attn_layer=attention, **kwargs) for rate in rates
        )
        self.feature_info = block_features(depth, embed_dim, self.patch_embed.feat_ratio())
        self.norm = nn.Identity() if fc_norm else norm_layer(embed_dim)
        self.fc_norm = norm_layer(embed_dim) if fc_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.create_classifier(num_classes)
        init_weights_vit(self, weight_init, fix_init)

    def bias_class(self, name, hidden_dim):
        """Return the class of the biases.

        Args:
            name: as ``rel_pos_type`` of the constructor.
            hidden_dim: as ``rel_pos_dim`` of the constructor.

        Raises:
            ConfigError: for another name.
        """
        if name not in _BIASES:
            raise ConfigError(f"rel_pos_type is {name!r:.80}; valid are {', '.join(_BIASES)}")
        layer, settings = _BIASES[name]
        if hidden_dim and layer is RelPosMlp:
            settings = {**settings, "hidden_dim": hidden_dim}
        return partial(layer, self.patch_embed.grid_size, prefix_tokens=self.num_prefix_tokens, **settings)

    def embed(self, x):
        """Return the tokens [N, L, embed_dim] of images, and the bias that the blocks share, or None."""
        x = self.patch_embed(x)
        if self.cls_token is not None:
            x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
        return x, (None if self.shared_rel_pos is None else self.shared_rel_pos.get_bias(),)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {"cls_token"}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block; ``coarse`` has no effect."""
        return {"stem": r"^cls_token|patch_embed", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def set_input_size(self, img_size=None, patch_size=None):
        """Change the sizes of images and of patches; kernels and biases are resized. None keeps a size."""
        self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
        for bias in (self.shared_rel_pos, *(block.attn.rel_pos for block in self.blocks)):
            if bias is not None:
                bias.set_window_size(self.patch_embed.grid_size)
        remember_input_size(self, img_size=self.patch_embed.img_size, patch_size=patch_size)


_AFTER = {"qkv_bias": False, "fc_norm": True}
_SHARED = {"qkv_bias": False, "shared_rel_pos": True}
_CLASS = {"qkv_bias": False, "class_token": True, "global_pool": "token"}
_POST = {"qkv_bias": False, "block_fn": ResPostBlock}
_PLUS = {"embed_dim": 896, "num_heads": 14}

VARIANTS = {
    **named("vit_relpos_base_patch32_plus_rpn_256", **_PLUS, block_fn=ResPostBlock),
    **named("vit_relpos_base_patch16_plus_240", **_PLUS),
    **named("vit_relpos_small_patch16_224 vit_relpos_medium_patch16_224 vit_relpos_base_patch16_224", **_AFTER),
    **named("vit_srelpos_small_patch16_224", **_SHARED, rel_pos_dim=384),
    **named("vit_srelpos_medium_patch16_224", **_SHARED, rel_pos_dim=512),
    **named("vit_relpos_medium_patch16_cls_224", **_CLASS, rel_pos_dim=256),
    **named("vit_relpos_base_patch16_cls_224", **_CLASS),
    **named("vit_relpos_base_patch16_clsgap_224", **_AFTER, class_token=True),
    **named("vit_relpos_small_patch16_rpn_224 vit_relpos_medium_patch16_rpn_224", **_POST),
    **named("vit_relpos_base_patch16_rpn_224", **_POST),
    **named("test_vit_relpos", **_AFTER, embed_dim=96, depth=9, num_heads=3, mlp_ratio=2),
}


register_variants(VARIANTS, VisionTransformerRelPos)
