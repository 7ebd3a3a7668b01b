"""ResNet with normalisation before the convolutions, with the names, state names and numbers of timm.

Pre-activation: https://arxiv.org/abs/1603.05027. BiT, with group normalisation and standardized convolutions:
https://arxiv.org/abs/1912.11370.
"""

from __future__ import annotations

from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    BatchNormAct2d,
    ClassifierHead,
    EvoNorm2dS0,
    FilterResponseNormTlu2d,
    GroupNormAct,
    StdConv2d,
    calculate_drop_path_rates,
    create_conv2d,
    create_pool2d,
    get_act_layer,
    get_norm_act_layer,
    make_divisible,
    normal_,
)
from pimm.models.features import feature_take_indices, row_features
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import RowMixin
from pimm.models.registry import register_variants
from pimm.models.resnetv2_blocks import Bottleneck, PreActBasic, PreActBottleneck, ResNetStage
from pimm.models.stage_strides import stage_strides

_STEM_TYPES = ("", "fixed", "same", "deep", "deep_fixed", "deep_same", "tiered")


def create_resnetv2_stem(in_chs, out_chs=64, stem_type="", preact=True, conv_layer=StdConv2d, norm_layer=GroupNormAct):
    """Create the layers before the first stage, and return them with the number of those before the pooling.

    Args:
        in_chs: channels of the images.
        out_chs: channels of the output.
        stem_type: ``""`` for a convolution of 7x7 pixels; ``deep`` for three of 3x3 pixels; ``tiered`` for three of
            which the first has fewer channels. ``fixed`` and ``same`` say how the pooling pads: with zeros on all
            sides, as BiT's does, or as TensorFlow does. ``deep_fixed`` and ``deep_same`` are both.
        preact: whether no normalisation follows the last convolution.
        conv_layer: creates the convolutions.
        norm_layer: creates the normalisations with activation.

    Raises:
        ConfigError: for another ``stem_type``.
    """
    if stem_type not in _STEM_TYPES:
        raise ConfigError(f"stem_type is {stem_type!r:.60}; valid are {', '.join(filter(None, _STEM_TYPES))}, and ''")
    stem = nn.Sequential()
    if "deep" in stem_type or "tiered" in stem_type:
        first, second = 3 * out_chs // 8 if "tiered" in stem_type else out_chs // 2, out_chs // 2
        stem.add_sublayer("conv1", conv_layer(in_chs, first, 3, stride=2))
        stem.add_sublayer("norm1", norm_layer(first))
        stem.add_sublayer("conv2", conv_layer(first, second, 3, stride=1))
        stem.add_sublayer("norm2", norm_layer(second))
        stem.add_sublayer("conv3", conv_layer(second, out_chs, 3, stride=1))
        norm_name = "norm3"
    else:
        stem.add_sublayer("conv", conv_layer(in_chs, out_chs, 7, stride=2))
        norm_name = "norm"
    if not preact:
        stem.add_sublayer(norm_name, norm_layer(out_chs))
    before_pooling = len(stem)
    if "fixed" in stem_type:
        stem.add_sublayer("pad", nn.Pad2D(1))
        stem.add_sublayer("pool", nn.MaxPool2D(3, 2))
    else:
        stem.add_sublayer("pool", create_pool2d("max", 3, 2, padding="same" if "same" in stem_type else 1))
    return stem, before_pooling


