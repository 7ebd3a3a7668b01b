"""DenseNet, "Densely Connected Convolutional Networks" (https://arxiv.org/abs/1608.06993)."""

from __future__ import annotations

import re

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import BatchNormAct2d, BlurPool2d, Conv2d, create_aa, get_norm_act_layer
from pimm.models.features import row_features
from pimm.models.initial_values import init_convolutions, zero_linear_biases
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants
from pimm.optim.layer_groups import MATCH_PREV_GROUP


class DenseLayer(nn.Layer):
    """New channels from all channels before them, by a convolution of one pixel and one of 3x3.

    Args:
        num_input_features: channels of the input.
        growth_rate: channels of the output.
        bn_size: channels between the convolutions, as a multiple of ``growth_rate``.
        norm_layer: what creates normalisation with activation.
        drop_rate: dropout of the output.
    """

    def __init__(self, num_input_features, growth_rate, bn_size, norm_layer=BatchNormAct2d, drop_rate=0.0):
        super().__init__()
        self.norm1 = norm_layer(num_input_features)
        self.conv1 = Conv2d(num_input_features, bn_size * growth_rate, 1, bias=False)
        self.norm2 = norm_layer(bn_size * growth_rate)
        self.conv2 = Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = float(drop_rate)

    def forward(self, x):
        x = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x


class DenseBlock(nn.Layer):
    """Layers ``denselayer1``, ``denselayer2`` ..., each of which adds channels to those before it.

    Args:
        num_layers: number of layers.
        num_input_features: channels of the input. The other arguments are those of `DenseLayer`.
    """

    def __init__(self, num_layers, num_input_features, bn_size, growth_rate, norm_layer=BatchNormAct2d, drop_rate=0.0):
        super().__init__()
        for index in range(num_layers):
            channels = num_input_features + index * growth_rate
            layer = DenseLayer(channels, growth_rate, bn_size, norm_layer, drop_rate)
            self.add_sublayer(f"denselayer{index + 1}", layer)

    def forward(self, x):
        for layer in self.children():
            x = paddle.concat([x, layer(x)], axis=1)
        return x


def _transition(num_input_features, num_output_features, norm_layer, aa_layer):
    """Return the layers between two blocks, which halve the size of images."""
    conv = Conv2d(num_input_features, num_output_features, 1, bias=False)
    pool = create_aa(aa_layer, num_output_features, stride=2) if aa_layer else nn.AvgPool2D(2, 2)
    return nn.Sequential(("norm", norm_layer(num_input_features)), ("conv", conv), ("pool", pool))


class DenseNet(RowModel):
    """A stem and blocks of densely connected layers.

    Args:
        growth_rate: channels that a layer adds; the stem has twice as many.
        block_config: number of layers of each block.
        num_classes: classes.
        in_chans: channels of the images.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        bn_size: channels inside a layer, as a multiple of ``growth_rate``.
        stem_type: ``""`` for one convolution of 7x7 pixels; with ``deep`` in it three of 3x3, of fewer channels with
            ``tiered`` in it, and ``narrow`` too.
        act_layer: class or name of the activations.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        aa_layer: as in `pimm.layers.get_aa_layer`.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout in each layer.
        memory_efficient: whether activations are computed again in the backward pass, as by `set_grad_checkpointing`.
        aa_stem_only: whether ``aa_layer`` is for the stem alone.
    """

    def __init__(
        self,
        growth_rate=32,
        block_config=(6, 12, 24, 16),
        num_classes=1000,
        in_chans=3,
        global_pool="avg",
        bn_size=4,
        stem_type="",
        act_layer="relu",
        norm_layer="batchnorm2d",
        aa_layer=None,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        memory_efficient=False,
        aa_stem_only=True,
    ):
        super().__init__()
        self.drop_rate, self.grad_checkpointing = drop_rate, memory_efficient
        norm_layer = get_norm_act_layer(norm_layer, act_layer)
        channels, stride = growth_rate * 2, 4
        stem, last_norm = _stem(in_chans, growth_rate, stem_type, norm_layer, aa_layer)
        layers, taps = dict(stem), [(f"features.{last_norm}", channels, 2)]
        for number, num_layers in enumerate(block_config, start=1):
            block = DenseBlock(num_layers, channels, bn_size, growth_rate, norm_layer, proj_drop_rate)
            layers[f"denseblock{number}"] = block
            channels += num_layers * growth_rate
            if number < len(block_config):
                taps.append((f"features.denseblock{number}", channels, stride))
                aa = None if aa_stem_only else aa_layer
                layers[f"transition{number}"] = _transition(channels, channels // 2, norm_layer, aa)
                channels, stride = channels // 2, stride * 2
        layers["norm5"] = norm_layer(channels)
        self.features = nn.Sequential(*layers.items())
        self.stages_name = tuple(f"features.{name}" for name in layers)
        self.feature_info = row_features(self.stages_name, [*taps, ("features.norm5", channels, stride)])
        self.num_features = channels
        self.create_head(num_classes, global_pool)
        init_convolutions(self, mode="fan_in")
        zero_linear_biases(self)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of blocks or of layers."""
        layers, transitions = r"^features\.denseblock(\d+)\.denselayer(\d+)", r"^features\.transition(\d+)"
        layers = [(layers, None), (transitions, MATCH_PREV_GROUP)]
        return {
            "stem": r"^features\.conv[012]|features\.norm[012]|features\.pool[012]",
            "blocks": r"^features\.(?:denseblock|transition)(\d+)" if coarse else layers,
        }


def _stem(in_chans, growth_rate, stem_type, norm_layer, aa_layer):
    """Return (name, layer) of the stem's layers, and the name of its last normalisation."""
    channels = growth_rate * 2
    widths, kernel = [channels], 7
    if "deep" in stem_type:
        widths, kernel = [growth_rate, growth_rate, channels], 3
        if "tiered" in stem_type:
            quarter = growth_rate // 4
            widths[:2] = 3 * quarter, channels if "narrow" in stem_type else 6 * quarter
    layers = []
    for index, width in enumerate(widths):
        conv = Conv2d(in_chans, width, kernel, stride=1 if index else 2, padding=kernel // 2, bias=False)
        layers += [(f"conv{index}", conv), (f"norm{index}", norm_layer(width))]
        in_chans = width
    pool = nn.MaxPool2D(3, 2, 1)
    if aa_layer is not None:
        pool = nn.Sequential(nn.MaxPool2D(3, 1, 1), create_aa(aa_layer, channels, stride=2))
    return [*layers, ("pool0", pool)], f"norm{len(widths) - 1}"


_OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")


def checkpoint_filter_fn(state_dict, model):
    """Return torchvision's weights under the names here.

    Args:
        state_dict: arrays under PyTorch's names.
        model: ignored.
    """
    return {_OLD_NAME.sub(r"\1\2", name): value for name, value in state_dict.items()}


register_variants(
    {
        "densenet121": {"growth_rate": 32, "block_config": (6, 12, 24, 16)},
        "densenetblur121d": {
            "growth_rate": 32,
            "block_config": (6, 12, 24, 16),
            "stem_type": "deep",
            "aa_layer": BlurPool2d,
        },
        "densenet169": {"growth_rate": 32, "block_config": (6, 12, 32, 32)},
        "densenet201": {"growth_rate": 32, "block_config": (6, 12, 48, 32)},
        "densenet161": {"growth_rate": 48, "block_config": (6, 12, 36, 24)},
        "densenet264d": {"growth_rate": 48, "block_config": (6, 12, 64, 48), "stem_type": "deep"},
    },
    DenseNet,
)
