"""Vision transformers (https://arxiv.org/abs/2010.11929), and what DINOv2, CLIP, SigLIP, AIMv2 ... made of them."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    AttentionPoolLatent,
    AttentionPoolPrr,
    LayerNorm,
    PatchDropout,
    PatchEmbed,
    calculate_drop_path_rates,
    get_act_layer,
    get_norm_layer,
    resample_abs_pos_embed,
    trunc_normal_,
)
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features, remember_input_size
from pimm.models.vision_transformer_blocks import Block
from pimm.models.vision_transformer_init import init_weights_vit
from pimm.models.vision_transformer_variants import VARIANTS
from pimm.models.vision_transformer_weights import checkpoint_filter_fn

__all__ = ["VisionTransformer", "checkpoint_filter_fn"]

_ATTENTION_POOLS = ("map", "prr")


class VisionTransformer(TokenModel):
    """Tokens of patches, transformer blocks, pooling and a classifier.

    Args:
        img_size: height and width of images, or one number for both.
        patch_size: the same of patches.
        in_chans: channels of images.
        num_classes: classes; 0 for a net that returns the input of the classifier.
        global_pool: ``token`` for the class token; ``avg``, ``max``, ``avgmax`` of the patches; ``map`` or ``prr`` for
            `AttentionPoolLatent` or `AttentionPoolPrr`; "" for all tokens.
        embed_dim: channels of the tokens.
        depth: number of blocks.
        num_heads, qkv_bias: as in `Block`.
        class_token: whether there is a class token.
        pos_embed: ``learn`` for learnt position embeddings, ``none`` or "" for none.
        no_embed_class: whether the class token and the registers have no position embeddings.
        reg_tokens: number of registers, tokens without a meaning (https://arxiv.org/abs/2309.16588).
        pre_norm: whether tokens are normalised before the blocks, as in CLIP; patches have no bias then.
        final_norm: whether tokens are normalised after the blocks.
        fc_norm: whether that normalisation is after the pooling; None: for ``avg``, ``max`` and ``avgmax``.
        pool_include_prefix: whether the class token and the registers are pooled too.
        dynamic_img_size: whether images may be of any size; the position embeddings are resized.
        dynamic_img_pad: whether images are padded to whole patches.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the tokens before the blocks.
        patch_drop_rate: share of the patches that are left out in training.
        proj_drop_rate, attn_drop_rate: as ``proj_drop`` and ``attn_drop`` of `Block`.
        drop_path_rate: stochastic depth of the last block.
        weight_init, fix_init: as ``mode`` and ``fix_init`` of `init_weights_vit`.
        embed_layer: class of the patch embedding.
        embed_norm_layer: class or name of a normalisation of the patches.
        norm_layer: class or name of the other normalisations; None for `LayerNorm`.
        act_layer: class or name of the activation; None for GELU.
        block_fn: class of the blocks.
        kwargs: further arguments of the blocks, as those of `Block`: ``mlp_ratio``, ``qk_norm``, ``scale_attn_norm``,
            ``scale_mlp_norm``, ``proj_bias``, ``init_values``, ``mlp_layer``, ``attn_layer``.

    Raises:
        ConfigError: for pooling that there is not, or that needs a class token, and for sizes that do not fit.
    """

    pools = ("", "avg", "avgmax", "max", "token", *_ATTENTION_POOLS)

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        global_pool="token",
        embed_dim=768,
        depth=12,
        num_heads=12,
        qkv_bias=True,
        class_token=True,
        pos_embed="learn",
        no_embed_class=False,
        reg_tokens=0,
        pre_norm=False,
        final_norm=True,
        fc_norm=None,
        pool_include_prefix=False,
        dynamic_img_size=False,
        dynamic_img_pad=False,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        patch_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        weight_init="",
        fix_init=False,
        embed_layer=PatchEmbed,
        embed_norm_layer=None,
        norm_layer=None,
        act_layer=None,
        block_fn=Block,
        **kwargs,
    ):
        super().__init__()
        norm_layer = get_norm_layer(norm_layer) or LayerNorm
        self.in_chans, self.dynamic_img_size, self.no_embed_class = in_chans, dynamic_img_size, no_embed_class
        self.has_class_token, self.num_prefix_tokens = class_token, int(class_token) + reg_tokens
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.check_pool(global_pool)
        self.global_pool, self.pool_include_prefix = global_pool, pool_include_prefix or global_pool == "prr"
        patches = {"img_size": img_size, "patch_size": patch_size, "in_chans": in_chans, "embed_dim": embed_dim}
        patches.update(bias=not pre_norm, dynamic_img_pad=dynamic_img_pad)
        self.patch_embed = embed_layer(**patches, **self.patch_settings(embed_norm_layer))
        self.create_tokens(reg_tokens, pos_embed)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, self.num_prefix_tokens)
        self.norm_pre = norm_layer(embed_dim) if pre_norm else nn.Identity()
        kwargs.update(qkv_bias=qkv_bias, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, norm_layer=norm_layer)
        kwargs.update(act_layer=act_layer if callable(act_layer) else get_act_layer(act_layer or "gelu"))
        rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(
            *(block_fn(embed_dim, num_heads, drop_path=rate, depth=i, **kwargs) for i, rate in enumerate(rates))
        )
        self.feature_info = block_features(depth, embed_dim, self.patch_embed.feat_ratio())
        self.create_norms(norm_layer, final_norm, fc_norm)
        self.attn_pool = None
        if global_pool == "map":
            pool = {"num_heads": num_heads, "mlp_ratio": kwargs.get("mlp_ratio", 4.0), "act_layer": kwargs["act_layer"]}
            self.attn_pool = AttentionPoolLatent(embed_dim, norm_layer=norm_layer, **pool)
        elif global_pool == "prr":
            self.attn_pool = AttentionPoolPrr(embed_dim, num_heads, "token" if class_token else "avg")
        self.head_drop = nn.Dropout(drop_rate)
        self.create_classifier(num_classes)
        init_weights_vit(self, weight_init, fix_init)

    def patch_settings(self, embed_norm_layer):
        """Return further arguments of the patch embedding."""
        settings = {"strict_img_size": False, "output_fmt": "NHWC"} if self.dynamic_img_size else {}
        norm_layer = get_norm_layer(embed_norm_layer)
        return {**settings, "norm_layer": norm_layer} if norm_layer else settings

    def create_tokens(self, reg_tokens, pos_embed):
        """Create class token, registers and position embeddings.

        Args:
            reg_tokens: number of registers.
            pos_embed: as in the constructor.

        Raises:
            ConfigError: for another ``pos_embed``.
        """
        if pos_embed not in ("", "none", "learn"):
            raise ConfigError(f"pos_embed is {pos_embed!r:.80}; valid are learn and none")
        self.cls_token = self.create_token(1) if self.has_class_token else None
        self.reg_token = self.create_token(reg_tokens) if reg_tokens else None
        count = self.patch_embed.num_patches + (0 if self.no_embed_class else self.num_prefix_tokens)
        self.pos_embed = self.create_token(count, std=0.02) if pos_embed == "learn" else None

    def create_token(self, count, std=1e-6):
        """Return a parameter [1, count, embed_dim] of small random numbers with this standard deviation."""
        token = self.create_parameter([1, count, self.embed_dim])
        trunc_normal_(token, std=std)
        return token

    def create_norms(self, norm_layer, final_norm, fc_norm):
        """Create the normalisations before and after pooling, of which one at most is not the identity."""
        after = self.global_pool in ("avg", "avgmax", "max") if fc_norm is None else fc_norm
        self.norm = norm_layer(self.embed_dim) if final_norm and not after else nn.Identity()
        self.fc_norm = norm_layer(self.embed_dim) if final_norm and after else nn.Identity()

    def prefix_tokens(self):
        """List the tokens before the patches, [1, tokens, embed_dim] each."""
        return [token for token in (self.cls_token, self.reg_token) if token is not None]

    def embed(self, x, attn_mask=None, is_causal=False):
        """Return the tokens [N, L, embed_dim] of images, and the further arguments of each block.

        Args:
            x: images, [N, in_chans, H, W].
            attn_mask, is_causal: as ``bias`` and ``is_causal`` of `pimm.layers.attend`.
        """
        x = self.add_positions(self.patch_embed(x))
        return self.norm_pre(self.patch_drop(x)), (attn_mask, is_causal)

    def add_positions(self, x):
        """Return the tokens of patches with position embeddings, and with the tokens before them."""
        pos_embed = self.pos_embed
        if self.dynamic_img_size:
            if pos_embed is not None:
                count = 0 if self.no_embed_class else self.num_prefix_tokens
                pos_embed = resample_abs_pos_embed(pos_embed, x.shape[1:3], self.patch_embed.grid_size, count)
            x = x.flatten(1, 2)
        prefix = [token.expand([x.shape[0], -1, -1]) for token in self.prefix_tokens()]
        if pos_embed is not None and self.no_embed_class:
            x = x + pos_embed
        x = paddle.concat([*prefix, x], axis=1) if prefix else x
        if pos_embed is None:
            return x
        return self.pos_drop(x if self.no_embed_class else x + pos_embed)

    def forward(self, x, attn_mask=None, is_causal=False):  # [N, in_chans, H, W]
        return self.forward_head(self.forward_features(x, attn_mask=attn_mask, is_causal=is_causal))

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {"pos_embed", "cls_token", "reg_token", "dist_token"}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block; ``coarse`` has no effect."""
        return {
            "stem": r"^cls_token|reg_token|pos_embed|patch_embed|norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace the classifier, and the pooling.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: as in the constructor; None keeps it.

        Raises:
            ConfigError: for another pooling, and for one by attention that the net has not.
        """
        if global_pool in _ATTENTION_POOLS and global_pool != self.global_pool:
            raise ConfigError(f"the net cannot change to {global_pool} pooling: give global_pool when it is created")
        super().reset_classifier(num_classes, global_pool)
        if self.global_pool not in _ATTENTION_POOLS:
            self.attn_pool = None

    def set_input_size(self, img_size=None, patch_size=None):
        """Change the sizes of images and of patches; kernels and position embeddings are resized. None keeps a size."""
        old_size = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
        new_size = self.patch_embed.grid_size
        if self.pos_embed is not None and new_size != old_size:
            prefix = 0 if self.no_embed_class else self.num_prefix_tokens
            with paddle.no_grad():
                resized = resample_abs_pos_embed(self.pos_embed, new_size, old_size, prefix)
            frozen = self.pos_embed.stop_gradient
            self.pos_embed = self.create_token(resized.shape[1])
            self.pos_embed.set_value(resized)
            self.pos_embed.stop_gradient = frozen
        remember_input_size(self, img_size=self.patch_embed.img_size, patch_size=patch_size)


register_variants(VARIANTS, VisionTransformer)
