"""EfficientNet and related networks: one network class, and a model for each variant of a family.

Names, state names and numbers are those of timm. ``tf_`` variants pad and normalise as TensorFlow does, so that weights
trained there give the same results. The EdgeTPU variants (``efficientnet_es``, ``em`` and ``el``) have the stride in
the expanding 3x3 convolution, as in timm 1.x; ``create_model(..., stride_in_expansion=False)`` puts it into the 1x1
projection, as in timm 0.1.20.
"""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, create_conv2d, norm_act
from pimm.models.efficientnet_blocks import BN_EPS_TF_DEFAULT, create_norm, resolve_bn_args, round_channels
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def, efficientnet_init_weights
from pimm.models.efficientnet_variants import VARIANTS
from pimm.models.interface import ImageModel
from pimm.models.pruned import prune_channels
from pimm.models.registry import register_variants
from pimm.optim.layer_groups import MATCH_PREV_GROUP


class EfficientNet(ImageModel):
    """Classify images with a stem, stages of mobile blocks, a head convolution, pooling and a linear classifier.

    Args:
        block_args: the blocks by stage, as `decode_arch_def` returns them.
        num_classes: classes; 0 for a net that returns the pooled features.
        num_features: channels of the head convolution; 0 for a net without one.
        in_chans: channels of the images.
        stem_size: channels of the stem, before the width multiplier.
        channel_multiplier: width multiplier.
        channel_divisor: channels are rounded to multiples of it.
        channel_min: the least number of channels of a layer.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        pad_type: padding of all convolutions, such as ``same``.
        fix_stem: whether the stem keeps its width whatever the multiplier.
        act_layer: class of the activations.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        se_kwargs: arguments of the squeeze-and-excitation gates.
        norm_layer: class of the normalisation layers.
        norm_kwargs: arguments of the normalisation layers.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        stem_kernel_size: kernel of the stem.
        round_limit: the least share of scaled channels that rounding keeps.
        aa_layer: layer that shrinks images in place of the strided convolutions of blocks, such as ``blurpc``.
        se_layer: class of the gates in place of `SqueezeExcite`, such as ``gc``.
    """

    final_layers = ("conv_head", "bn2", "act2")

    def __init__(
        self,
        block_args,
        num_classes=1000,
        num_features=1280,
        in_chans=3,
        stem_size=32,
        channel_multiplier=1.0,
        channel_divisor=8,
        channel_min=None,
        output_stride=32,
        pad_type="",
        fix_stem=False,
        act_layer=nn.ReLU,
        drop_rate=0.0,
        drop_path_rate=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        global_pool="avg",
        stem_kernel_size=3,
        round_limit=0.9,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate

        if not fix_stem:
            stem_size = round_channels(stem_size, channel_multiplier, channel_divisor, channel_min, round_limit)
        self.conv_stem = create_conv2d(in_chans, stem_size, stem_kernel_size, stride=2, padding=pad_type)
        self.bn1, self.act1 = create_norm(stem_size, norm_layer, norm_kwargs, act_layer)

        builder = EfficientNetBuilder(
            channel_multiplier,
            channel_divisor,
            channel_min,
            output_stride,
            pad_type,
            act_layer,
            se_kwargs,
            norm_layer,
            norm_kwargs,
            drop_path_rate,
            round_limit,
            aa_layer,
            se_layer,
        )
        self.blocks = nn.Sequential(*builder(stem_size, block_args))
        self.feature_info = builder.features

        self.conv_head = self.bn2 = self.act2 = nn.Identity()
        self.num_features = num_features or builder.in_chs
        if num_features:
            self.conv_head = create_conv2d(builder.in_chs, num_features, 1, padding=pad_type)
            self.bn2, self.act2 = create_norm(num_features, norm_layer, norm_kwargs, act_layer)
        self.create_head(num_classes, global_pool)
        efficientnet_init_weights(self)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": [(blocks, None), (r"conv_head|bn2", MATCH_PREV_GROUP)]}

    def stem(self, x):  # [N, in_chans, H, W]
        """Return the input of the first stage."""
        return norm_act(self.conv_stem(x), self.bn1, self.act1)  # [N, stem_size, H / 2, W / 2]

    def final(self, x):
        """Return the output of the head convolution for that of the last stage."""
        return norm_act(self.conv_head(x), self.bn2, self.act2)  # [N, num_features, H / 32, W / 32]


_HEADS = {  # Family.head: channels of the head, given the family's own and the scaled ones
    "fixed": lambda channels, scaled: channels,
    "scaled": lambda channels, scaled: scaled,
    "widened": max,
}


def _create(variant, stride_in_expansion=True, **kwargs):
    family = variant.family
    if variant.tensorflow:
        kwargs = {"bn_eps": BN_EPS_TF_DEFAULT, "pad_type": "same", **kwargs}
    block_args = decode_arch_def(
        family.arch_def, variant.depth, family.depth_trunc, variant.experts, family.fix_depth, variant.group_size
    )
    edge_blocks = [block for stage in block_args for block in stage if block["block_type"] == "er"]
    if not (stride_in_expansion or edge_blocks):
        raise ConfigError("stride_in_expansion=False is an option of the EdgeTPU variants: efficientnet_es, em and el")
    for block in edge_blocks:
        block["stride_in_expansion"] = stride_in_expansion
    head = family.num_features
    scaled = round_channels(head, variant.width, variant.channel_divisor, round_limit=family.round_limit)
    arguments = {
        "block_args": block_args,
        "num_features": head and _HEADS[family.head](head, scaled),
        "stem_size": family.stem_size,
        "stem_kernel_size": family.stem_kernel_size,
        "fix_stem": family.fix_stem,
        "channel_multiplier": variant.width,
        "channel_divisor": variant.channel_divisor,
        "round_limit": family.round_limit,
        "act_layer": family.act_layer,
        "norm_kwargs": resolve_bn_args(kwargs),
        **variant.options,
    }
    model = EfficientNet(**{**arguments, **kwargs})
    if variant.pruned:
        prune_channels(model, variant.pruned)
        efficientnet_init_weights(model)
    return model


register_variants(VARIANTS, _create)
