"""EfficientNet and related networks: one network class, a table of families and a table of variants.

- EfficientNet, https://arxiv.org/abs/1905.11946; Lite and EdgeTPU from Google's repositories;
  CondConv, https://arxiv.org/abs/1904.04971
- MobileNet V2, https://arxiv.org/abs/1801.04381
- MnasNet, https://arxiv.org/abs/1807.11626
- FBNet-C, https://arxiv.org/abs/1812.03443
- Single-Path NAS, https://arxiv.org/abs/1904.02877
- MixNet, https://arxiv.org/abs/1907.09595

Names, state names and numbers are those of timm. ``tf_`` variants pad and normalise as TensorFlow does, so that weights
trained there give the same results. The EdgeTPU variants (``efficientnet_es``, ``em`` and ``el``) have the stride in
the expanding 3x3 convolution, as in timm 1.x; ``create_model(..., stride_in_expansion=False)`` puts it into the 1x1
projection, as in timm 0.1.20.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Swish, create_conv2d, norm_act
from pimm.models.efficientnet_blocks import BN_EPS_TF_DEFAULT, resolve_bn_args, round_channels
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def, efficientnet_init_weights
from pimm.models.interface import ImageModel
from pimm.models.pretrained_cfg import default_cfg
from pimm.models.registry import register_variants
from pimm.optim.layer_groups import MATCH_PREV_GROUP


class EfficientNet(ImageModel):
    """Classify images with a stem, stages of mobile blocks, a head convolution, pooling and a linear classifier.

    Args:
        block_args: the blocks by stage, as `decode_arch_def` returns them.
        num_classes: classes; 0 for a net that returns the pooled features.
        num_features: channels of the head convolution.
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
    ):
        super().__init__()
        norm_kwargs = norm_kwargs or {}
        self.num_features, self.in_chans, self.drop_rate = num_features, in_chans, drop_rate

        if not fix_stem:
            stem_size = round_channels(stem_size, channel_multiplier, channel_divisor, channel_min)
        self.conv_stem = create_conv2d(in_chans, stem_size, 3, stride=2, padding=pad_type)
        self.bn1 = norm_layer(stem_size, **norm_kwargs)
        self.act1 = act_layer()

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
        )
        self.blocks = nn.Sequential(*builder(stem_size, block_args))
        self.feature_info = builder.features

        self.conv_head = create_conv2d(builder.in_chs, num_features, 1, padding=pad_type)
        self.bn2 = norm_layer(num_features, **norm_kwargs)
        self.act2 = act_layer()
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


@dataclass(frozen=True)
class _Family:
    arch_def: list
    act_layer: type = nn.ReLU
    stem_size: int = 32
    num_features: int = 1280
    scale_head: bool = False  # a width multiplier above 1 widens the head
    fix_ends: bool = False  # stem width and depth of the first and last stage are fixed
    depth_trunc: str = "ceil"
    tf_centred: bool = False  # tf_ variants take pixels from -1 to 1


