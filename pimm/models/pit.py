"""PiT (https://arxiv.org/abs/2103.16302): vision transformers whose grid of patches shrinks between stages."""

import re

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Conv2d, LayerNorm, Linear, calculate_drop_path_rates, trunc_normal_
from pimm.layers.helpers import to_pair
from pimm.models.features import feature_map
from pimm.models.interface import ImageModel
from pimm.models.registry import register_variants
from pimm.models.vision_transformer_blocks import Block


class Pooling(nn.Layer):
    """Halve the grid of patches by a convolution, and bring the other tokens to as many channels.

    Args:
        dim: channels of the input.
        out_dim: channels of the output, a multiple of ``dim``.
    """

    def __init__(self, dim, out_dim):
        super().__init__()
        self.conv = Conv2d(dim, out_dim, 3, 2, 1, groups=dim)
        self.fc = Linear(dim, out_dim)

    def forward(self, x, tokens):
        return self.conv(x), self.fc(tokens)


class Transformer(nn.Layer):
    """A stage: pooling, except in the first, and blocks of all tokens.

    Args:
        pool: the `Pooling`, or None.
        blocks: the blocks.
    """

    def __init__(self, pool, blocks):
        super().__init__()
        self.pool = pool
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        """Return feature maps [N, C, H, W] of the patches and the other tokens, for the same before the stage."""
        maps, tokens = x if self.pool is None else self.pool(*x)
        count, size = tokens.shape[1], maps.shape[2:]
        x = self.blocks(paddle.concat([tokens, maps.flatten(2).transpose([0, 2, 1])], axis=1))
        return x[:, count:].transpose([0, 2, 1]).unflatten(2, size), x[:, :count]


