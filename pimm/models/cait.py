"""CaiT (https://arxiv.org/abs/2103.17239): blocks of patches alone, then blocks of the class token."""

import paddle
from paddle import nn

from pimm.layers import LayerNorm, PatchEmbed, trunc_normal_
from pimm.models.cait_blocks import ClassAttn, LayerScaleBlock, LayerScaleBlockClassAttn
from pimm.models.initial_values import init_truncated
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features, global_pool_nlc


class LateTokenModel(TokenModel):
    """A `TokenModel` whose class token comes after the blocks of patches, and has blocks of its own.

    A family defines `classify`, names the blocks of the class token in ``token_blocks_name``, and sets ``cls_token``.
    """

    pools = ("", "avg", "token")
    token_blocks_name = ""

    @property
    def has_class_token(self):
        """Tell whether there is a token that ``token`` pooling takes."""
        return self.cls_token is not None

    def classify(self, x):
        """Return the class token and the patches, [N, 1 + L, C], of patches [N, L, C]."""
        raise NotImplementedError

    def finish(self, x):
        """Return the normalised class token and patches, [N, 1 + L, C]."""
        return self.norm(x if self.cls_token is None else self.classify(x))

    def pool(self, x, pool_type=None):
        """Return one vector [N, C] of the output of `finish`; ``pool_type`` stands for the net's own pooling."""
        return global_pool_nlc(x, self.global_pool if pool_type is None else pool_type, int(self.has_class_token))

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the blocks after those whose outputs are wanted; with the head go class token and its blocks.

        Arguments and errors are those of `TokenModel`.
        """
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head:
            self.cls_token = None
            setattr(self, self.token_blocks_name, nn.LayerList())
        return taken


class Cait(LateTokenModel):
    """CaiT.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``token``, ``avg``, or ``""`` for none.
        embed_dim: channels.
        depth: number of blocks of patches.
        num_heads: heads.
        mlp_ratio: width of the layers in blocks of patches relative to the channels.
        qkv_bias: whether queries, keys and values have biases.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the first tokens.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch.
        norm_layer: class of the normalisations.
        init_values: initial scale of the branches.
        depth_token_only: number of blocks of the class token.
        mlp_ratio_token_only: width of their layers relative to the channels.
    """

    token_blocks_name = "blocks_token_only"

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
        mlp_ratio=4.0,
        qkv_bias=True,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
        init_values=1e-4,
        depth_token_only=2,
        mlp_ratio_token_only=4.0,
    ):
        super().__init__()
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        self.cls_token = self.create_parameter([1, 1, embed_dim])
        self.pos_embed = self.create_parameter([1, self.patch_embed.num_patches, embed_dim])
        self.pos_drop = nn.Dropout(pos_drop_rate)
        common = {"qkv_bias": qkv_bias, "norm_layer": norm_layer, "init_values": init_values}
        of_patches = {
            "mlp_ratio": mlp_ratio,
            "proj_drop": proj_drop_rate,
            "attn_drop": attn_drop_rate,
            "drop_path": drop_path_rate,
        }
        self.blocks = nn.Sequential(
            *(LayerScaleBlock(embed_dim, num_heads, **of_patches, **common) for _ in range(depth))
        )
        self.feature_info = block_features(depth, embed_dim, patch_size)
        self.blocks_token_only = nn.LayerList(
            [
                LayerScaleBlockClassAttn(embed_dim, num_heads, ClassAttn, mlp_ratio_token_only, **common)
                for _ in range(depth_token_only)
            ]
        )
        self.norm = norm_layer(embed_dim)
        self.fc_norm = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        init_late_token_weights(self)
        trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x):
        """Return the patches of images, and no further arguments of blocks."""
        return self.pos_drop(self.patch_embed(x) + self.pos_embed), ()

    def classify(self, x):
        """Return the class token and the patches, [N, 1 + L, C], of patches [N, L, C]."""
        token = self.cls_token.expand([x.shape[0], -1, -1])
        for block in self.blocks_token_only:
            token = block(x, token)
        return paddle.concat([token, x], axis=1)

    def no_weight_decay(self):
        """Return the names of embeddings of positions and of the class token."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse=False):
        """Return a function that maps the name of a parameter to the number of its block.

        Blocks of the class token count as the last blocks of patches.
        """
        last, of_token = len(self.blocks), len(self.blocks_token_only)

        def number_of(name):
            first, _, rest = name.partition(".")
            if first in ("cls_token", "pos_embed", "patch_embed"):
                return 0
            if first in ("blocks", "blocks_token_only"):
                return int(rest.partition(".")[0]) + 1 + (last - of_token if first == "blocks_token_only" else 0)
            return last if first == "norm" else float("inf")

        return number_of


def init_late_token_weights(model):
    """Draw the values of linear layers and of the class token."""
    init_truncated(model)
    trunc_normal_(model.cls_token, std=0.02)


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names, without the prefix of nets that several processes trained."""
    return {name.replace("module.", ""): value for name, value in state_dict.items()}


_SIZES = {  # name: channels, blocks, heads, initial scale
    "xxs24": (192, 24, 4, 1e-5),
    "xxs36": (192, 36, 4, 1e-5),
    "xs24": (288, 24, 6, 1e-5),
    "s24": (384, 24, 8, 1e-5),
    "s36": (384, 36, 8, 1e-6),
    "m36": (768, 36, 16, 1e-6),
    "m48": (768, 48, 16, 1e-6),
}
_NAMES = ("xxs24_224", "xxs24_384", "xxs36_224", "xxs36_384", "xs24_384")
_NAMES += ("s24_224", "s24_384", "s36_384", "m36_384", "m48_448")
_ARGUMENTS = ("embed_dim", "depth", "num_heads", "init_values")
_VARIANTS = {f"cait_{name}": dict(zip(_ARGUMENTS, _SIZES[name.partition("_")[0]])) for name in _NAMES}


register_variants(_VARIANTS, Cait)
