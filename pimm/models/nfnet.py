"""Nets without normalisation: NFNet, NF-ResNet and NF-RegNet, with the names, state names and numbers of timm.

Convolutions with scaled standardized weights keep the variance of the activations, and factors of each block account
for the growth that the shortcuts bring (https://arxiv.org/abs/2101.08692, https://arxiv.org/abs/2102.06171).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    ClassifierHead,
    DropPath,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    calculate_drop_path_rates,
    get_act_fn,
    get_act_layer,
    get_attn,
    make_divisible,
)
from pimm.layers.downsample import downsample_pool
from pimm.layers.weight_init import normal_, zeros_
from pimm.messages import did_you_mean
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.headed import HeadedModel
from pimm.models.registry import register_variants
from pimm.models.stage_strides import stage_strides

GAMMAS = {  # 1 over the standard deviation of an activation's output for an input of N(0, 1)
    "identity": 1.0,
    "celu": 1.270926833152771,
    "elu": 1.2716004848480225,
    "gelu": 1.7015043497085571,
    "leaky_relu": 1.70590341091156,
    "log_sigmoid": 1.9193484783172607,
    "log_softmax": 1.0002083778381348,
    "relu": 1.7139588594436646,
    "relu6": 1.7131484746932983,
    "selu": 1.0008515119552612,
    "sigmoid": 4.803835391998291,
    "silu": 1.7881293296813965,
    "softsign": 2.338853120803833,
    "softplus": 1.9203323125839233,
    "tanh": 1.5939117670059204,
}


@dataclass(frozen=True)
class NfCfg:
    """Describe a net.

    Attributes:
        depths: blocks of each stage.
        channels: channels of each stage, before the width factor.
        alpha: factor of each block's branch.
        stem_type: ``3x3``, ``7x7``, ``7x7_pool`` or ``deep_quad``.
        stem_chs: channels of the stem, before the width factor; None for those of the first stage.
        group_size: channels of a group of the 3x3 convolutions; None for no groups.
        attn_layer: name of the gates, or None.
        attn_kwargs: arguments of the gates.
        attn_gain: factor of a gate's output.
        width_factor: factor of all channels.
        bottle_ratio: channels inside a block for each channel of its output, in RegNets of its input.
        num_features: channels of a last convolution, before the width factor; 0 for none.
        ch_div: what the numbers of channels are multiples of.
        reg: whether blocks are RegNet's, with the gate before the last convolution.
        extra_conv: whether blocks have a second 3x3 convolution.
        gamma_in_act: whether the activations, and not the convolutions, are scaled by the constant of ``GAMMAS``.
        same_padding: whether convolutions have TensorFlow's 'same' padding.
        std_conv_eps: what is added to the variance of filters.
        skipinit: whether a learned factor of each branch begins with 0, in place of the gain of its last convolution.
        zero_init_fc: whether the classifier begins with zeros.
        act_layer: name of the activations, of ``GAMMAS``.
    """

    depths: tuple
    channels: tuple
    alpha: float = 0.2
    stem_type: str = "3x3"
    stem_chs: int | None = None
    group_size: int | None = None
    attn_layer: str | None = None
    attn_kwargs: dict | None = None
    attn_gain: float = 2.0
    width_factor: float = 1.0
    bottle_ratio: float = 0.5
    num_features: int = 0
    ch_div: int = 8
    reg: bool = False
    extra_conv: bool = False
    gamma_in_act: bool = False
    same_padding: bool = False
    std_conv_eps: float = 1e-5
    skipinit: bool = False
    zero_init_fc: bool = False
    act_layer: str = "silu"

    def width(self, channels):
        """Return a number of channels after the width factor, as a multiple of ``ch_div``."""
        return make_divisible(channels * self.width_factor, self.ch_div)


class GammaAct(nn.Layer):
    """Apply an activation, and multiply by ``gamma``."""

    def __init__(self, act_type="relu", gamma=1.0):
        super().__init__()
        self.act_fn, self.gamma = get_act_fn(act_type), gamma

    def forward(self, x):
        return self.act_fn(x) * self.gamma


class DownsampleAvg(nn.Layer):
    """Pool, and change the number of channels by a 1x1 convolution."""

    def __init__(self, in_chs, out_chs, stride, dilation, conv_layer):
        super().__init__()
        self.pool = downsample_pool(stride, dilation)
        self.conv = conv_layer(in_chs, out_chs, 1)

    def forward(self, x):
        return self.conv(self.pool(x))


class NormFreeBlock(nn.Layer):
    """Apply activations and convolutions, scale the result, and add the shortcut.

    Args:
        cfg: the `NfCfg`.
        layers: functions that create activations, convolutions and gates (None for no gates).
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: of the block.
        dilation: that of the block's first 3x3 convolution, and that of the blocks after it.
        beta: factor of the input, 1 over its expected standard deviation.
        bottle_ratio: as in `NfCfg`.
        drop_path_rate: stochastic depth.
    """

    def __init__(self, cfg, layers, in_chs, out_chs, stride, dilation, beta, bottle_ratio, drop_path_rate):
        super().__init__()
        act, conv, attn = layers
        inner = make_divisible((in_chs if cfg.reg else out_chs) * bottle_ratio, cfg.ch_div)
        groups = inner // cfg.group_size if cfg.group_size else 1
        if cfg.group_size and cfg.group_size % cfg.ch_div == 0:
            inner = cfg.group_size * groups
        self.alpha, self.beta, self.attn_gain = cfg.alpha, beta, cfg.attn_gain
        self.downsample = None
        if in_chs != out_chs or stride != 1 or dilation[0] != dilation[1]:
            self.downsample = DownsampleAvg(in_chs, out_chs, stride, dilation[1], conv)
        self.act1 = act()
        self.conv1 = conv(in_chs, inner, 1)
        self.act2 = act()
        self.conv2 = conv(inner, inner, 3, stride=stride, dilation=dilation[0], groups=groups)
        self.act2b = act() if cfg.extra_conv else None
        self.conv2b = conv(inner, inner, 3, dilation=dilation[1], groups=groups) if cfg.extra_conv else None
        self.attn = attn(inner) if cfg.reg and attn else None
        self.act3 = act()
        self.conv3 = conv(inner, out_chs, 1, gain_init=1.0 if cfg.skipinit else 0.0)
        self.attn_last = attn(out_chs) if attn and not cfg.reg else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        zero = nn.initializer.Constant(0.0)
        self.skipinit_gain = self.create_parameter([], default_initializer=zero) if cfg.skipinit else None

    def forward(self, x):
        out = self.act1(x) * self.beta
        shortcut = x if self.downsample is None else self.downsample(out)
        out = self.conv2(self.act2(self.conv1(out)))
        if self.conv2b is not None:
            out = self.conv2b(self.act2b(out))
        if self.attn is not None:
            out = self.attn(out) * self.attn_gain
        out = self.conv3(self.act3(out))
        if self.attn_last is not None:
            out = self.attn_last(out) * self.attn_gain
        out = self.drop_path(out)
        if self.skipinit_gain is not None:
            out = out * self.skipinit_gain
        return out * self.alpha + shortcut


def _single_conv(kernel_size, pools=False):
    def create(in_chs, out_chs, conv, act):
        parts = [("conv", conv(in_chs, out_chs, kernel_size, stride=2))]
        if pools:
            parts.append(("pool", nn.MaxPool2D(3, 2, 1)))
        return nn.Sequential(*parts), 4 if pools else 2, {"num_chs": out_chs, "reduction": 2, "module": "stem.conv"}

    return create


def _deep_quad(in_chs, out_chs, conv, act):
    widths, parts = [out_chs // 8, out_chs // 4, out_chs // 2, out_chs], []
    for number, (width, stride) in enumerate(zip(widths, (2, 1, 1, 2)), start=1):
        parts.append((f"conv{number}", conv(in_chs, width, 3, stride=stride)))
        if number < len(widths):
            parts.append((f"act{number + 1}", act()))
        in_chs = width
    return nn.Sequential(*parts), 4, {"num_chs": widths[2], "reduction": 2, "module": "stem.conv3"}


_STEMS = {"3x3": _single_conv(3), "7x7": _single_conv(7), "7x7_pool": _single_conv(7, True), "deep_quad": _deep_quad}


class NormFreeNet(HeadedModel):
    """Classify images with a net without normalisation.

    Args:
        cfg: an `NfCfg`.
        num_classes: classes; 0 for a net that returns the pooled features.
        in_chans: channels of the images.
        global_pool: pooling of the head.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        kwargs: fields of ``cfg`` to replace.

    Raises:
        ConfigError: for an unknown stem, and for an activation without a constant.
    """

    def __init__(
        self,
        cfg,
        num_classes=1000,
        in_chans=3,
        global_pool="avg",
        output_stride=32,
        drop_rate=0.0,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        cfg = replace(cfg, **kwargs)
        for value, table, what in ((cfg.act_layer, GAMMAS, "act_layer"), (cfg.stem_type, _STEMS, "stem_type")):
            if value not in table:
                raise ConfigError(f"{what} is {value!r:.80}; valid are {', '.join(table)}{did_you_mean(value, table)}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        act, conv, _ = layers = _layer_functions(cfg)
        stem_chs = cfg.width(cfg.stem_chs or cfg.channels[0])
        self.stem, reduction, tap = _STEMS[cfg.stem_type](in_chans, stem_chs, conv, act)
        self.feature_info = [{**tap, "stage": 0}]
        self.stem_tap = [name for name, _ in self.stem.named_children()].index(tap["module"].partition(".")[2])
        width = self._create_stages(cfg, layers, stem_chs, output_stride, reduction, drop_path_rate)
        self.num_features, self.final_conv = width, nn.Identity()
        if cfg.num_features:
            self.num_features = cfg.width(cfg.num_features)
            self.final_conv = conv(width, self.num_features, 1)
            self.feature_info[-1].update(num_chs=self.num_features, module="final_conv")
        self.final_act = act()
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        self._init_weights(cfg.zero_init_fc)

    def _create_stages(self, cfg, layers, in_chs, output_stride, reduction, drop_path_rate):
        """Set the stages, describe their output, and return the channels of the last."""
        rates = calculate_drop_path_rates(drop_path_rate, cfg.depths, stagewise=True)
        strides = [1 if reduction > 2 else 2, *[2] * (len(cfg.depths) - 1)]
        stages, variance = [], 1.0
        for number, (stride, dilation, reached) in enumerate(stage_strides(strides, output_stride, reduction)):
            width, blocks = cfg.width(cfg.channels[number]), []
            for index in range(cfg.depths[number]):
                first = index == 0
                blocks.append(
                    NormFreeBlock(
                        cfg,
                        layers,
                        in_chs,
                        width,
                        stride if first else 1,
                        dilation if first else (dilation[1], dilation[1]),
                        beta=1.0 / math.sqrt(variance),
                        bottle_ratio=1.0 if cfg.reg and first and number == 0 else cfg.bottle_ratio,
                        drop_path_rate=rates[number][index],
                    )
                )
                variance = (1.0 if first else variance) + cfg.alpha**2  # a pooled shortcut begins anew
                in_chs = width
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, width, reached))
        self.stages = nn.Sequential(*stages)
        return in_chs

    def _init_weights(self, zero_init_fc):
        """Draw convolutions from N(0, 1 / sqrt(fan_in)) and the classifier from N(0, 0.01), with biases of 0."""
        for name, layer in self.named_sublayers():
            if isinstance(layer, nn.Conv2D):
                std = 1.0 / math.sqrt(math.prod(layer.weight.shape[1:]))
            elif isinstance(layer, nn.Linear) and "fc" in name:
                std = 0.0 if zero_init_fc else 0.01
            else:
                continue
            normal_(layer.weight, std=std) if std else zeros_(layer.weight)
            zeros_(layer.bias)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": "^stem", "blocks": [(blocks, None), (r"^final_conv", (99999,))]}

    def final(self, x):
        """Return the output of the last convolution and activation for that of the last stage."""
        return self.final_act(self.final_conv(x))

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of feature maps, in forward order.

        The last feature maps are those of the last convolution. Arguments and errors are those of `ImageModel`.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is NCHW, for this net")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        count, found = len(self.feature_info) - 1, []
        for index, layer in enumerate(self.stem):
            x = layer(x)
            if index == self.stem_tap and 0 in taken:
                found.append(x)
        run = list(self.stages)[:last] if stop_early else list(self.stages)
        for number, stage in enumerate(run, start=1):
            x = self._run(stage, x)
            x = self.final_conv(x) if number == count else x
            if number in taken:
                found.append(x)
        if intermediates_only:
            return found
        return (self.final_act(x) if len(run) == count else x), found

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Arguments and errors are those of `ImageModel`.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        shortened = last < len(self.stages)
        if shortened:
            self.final_conv = self.final_act = nn.Identity()
            self.num_features = self.feature_info[last]["num_chs"]
        if last == 0:
            self.stem = nn.Sequential(*list(self.stem.named_children())[: self.stem_tap + 1])
        self.keep_stages(last)
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return taken


def _layer_functions(cfg):
    """Return the functions that create activations, convolutions and gates."""
    conv = partial(ScaledStdConv2dSame if cfg.same_padding else ScaledStdConv2d, eps=cfg.std_conv_eps)
    gamma = GAMMAS[cfg.act_layer]
    attn = partial(get_attn(cfg.attn_layer), **(cfg.attn_kwargs or {})) if cfg.attn_layer else None
    if cfg.gamma_in_act:
        return partial(GammaAct, cfg.act_layer, gamma), conv, attn
    return get_act_layer(cfg.act_layer), partial(conv, gamma=gamma), attn


_RESNET_KWARGS = {"stem_type": "7x7_pool", "stem_chs": 64, "bottle_ratio": 0.25, "act_layer": "relu"}
_RESNET = partial(NfCfg, channels=(256, 512, 1024, 2048), **_RESNET_KWARGS)
_RESNETS = {"26": (2, 2, 2, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
_RESNET_GATES = {
    "nf_resnet": {},
    "nf_seresnet": {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 1 / 16}},
    "nf_ecaresnet": {"attn_layer": "eca", "attn_kwargs": {}},
}
_REGNETS = {
    "b0": ((1, 3, 6, 6), (48, 104, 208, 440)),
    "b1": ((2, 4, 7, 7), (48, 104, 208, 440)),
    "b2": ((2, 4, 8, 8), (56, 112, 232, 488)),
    "b3": ((2, 5, 9, 9), (56, 128, 248, 528)),
    "b4": ((2, 6, 11, 11), (64, 144, 288, 616)),
    "b5": ((3, 7, 14, 14), (80, 168, 336, 704)),
}
_ECA = {"attn_layer": "eca", "attn_kwargs": {}}
_DEEPMIND = {"gamma_in_act": True, "same_padding": True, "skipinit": True}


def _regnet(depths, channels):
    return NfCfg(
        depths,
        channels,
        stem_type="3x3",
        group_size=8,
        width_factor=0.75,
        bottle_ratio=2.25,
        num_features=1280 * channels[-1] // 440,
        reg=True,
        attn_layer="se",
        attn_kwargs={"rd_ratio": 0.5},
    )


def _nfnet(depths, channels=(256, 512, 1536, 1536), feat_mult=2.0, group_size=128, act_layer="gelu", **kwargs):
    gate = {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.5}}
    return NfCfg(
        depths,
        channels,
        stem_type="deep_quad",
        stem_chs=128,
        group_size=group_size,
        extra_conv=True,
        num_features=int(channels[-1] * feat_mult),
        act_layer=act_layer,
        **{**gate, **kwargs},
    )


_LIGHT = partial(_nfnet, group_size=64, bottle_ratio=0.25, act_layer="silu")
_LIGHT_GATE = {"attn_kwargs": {"rd_ratio": 0.25, "rd_divisor": 8}}


def _times(count):
    return tuple(count * depth for depth in (1, 2, 6, 3))


VARIANTS = {
    **{f"dm_nfnet_f{count - 1}": _nfnet(_times(count), **_DEEPMIND) for count in range(1, 8)},
    **{f"nfnet_f{count - 1}": _nfnet(_times(count)) for count in range(1, 9)},
    "nfnet_l0": _LIGHT((1, 2, 6, 3), feat_mult=1.5, **_LIGHT_GATE),
    "eca_nfnet_l0": _LIGHT((1, 2, 6, 3), feat_mult=1.5, **_ECA),
    "eca_nfnet_l1": _LIGHT((2, 4, 12, 6), **_ECA),
    "eca_nfnet_l2": _LIGHT((3, 6, 18, 9), **_ECA),
    "eca_nfnet_l3": _LIGHT((4, 8, 24, 12), **_ECA),
    **{f"nf_regnet_{name}": _regnet(*shape) for name, shape in _REGNETS.items()},
    **{
        f"{family}{name}": _RESNET(depths, **gate)
        for family, gate in _RESNET_GATES.items()
        for name, depths in _RESNETS.items()
    },
    "test_nfnet": _nfnet(
        (1, 1, 1, 1), (32, 64, 96, 128), 1.5, group_size=8, bottle_ratio=0.25, act_layer="silu", **_LIGHT_GATE
    ),
}


register_variants(VARIANTS, NormFreeNet)