_EFFICIENTNET = _Family(
    [
        ["ds_r1_k3_s1_e1_c16_se0.25"],
        ["ir_r2_k3_s2_e6_c24_se0.25"],
        ["ir_r2_k5_s2_e6_c40_se0.25"],
        ["ir_r3_k3_s2_e6_c80_se0.25"],
        ["ir_r3_k5_s1_e6_c112_se0.25"],
        ["ir_r4_k5_s2_e6_c192_se0.25"],
        ["ir_r1_k3_s1_e6_c320_se0.25"],
    ],
    act_layer=Swish,
    scale_head=True,
)
_EFFICIENTNET_CONDCONV = _Family(
    [
        ["ds_r1_k3_s1_e1_c16_se0.25"],
        ["ir_r2_k3_s2_e6_c24_se0.25"],
        ["ir_r2_k5_s2_e6_c40_se0.25"],
        ["ir_r3_k3_s2_e6_c80_se0.25"],
        ["ir_r3_k5_s1_e6_c112_se0.25_cc4"],
        ["ir_r4_k5_s2_e6_c192_se0.25_cc4"],
        ["ir_r1_k3_s1_e6_c320_se0.25_cc4"],
    ],
    act_layer=Swish,
    scale_head=True,
    tf_centred=True,
)
_EFFICIENTNET_LITE = _Family(
    [
        ["ds_r1_k3_s1_e1_c16"],
        ["ir_r2_k3_s2_e6_c24"],
        ["ir_r2_k5_s2_e6_c40"],
        ["ir_r3_k3_s2_e6_c80"],
        ["ir_r3_k5_s1_e6_c112"],
        ["ir_r4_k5_s2_e6_c192"],
        ["ir_r1_k3_s1_e6_c320"],
    ],
    act_layer=nn.ReLU6,
    fix_ends=True,
    tf_centred=True,
)
_EFFICIENTNET_EDGE = _Family(
    [
        # fc24: the reference derives the first expansion from 24 channels, although the stem has 32
        ["er_r1_k3_s1_e4_c24_fc24_noskip"],
        ["er_r2_k3_s2_e8_c32"],
        ["er_r4_k3_s2_e8_c48"],
        ["ir_r5_k5_s2_e8_c96"],
        ["ir_r4_k5_s1_e8_c144"],
        ["ir_r2_k5_s2_e8_c192"],
    ],
    scale_head=True,
    tf_centred=True,
)
_MOBILENET_V2 = _Family(
    [
        ["ds_r1_k3_s1_c16"],
        ["ir_r2_k3_s2_e6_c24"],
        ["ir_r3_k3_s2_e6_c32"],
        ["ir_r4_k3_s2_e6_c64"],
        ["ir_r3_k3_s1_e6_c96"],
        ["ir_r3_k3_s2_e6_c160"],
        ["ir_r1_k3_s1_e6_c320"],
    ],
    act_layer=nn.ReLU6,
    scale_head=True,
)
_MOBILENET_V2_DEEP = _Family(_MOBILENET_V2.arch_def, act_layer=nn.ReLU6, fix_ends=True)
_MNASNET = _Family(
    [
        ["ds_r1_k3_s1_c16_noskip"],
        ["ir_r3_k3_s2_e3_c24"],
        ["ir_r3_k5_s2_e3_c40"],
        ["ir_r3_k5_s2_e6_c80"],
        ["ir_r2_k3_s1_e6_c96"],
        ["ir_r4_k5_s2_e6_c192"],
        ["ir_r1_k3_s1_e6_c320_noskip"],
    ]
)
_MNASNET_SE = _Family(
    [
        ["ds_r1_k3_s1_e1_c16_noskip"],
        ["ir_r2_k3_s2_e6_c24"],
        ["ir_r3_k5_s2_e3_c40_se0.25"],
        ["ir_r4_k3_s2_e6_c80"],
        ["ir_r2_k3_s1_e6_c112_se0.25"],
        ["ir_r3_k5_s2_e6_c160_se0.25"],
        ["ir_r1_k3_s1_e6_c320"],
    ]
)
_MNASNET_SMALL = _Family(
    [
        ["ds_r1_k3_s1_c8"],
        ["ir_r1_k3_s2_e3_c16"],
        ["ir_r2_k3_s2_e6_c16"],
        ["ir_r4_k5_s2_e6_c32_se0.25"],
        ["ir_r3_k3_s1_e6_c32_se0.25"],
        ["ir_r3_k5_s2_e6_c88_se0.25"],
        ["ir_r1_k3_s1_e6_c144"],
    ],
    stem_size=8,
)
_FBNETC = _Family(
    [
        ["ir_r1_k3_s1_e1_c16"],
        ["ir_r1_k3_s2_e6_c24", "ir_r2_k3_s1_e1_c24"],
        ["ir_r1_k5_s2_e6_c32", "ir_r1_k5_s1_e3_c32", "ir_r1_k5_s1_e6_c32", "ir_r1_k3_s1_e6_c32"],
        ["ir_r1_k5_s2_e6_c64", "ir_r1_k5_s1_e3_c64", "ir_r2_k5_s1_e6_c64"],
        ["ir_r3_k5_s1_e6_c112", "ir_r1_k5_s1_e3_c112"],
        ["ir_r4_k5_s2_e6_c184"],
        ["ir_r1_k3_s1_e6_c352"],
    ],
    stem_size=16,
    num_features=1984,
)
_SPNASNET = _Family(
    [
        ["ds_r1_k3_s1_c16_noskip"],
        ["ir_r3_k3_s2_e3_c24"],
        ["ir_r1_k5_s2_e6_c40", "ir_r3_k3_s1_e3_c40"],
        ["ir_r1_k5_s2_e6_c80", "ir_r3_k3_s1_e3_c80"],
        ["ir_r1_k5_s1_e6_c96", "ir_r3_k5_s1_e3_c96"],
        ["ir_r4_k5_s2_e6_c192"],
        ["ir_r1_k3_s1_e6_c320_noskip"],
    ]
)
_MIXNET_S = _Family(
    [
        ["ds_r1_k3_s1_e1_c16"],
        ["ir_r1_k3_a1.1_p1.1_s2_e6_c24", "ir_r1_k3_a1.1_p1.1_s1_e3_c24"],
        ["ir_r1_k3.5.7_s2_e6_c40_se0.5_nsw", "ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw"],
        ["ir_r1_k3.5.7_p1.1_s2_e6_c80_se0.25_nsw", "ir_r2_k3.5_p1.1_s1_e6_c80_se0.25_nsw"],
        ["ir_r1_k3.5.7_a1.1_p1.1_s1_e6_c120_se0.5_nsw", "ir_r2_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw"],
        ["ir_r1_k3.5.7.9.11_s2_e6_c200_se0.5_nsw", "ir_r2_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"],
    ],
    stem_size=16,
    num_features=1536,
)
_MIXNET_M = _Family(
    [
        ["ds_r1_k3_s1_e1_c24"],
        ["ir_r1_k3.5.7_a1.1_p1.1_s2_e6_c32", "ir_r1_k3_a1.1_p1.1_s1_e3_c32"],
        ["ir_r1_k3.5.7.9_s2_e6_c40_se0.5_nsw", "ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw"],
        ["ir_r1_k3.5.7_s2_e6_c80_se0.25_nsw", "ir_r3_k3.5.7.9_a1.1_p1.1_s1_e6_c80_se0.25_nsw"],
        ["ir_r1_k3_s1_e6_c120_se0.5_nsw", "ir_r3_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw"],
        ["ir_r1_k3.5.7.9_s2_e6_c200_se0.5_nsw", "ir_r3_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"],
    ],
    stem_size=24,
    num_features=1536,
    depth_trunc="round",
)