class ResNetV2(RowMixin, HeadedModel):
    """Classify images with a stem, stages of blocks that normalise first, a normalisation, pooling and a classifier.

    Args:
        layers: number of blocks of each stage.
        channels: channels of each stage.
        num_classes: classes; 0 for a net that returns the pooled features.
        in_chans: channels of the images.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        width_factor: of all channels.
        stem_chs: channels of the stem.
        stem_type: as in `create_resnetv2_stem`.
        avg_down: whether shortcuts with a stride pool the average.
        preact: whether blocks normalise before convolutions; without it after them.
        basic: whether blocks are two convolutions of 3x3 pixels.
        bottle_ratio: channels inside a block, as a share of its output's.
        act_layer: class or name of the activations.
        norm_layer: class or name of the normalisation, as in `pimm.layers.get_norm_act_layer`.
        conv_layer: creates the convolutions.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        zero_init_last: whether the last layer of each branch begins as 0.

    Raises:
        ConfigError: for another ``output_stride`` or stem, and for ``basic`` blocks without ``preact``.
    """

    final_layers = ("norm",)

    def __init__(
        self,
        layers,
        channels=(256, 512, 1024, 2048),
        num_classes=1000,
        in_chans=3,
        global_pool="avg",
        output_stride=32,
        width_factor=1,
        stem_chs=64,
        stem_type="",
        avg_down=False,
        preact=True,
        basic=False,
        bottle_ratio=0.25,
        act_layer=nn.ReLU,
        norm_layer=GroupNormAct,
        conv_layer=StdConv2d,
        drop_rate=0.0,
        drop_path_rate=0.0,
        zero_init_last=False,
    ):
        super().__init__()
        if basic and not preact:
            raise ConfigError("basic blocks normalise before convolutions: preact must be true")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        norm_layer = get_norm_act_layer(norm_layer, act_layer)
        stem_chs = make_divisible(stem_chs * width_factor)
        self.stem, before_pooling = create_resnetv2_stem(in_chans, stem_chs, stem_type, preact, conv_layer, norm_layer)
        shared = {
            "block_fn": (PreActBasic if basic else PreActBottleneck) if preact else Bottleneck,
            "bottle_ratio": bottle_ratio,
            "avg_down": avg_down,
            "act_layer": get_act_layer(act_layer),
            "norm_layer": norm_layer,
            "conv_layer": conv_layer,
        }
        rates = calculate_drop_path_rates(drop_path_rate, layers, stagewise=True)
        stem_names = [f"stem.{name}" for name, _ in self.stem.named_children()]
        taps, stages, prev_chs = [(stem_names[before_pooling - 1], stem_chs, 2)], [], stem_chs
        strides = stage_strides((1, 2, 2, 2)[: len(layers)], output_stride, reduction=4)
        for number, (stride, (_, dilation), reduction) in enumerate(strides):
            out_chs = make_divisible(channels[number] * width_factor)
            stages.append(ResNetStage(prev_chs, out_chs, stride, dilation, rates[number], **shared))
            prev_chs = out_chs
            taps.append((f"stages.{number}", out_chs, reduction))
        self.stages, self.num_features = nn.Sequential(*stages), prev_chs
        self.stages_name = (*stem_names, *(f"stages.{number}" for number in range(len(stages))))
        self.feature_info = row_features(self.stages_name, taps)
        self.norm = norm_layer(prev_chs) if preact else nn.Identity()
        self.head = ClassifierHead(prev_chs, num_classes, global_pool, drop_rate, use_conv=True)
        self.head_hidden_size = self.head.num_features
        self._init_weights(zero_init_last)

    def _init_weights(self, zero_init_last):
        init_convolutions(self, zero_biases=True)
        if self.num_classes:
            normal_(self.head.fc.weight, std=0.01)
        for layer in self.sublayers() if zero_init_last else ():
            if hasattr(layer, "zero_init_last"):
                layer.zero_init_last()

    def _run(self, stage, x):
        return super()._run(getattr(stage, "blocks", stage), x)  # a stage recomputes one block after the other

    def final(self, x):
        """Return the output of the last normalisation for that of the last stage."""
        return self.norm(x)

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return what `ImageModel.forward_intermediates` does; ``norm`` normalises the last stage's feature map."""
        last = len(self.feature_info) - 1
        result = super().forward_intermediates(x, indices, norm, stop_early, output_fmt, intermediates_only)
        found = result if intermediates_only else result[1]
        if norm and last in feature_take_indices(last + 1, indices)[0]:
            found[-1] = self.norm(found[-1])
        return result

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        fine = [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else fine}


_BLOCKS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}
_BASIC = {"channels": (64, 128, 256, 512), "basic": True, "bottle_ratio": 1.0}
_STEMS = {  # stem and shortcuts by the letter after the depth
    "": {},
    "d": {"stem_type": "deep", "avg_down": True},
    "t": {"stem_type": "tiered", "avg_down": True},
}
_BIT = {"stem_type": "fixed", "conv_layer": partial(StdConv2d, eps=1e-8)}


def _plain(name, norm_layer=BatchNormAct2d):
    """Return the arguments of a net by depth and letter, such as ``50d``."""
    depth = name.rstrip("dt")
    basic = _BASIC if depth in ("18", "34") else {}
    settings = {"layers": _BLOCKS[depth], "conv_layer": create_conv2d, "norm_layer": norm_layer}
    return {**settings, **basic, **_STEMS[name[len(depth) :]]}


_NETS = ("18", "18d", "34", "34d", "50", "50d", "50t", "101", "101d", "152", "152d")
_BIT_NETS = (("50", 1), ("50", 3), ("101", 1), ("101", 3), ("152", 2), ("152", 4))


register_variants(
    {
        **{
            f"resnetv2_{depth}x{width}_bit": {"layers": _BLOCKS[depth], "width_factor": width, **_BIT}
            for depth, width in _BIT_NETS
        },
        **{f"resnetv2_{name}": _plain(name) for name in _NETS},
        "resnetv2_50d_gn": _plain("50d", GroupNormAct),
        "resnetv2_50d_evos": _plain("50d", EvoNorm2dS0),
        "resnetv2_50d_frn": _plain("50d", FilterResponseNormTlu2d),
    },
    ResNetV2,
)
