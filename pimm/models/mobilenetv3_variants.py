"""The variants of MobileNet V3 and of the nets with its head, as tables.

- MobileNet V3, https://arxiv.org/abs/1905.02244
- FBNetV3, https://arxiv.org/abs/2006.02049
- PP-LCNet, https://arxiv.org/abs/2109.15099
- MobileNet V4, https://arxiv.org/abs/2404.10518
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paddle import nn

from pimm.layers import HardSwish, hard_sigmoid
from pimm.models.efficientnet_blocks import BN_EPS_TF_DEFAULT

_LARGE = [
    ["ds_r1_k3_s1_e1_c16_nre"],
    ["ir_r1_k3_s2_e4_c24_nre", "ir_r1_k3_s1_e3_c24_nre"],
    ["ir_r3_k5_s2_e3_c40_se0.25_nre"],
    ["ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"],
    ["ir_r2_k3_s1_e6_c112_se0.25"],
    ["ir_r3_k5_s2_e6_c160_se0.25"],
    ["cn_r1_k1_s1_c960"],
]
_LARGE_NOSKIP = [["ds_r1_k3_s1_e1_c16_nre_noskip"], *_LARGE[1:]]
_LARGE_MINIMAL = [
    ["ds_r1_k3_s1_e1_c16"],
    ["ir_r1_k3_s2_e4_c24", "ir_r1_k3_s1_e3_c24"],
    ["ir_r3_k3_s2_e3_c40"],
    ["ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"],
    ["ir_r2_k3_s1_e6_c112"],
    ["ir_r3_k3_s2_e6_c160"],
    ["cn_r1_k1_s1_c960"],
]
_SMALL = [
    ["ds_r1_k3_s2_e1_c16_se0.25_nre"],
    ["ir_r1_k3_s2_e4.5_c24_nre", "ir_r1_k3_s1_e3.67_c24_nre"],
    ["ir_r1_k5_s2_e4_c40_se0.25", "ir_r2_k5_s1_e6_c40_se0.25"],
    ["ir_r2_k5_s1_e3_c48_se0.25"],
    ["ir_r3_k5_s2_e6_c96_se0.25"],
    ["cn_r1_k1_s1_c576"],
]
_SMALL_MINIMAL = [
    ["ds_r1_k3_s2_e1_c16"],
    ["ir_r1_k3_s2_e4.5_c24", "ir_r1_k3_s1_e3.67_c24"],
    ["ir_r1_k3_s2_e4_c40", "ir_r2_k3_s1_e6_c40"],
    ["ir_r2_k3_s1_e3_c48"],
    ["ir_r3_k3_s2_e6_c96"],
    ["cn_r1_k1_s1_c576"],
]
_FBNET_B = [
    ["ds_r2_k3_s1_e1_c16"],
    ["ir_r1_k5_s2_e4_c24", "ir_r3_k5_s1_e2_c24"],
    ["ir_r1_k5_s2_e5_c40_se0.25", "ir_r4_k5_s1_e3_c40_se0.25"],
    ["ir_r1_k5_s2_e5_c72", "ir_r4_k3_s1_e3_c72"],
    ["ir_r1_k3_s1_e5_c120_se0.25", "ir_r5_k5_s1_e3_c120_se0.25"],
    ["ir_r1_k3_s2_e6_c184_se0.25", "ir_r5_k5_s1_e4_c184_se0.25", "ir_r1_k5_s1_e6_c224_se0.25"],
    ["cn_r1_k1_s1_c1344"],
]
_FBNET_D = [
    ["ds_r2_k3_s1_e1_c16"],
    ["ir_r1_k3_s2_e5_c24", "ir_r5_k3_s1_e2_c24"],
    ["ir_r1_k5_s2_e4_c40_se0.25", "ir_r4_k3_s1_e3_c40_se0.25"],
    ["ir_r1_k3_s2_e5_c72", "ir_r4_k3_s1_e3_c72"],
    ["ir_r1_k3_s1_e5_c128_se0.25", "ir_r6_k5_s1_e3_c128_se0.25"],
    ["ir_r1_k3_s2_e6_c208_se0.25", "ir_r5_k5_s1_e5_c208_se0.25", "ir_r1_k5_s1_e6_c240_se0.25"],
    ["cn_r1_k1_s1_c1440"],
]
_FBNET_G = [
    ["ds_r3_k3_s1_e1_c24"],
    ["ir_r1_k5_s2_e4_c40", "ir_r4_k5_s1_e2_c40"],
    ["ir_r1_k5_s2_e4_c56_se0.25", "ir_r4_k5_s1_e3_c56_se0.25"],
    ["ir_r1_k5_s2_e5_c104", "ir_r4_k3_s1_e3_c104"],
    ["ir_r1_k3_s1_e5_c160_se0.25", "ir_r8_k5_s1_e3_c160_se0.25"],
    ["ir_r1_k3_s2_e6_c264_se0.25", "ir_r6_k5_s1_e5_c264_se0.25", "ir_r2_k5_s1_e6_c288_se0.25"],
    ["cn_r1_k1_s1_c1728"],
]
_LCNET = [
    ["dsa_r1_k3_s1_c32"],
    ["dsa_r2_k3_s2_c64"],
    ["dsa_r2_k3_s2_c128"],
    ["dsa_r1_k3_s2_c256", "dsa_r1_k5_s1_c256"],
    ["dsa_r4_k5_s1_c256"],
    ["dsa_r2_k5_s2_c512_se0.25"],
]


def _universal(channels, *blocks):
    """Return the block strings of a stage of MobileNet V4 for their parts without the channels."""
    return [f"{block}_c{channels}" for block in blocks]


_ATTENTION = {  # the attention of a stage, in the medium and the large hybrids
    ("medium", 2): "mqa_r1_k3_h4_s1_v2_d64",
    ("medium", 3): "mqa_r1_k3_h4_s1_d64",
    ("large", 2): "mqa_r1_k3_h8_s1_v2_d48",
    ("large", 3): "mqa_r1_k3_h8_s1_d64",
}
_V4_SMALL = [
    ["cn_r1_k3_s2_e1_c32", "cn_r1_k1_s1_e1_c32"],
    ["cn_r1_k3_s2_e1_c96", "cn_r1_k1_s1_e1_c64"],
    _universal(96, "uir_r1_a5_k5_s2_e3", "uir_r4_a0_k3_s1_e2", "uir_r1_a3_k0_s1_e4"),
    _universal(
        128,
        "uir_r1_a3_k3_s2_e6",
        "uir_r1_a5_k5_s1_e4",
        "uir_r1_a0_k5_s1_e4",
        "uir_r1_a0_k5_s1_e3",
        "uir_r2_a0_k3_s1_e4",
    ),
    ["cn_r1_k1_s1_c960"],
]
_V4_MEDIUM = [
    ["er_r1_k3_s2_e4_c48"],
    _universal(80, "uir_r1_a3_k5_s2_e4", "uir_r1_a3_k3_s1_e2"),
    _universal(
        160,
        "uir_r1_a3_k5_s2_e6",
        "uir_r2_a3_k3_s1_e4",
        "uir_r1_a3_k5_s1_e4",
        "uir_r1_a3_k3_s1_e4",
        "uir_r1_a3_k0_s1_e4",
        "uir_r1_a0_k0_s1_e2",
        "uir_r1_a3_k0_s1_e4",
    ),
    _universal(
        256,
        "uir_r1_a5_k5_s2_e6",
        "uir_r1_a5_k5_s1_e4",
        "uir_r2_a3_k5_s1_e4",
        "uir_r1_a0_k0_s1_e4",
        "uir_r1_a3_k0_s1_e4",
        "uir_r1_a3_k5_s1_e2",
        "uir_r1_a5_k5_s1_e4",
        "uir_r2_a0_k0_s1_e4",
        "uir_r1_a5_k0_s1_e2",
    ),
    ["cn_r1_k1_s1_c960"],
]
_V4_LARGE = [
    ["er_r1_k3_s2_e4_c48"],
    _universal(96, "uir_r1_a3_k5_s2_e4", "uir_r1_a3_k3_s1_e4"),
    _universal(
        192,
        "uir_r1_a3_k5_s2_e4",
        "uir_r3_a3_k3_s1_e4",
        "uir_r1_a3_k5_s1_e4",
        "uir_r5_a5_k3_s1_e4",
        "uir_r1_a3_k0_s1_e4",
    ),
    _universal(
        512,
        "uir_r4_a5_k5_s2_e4",
        "uir_r1_a5_k0_s1_e4",
        "uir_r1_a5_k3_s1_e4",
        "uir_r2_a5_k0_s1_e4",
        "uir_r1_a5_k3_s1_e4",
        "uir_r1_a5_k5_s1_e4",
        "uir_r3_a5_k0_s1_e4",
    ),
    ["cn_r1_k1_s1_c960"],
]
_V4_HYBRID_MEDIUM = [
    *_V4_MEDIUM[:2],
    _universal(
        160,
        "uir_r1_a3_k5_s2_e6",
        "uir_r1_a0_k0_s1_e2",
        "uir_r1_a3_k3_s1_e4",
        "uir_r1_a3_k5_s1_e4",
        _ATTENTION["medium", 2],
        "uir_r1_a3_k3_s1_e4",
        _ATTENTION["medium", 2],
        "uir_r1_a3_k0_s1_e4",
        _ATTENTION["medium", 2],
        "uir_r1_a3_k3_s1_e4",
        _ATTENTION["medium", 2],
        "uir_r1_a3_k0_s1_e4",
    ),
    _universal(
        256,
        "uir_r1_a5_k5_s2_e6",
        "uir_r1_a5_k5_s1_e4",
        "uir_r2_a3_k5_s1_e4",
        "uir_r1_a0_k0_s1_e2",
        "uir_r1_a3_k5_s1_e2",
        "uir_r1_a0_k0_s1_e2",
        "uir_r1_a0_k0_s1_e4",
        _ATTENTION["medium", 3],
        "uir_r1_a3_k0_s1_e4",
        _ATTENTION["medium", 3],
        "uir_r1_a5_k5_s1_e4",
        _ATTENTION["medium", 3],
        "uir_r1_a5_k0_s1_e4",
        _ATTENTION["medium", 3],
        "uir_r1_a5_k0_s1_e4",
    ),
    ["cn_r1_k1_s1_c960"],
]
_V4_HYBRID_LARGE = [
    *_V4_LARGE[:2],
    _universal(
        192,
        "uir_r1_a3_k5_s2_e4",
        "uir_r3_a3_k3_s1_e4",
        "uir_r1_a3_k5_s1_e4",
        "uir_r2_a5_k3_s1_e4",
        *(_ATTENTION["large", 2], "uir_r1_a5_k3_s1_e4") * 3,
        _ATTENTION["large", 2],
        "uir_r1_a3_k0_s1_e4",
    ),
    _universal(
        512,
        "uir_r4_a5_k5_s2_e4",
        "uir_r1_a5_k0_s1_e4",
        "uir_r1_a5_k3_s1_e4",
        "uir_r2_a5_k0_s1_e4",
        "uir_r1_a5_k3_s1_e4",
        "uir_r1_a5_k5_s1_e4",
        *(_ATTENTION["large", 3], "uir_r1_a5_k0_s1_e4") * 4,
    ),
    ["cn_r1_k1_s1_c960"],
]


@dataclass(frozen=True)
class Variant:
    """Describe a network.

    Attributes:
        arch_def: the block strings by stage.
        width: width multiplier.
        depth: depth multiplier.
        stem_size: channels of the stem.
        fix_stem: whether the stem keeps its channels.
        num_features: channels of the head convolution.
        act_layer: class of the activations.
        bn_eps: epsilon of batch norm; None for the layer's own.
        se_kwargs: arguments of the gates.
        tensorflow: whether padding and the epsilon of batch norm are TensorFlow's.
        round_limit: the least share of scaled channels that rounding keeps.
        options: further arguments of the network.
    """

    arch_def: list
    width: float = 1.0
    depth: float = 1.0
    stem_size: int = 16
    fix_stem: bool = False
    num_features: int = 1280
    act_layer: type = HardSwish
    bn_eps: float | None = None
    se_kwargs: dict = field(
        default_factory=lambda: {"act_layer": nn.ReLU, "gate_fn": hard_sigmoid, "reduce_mid": True, "divisor": 8}
    )
    tensorflow: bool = False
    round_limit: float = 0.9
    options: dict = field(default_factory=dict)


def _fbnet(arch_def, stem_size):
    return Variant(
        arch_def,
        stem_size=stem_size,
        num_features=1984,
        se_kwargs={"gate_fn": hard_sigmoid, "divisor": 8, "round_limit": 0.95},
        round_limit=0.95,
        options={"head_bias": False},
    )


def _lcnet(width):
    gate = {"act_layer": nn.ReLU, "gate_fn": hard_sigmoid, "reduce_mid": True}
    return Variant(_LCNET, width, se_kwargs=gate)


def _v4(arch_def, width=1.0, stem_size=32, act_layer=nn.ReLU, **options):
    head = {"head_bias": False, "head_norm": True}
    return Variant(
        arch_def,
        width,
        stem_size=stem_size,
        fix_stem=width < 1.0,
        act_layer=act_layer,
        se_kwargs={},
        options={**head, **options},
    )


_HYBRID = {"layer_scale_init_value": 1e-5}
_V4_WIDE = {"stem_size": 24, "act_layer": nn.GELU, **_HYBRID}

VARIANTS = {
    "mobilenetv3_large_075": Variant(_LARGE, 0.75),
    "mobilenetv3_large_100": Variant(_LARGE),
    "mobilenetv3_large_150d": Variant(_LARGE, 1.5, 1.2),
    "mobilenetv3_small_050": Variant(_SMALL, 0.5, fix_stem=True, num_features=1024),
    "mobilenetv3_small_075": Variant(_SMALL, 0.75, num_features=1024),
    "mobilenetv3_small_100": Variant(_SMALL, num_features=1024),
    "mobilenetv3_rw": Variant(
        _LARGE_NOSKIP,
        bn_eps=BN_EPS_TF_DEFAULT,
        se_kwargs={"gate_fn": hard_sigmoid, "reduce_mid": True},
        options={"head_bias": False},
    ),
    "tf_mobilenetv3_large_minimal_100": Variant(_LARGE_MINIMAL, act_layer=nn.ReLU, tensorflow=True),
    "tf_mobilenetv3_small_minimal_100": Variant(_SMALL_MINIMAL, num_features=1024, act_layer=nn.ReLU, tensorflow=True),
    "fbnetv3_b": _fbnet(_FBNET_B, 16),
    "fbnetv3_d": _fbnet(_FBNET_D, 24),
    "fbnetv3_g": _fbnet(_FBNET_G, 32),
    "lcnet_035": _lcnet(0.35),
    "lcnet_050": _lcnet(0.5),
    "lcnet_075": _lcnet(0.75),
    "lcnet_100": _lcnet(1.0),
    "lcnet_150": _lcnet(1.5),
    "mobilenetv4_conv_small_035": _v4(_V4_SMALL, 0.35),
    "mobilenetv4_conv_small_050": _v4(_V4_SMALL, 0.5),
    "mobilenetv4_conv_small": _v4(_V4_SMALL),
    "mobilenetv4_conv_medium": _v4(_V4_MEDIUM),
    "mobilenetv4_conv_large": _v4(_V4_LARGE, stem_size=24),
    "mobilenetv4_hybrid_medium": _v4(_V4_HYBRID_MEDIUM, **_HYBRID),
    "mobilenetv4_hybrid_large": _v4(_V4_HYBRID_LARGE, **_V4_WIDE),
    "mobilenetv4_conv_aa_medium": _v4(_V4_MEDIUM, aa_layer="avg"),
    "mobilenetv4_conv_blur_medium": _v4(_V4_MEDIUM, aa_layer="blurpc"),
    "mobilenetv4_conv_aa_large": _v4(_V4_LARGE, stem_size=24, aa_layer="avg"),
    "mobilenetv4_hybrid_medium_075": _v4(_V4_HYBRID_MEDIUM, 0.75, **_HYBRID),
    "mobilenetv4_hybrid_large_075": _v4(_V4_HYBRID_LARGE, 0.75, **_V4_WIDE),
}
VARIANTS.update(
    (f"tf_{name}", replace(VARIANTS[name], tensorflow=True))
    for name in ("mobilenetv3_large_075", "mobilenetv3_large_100", "mobilenetv3_small_075", "mobilenetv3_small_100")
)