@dataclass(frozen=True)
class _Variant:
    family: _Family
    width: float = 1.0
    depth: float = 1.0
    size: int = 224  # of the images, in pixels
    crop_pct: float = 0.875
    experts: int = 1
    interpolation: str = "bicubic"
    tensorflow: bool = False


_VARIANTS = {
    "efficientnet_b0": _Variant(_EFFICIENTNET),
    "efficientnet_b1": _Variant(_EFFICIENTNET, 1.0, 1.1, 240),
    "efficientnet_b2": _Variant(_EFFICIENTNET, 1.1, 1.2, 260),
    "efficientnet_b3": _Variant(_EFFICIENTNET, 1.2, 1.4, 300, 0.904),
    "efficientnet_b4": _Variant(_EFFICIENTNET, 1.4, 1.8, 380, 0.922),
    "efficientnet_b5": _Variant(_EFFICIENTNET, 1.6, 2.2, 456, 0.934),
    "efficientnet_b6": _Variant(_EFFICIENTNET, 1.8, 2.6, 528, 0.942),
    "efficientnet_b7": _Variant(_EFFICIENTNET, 2.0, 3.1, 600, 0.949),
    "efficientnet_b8": _Variant(_EFFICIENTNET, 2.2, 3.6, 672, 0.954),
    "efficientnet_es": _Variant(_EFFICIENTNET_EDGE),
    "efficientnet_em": _Variant(_EFFICIENTNET_EDGE, 1.0, 1.1, 240, 0.882),
    "efficientnet_el": _Variant(_EFFICIENTNET_EDGE, 1.2, 1.4, 300, 0.904),
    "efficientnet_cc_b0_4e": _Variant(_EFFICIENTNET_CONDCONV),
    "efficientnet_cc_b0_8e": _Variant(_EFFICIENTNET_CONDCONV, experts=2),
    "efficientnet_cc_b1_8e": _Variant(_EFFICIENTNET_CONDCONV, 1.0, 1.1, 240, 0.882, experts=2),
    "efficientnet_lite0": _Variant(_EFFICIENTNET_LITE),
    "efficientnet_lite1": _Variant(_EFFICIENTNET_LITE, 1.0, 1.1, 240, 0.882),
    "efficientnet_lite2": _Variant(_EFFICIENTNET_LITE, 1.1, 1.2, 260, 0.890),
    "efficientnet_lite3": _Variant(_EFFICIENTNET_LITE, 1.2, 1.4, 300, 0.904),
    "efficientnet_lite4": _Variant(_EFFICIENTNET_LITE, 1.4, 1.8, 380, 0.922),
    "mobilenetv2_035": _Variant(_MOBILENET_V2, 0.35),
    "mobilenetv2_050": _Variant(_MOBILENET_V2, 0.5),
    "mobilenetv2_075": _Variant(_MOBILENET_V2, 0.75),
    "mobilenetv2_100": _Variant(_MOBILENET_V2),
    "mobilenetv2_110d": _Variant(_MOBILENET_V2_DEEP, 1.1, 1.2),
    "mobilenetv2_120d": _Variant(_MOBILENET_V2_DEEP, 1.2, 1.4),
    "mobilenetv2_140": _Variant(_MOBILENET_V2, 1.4),
    "mnasnet_050": _Variant(_MNASNET, 0.5),
    "mnasnet_075": _Variant(_MNASNET, 0.75),
    "mnasnet_100": _Variant(_MNASNET),
    "mnasnet_140": _Variant(_MNASNET, 1.4),
    "semnasnet_050": _Variant(_MNASNET_SE, 0.5),
    "semnasnet_075": _Variant(_MNASNET_SE, 0.75),
    "semnasnet_100": _Variant(_MNASNET_SE),
    "semnasnet_140": _Variant(_MNASNET_SE, 1.4),
    "mnasnet_small": _Variant(_MNASNET_SMALL),
    "fbnetc_100": _Variant(_FBNETC, interpolation="bilinear"),
    "spnasnet_100": _Variant(_SPNASNET, interpolation="bilinear"),
    "mixnet_s": _Variant(_MIXNET_S),
    "mixnet_m": _Variant(_MIXNET_M),
    "mixnet_l": _Variant(_MIXNET_M, 1.3),
    "mixnet_xl": _Variant(_MIXNET_M, 1.6, 1.2),
}