class ConvEmbedding(nn.Layer):
    """Make overlapping patches by one convolution.

    Args:
        in_chans: channels of the images.
        out_chans: channels of the patches.
        img_size: size of the images.
        patch_size: size of the patches.
        stride: pixels from a patch to the next.
    """

    def __init__(self, in_chans, out_chans, img_size, patch_size, stride):
        super().__init__()
        self.img_size = to_pair(img_size)
        self.grid_size = tuple((side - patch_size) // stride + 1 for side in self.img_size)
        self.conv = Conv2d(in_chans, out_chans, patch_size, stride)

    def forward(self, x):
        return self.conv(x)


class PoolingVisionTransformer(ImageModel):
    """PiT.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        stride: pixels from a patch to the next.
        base_dims: channels of a head in each stage.
        depth: blocks of each stage.
        heads: heads of each stage.
        mlp_ratio: width of the layers relative to the channels.
        num_classes: classes; 0 for a net without a classifier.
        in_chans: channels of the images.
        global_pool: ``token``, or ``""`` for none.
        distilled: whether there are a token and a classifier for what a teacher says.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the first tokens.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch in the last block, and less in those before it.

    Raises:
        ConfigError: for another pooling, and for none with ``distilled``.
    """

    stages_name, final_layers = "transformers", ("norm",)
    distilled_training = False

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        stride=8,
        base_dims=(48, 48, 48),
        depth=(2, 6, 4),
        heads=(2, 4, 8),
        mlp_ratio=4,
        num_classes=1000,
        in_chans=3,
        global_pool="token",
        distilled=False,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
    ):
        super().__init__()
        dims = [base * count for base, count in zip(base_dims, heads)]
        self.patch_embed = ConvEmbedding(in_chans, dims[0], img_size, patch_size, stride)
        self.pos_embed = self.create_parameter([1, dims[0], *self.patch_embed.grid_size])
        self.cls_token = self.create_parameter([1, 2 if distilled else 1, dims[0]])
        self.pos_drop = nn.Dropout(pos_drop_rate)
        block = {"mlp_ratio": mlp_ratio, "qkv_bias": True, "proj_drop": proj_drop_rate, "attn_drop": attn_drop_rate}
        stages = []
        for number, rates in enumerate(calculate_drop_path_rates(drop_path_rate, depth, stagewise=True)):
            pool = Pooling(dims[number - 1], dims[number]) if number else None
            blocks = [Block(dims[number], heads[number], drop_path=rate, **block) for rate in rates]
            stages.append(Transformer(pool, blocks))
        self.transformers = nn.Sequential(*stages)
        self.feature_info = [
            feature_map(f"transformers.{number}", number + 1, dim, stride * 2**number)
            for number, dim in enumerate(dims)
        ]
        self.norm = LayerNorm(dims[-1])
        self.num_features = self.head_hidden_size = self.embed_dim = dims[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.head_dist = nn.Identity() if distilled else None
        self.reset_classifier(num_classes, global_pool)
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)

    def stem(self, x):
        """Return the patches, as feature maps, and the other tokens."""
        maps = self.pos_drop(self.patch_embed(x) + self.pos_embed)
        return maps, self.cls_token.expand([x.shape[0], -1, -1])

    def feature_map(self, x, number):
        """Return the feature maps of a stage's output."""
        return x[0]

    def final(self, x):
        """Return the normalised tokens that are no patches, [N, tokens, num_features]."""
        return self.norm(x[1])

    def no_weight_decay(self):
        """Return the names of embeddings of positions and of tokens."""
        return {"pos_embed", "cls_token"}

    def set_grad_checkpointing(self, enable=True):
        """Raise `ConfigError` if asked to compute activations again, which this net does not."""
        if enable:
            raise ConfigError("PiT does not compute activations again in the backward pass: grad_checkpointing")

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^transformers\.(\d+)\.pool", (0,)), (r"^transformers\.(\d+)\.blocks\.(\d+)", None)]
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": r"^transformers\.(\d+)" if coarse else [*blocks, (r"^norm", (99999,))],
        }

    def get_classifier(self):
        """Return the classifier, or both."""
        return self.head if self.head_dist is None else (self.head, self.head_dist)

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifiers.

        Args:
            num_classes: classes; 0 for a net that returns tokens.
            global_pool: ``token``, or ``""`` for none; None keeps it.

        Raises:
            ConfigError: for another pooling, and for none with two classifiers.
        """
        if global_pool is not None:
            valid = ("", "token") if self.head_dist is None else ("token",)
            if global_pool not in valid:
                names = " and ".join(map(repr, valid))
                raise ConfigError(f"global_pool is {global_pool!r:.80}; for this net, valid are {names}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = self._new_head()
        if self.head_dist is not None:
            self.head_dist = self._new_head()

    def _new_head(self):
        head = Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()
        head.training = self.training
        return head

    def set_distilled_training(self, enable=True):
        """Return the logits of both classifiers in training, or their mean."""
        self.distilled_training = enable

    def forward_head(self, x, pre_logits=False):
        """Return the logits of tokens: in distilled training of both classifiers, else their mean."""
        if self.head_dist is None:
            x = self.head_drop(x[:, 0] if self.global_pool else x)
            return x if pre_logits else self.head(x)
        both = self.head_drop(x[:, 0]), self.head_drop(x[:, 1])
        if not pre_logits:
            both = self.head(both[0]), self.head_dist(both[1])
        return both if self.distilled_training and self.training else (both[0] + both[1]) / 2

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need; arguments and errors as in `ImageModel`."""
        self.head_dist = None if prune_head else self.head_dist
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names; the authors' files count the poolings apart from the stages."""
    return {
        re.sub(r"pools\.(\d)\.", lambda found: f"transformers.{int(found[1]) + 1}.pool.", name): value
        for name, value in state_dict.items()
    }


_SIZES = {
    "b": {"patch_size": 14, "stride": 7, "base_dims": (64, 64, 64), "depth": (3, 6, 4), "heads": (4, 8, 16)},
    "s": {"heads": (3, 6, 12)},
    "xs": {"heads": (2, 4, 8)},
    "ti": {"base_dims": (32, 32, 32)},
}
_VARIANTS = {f"pit_{name}_224": size for name, size in _SIZES.items()}
_VARIANTS.update({f"pit_{name}_distilled_224": {**size, "distilled": True} for name, size in _SIZES.items()})


register_variants(_VARIANTS, PoolingVisionTransformer)
