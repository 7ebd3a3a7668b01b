"""Settings of cross stage partial networks and of DarkNets."""

from __future__ import annotations

from dataclasses import dataclass

from pimm.layers import make_divisible


@dataclass(frozen=True)
class CspStemCfg:
    """The stem: channels, stride of all of it, kernels, the first convolution's padding, and whether it pools."""

    out_chs: int | tuple = 32
    stride: int = 2
    kernel_size: int = 3
    padding: int | str = ""
    pool: str = ""


@dataclass(frozen=True)
class CspStagesCfg:
    """The stages: a value for each stage, or fewer, of which the last is that of the remaining stages."""

    depth: tuple = (3, 3, 5, 2)
    out_chs: tuple = (128, 256, 512, 1024)
    stride: int | tuple = 2
    groups: int | tuple = 1
    block_ratio: float | tuple = 1.0
    bottle_ratio: float | tuple = 1.0
    avg_down: bool | tuple = False
    attn_layer: str | tuple | None = None
    attn_kwargs: dict | tuple | None = None
    stage_type: str | tuple = "csp"
    block_type: str | tuple = "bottle"
    expand_ratio: float | tuple = 1.0
    cross_linear: bool | tuple = False
    down_growth: bool | tuple = False

    def of_stages(self):
        """Return a dict of the values of each stage."""
        count, found = len(self.depth), [{} for _ in self.depth]
        for name, values in vars(self).items():
            values = values if isinstance(values, (tuple, list)) else (values,)
            values = (*values, *[values[-1]] * count)
            for stage, value in zip(found, values):
                stage[name] = value
        return found


@dataclass(frozen=True)
class CspModelCfg:
    """Stem, stages and layers of a net, and which feature maps ``features_only`` returns by default: None for all."""

    stem: CspStemCfg
    stages: CspStagesCfg
    zero_init_last: bool = True
    act_layer: str = "leaky_relu"
    norm_layer: str = "batchnorm"
    aa_layer: str | None = None
    out_indices: tuple | None = None


def _cs3(width=1.0, depth=1.0, act_layer="silu", focus=False, **stages):
    """Return the settings of a net whose stages have one convolution less.

    Args:
        width: factor of the channels.
        depth: factor of the number of blocks.
        act_layer: name of the activations.
        focus: whether the stem is one convolution of 6x6 pixels.
        stages: further settings of the stages.
    """
    stem = CspStemCfg(out_chs=tuple(make_divisible(chs * width) for chs in (32, 64)), kernel_size=3)
    if focus:
        stem = CspStemCfg(out_chs=make_divisible(64 * width), kernel_size=6, padding=2)
    settings = {
        "out_chs": tuple(make_divisible(chs * width) for chs in (128, 256, 512, 1024)),
        "depth": tuple(int(count * depth) for count in (3, 6, 9, 3)),
        "block_ratio": 0.5,
        "stage_type": "cs3",
        "block_type": "dark",
        **stages,
    }
    return CspModelCfg(stem, CspStagesCfg(**settings), act_layer=act_layer)


def _csp_resnet(stem_chs, out_chs, **stages):
    kernel = 3 if isinstance(stem_chs, tuple) else 7
    stem = CspStemCfg(out_chs=stem_chs, kernel_size=kernel, stride=4, pool="max")
    settings = {"depth": (3, 3, 5, 2), "out_chs": out_chs, "stride": (1, 2), "cross_linear": True, **stages}
    return CspModelCfg(stem, CspStagesCfg(**settings))


def _darknet(depth, out_indices=None, **stages):
    settings = {"bottle_ratio": 0.5, "stage_type": "dark", **stages}
    stages = CspStagesCfg(depth=depth, out_chs=(64, 128, 256, 512, 1024), block_type="dark", **settings)
    return CspModelCfg(CspStemCfg(out_chs=32, stride=1), stages, out_indices=out_indices)


_DEEP_STEM, _WIDE = (32, 32, 64), (256, 512, 1024, 2048)
_DARKNET53 = (1, 2, 8, 8, 4)
_X = {"width": 1.25, "depth": 1.33}

VARIANTS = {
    "cspresnet50": _csp_resnet(64, (128, 256, 512, 1024), expand_ratio=2.0, bottle_ratio=0.5),
    "cspresnet50d": _csp_resnet(_DEEP_STEM, (128, 256, 512, 1024), expand_ratio=2.0, bottle_ratio=0.5),
    "cspresnet50w": _csp_resnet(_DEEP_STEM, _WIDE, bottle_ratio=0.25, block_ratio=0.5),
    "cspresnext50": _csp_resnet(64, _WIDE, groups=32, block_ratio=0.5),
    "cspdarknet53": _darknet(
        _DARKNET53,
        expand_ratio=(2.0, 1.0),
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        down_growth=True,
        stage_type="csp",
    ),
    "darknet17": _darknet((1,) * 5),
    "darknet21": _darknet((1, 1, 1, 2, 2)),
    "sedarknet21": _darknet((1, 1, 1, 2, 2), out_indices=(0, 1, 2, 3, 4), attn_layer="se"),
    "darknet53": _darknet(_DARKNET53),
    "darknetaa53": _darknet(_DARKNET53, avg_down=True),
    "cs3darknet_s": _cs3(0.5, 0.5),
    "cs3darknet_m": _cs3(0.75, 0.67),
    "cs3darknet_l": _cs3(),
    "cs3darknet_x": _cs3(**_X),
    "cs3darknet_focus_s": _cs3(0.5, 0.5, focus=True),
    "cs3darknet_focus_m": _cs3(0.75, 0.67, focus=True),
    "cs3darknet_focus_l": _cs3(focus=True),
    "cs3darknet_focus_x": _cs3(**_X, focus=True),
    "cs3sedarknet_l": _cs3(attn_layer="se", attn_kwargs={"rd_ratio": 0.25}),
    "cs3sedarknet_x": _cs3(**_X, attn_layer="se"),
    "cs3sedarknet_xdw": CspModelCfg(
        CspStemCfg(out_chs=(32, 64)),
        CspStagesCfg(
            depth=(3, 6, 12, 4),
            out_chs=_WIDE,
            groups=(1, 1, 256, 512),
            bottle_ratio=0.5,
            block_ratio=0.5,
            attn_layer="se",
        ),
        act_layer="silu",
    ),
    "cs3edgenet_x": _cs3(**_X, bottle_ratio=1.5, block_type="edge"),
    "cs3se_edgenet_x": _cs3(**_X, bottle_ratio=1.5, block_type="edge", attn_layer="se", attn_kwargs={"rd_ratio": 0.25}),
}
