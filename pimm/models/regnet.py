"""RegNet X, Y and Z, with the names, state names and numbers of timm.

The widths of a RegNet's blocks lie near a line, rounded so that they form four stages
(https://arxiv.org/abs/2003.13678). RegNetZ is of https://arxiv.org/abs/2103.06877; ``regnetv`` normalises before each
convolution. Weights of https://arxiv.org/abs/2103.01988 (SEER) and https://arxiv.org/abs/2201.08371 (SWAG) fit too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from paddle import nn

from pimm.layers import (
    ClassifierHead,
    ConvNormAct,
    DropPath,
    GroupNormAct,
    SEModule,
    calculate_drop_path_rates,
    create_conv2d,
    get_act_layer,
    get_norm_act_layer,
    make_divisible,
)
from pimm.layers.downsample import downsample_pool
from pimm.layers.weight_init import zeros_
from pimm.models.features import feature_map
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions
from pimm.models.registry import register_variants
from pimm.models.stage_strides import stage_strides

STAGES = ("s1", "s2", "s3", "s4")


@dataclass(frozen=True)
class RegNetCfg:
    """Describe a RegNet.

    Attributes:
        depth: number of blocks.
        w0: width that the line of widths starts with.
        wa: how much the width grows from block to block.
        wm: factor between the widths of two stages, before rounding.
        group_size: channels of a group in the 3x3 convolutions.
        bottle_ratio: channels of the 3x3 convolution for each channel of a block's output.
        se_ratio: channels inside the gate for each channel of a block's input; 0 for no gate.
        group_min_ratio: torchvision's rounding of widths to whole groups, by at most this much; 0 for the nearest.
        stem_width: channels of the stem.
        downsample: what is added where the shape changes: ``conv1x1``, ``avg`` for pooling and a convolution, or None.
        linear_out: whether a block ends without an activation.
        preact: whether normalisation and activation come before the convolutions.
        num_features: channels of a last convolution; 0 for none.
        act_layer: name of the activations.
        norm_layer: name or class of the normalisation.
        zero_init_last: whether the last normalisation of a block begins with zeros.
    """

    depth: int
    w0: int
    wa: float
    wm: float
    group_size: int
    bottle_ratio: float = 1.0
    se_ratio: float = 0.0
    group_min_ratio: float = 0.0
    stem_width: int = 32
    downsample: str | None = "conv1x1"
    linear_out: bool = False
    preact: bool = False
    num_features: int = 0
    act_layer: Any = "relu"
    norm_layer: Any = "batchnorm"
    zero_init_last: bool = True


def stage_shapes(cfg):
    """Return the width, the depth and the group size of each stage."""
    widths = np.arange(cfg.depth, dtype=np.float32) * np.float32(cfg.wa) + np.float32(cfg.w0)
    exponents = np.round(np.log(widths / np.float32(cfg.w0)) / np.float32(math.log(cfg.wm)))
    widths = np.round(cfg.w0 * np.float32(cfg.wm) ** exponents / 8) * 8
    return [
        (*_whole_groups(int(width), cfg), int(depth)) for width, depth in zip(*np.unique(widths, return_counts=True))
    ]


def _whole_groups(width, cfg):
    inner = int(width * cfg.bottle_ratio)
    group_size = min(cfg.group_size, inner)
    if cfg.group_min_ratio:
        inner = make_divisible(inner, group_size, cfg.group_min_ratio)
    else:
        inner = round(inner / group_size) * group_size
    return int(inner / cfg.bottle_ratio), group_size


def create_shortcut(cfg, in_chs, out_chs, stride, dilation):
    """Return what is added to a block's output: the identity where the shape stays, None for nothing."""
    if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
        return nn.Identity()
    if not cfg.downsample:
        return None
    pools = cfg.downsample == "avg"
    arguments = {"kernel_size": 1, "stride": 1 if pools else stride}
    if cfg.preact:
        conv = create_conv2d(in_chs, out_chs, **arguments)
    else:
        conv = ConvNormAct(in_chs, out_chs, norm_layer=cfg.norm_layer, apply_act=False, **arguments)
    return nn.Sequential(downsample_pool(stride, dilation[0]), conv) if pools else conv


