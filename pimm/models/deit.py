"""Vision transformers of DeiT (https://arxiv.org/abs/2012.12877) and DeiT III (https://arxiv.org/abs/2204.07118).

Distilled nets have a second token and a second classifier, which learn from a teacher.
"""

from __future__ import annotations

from paddle import nn

from pimm.layers import Linear
from pimm.models.registry import register_variants
from pimm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from pimm.models.vision_transformer_variants import named

__all__ = ["VisionTransformerDistilled", "checkpoint_filter_fn"]


class VisionTransformerDistilled(VisionTransformer):
    """A vision transformer with a token and a classifier of distillation beside those of the classes.

    The net returns the mean of the logits of both classifiers; in training, after ``set_distilled_training()``, it
    returns both. Arguments are those of `VisionTransformer`; ``global_pool`` must be ``token``.
    """

    pools = ("", "token")
    distilled_training = False

    def create_tokens(self, reg_tokens, pos_embed):
        self.num_prefix_tokens = 2
        super().create_tokens(reg_tokens, pos_embed)
        self.dist_token = self.create_token(1, std=0.02)

    def prefix_tokens(self):
        return [self.cls_token, self.dist_token]

    def create_classifier(self, num_classes):
        super().create_classifier(num_classes)
        self.head_dist = Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block; ``coarse`` has no effect."""
        return {**super().group_matcher(coarse), "stem": r"^cls_token|pos_embed|patch_embed|dist_token"}

    def get_classifier(self):
        """Return the last layers: the classifier, and that of distillation."""
        return self.head, self.head_dist

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace both classifiers.

        Args:
            num_classes: classes; 0 for a net that returns the mean of the two tokens.
            global_pool: ``token``, "" or None; has no effect.

        Raises:
            ConfigError: for another pooling.
        """
        if global_pool:
            self.check_pool(global_pool)
        self.create_classifier(num_classes)
        for layer in self.get_classifier():
            layer.train() if self.training else layer.eval()

    def set_distilled_training(self, enable=True):
        """Let the net return the logits of both classifiers in training, or their mean."""
        self.distilled_training = enable

    def forward_head(self, x, pre_logits=False):
        """Return the logits of tokens, or with ``pre_logits`` the mean of the first two tokens.

        Args:
            x: tokens of `forward_features`, [N, L, C].
            pre_logits: whether to stop before the classifiers.
        """
        x, x_dist = self.head_drop(x[:, 0]), self.head_drop(x[:, 1])
        if pre_logits:
            return (x + x_dist) / 2
        x, x_dist = self.head(x), self.head_dist(x_dist)
        return (x, x_dist) if self.distilled_training and self.training else (x + x_dist) / 2


_DEIT3 = {"no_embed_class": True, "init_values": 1e-6}
_DISTILLED = {"net": VisionTransformerDistilled}

VARIANTS = {
    **named("deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224 deit_base_patch16_384"),
    **named("deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224", **_DISTILLED),
    **named("deit_base_distilled_patch16_224 deit_base_distilled_patch16_384", **_DISTILLED),
    **named("deit3_small_patch16_224 deit3_small_patch16_384 deit3_medium_patch16_224", **_DEIT3),
    **named("deit3_base_patch16_224 deit3_base_patch16_384 deit3_large_patch16_224", **_DEIT3),
    **named("deit3_large_patch16_384 deit3_huge_patch14_224", **_DEIT3),
}


def _create(variant, **kwargs):
    net, variant = variant.get("net", VisionTransformer), {key: variant[key] for key in variant if key != "net"}
    return net(**{**variant, **kwargs})


register_variants(VARIANTS, _create)
