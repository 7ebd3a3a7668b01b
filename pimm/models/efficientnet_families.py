"""Families of EfficientNet and related networks, as tables of block strings.

- EfficientNet, https://arxiv.org/abs/1905.11946; Lite and EdgeTPU from Google's repositories;
  CondConv, https://arxiv.org/abs/1904.04971; X, https://arxiv.org/abs/2102.05610
- EfficientNetV2, https://arxiv.org/abs/2104.00298
- MobileNet V1, https://arxiv.org/abs/1704.04861; V2, https://arxiv.org/abs/1801.04381; EdgeTPU from Google's repository
- MnasNet, https://arxiv.org/abs/1807.11626
- FBNet-C, https://arxiv.org/abs/1812.03443
- Single-Path NAS, https://arxiv.org/abs/1904.02877
- MixNet, https://arxiv.org/abs/1907.09595
- TinyNet, https://arxiv.org/abs/2010.14819
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddle import nn

from pimm.layers import Swish


@dataclass(frozen=True)
class Family:
    """Describe what the networks of a family have in common.

    Attributes:
        arch_def: the block strings by stage.
        act_layer: class of the activations.
        stem_size: channels of the stem.
        stem_kernel_size: kernel of the stem.
        num_features: channels of the head convolution; 0 for none.
        head: how the head's channels follow the width multiplier: ``fixed``, ``scaled``, or ``widened`` by one above 1.
        fix_stem: whether the stem keeps its channels.
        fix_depth: whether the first and the last stage keep their depth.
        depth_trunc: how a scaled depth is rounded, ``ceil`` or ``round``.
        round_limit: the least share of scaled channels that rounding keeps.
    """

    arch_def: list
    act_layer: type = nn.ReLU
    stem_size: int = 32
    stem_kernel_size: int = 3
    num_features: int = 1280
    head: str = "fixed"
    fix_stem: bool = False
    fix_depth: bool = False
    depth_trunc: str = "ceil"
    round_limit: float = 0.9


EFFICIENTNET = Family(
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
    head="scaled",
)
EFFICIENTNET_CONDCONV = Family(
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
    head="scaled",
)
EFFICIENTNET_LITE = Family(
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
    fix_stem=True,
    fix_depth=True,
)
EFFICIENTNET_EDGE = Family(
    [
        # fc24: the reference derives the first expansion from 24 channels, although the stem has 32
        ["er_r1_k3_s1_e4_c24_fc24_noskip"],
        ["er_r2_k3_s2_e8_c32"],
        ["er_r4_k3_s2_e8_c48"],
        ["ir_r5_k5_s2_e8_c96"],
        ["ir_r4_k5_s1_e8_c144"],
        ["ir_r2_k5_s2_e8_c192"],
    ],
    head="scaled",
)
MOBILENET_V2 = Family(
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
    head="widened",
)
MOBILENET_V2_DEEP = replace(MOBILENET_V2, head="fixed", fix_stem=True, fix_depth=True)
MNASNET = Family(
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
MNASNET_SE = Family(
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
MNASNET_SMALL = Family(
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
FBNETC = Family(
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
SPNASNET = Family(
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
MIXNET_S = Family(
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
MIXNET_M = Family(
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
TINYNET = replace(EFFICIENTNET, head="widened", fix_stem=True, depth_trunc="round")
MOBILENET_V1 = Family(
    [["dsa_r1_k3_s1_c64"], ["dsa_r2_k3_s2_c128"], ["dsa_r2_k3_s2_c256"], ["dsa_r6_k3_s2_c512"], ["dsa_r2_k3_s2_c1024"]],
    act_layer=nn.ReLU6,
    num_features=0,
)
MOBILENET_V1_HEAD = replace(MOBILENET_V1, num_features=1024, head="widened")


def _efficientnet_x(expansion):
    return Family(
        [
            ["ds_r1_k3_s1_e1_c16_se0.25_d1"],
            [f"er_r2_k3_s2_e{expansion}_c24_se0.25_nre"],
            [f"er_r2_k5_s2_e{expansion}_c40_se0.25_nre"],
            [f"ir_r3_k3_s2_e{expansion}_c80_se0.25"],
            ["ir_r3_k5_s1_e6_c112_se0.25"],
            ["ir_r4_k5_s2_e6_c192_se0.25"],
            ["ir_r1_k3_s1_e6_c320_se0.25"],
        ],
        act_layer=Swish,
        head="scaled",
    )


EFFICIENTNET_X, EFFICIENTNET_H = _efficientnet_x(6), _efficientnet_x(4)
EFFICIENTNET_V2_BASE = Family(
    [
        ["cn_r1_k3_s1_e1_c16_skip"],
        ["er_r2_k3_s2_e4_c32"],
        ["er_r2_k3_s2_e4_c48"],
        ["ir_r3_k3_s2_e4_c96_se0.25"],
        ["ir_r5_k3_s1_e6_c112_se0.25"],
        ["ir_r8_k3_s2_e6_c192_se0.25"],
    ],
    act_layer=Swish,
    head="scaled",
    round_limit=0.0,
)
EFFICIENTNET_V2_S = Family(
    [
        ["cn_r2_k3_s1_e1_c24_skip"],
        ["er_r4_k3_s2_e4_c48"],
        ["er_r4_k3_s2_e4_c64"],
        ["ir_r6_k3_s2_e4_c128_se0.25"],
        ["ir_r9_k3_s1_e6_c160_se0.25"],
        ["ir_r15_k3_s2_e6_c256_se0.25"],
    ],
    act_layer=Swish,
    stem_size=24,
    head="scaled",
)
EFFICIENTNET_V2_RW = replace(
    EFFICIENTNET_V2_S,
    arch_def=[["er_r2_k3_s1_e1_c24"], *EFFICIENTNET_V2_S.arch_def[1:-1], ["ir_r15_k3_s2_e6_c272_se0.25"]],
    num_features=1792,
)
EFFICIENTNET_V2_M = Family(
    [
        ["cn_r3_k3_s1_e1_c24_skip"],
        ["er_r5_k3_s2_e4_c48"],
        ["er_r5_k3_s2_e4_c80"],
        ["ir_r7_k3_s2_e4_c160_se0.25"],
        ["ir_r14_k3_s1_e6_c176_se0.25"],
        ["ir_r18_k3_s2_e6_c304_se0.25"],
        ["ir_r5_k3_s1_e6_c512_se0.25"],
    ],
    act_layer=Swish,
    stem_size=24,
)
EFFICIENTNET_V2_L = Family(
    [
        ["cn_r4_k3_s1_e1_c32_skip"],
        ["er_r7_k3_s2_e4_c64"],
        ["er_r7_k3_s2_e4_c96"],
        ["ir_r10_k3_s2_e4_c192_se0.25"],
        ["ir_r19_k3_s1_e6_c224_se0.25"],
        ["ir_r25_k3_s2_e6_c384_se0.25"],
        ["ir_r7_k3_s1_e6_c640_se0.25"],
    ],
    act_layer=Swish,
)
EFFICIENTNET_V2_XL = Family(
    [
        ["cn_r4_k3_s1_e1_c32_skip"],
        ["er_r8_k3_s2_e4_c64"],
        ["er_r8_k3_s2_e4_c96"],
        ["ir_r16_k3_s2_e4_c192_se0.25"],
        ["ir_r24_k3_s1_e6_c256_se0.25"],
        ["ir_r32_k3_s2_e6_c512_se0.25"],
        ["ir_r8_k3_s1_e6_c640_se0.25"],
    ],
    act_layer=Swish,
)
MOBILENET_EDGETPU = Family(
    [
        ["cn_r1_k1_s1_c16"],
        ["er_r1_k3_s2_e8_c32", "er_r3_k3_s1_e4_c32"],
        ["er_r1_k3_s2_e8_c48", "er_r3_k3_s1_e4_c48"],
        ["ir_r1_k3_s2_e8_c96", "ir_r3_k3_s1_e4_c96"],
        ["ir_r1_k3_s1_e8_c96_noskip", "ir_r3_k3_s1_e4_c96"],
        ["ir_r1_k5_s2_e8_c160", "ir_r3_k5_s1_e4_c160"],
        ["ir_r1_k3_s1_e8_c192"],
    ]
)


def _mobilenet_edgetpu_v2(channels, group_size=64, **kwargs):
    first, second, third, *later, last = channels
    grouped = f"er_r1_k3_s1_e4_gs{group_size}"
    later = [
        [f"{start}_e8_c{width}", f"ir_r3_k3_s1_e4_c{width}"]
        for start, width in zip(("er_r1_k3_s2", "ir_r1_k3_s1", "ir_r1_k3_s2"), later)
    ]
    arch_def = [
        [f"cn_r1_k1_s1_c{first}"],
        [f"er_r1_k3_s2_e8_c{second}", f"{grouped}_c{second}"],
        [f"er_r1_k3_s2_e8_c{third}", f"{grouped}_c{third}", f"er_r1_k3_s1_e4_c{third}", f"{grouped}_c{third}"],
        *later,
        [f"ir_r1_k3_s1_e8_c{last}"],
    ]
    return Family(arch_def, **{"stem_size": 64, "stem_kernel_size": 5, **kwargs})


MOBILENET_EDGETPU_V2_XS = _mobilenet_edgetpu_v2([16, 32, 48, 96, 144, 160, 192], stem_size=32, stem_kernel_size=3)
MOBILENET_EDGETPU_V2_S = _mobilenet_edgetpu_v2([24, 48, 64, 128, 160, 192, 256])
MOBILENET_EDGETPU_V2_M = _mobilenet_edgetpu_v2([32, 64, 80, 160, 192, 240, 320], num_features=1344)
MOBILENET_EDGETPU_V2_L = _mobilenet_edgetpu_v2(
    [32, 64, 96, 192, 240, 256, 384], group_size=128, stem_kernel_size=7, num_features=1408
)
TEST = Family(
    [
        ["cn_r1_k3_s1_e1_c16_skip"],
        ["er_r1_k3_s2_e4_c24"],
        ["er_r1_k3_s2_e4_c32"],
        ["ir_r1_k3_s2_e4_c48_se0.25"],
        ["ir_r1_k3_s2_e4_c64_se0.25"],
    ],
    act_layer=Swish,
    stem_size=24,
    num_features=256,
    head="scaled",
    round_limit=0.0,
)