class _Block(nn.Layer):
    """Hold what both blocks have: a 1x1, a grouped 3x3 and a 1x1 convolution, a gate, and a shortcut."""

    def __init__(self, cfg, in_chs, out_chs, group_size, stride, dilation, drop_path_rate):
        super().__init__()
        inner = round(out_chs * cfg.bottle_ratio)
        act_layer = get_act_layer(cfg.act_layer)
        grouped = {"stride": stride, "dilation": dilation[0], "groups": inner // group_size}
        self.create_convs(cfg, (in_chs, inner, out_chs), grouped)
        if cfg.se_ratio:
            self.se = SEModule(inner, rd_channels=round(in_chs * cfg.se_ratio), act_layer=act_layer)
        else:
            self.se = nn.Identity()
        self.downsample = create_shortcut(cfg, in_chs, out_chs, stride, dilation)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def add_shortcut(self, x, shortcut):
        """Return the sum of the branch and the shortcut, where there is one."""
        return x if self.downsample is None else self.drop_path(x) + self.downsample(shortcut)


class Bottleneck(_Block):
    """Apply a bottleneck block that normalises after each convolution."""

    def create_convs(self, cfg, widths, grouped):
        """Set the convolutions; ``widths`` are those of input, inside and output."""
        in_chs, inner, out_chs = widths
        shared = {"act_layer": cfg.act_layer, "norm_layer": cfg.norm_layer}
        self.conv1 = ConvNormAct(in_chs, inner, kernel_size=1, **shared)
        self.conv2 = ConvNormAct(inner, inner, kernel_size=3, **grouped, **shared)
        self.conv3 = ConvNormAct(inner, out_chs, kernel_size=1, apply_act=False, **shared)
        self.act3 = nn.Identity() if cfg.linear_out else get_act_layer(cfg.act_layer)()

    def forward(self, x):
        shortcut = x
        x = self.conv3(self.se(self.conv2(self.conv1(x))))
        return self.act3(self.add_shortcut(x, shortcut))


class PreBottleneck(_Block):
    """Apply a bottleneck block that normalises before each convolution."""

    def create_convs(self, cfg, widths, grouped):
        """Set the convolutions; ``widths`` are those of input, inside and output."""
        in_chs, inner, out_chs = widths
        norm_act = get_norm_act_layer(cfg.norm_layer, cfg.act_layer)
        self.norm1 = norm_act(in_chs)
        self.conv1 = create_conv2d(in_chs, inner, kernel_size=1)
        self.norm2 = norm_act(inner)
        self.conv2 = create_conv2d(inner, inner, kernel_size=3, **grouped)
        self.norm3 = norm_act(inner)
        self.conv3 = create_conv2d(inner, out_chs, kernel_size=1)

    def forward(self, x):
        x = self.norm1(x)
        shortcut = x
        x = self.conv2(self.norm2(self.conv1(x)))
        x = self.conv3(self.norm3(self.se(x)))
        return self.add_shortcut(x, shortcut)


class RegNet(HeadedModel):
    """Classify images with a RegNet.

    Args:
        cfg: a `RegNetCfg`.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the pooled features.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        global_pool: pooling of the head.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        kwargs: fields of ``cfg`` to replace.
    """

    stages_name = STAGES

    def __init__(
        self,
        cfg,
        in_chans=3,
        num_classes=1000,
        output_stride=32,
        global_pool="avg",
        drop_rate=0.0,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        cfg = replace(cfg, **kwargs)
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        norm_act = {"act_layer": cfg.act_layer, "norm_layer": cfg.norm_layer}
        if cfg.preact:
            self.stem = create_conv2d(in_chans, cfg.stem_width, 3, stride=2)
        else:
            self.stem = ConvNormAct(in_chans, cfg.stem_width, 3, stride=2, **norm_act)
        self.feature_info = [feature_map("stem", 0, cfg.stem_width, 2)]
        width = self._create_stages(cfg, output_stride, drop_path_rate)
        if cfg.num_features:
            self.final_conv = ConvNormAct(width, cfg.num_features, kernel_size=1, **norm_act)
        else:
            last_act = cfg.linear_out or cfg.preact
            self.final_conv = get_act_layer(cfg.act_layer)() if last_act else nn.Identity()
        self.final_layers = ("final_conv",) if cfg.num_features else ()
        self.num_features = cfg.num_features or width
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_convolutions(self, "group_fan_out", zero_biases=True, linear_std=0.01)
        if cfg.zero_init_last and not cfg.preact:
            for layer in self.sublayers():
                if isinstance(layer, Bottleneck):
                    zeros_(layer.conv3.bn.weight)

    def _create_stages(self, cfg, output_stride, drop_path_rate):
        """Set the stages, describe their output, and return the channels of the last."""
        shapes = stage_shapes(cfg)
        depths = [depth for *_, depth in shapes]
        strides = list(stage_strides([2] * len(shapes), output_stride))
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        block, in_chs = PreBottleneck if cfg.preact else Bottleneck, cfg.stem_width
        for number, ((width, group_size, depth), (stride, dilation, reduction)) in enumerate(zip(shapes, strides)):
            blocks = []
            for index in range(depth):
                own = (stride, dilation) if index == 0 else (1, (dilation[1], dilation[1]))
                blocks.append(block(cfg, in_chs, width, group_size, *own, rates[number][index]))
                in_chs = width
            name = STAGES[number]
            setattr(self, name, nn.Sequential(*((f"b{index}", each) for index, each in enumerate(blocks, start=1))))
            self.feature_info.append(feature_map(name, number + 1, width, reduction))
        return in_chs

    def keep_stages(self, count):
        """Take out the stages after the first ``count``, and what follows them."""
        super().keep_stages(count)
        self.final_conv = nn.Identity()

    def final(self, x):
        """Return the output of the last convolution or activation for that of the last stage."""
        return self.final_conv(x)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        return {"stem": r"^stem", "blocks": r"^s(\d+)" if coarse else r"^s(\d+)\.b(\d+)"}


_NAMES = (  # torchvision's, classy-vision's: ours
    ("f.a.0", "conv1.conv"),
    ("f.a.1", "conv1.bn"),
    ("f.b.0", "conv2.conv"),
    ("f.b.1", "conv2.bn"),
    ("f.final_bn", "conv3.bn"),
    ("f.se.excitation.0", "se.fc1"),
    ("f.se.excitation.2", "se.fc2"),
    ("f.se", "se"),
    ("f.c.0", "conv3.conv"),
    ("f.c.1", "conv3.bn"),
    ("f.c", "conv3.conv"),
    ("proj.0", "downsample.conv"),
    ("proj.1", "downsample.bn"),
    ("proj", "downsample.conv"),
)
_BLOCKS = re.compile(r"^trunk_output\.block(\d)\.block\d+-(\d+)")


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names for weights under torchvision's; others stay as they are."""
    if "stem.0.weight" not in state_dict:
        return state_dict
    return {_own_name(name): value for name, value in state_dict.items()}


def _own_name(name):
    name = name.replace("stem.0", "stem.conv").replace("stem.1", "stem.bn")
    name = _BLOCKS.sub(lambda found: f"s{found[1]}.b{int(found[2]) + 1}", name)
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name.replace("fc.", "head.fc.") if name.startswith("fc.") else name


VARIANTS = {  # depth, w0, wa, wm, group_size
    "regnetx_002": RegNetCfg(13, 24, 36.44, 2.49, 8),
    "regnetx_004": RegNetCfg(22, 24, 24.48, 2.54, 16),
    "regnetx_004_tv": RegNetCfg(22, 24, 24.48, 2.54, 16, group_min_ratio=0.9),
    "regnetx_006": RegNetCfg(16, 48, 36.97, 2.24, 24),
    "regnetx_008": RegNetCfg(16, 56, 35.73, 2.28, 16),
    "regnetx_016": RegNetCfg(18, 80, 34.01, 2.25, 24),
    "regnetx_032": RegNetCfg(25, 88, 26.31, 2.25, 48),
    "regnetx_040": RegNetCfg(23, 96, 38.65, 2.43, 40),
    "regnetx_064": RegNetCfg(17, 184, 60.83, 2.07, 56),
    "regnetx_080": RegNetCfg(23, 80, 49.56, 2.88, 120),
    "regnetx_120": RegNetCfg(19, 168, 73.36, 2.37, 112),
    "regnetx_160": RegNetCfg(22, 216, 55.59, 2.1, 128),
    "regnetx_320": RegNetCfg(23, 320, 69.86, 2.0, 168),
    "regnety_002": RegNetCfg(13, 24, 36.44, 2.49, 8, se_ratio=0.25),
    "regnety_004": RegNetCfg(16, 48, 27.89, 2.09, 8, se_ratio=0.25),
    "regnety_006": RegNetCfg(15, 48, 32.54, 2.32, 16, se_ratio=0.25),
    "regnety_008": RegNetCfg(14, 56, 38.84, 2.4, 16, se_ratio=0.25),
    "regnety_008_tv": RegNetCfg(14, 56, 38.84, 2.4, 16, se_ratio=0.25, group_min_ratio=0.9),
    "regnety_016": RegNetCfg(27, 48, 20.71, 2.65, 24, se_ratio=0.25),
    "regnety_032": RegNetCfg(21, 80, 42.63, 2.66, 24, se_ratio=0.25),
    "regnety_040": RegNetCfg(22, 96, 31.41, 2.24, 64, se_ratio=0.25),
    "regnety_064": RegNetCfg(25, 112, 33.22, 2.27, 72, se_ratio=0.25),
    "regnety_080": RegNetCfg(17, 192, 76.82, 2.19, 56, se_ratio=0.25),
    "regnety_080_tv": RegNetCfg(17, 192, 76.82, 2.19, 56, se_ratio=0.25, group_min_ratio=0.9),
    "regnety_120": RegNetCfg(19, 168, 73.36, 2.37, 112, se_ratio=0.25),
    "regnety_160": RegNetCfg(18, 200, 106.23, 2.48, 112, se_ratio=0.25),
    "regnety_320": RegNetCfg(20, 232, 115.89, 2.53, 232, se_ratio=0.25),
    "regnety_640": RegNetCfg(20, 352, 147.48, 2.4, 328, se_ratio=0.25),
    "regnety_1280": RegNetCfg(27, 456, 160.83, 2.52, 264, se_ratio=0.25),
    "regnety_2560": RegNetCfg(27, 640, 230.83, 2.53, 373, se_ratio=0.25),
    "regnety_040_sgn": RegNetCfg(
        22, 96, 31.41, 2.24, 64, se_ratio=0.25, act_layer="silu", norm_layer=partial(GroupNormAct, group_size=16)
    ),
    "regnetv_040": RegNetCfg(22, 96, 31.41, 2.24, 64, se_ratio=0.25, preact=True, act_layer="silu"),
    "regnetv_064": RegNetCfg(25, 112, 33.22, 2.27, 72, se_ratio=0.25, preact=True, act_layer="silu", downsample="avg"),
    "regnetz_005": RegNetCfg(
        21,
        16,
        10.7,
        2.51,
        4,
        bottle_ratio=4.0,
        se_ratio=0.25,
        downsample=None,
        linear_out=True,
        num_features=1024,
        act_layer="silu",
        zero_init_last=False,
    ),
    "regnetz_040": RegNetCfg(
        28,
        48,
        14.5,
        2.226,
        8,
        bottle_ratio=4.0,
        se_ratio=0.25,
        downsample=None,
        linear_out=True,
        act_layer="silu",
        zero_init_last=False,
    ),
    "regnetz_040_h": RegNetCfg(
        28,
        48,
        14.5,
        2.226,
        8,
        bottle_ratio=4.0,
        se_ratio=0.25,
        downsample=None,
        linear_out=True,
        num_features=1536,
        act_layer="silu",
        zero_init_last=False,
    ),
}


register_variants(VARIANTS, RegNet)
