"""EVA, EVA-02 and vision transformers with rotary embeddings (https://arxiv.org/abs/2211.07636 and others)."""

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    AttentionPoolLatent,
    LayerNorm,
    PatchDropoutWithIndices,
    PatchEmbed,
    RotaryEmbeddingMixed,
    apply_keep_indices_nlc,
    calculate_drop_path_rates,
    create_rope_embed,
    resample_abs_pos_embed,
)
from pimm.models.beit import init_beit_weights
from pimm.models.eva_blocks import EvaBlock, EvaBlockPostNorm
from pimm.models.eva_variants import VARIANTS
from pimm.models.eva_weights import checkpoint_filter_fn
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features

__all__ = ["Eva", "checkpoint_filter_fn"]


class Eva(TokenModel):
    """EVA and its kin.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``avg``, ``max``, ``avgmax``, ``token``, ``map`` for attention, or ``""`` for none.
        embed_dim: channels.
        depth: number of blocks.
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values, a number or one for each block; None for as many as of queries.
        qkv_bias: whether queries, keys and values have biases.
        qkv_fused: whether one layer makes queries, keys and values.
        qk_norm: whether queries and keys are normalised.
        mlp_ratio: width of the layers relative to the channels.
        swiglu_mlp: whether the layers have a gate.
        swiglu_align_to: what the width of a gated layer is made a multiple of.
        scale_mlp: whether there is a normalisation before the last layer of a block.
        scale_attn_inner: whether the output of all heads is normalised.
        attn_type: as in `EvaAttention`.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the first tokens.
        patch_drop_rate: share of the patches that are left out in training.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch in the last block, and less in those before it.
        norm_layer: class of the normalisations.
        init_values: initial scale of the branches; None for branches without scales.
        attn_only_layer_scale: whether attention alone is scaled.
        class_token: whether there is a class token.
        num_reg_tokens: number of registers (https://arxiv.org/abs/2309.16588).
        no_embed_class: whether patches alone have an embedding of positions.
        use_abs_pos_emb: whether there is a learnt embedding of positions.
        use_rot_pos_emb: whether there are rotary embeddings.
        rope_type: ``cat``, ``mixed``, ``dinov3`` or ``mrope``.
        rope_grid_offset: added to the coordinates of patches.
        rope_grid_indexing: ``ij`` or ``xy``: the order of coordinates.
        rope_temperature: ratio of the frequencies.
        rope_rotate_half: order of channels, as ``half`` of `apply_rot_embed_cat`; always so with ``mrope``.
        rope_shift_coords: largest random shift of the coordinates in training, None for none.
        rope_jitter_coords: largest random factor of each axis in training.
        rope_rescale_coords: largest random factor of both axes in training.
        rope_mrope_section: as in `RotaryEmbeddingMRope`.
        use_post_norm: whether normalisations come after attention and layers.
        use_pre_transformer_norm: whether there is a normalisation before the first block.
        use_post_transformer_norm: whether there is one after the last block; None where there is none after pooling.
        use_fc_norm: whether there is one after pooling; None for after average pooling.
        attn_pool_num_heads: heads of pooling by attention; None for ``num_heads``.
        attn_pool_mlp_ratio: width of the layers of pooling by attention; None for ``mlp_ratio``.
        dynamic_img_size: whether images of any size are taken.
        dynamic_img_pad: whether images are padded to whole patches.
        ref_feat_shape: rows and columns that coordinates are scaled to.
        head_init_scale: factor of the initial values of the classifier.

    Raises:
        ConfigError: for settings that exclude each other.
    """

    pools = ("", "avg", "avgmax", "max", "token", "map")

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
        num_kv_heads=None,
        qkv_bias=True,
        qkv_fused=True,
        qk_norm=False,
        mlp_ratio=4.0,
        swiglu_mlp=False,
        swiglu_align_to=0,
        scale_mlp=False,
        scale_attn_inner=False,
        attn_type="eva",
        drop_rate=0.0,
        pos_drop_rate=0.0,
        patch_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
        init_values=None,
        attn_only_layer_scale=False,
        class_token=True,
        num_reg_tokens=0,
        no_embed_class=False,
        use_abs_pos_emb=True,
        use_rot_pos_emb=False,
        rope_type="cat",
        rope_grid_offset=0.0,
        rope_grid_indexing="ij",
        rope_temperature=10000.0,
        rope_rotate_half=False,
        rope_shift_coords=None,
        rope_jitter_coords=None,
        rope_rescale_coords=None,
        rope_mrope_section=None,
        use_post_norm=False,
        use_pre_transformer_norm=False,
        use_post_transformer_norm=None,
        use_fc_norm=None,
        attn_pool_num_heads=None,
        attn_pool_mlp_ratio=None,
        dynamic_img_size=False,
        dynamic_img_pad=False,
        ref_feat_shape=None,
        head_init_scale=0.001,
    ):
        super().__init__()
        if global_pool == "token" and not class_token:
            raise ConfigError("global_pool is token: the net has no class token; give class_token=True")
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.num_prefix_tokens = int(class_token) + num_reg_tokens
        self.no_embed_class, self.dynamic_img_size = no_embed_class, dynamic_img_size
        use_fc_norm = global_pool == "avg" if use_fc_norm is None else use_fc_norm
        post_norm = not use_fc_norm if use_post_transformer_norm is None else use_post_transformer_norm
        self.patch_embed = PatchEmbed(
            img_size,
            patch_size,
            in_chans,
            embed_dim,
            bias=not use_pre_transformer_norm,
            dynamic_img_pad=dynamic_img_pad,
            **({"strict_img_size": False, "output_fmt": "NHWC"} if dynamic_img_size else {}),
        )
        self._create_tokens(class_token, num_reg_tokens, use_abs_pos_emb)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = None
        if patch_drop_rate:
            self.patch_drop = PatchDropoutWithIndices(patch_drop_rate, self.num_prefix_tokens)
        rope = {
            "temperature": rope_temperature,
            "grid_indexing": rope_grid_indexing,
            "rotate_half": rope_rotate_half or rope_type == "mrope",
            "shift_coords": rope_shift_coords,
            "jitter_coords": rope_jitter_coords,
            "rescale_coords": rope_rescale_coords,
        }
        of_type = {
            "mixed": {"depth": depth},
            "cat": {"in_pixels": False, "grid_offset": rope_grid_offset, "ref_feat_shape": ref_feat_shape},
            "dinov3": {"grid_offset": rope_grid_offset},
            "mrope": {"mrope_section": rope_mrope_section or (8, 12, 12)},
        }
        self.rope = None
        if use_rot_pos_emb:
            feat_shape = None if dynamic_img_size else self.patch_embed.grid_size
            rope.update(of_type.get(rope_type, {}), feat_shape=feat_shape)
            self.rope = create_rope_embed(rope_type, embed_dim, num_heads, **rope)
        self.norm_pre = norm_layer(embed_dim) if use_pre_transformer_norm else nn.Identity()
        block = {
            "qkv_bias": qkv_bias,
            "qkv_fused": qkv_fused,
            "mlp_ratio": mlp_ratio,
            "swiglu_mlp": swiglu_mlp,
            "swiglu_align_to": swiglu_align_to,
            "scale_mlp": scale_mlp,
            "scale_attn_inner": scale_attn_inner,
            "attn_type": attn_type,
            "rotate_half": rope["rotate_half"],
            "num_prefix_tokens": self.num_prefix_tokens,
            "proj_drop": proj_drop_rate,
            "attn_drop": attn_drop_rate,
            "norm_layer": norm_layer,
            "init_values": init_values,
            "qk_norm": qk_norm,
            "attn_only_layer_scale": attn_only_layer_scale,
        }
        rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = _create_blocks(embed_dim, num_heads, rates, num_kv_heads, use_post_norm, block)
        self.feature_info = block_features(depth, embed_dim, patch_size)
        self.norm = norm_layer(embed_dim) if post_norm else nn.Identity()
        self.attn_pool = None
        if global_pool == "map":
            pool = {"num_heads": attn_pool_num_heads or num_heads, "mlp_ratio": attn_pool_mlp_ratio or mlp_ratio}
            self.attn_pool = AttentionPoolLatent(embed_dim, norm_layer=norm_layer, **pool)
        self.fc_norm = norm_layer(embed_dim) if use_fc_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.global_pool = global_pool
        super().reset_classifier(num_classes)
        init_beit_weights(self, head_init_scale)

    def _create_tokens(self, class_token, num_reg_tokens, use_abs_pos_emb):
        """Create the class token, the registers and the embedding of positions."""
        self.cls_token = self.reg_token = self.pos_embed = None
        if class_token:
            self.cls_token = self.create_parameter([1, 1, self.embed_dim])
        if num_reg_tokens:
            self.reg_token = self.create_parameter([1, num_reg_tokens, self.embed_dim])
        if use_abs_pos_emb:
            count = self.patch_embed.num_patches + (0 if self.no_embed_class else self.num_prefix_tokens)
            self.pos_embed = self.create_parameter([1, count, self.embed_dim])

    @property
    def has_class_token(self):
        """Tell whether there is a token that ``token`` pooling takes."""
        return self.cls_token is not None

    def embed(self, x):
        """Return the tokens of images, and the rotary embeddings of their patches."""
        x = self.patch_embed(x)
        pos_embed, rope = self.pos_embed, None
        if self.dynamic_img_size:
            size = x.shape[1:3]
            if pos_embed is not None:
                count = 0 if self.no_embed_class else self.num_prefix_tokens
                pos_embed = resample_abs_pos_embed(pos_embed, size, self.patch_embed.grid_size, count)
            x = x.flatten(1, 2)
            rope = None if self.rope is None else self.rope.get_embed(size)
        elif self.rope is not None:
            rope = self.rope.get_embed(None if self.rope.feat_shape else self.patch_embed.grid_size)
        x = x + pos_embed if pos_embed is not None and self.no_embed_class else x
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        if prefix:
            x = paddle.concat([*(token.expand([x.shape[0], -1, -1]) for token in prefix), x], axis=1)
        x = x + pos_embed if pos_embed is not None and not self.no_embed_class else x
        x, rope = self._drop_patches(self.pos_drop(x), rope)
        return self.norm_pre(x), (rope,)

    def _drop_patches(self, x, rope):
        """Return the tokens, and the rotary embeddings, of the patches that are kept in training."""
        if self.patch_drop is None:
            return x, rope
        x, kept = self.patch_drop(x)
        if rope is None or kept is None:
            return x, rope
        rope = apply_keep_indices_nlc(x, rope, kept)  # [N, kept, ...], or [N, depth, heads, kept, ...] of learnt ones
        return x, rope.unsqueeze(1) if rope.ndim == 3 else rope.transpose([1, 0, 2, 3, 4])

    def block_arguments(self, arguments, number):
        """Return the rotary embeddings of a block: where they are learnt, each has its own."""
        (rope,) = arguments
        return (rope[number] if isinstance(self.rope, RotaryEmbeddingMixed) else rope,)

    def pool(self, x, pool_type=None):
        """Return one vector [N, C] of tokens [N, L, C], of which attention sees those before the patches too."""
        return super().pool(x, pool_type) if self.attn_pool is None else self.attn_pool(x)

    def no_weight_decay(self):
        """Return the names of embeddings of positions, of tokens before the patches, and of learnt frequencies."""
        learnt = {"rope.freqs"} if isinstance(self.rope, RotaryEmbeddingMixed) else set()
        return {"pos_embed", "cls_token", "reg_token"} | learnt

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {
            "stem": r"^cls_token|reg_token|pos_embed|patch_embed|norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace the classifier, and the pooling, which can become attention only when the net is created.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: one of ``pools``; None keeps it.

        Raises:
            ConfigError: for another pooling.
        """
        if global_pool == "map" and self.attn_pool is None:
            raise ConfigError("global_pool cannot become map later: give it when the model is created")
        super().reset_classifier(num_classes, global_pool)
        if global_pool not in (None, "map"):
            self.attn_pool = None


def _create_blocks(dim, num_heads, rates, num_kv_heads, use_post_norm, block):
    """Return the blocks.

    Args:
        dim: channels.
        num_heads: heads of queries.
        rates: for each block, the probability of leaving out a branch.
        num_kv_heads: heads of keys and values, a number or one for each block.
        use_post_norm: whether normalisations come after attention and layers.
        block: further arguments of `EvaBlock`.

    Raises:
        ConfigError: for settings that exclude each other.
    """
    kv_heads = num_kv_heads if isinstance(num_kv_heads, (list, tuple)) else [num_kv_heads] * len(rates)
    if len(kv_heads) != len(rates):
        raise ConfigError(f"num_kv_heads has {len(kv_heads)} numbers; must be one for each of {len(rates)} blocks")
    if use_post_norm:
        if block["qk_norm"] or block["attn_only_layer_scale"] or any(kv_heads):
            raise ConfigError("use_post_norm excludes qk_norm, attn_only_layer_scale and num_kv_heads")
        block = {**block, "init_values": None}
    create = EvaBlockPostNorm if use_post_norm else EvaBlock
    return nn.LayerList(
        [create(dim, num_heads, drop_path=rate, num_kv_heads=heads, **block) for rate, heads in zip(rates, kv_heads)]
    )


register_variants(VARIANTS, Eva)
