"""The nets of byobnet: GENet, RepVGG, MobileOne, ResNets with other stems and gates, RegNetZ, and CLIP's ResNets."""

from dataclasses import replace
from functools import partial

from pimm.layers import EvoNorm2dS0a
from pimm.models.byobnet_net import ByoBlockCfg, ByoModelCfg


def _bottles(depths, channels, strides=(1, 2, 2, 2), gs=None, br=0.25):
    """Return the stages of bottleneck blocks."""
    return tuple(ByoBlockCfg("bottle", d, c, s, gs, br) for d, c, s in zip(depths, channels, strides))


def _gernet(basic, bottle, **kwargs):
    """Return a GPU-efficient net (https://arxiv.org/abs/2006.14090) from depth and width of its stages."""
    stages = [ByoBlockCfg("basic", d, c, 2, 0) for d, c in basic]
    ratios, strides, groups = (1 / 4, 3.0, 3.0), (2, 2, 1), (0, 1, 1)
    stages += [ByoBlockCfg("bottle", d, c, s, g, r) for (d, c), s, g, r in zip(bottle, strides, groups, ratios)]
    return ByoModelCfg(tuple(stages), stem_pool=None, **kwargs)


def _repvgg(factors, d=(4, 6, 16, 1), groups=0, stem_chs=64, **kwargs):
    """Return a RepVGG (https://arxiv.org/abs/2101.03697); every second block has ``groups``."""

    def group_size(channels, index):
        return channels // groups if index % 2 else 0

    blocks = tuple(
        ByoBlockCfg("rep", depth, width * factor, gs=group_size if groups else 0)
        for depth, width, factor in zip(d, (64, 128, 256, 512), factors)
    )
    return ByoModelCfg(blocks, stem_type="rep", stem_chs=stem_chs, **kwargs)


def _mobileone(factors, gated=(0, 0, 0, 0), num_conv_branches=1, stem_chs=64):
    """Return a MobileOne (https://arxiv.org/abs/2206.04040); ``gated`` counts each stage's last, gated blocks."""
    stages, previous = [], min(64, 64 * factors[0])
    branches = {"num_conv_branches": num_conv_branches}
    for depth, base, factor, count in zip((2, 8, 10, 1), (64, 128, 256, 512), factors, gated):
        stage, width = [], base * factor
        for index in range(depth):
            gate = "se" if index >= depth - count else None
            one = partial(ByoBlockCfg, "one", 1, attn_layer=gate)
            stage.append(one(previous, gs=1, block_kwargs=branches))
            stage.append(one(width, gs=0, block_kwargs={"kernel_size": 1, **branches}))
            previous = width
        stages.append(tuple(stage))
    return ByoModelCfg(tuple(stages), stem_type="one", stem_chs=stem_chs)


_TIERED = partial(ByoModelCfg, stem_chs=64, stem_type="tiered", act_layer="silu")
_QUAD = partial(ByoModelCfg, stem_chs=128, stem_pool=None, num_features=2048, act_layer="silu")
_Q_STAGES = (*_bottles((2, 4, 6), (256, 512, 1536), (1, 2, 2), gs=32), ByoBlockCfg("bottle", 4, 1536, 2, 1, 1.0))
_NEXT26 = partial(_TIERED, _bottles((2, 2, 2, 2), (256, 512, 1024, 2048), gs=32), stem_pool="maxpool")
_RES33 = partial(_TIERED, _bottles((2, 3, 3, 2), (256, 512, 1536, 1536), gs=0), stem_pool="", num_features=1280)
_RES_CHANNELS = (256, 512, 1024, 2048)

_REGNETZ = partial(
    ByoModelCfg,
    stem_pool="",
    downsample="",
    act_layer="silu",
    attn_layer="se",
    attn_kwargs={"rd_ratio": 0.25},
    block_kwargs={"bottle_in": True, "linear_out": True},
)
_EVOS = {"norm_layer": partial(EvoNorm2dS0a, group_size=16)}


def _regnetz_small(ratio, **kwargs):
    blocks = _bottles((2, 6, 12, 2), (48, 96, 192, 288), (2, 2, 2, 2), gs=16, br=ratio)
    return _REGNETZ(blocks, stem_chs=32, num_features=1536, **kwargs)


def _regnetz_large(channels, gs, num_features, depths=(3, 6, 12, 3), stem_type="tiered", **kwargs):
    blocks = _bottles(depths, channels, gs=gs, br=4)
    return _REGNETZ(blocks, stem_chs=64, stem_type=stem_type, num_features=num_features, **kwargs)


def _clip(depths, head_type="attn_abs", **kwargs):
    """Return a ResNet of CLIP (https://arxiv.org/abs/2103.00020)."""
    return ByoModelCfg(
        _bottles(depths, _RES_CHANNELS),
        stem_chs=(32, 32, 64),
        stem_type="",
        stem_pool="avg2",
        downsample="avg",
        aa_layer="avg",
        head_type=head_type,
        **kwargs,
    )


_CLIP = {
    "resnet50_clip": _clip((3, 4, 6, 3)),
    "resnet101_clip": _clip((3, 4, 23, 3)),
    "resnet50x4_clip": _clip((4, 6, 10, 6), width_factor=1.25),
    "resnet50x16_clip": _clip((6, 8, 18, 8), width_factor=1.5),
    "resnet50x64_clip": _clip((3, 15, 36, 10), width_factor=2.0),
}

