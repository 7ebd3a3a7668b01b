"""The ResNets of timm: the arguments of `pimm.models.resnet.ResNet` by name."""

from functools import partial

from pimm.layers import SEModule
from pimm.models.resnet_blocks import BasicBlock, Bottleneck

_BASIC = {  # number of blocks by depth
    "10": (1, 1, 1, 1),
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
}
_BOTTLENECK = {
    "14": (1, 1, 1, 1),
    "26": (2, 2, 2, 2),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
    "200": (3, 24, 36, 3),
    "269": (3, 30, 48, 8),
}
_STEMS = {  # stem and shortcuts by the letter after the depth
    "": {},
    "c": {"stem_width": 32, "stem_type": "deep"},
    "d": {"stem_width": 32, "stem_type": "deep", "avg_down": True},
    "s": {"stem_width": 64, "stem_type": "deep"},
    "t": {"stem_width": 32, "stem_type": "deep_tiered", "avg_down": True},
}
_RS_BLOCKS = {
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
    "200": (3, 24, 36, 3),
    "270": (4, 29, 53, 4),
    "350": (4, 36, 72, 4),
    "420": (4, 44, 87, 4),
}
_SE, _ECA = {"block_args": {"attn_layer": "se"}}, {"block_args": {"attn_layer": "eca"}}
_RS = {"replace_stem_pool": True, "block_args": {"attn_layer": partial(SEModule, rd_ratio=0.25)}}


def _resnet(name, **kwargs):
    """Return the arguments of a net by depth and letter, such as ``50d``, and further ones."""
    depth = name.rstrip("cdst")
    basic = depth in _BASIC
    blocks = {"block": BasicBlock, "layers": _BASIC[depth]} if basic else {"layers": _BOTTLENECK[depth]}
    return {"block": Bottleneck, **blocks, **_STEMS[name[len(depth) :]], **kwargs}


def _resnext(name, **kwargs):
    """Return the arguments of a net by depth, letter, groups and their width, such as ``50d_32x4d``."""
    name, _, groups = name.partition("_")
    cardinality, base_width = map(int, groups[:-1].split("x"))
    return _resnet(name, cardinality=cardinality, base_width=base_width, **kwargs)


_NETS = (
    *("10t", "14t", "18", "18d", "34", "34d", "26", "26t", "26d", "50", "50c", "50d", "50s", "50t"),
    *("101", "101c", "101d", "101s", "152", "152c", "152d", "152s", "200", "200d"),
)
_NEXT_NETS = (*("50_32x4d", "50d_32x4d", "101_32x4d", "101_32x8d", "101_32x16d", "101_32x32d", "101_64x4d"),)
_SE_NETS = ("18", "34", "50", "50t", "101", "152", "152d", "200d", "269d")
_SE_NEXT_NETS = (*("26d_32x4d", "26t_32x4d", "50_32x4d", "101_32x4d", "101_32x8d", "101d_32x8d", "101_64x4d"),)

VARIANTS = {
    **{f"resnet{name}": _resnet(name) for name in _NETS},
    "wide_resnet50_2": _resnet("50", base_width=128),
    "wide_resnet101_2": _resnet("101", base_width=128),
    "resnet50_gn": _resnet("50", norm_layer="groupnorm"),
    **{f"resnext{name}": _resnext(name) for name in _NEXT_NETS},
    **{f"ecaresnet{name}": _resnet(name, **_ECA) for name in ("26t", "50d", "50t", "101d", "200d", "269d")},
    "ecaresnet50d_pruned": _resnet("50d", pruned="ecaresnet50d_pruned", **_ECA),
    "ecaresnet101d_pruned": _resnet("101d", pruned="ecaresnet101d_pruned", **_ECA),
    "ecaresnetlight": {**_resnet("50", **_ECA), "layers": (1, 1, 11, 3), "stem_width": 32, "avg_down": True},
    **{f"ecaresnext{name}": _resnext(name, **_ECA) for name in ("26t_32x4d", "50t_32x4d")},
    **{f"seresnet{name}": _resnet(name, **_SE) for name in _SE_NETS},
    **{f"seresnext{name}": _resnext(name, **_SE) for name in _SE_NEXT_NETS},
    "senet154": _resnet(
        "152", cardinality=64, base_width=4, stem_type="deep", down_kernel_size=3, block_reduce_first=2, **_SE
    ),
    **{f"resnetblur{name}": _resnet(name, aa_layer="blur") for name in ("18", "50", "50d", "101d")},
    **{f"resnetaa{name}": _resnet(name, aa_layer="avg") for name in ("34d", "50", "50d", "101d")},
    "seresnetaa50d": _resnet("50d", aa_layer="avg", **_SE),
    "seresnextaa101d_32x8d": _resnext("101d_32x8d", aa_layer="avg", **_SE),
    "seresnextaa201d_32x8d": {
        **_resnext("200d_32x8d", aa_layer="avg", **_SE),
        "layers": (3, 24, 36, 4),
        "stem_width": 64,
    },
    **{
        f"resnetrs{name}": {"block": Bottleneck, "layers": layers, **_STEMS["d"], **_RS}
        for name, layers in _RS_BLOCKS.items()
    },
    "test_resnet": {
        "block": (BasicBlock, BasicBlock, Bottleneck, BasicBlock),
        "layers": (1, 1, 1, 1),
        "stem_width": 16,
        "stem_type": "deep",
        "avg_down": True,
        "channels": (32, 48, 48, 96),
    },
}