def _tensorflow(name, **changes):
    return {f"tf_{name}": replace(_VARIANTS[name], tensorflow=True, **changes)}


_VARIANTS.update(
    **_tensorflow("efficientnet_b0"),
    **_tensorflow("efficientnet_b1", crop_pct=0.882),
    **_tensorflow("efficientnet_b2", crop_pct=0.890),
    **_tensorflow("efficientnet_b3"),
    **_tensorflow("efficientnet_b4"),
    **_tensorflow("efficientnet_b5"),
    **_tensorflow("efficientnet_b6"),
    **_tensorflow("efficientnet_b7"),
    **_tensorflow("efficientnet_b8"),
    **_tensorflow("efficientnet_es"),
    **_tensorflow("efficientnet_em"),
    **_tensorflow("efficientnet_el"),
    **_tensorflow("efficientnet_cc_b0_4e"),
    **_tensorflow("efficientnet_cc_b0_8e"),
    **_tensorflow("efficientnet_cc_b1_8e"),
    **_tensorflow("efficientnet_lite0"),
    **_tensorflow("efficientnet_lite1"),
    **_tensorflow("efficientnet_lite2"),
    **_tensorflow("efficientnet_lite3", interpolation="bilinear"),
    **_tensorflow("efficientnet_lite4", crop_pct=0.920, interpolation="bilinear"),
    **_tensorflow("mixnet_s"),
    **_tensorflow("mixnet_m"),
    **_tensorflow("mixnet_l"),
)


def _create(variant, stride_in_expansion=True, **kwargs):
    family = variant.family
    if variant.tensorflow:
        kwargs = {"bn_eps": BN_EPS_TF_DEFAULT, "pad_type": "same", **kwargs}
    head = family.num_features
    block_args = decode_arch_def(
        family.arch_def, variant.depth, family.depth_trunc, variant.experts, fix_first_last=family.fix_ends
    )
    edge_blocks = [block for stage in block_args for block in stage if block["block_type"] == "er"]
    if not (stride_in_expansion or edge_blocks):
        raise ConfigError("stride_in_expansion=False is an option of the EdgeTPU variants: efficientnet_es, em and el")
    for block in edge_blocks:
        block["stride_in_expansion"] = stride_in_expansion
    arguments = {
        "block_args": block_args,
        "num_features": max(head, round_channels(head, variant.width)) if family.scale_head else head,
        "stem_size": family.stem_size,
        "fix_stem": family.fix_ends,
        "channel_multiplier": variant.width,
        "act_layer": family.act_layer,
        "norm_kwargs": resolve_bn_args(kwargs),
    }
    return EfficientNet(**{**arguments, **kwargs})


def _cfg(variant):
    centred = variant.tensorflow and variant.family.tf_centred
    return default_cfg(variant.size, variant.crop_pct, variant.interpolation, centred)


register_variants(_VARIANTS, _create, _cfg)