VARIANTS = {
    "gernet_l": _gernet(((1, 128), (2, 192)), ((6, 640), (5, 640), (4, 640)), stem_chs=32, num_features=2560),
    "gernet_m": _gernet(((1, 128), (2, 192)), ((6, 640), (4, 640), (1, 640)), stem_chs=32, num_features=2560),
    "gernet_s": _gernet(((1, 48), (3, 48)), ((7, 384), (2, 560), (1, 256)), stem_chs=13, num_features=1920),
    "repvgg_a0": _repvgg((0.75, 0.75, 0.75, 2.5), d=(2, 4, 14, 1), stem_chs=48),
    "repvgg_a1": _repvgg((1, 1, 1, 2.5), d=(2, 4, 14, 1)),
    "repvgg_a2": _repvgg((1.5, 1.5, 1.5, 2.75), d=(2, 4, 14, 1)),
    "repvgg_b0": _repvgg((1.0, 1.0, 1.0, 2.5)),
    "repvgg_b1": _repvgg((2.0, 2.0, 2.0, 4.0)),
    "repvgg_b1g4": _repvgg((2.0, 2.0, 2.0, 4.0), groups=4),
    "repvgg_b2": _repvgg((2.5, 2.5, 2.5, 5.0)),
    "repvgg_b2g4": _repvgg((2.5, 2.5, 2.5, 5.0), groups=4),
    "repvgg_b3": _repvgg((3.0, 3.0, 3.0, 5.0)),
    "repvgg_b3g4": _repvgg((3.0, 3.0, 3.0, 5.0), groups=4),
    "repvgg_d2se": _repvgg(
        (2.5, 2.5, 2.5, 5.0), d=(8, 14, 24, 1), attn_layer="se", attn_kwargs={"rd_ratio": 0.0625, "rd_divisor": 1}
    ),
    "resnet51q": _QUAD(_Q_STAGES, stem_type="quad2"),
    "resnet61q": _QUAD(
        (ByoBlockCfg("edge", 1, 256, 1, 0, block_kwargs={}), *_bottles((4, 6), (512, 1536), (2, 2), 32), _Q_STAGES[-1]),
        stem_type="quad",
        block_kwargs={"extra_conv": True},
    ),
    "resnext26ts": _NEXT26(),
    "gcresnext26ts": _NEXT26(attn_layer="gca"),
    "seresnext26ts": _NEXT26(attn_layer="se"),
    "eca_resnext26ts": _NEXT26(attn_layer="eca"),
    "bat_resnext26ts": _NEXT26(attn_layer="bat", attn_kwargs={"block_size": 8}),
    "resnet32ts": _RES33(num_features=0),
    "resnet33ts": _RES33(),
    "gcresnet33ts": _RES33(attn_layer="gca"),
    "seresnet33ts": _RES33(attn_layer="se"),
    "eca_resnet33ts": _RES33(attn_layer="eca"),
    "gcresnet50t": _TIERED(_bottles((3, 4, 6, 3), _RES_CHANNELS), stem_pool="", act_layer="relu", attn_layer="gca"),
    "gcresnext50ts": _TIERED(_bottles((3, 4, 6, 3), _RES_CHANNELS, gs=32), stem_pool="maxpool", attn_layer="gca"),
    "regnetz_b16": _regnetz_small(3),
    "regnetz_c16": _regnetz_small(4),
    "regnetz_d32": _regnetz_large((64, 128, 256, 384), 32, 1792),
    "regnetz_d8": _regnetz_large((64, 128, 256, 384), 8, 1792),
    "regnetz_e8": _regnetz_large((96, 192, 384, 512), 8, 2048, depths=(3, 8, 16, 3)),
    "regnetz_b16_evos": _regnetz_small(3, **_EVOS),
    "regnetz_c16_evos": _regnetz_small(4, **_EVOS),
    "regnetz_d8_evos": _regnetz_large((64, 128, 256, 384), 8, 1792, stem_type="deep", **_EVOS),
    "mobileone_s0": _mobileone((0.75, 1.0, 1.0, 2.0), num_conv_branches=4, stem_chs=48),
    "mobileone_s1": _mobileone((1.5, 1.5, 2.0, 2.5)),
    "mobileone_s2": _mobileone((1.5, 2.0, 2.5, 4.0)),
    "mobileone_s3": _mobileone((2.0, 2.5, 3.0, 4.0)),
    "mobileone_s4": _mobileone((3.0, 3.5, 3.5, 4.0), gated=(0, 0, 5, 1)),
    **_CLIP,
    **{f"{name}_gap": replace(cfg, head_type="classifier") for name, cfg in _CLIP.items()},
    "resnet50_mlp": _clip((3, 4, 6, 3), head_type="mlp", head_hidden_size=1024),
    "test_byobnet": ByoModelCfg(
        (
            ByoBlockCfg("edge", 1, 32, 2, 0, 0.5),
            ByoBlockCfg("dark", 1, 64, 2, 0, 0.5),
            ByoBlockCfg("basic", 1, 128, 2, 32, 0.25),
            ByoBlockCfg("bottle", 1, 256, 2, 64, 0.25),
        ),
        stem_chs=24,
        downsample="avg",
        stem_pool="",
        attn_layer="se",
        attn_kwargs={"rd_ratio": 0.25},
    ),
}
