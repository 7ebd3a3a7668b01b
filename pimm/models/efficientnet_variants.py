"""The variants of EfficientNet and related networks: a family, multipliers and options for every name of timm."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from pimm.layers import EvoNorm2dS0, GroupNormAct, LayerNormAct2d
from pimm.models import efficientnet_families as families
from pimm.models.efficientnet_families import Family


@dataclass(frozen=True)
class Variant:
    """Describe a network.

    Attributes:
        family: what it shares with its family.
        width: width multiplier.
        depth: depth multiplier, or a tuple with that of every stage.
        experts: factor of the number of experts of conditional convolutions.
        tensorflow: whether padding and the epsilon of batch norm are TensorFlow's.
        group_size: channels of a group of the spatial convolutions; None for depthwise ones.
        channel_divisor: channels are rounded to multiples of it.
        pruned: name of the list of channels that pruning left (`pimm.models.pruned`); None for all channels.
        options: further arguments of the network.
    """

    family: Family
    width: float = 1.0
    depth: float | tuple = 1.0
    experts: int = 1
    tensorflow: bool = False
    group_size: int | None = None
    channel_divisor: int = 8
    pruned: str | None = None
    options: dict = field(default_factory=dict)


def _group_norm(size):
    return {"norm_layer": partial(GroupNormAct, group_size=size)}


_SCALES = {  # of EfficientNet: width and depth
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
    "b8": (2.2, 3.6),
    "l2": (4.3, 5.3),
}
_LITE = {f"lite{number}": _SCALES[f"b{number}"] for number in range(5)}
_EDGE = {"es": _SCALES["b0"], "em": _SCALES["b1"], "el": _SCALES["b3"]}


def _each(prefix, family, scales):
    return {f"{prefix}_{name}": Variant(family, *scale) for name, scale in scales.items()}


VARIANTS = {
    **_each("efficientnet", families.EFFICIENTNET, _SCALES),
    **_each("efficientnet", families.EFFICIENTNET_EDGE, _EDGE),
    **_each("efficientnet", families.EFFICIENTNET_LITE, _LITE),
    "efficientnet_es_pruned": Variant(families.EFFICIENTNET_EDGE),
    "efficientnet_el_pruned": Variant(families.EFFICIENTNET_EDGE, *_EDGE["el"]),
    "efficientnet_cc_b0_4e": Variant(families.EFFICIENTNET_CONDCONV),
    "efficientnet_cc_b0_8e": Variant(families.EFFICIENTNET_CONDCONV, experts=2),
    "efficientnet_cc_b1_8e": Variant(families.EFFICIENTNET_CONDCONV, 1.0, 1.1, experts=2),
    "efficientnet_b0_gn": Variant(families.EFFICIENTNET, options=_group_norm(8)),
    "efficientnet_b0_g8_gn": Variant(families.EFFICIENTNET, group_size=8, options=_group_norm(8)),
    "efficientnet_b0_g16_evos": Variant(families.EFFICIENTNET, group_size=16, channel_divisor=16),
    "efficientnet_b3_gn": Variant(families.EFFICIENTNET, 1.2, 1.4, channel_divisor=16, options=_group_norm(16)),
    "efficientnet_b3_g8_gn": Variant(
        families.EFFICIENTNET, 1.2, 1.4, group_size=8, channel_divisor=16, options=_group_norm(16)
    ),
    "efficientnet_blur_b0": Variant(families.EFFICIENTNET, options={"aa_layer": "blurpc"}),
    **{
        f"efficientnet_{size}_pruned": Variant(
            families.EFFICIENTNET, *_SCALES[size], tensorflow=True, pruned=f"efficientnet_{size}_pruned"
        )
        for size in ("b1", "b2", "b3")
    },
    "efficientnet_x_b3": Variant(families.EFFICIENTNET_X, 1.2, 1.4),
    "efficientnet_x_b5": Variant(families.EFFICIENTNET_X, 1.6, 2.2),
    "efficientnet_h_b5": Variant(families.EFFICIENTNET_H, 1.92, 2.2),
    "efficientnetv2_rw_t": Variant(families.EFFICIENTNET_V2_S, 0.8, 0.9),
    "gc_efficientnetv2_rw_t": Variant(families.EFFICIENTNET_V2_S, 0.8, 0.9, options={"se_layer": "gc"}),
    "efficientnetv2_rw_s": Variant(families.EFFICIENTNET_V2_RW),
    "efficientnetv2_rw_m": Variant(families.EFFICIENTNET_V2_RW, 1.2, (1.2,) * 4 + (1.6,) * 2),
    "efficientnetv2_s": Variant(families.EFFICIENTNET_V2_S),
    "efficientnetv2_m": Variant(families.EFFICIENTNET_V2_M),
    "efficientnetv2_l": Variant(families.EFFICIENTNET_V2_L),
    "efficientnetv2_xl": Variant(families.EFFICIENTNET_V2_XL),
    "mobilenetv1_100": Variant(families.MOBILENET_V1),
    "mobilenetv1_100h": Variant(families.MOBILENET_V1_HEAD),
    "mobilenetv1_125": Variant(families.MOBILENET_V1, 1.25),
    "mobilenetv2_035": Variant(families.MOBILENET_V2, 0.35),
    "mobilenetv2_050": Variant(families.MOBILENET_V2, 0.5),
    "mobilenetv2_075": Variant(families.MOBILENET_V2, 0.75),
    "mobilenetv2_100": Variant(families.MOBILENET_V2),
    "mobilenetv2_110d": Variant(families.MOBILENET_V2_DEEP, 1.1, 1.2),
    "mobilenetv2_120d": Variant(families.MOBILENET_V2_DEEP, 1.2, 1.4),
    "mobilenetv2_140": Variant(families.MOBILENET_V2, 1.4),
    "mobilenet_edgetpu_100": Variant(families.MOBILENET_EDGETPU),
    "mobilenet_edgetpu_v2_xs": Variant(families.MOBILENET_EDGETPU_V2_XS),
    "mobilenet_edgetpu_v2_s": Variant(families.MOBILENET_EDGETPU_V2_S),
    "mobilenet_edgetpu_v2_m": Variant(families.MOBILENET_EDGETPU_V2_M),
    "mobilenet_edgetpu_v2_l": Variant(families.MOBILENET_EDGETPU_V2_L),
    "mnasnet_050": Variant(families.MNASNET, 0.5),
    "mnasnet_075": Variant(families.MNASNET, 0.75),
    "mnasnet_100": Variant(families.MNASNET),
    "mnasnet_140": Variant(families.MNASNET, 1.4),
    "semnasnet_050": Variant(families.MNASNET_SE, 0.5),
    "semnasnet_075": Variant(families.MNASNET_SE, 0.75),
    "semnasnet_100": Variant(families.MNASNET_SE),
    "semnasnet_140": Variant(families.MNASNET_SE, 1.4),
    "mnasnet_small": Variant(families.MNASNET_SMALL),
    "fbnetc_100": Variant(families.FBNETC),
    "spnasnet_100": Variant(families.SPNASNET),
    "mixnet_s": Variant(families.MIXNET_S),
    "mixnet_m": Variant(families.MIXNET_M),
    "mixnet_l": Variant(families.MIXNET_M, 1.3),
    "mixnet_xl": Variant(families.MIXNET_M, 1.6, 1.2),
    "mixnet_xxl": Variant(families.MIXNET_M, 2.4, 1.3),
    "tinynet_a": Variant(families.TINYNET, 1.0, 1.2),
    "tinynet_b": Variant(families.TINYNET, 0.75, 1.1),
    "tinynet_c": Variant(families.TINYNET, 0.54, 0.85),
    "tinynet_d": Variant(families.TINYNET, 0.54, 0.695),
    "tinynet_e": Variant(families.TINYNET, 0.51, 0.6),
    "test_efficientnet": Variant(families.TEST),
    "test_efficientnet_gn": Variant(families.TEST, options=_group_norm(8)),
    "test_efficientnet_ln": Variant(families.TEST, options={"norm_layer": LayerNormAct2d}),
    "test_efficientnet_evos": Variant(families.TEST, options={"norm_layer": partial(EvoNorm2dS0, group_size=8)}),
}
_OF_TENSORFLOW = [
    *(f"efficientnet_{size}" for size in (*_SCALES, *_EDGE, *_LITE, "cc_b0_4e", "cc_b0_8e", "cc_b1_8e")),
    *(f"efficientnetv2_{size}" for size in ("s", "m", "l", "xl")),
    *(f"mixnet_{size}" for size in ("s", "m", "l")),
]
_V2_BASE = {f"efficientnetv2_b{number}": _SCALES[f"b{number}"] for number in range(4)}
VARIANTS.update((f"tf_{name}", replace(VARIANTS[name], tensorflow=True)) for name in _OF_TENSORFLOW)
VARIANTS.update(
    (f"tf_{name}", Variant(families.EFFICIENTNET_V2_BASE, *scale, tensorflow=True)) for name, scale in _V2_BASE.items()
)
