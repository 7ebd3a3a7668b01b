"""ReXNet (https://arxiv.org/abs/2007.00992): mobile blocks whose channels grow from each block to the next.

Names, state names and numbers are those of timm.
"""

from __future__ import annotations

import math

import paddle
from paddle import nn

from pimm.layers import BatchNorm2d, ClassifierHead, ConvNormAct, SEModule, create_act_layer, drop_path, make_divisible
from pimm.models.efficientnet_builder import efficientnet_init_weights
from pimm.models.features import Stage, feature_take_indices, limit_strides, stage_features
from pimm.models.headed import HeadedModel
from pimm.models.registry import register_variants

_DEPTHS = (1, 2, 2, 3, 3, 5)  # blocks of each stage
_STRIDES = (1, 2, 2, 2, 1, 2)
_GATED_FROM = 2  # the first stage whose blocks have gates
_EXPANSION = 6


class LinearBottleneck(nn.Layer):
    """Apply an inverted residual whose shortcut is added to the first channels of the output.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
        shortcut: whether there is a shortcut.
        exp_ratio: expanded channels for each input channel; 1 for no expansion.
        se_ratio: hidden channels of the gate for each expanded channel; 0 for no gate.
        ch_div: channels are rounded to multiples of it.
        act_layer: activation of the expansion.
        dw_act_layer: activation after the gate.
        drop_path_rate: stochastic depth.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        stride,
        dilation=1,
        shortcut=True,
        exp_ratio=1.0,
        se_ratio=0.0,
        ch_div=1,
        act_layer="swish",
        dw_act_layer="relu6",
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.in_channels, self.use_shortcut, self.drop_path_rate = in_chs, shortcut, drop_path_rate
        dw_chs, self.conv_exp, self.se = in_chs, None, None
        if exp_ratio != 1:
            dw_chs = make_divisible(round(in_chs * exp_ratio), ch_div)
            self.conv_exp = ConvNormAct(in_chs, dw_chs, act_layer=act_layer)
        self.conv_dw = ConvNormAct(dw_chs, dw_chs, 3, stride=stride, dilation=dilation, groups=dw_chs, apply_act=False)
        if se_ratio:
            rd_channels = make_divisible(int(dw_chs * se_ratio), ch_div)
            self.se = SEModule(dw_chs, rd_channels=rd_channels, norm_layer=BatchNorm2d)
        self.act_dw = create_act_layer(dw_act_layer)
        self.conv_pwl = ConvNormAct(dw_chs, out_chs, 1, apply_act=False)

    def forward(self, x):
        shortcut = x
        x = self.conv_dw(x if self.conv_exp is None else self.conv_exp(x))  # [N, dw, H / stride, W / stride]
        x = self.conv_pwl(self.act_dw(x if self.se is None else self.se(x)))
        if not self.use_shortcut:
            return x
        x = drop_path(x, self.drop_path_rate, self.training)
        return paddle.concat([x[:, : self.in_channels] + shortcut, x[:, self.in_channels :]], axis=1)  # [N, out, H, W]


def _blocks(width_mult, depth_mult, initial_chs, final_chs, se_ratio, ch_div):
    """Return channels, expansion ratio, stride and gate ratio of each block."""
    depths = [math.ceil(depth * depth_mult) for depth in _DEPTHS]
    base = initial_chs / width_mult if width_mult < 1.0 else initial_chs
    blocks = []
    for stage, (depth, stride) in enumerate(zip(depths, _STRIDES)):
        for index in range(depth):
            chs = make_divisible(round(base * width_mult), ch_div)
            gate = se_ratio if stage >= _GATED_FROM else 0.0
            blocks.append((chs, _EXPANSION if stage else 1, stride if index == 0 else 1, gate))
            base += final_chs / sum(depths)
    return blocks


class RexNet(HeadedModel):
    """Classify images with a stem, blocks whose channels grow evenly, a last convolution and a classifier.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the pooled features.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        initial_chs: channels of the first block, before the width multiplier.
        final_chs: by how much channels grow from the first block to the last.
        width_mult: width multiplier.
        depth_mult: depth multiplier.
        se_ratio: hidden channels of the gates for each expanded channel.
        ch_div: channels are rounded to multiples of it.
        act_layer: activation of stem, expansions and last convolution.
        dw_act_layer: activation after the depthwise convolutions.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
    """

    stages_name = "features"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        output_stride=32,
        initial_chs=16,
        final_chs=180,
        width_mult=1.0,
        depth_mult=1.0,
        se_ratio=1 / 12.0,
        ch_div=1,
        act_layer="swish",
        dw_act_layer="relu6",
        drop_rate=0.2,
        drop_path_rate=0.0,
    ):
        super().__init__()
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        stem_base = 32 / width_mult if width_mult < 1.0 else 32
        channels = make_divisible(round(stem_base * width_mult), ch_div)
        self.stem = ConvNormAct(in_chans, channels, 3, stride=2, act_layer=act_layer)
        blocks = _blocks(width_mult, depth_mult, initial_chs, final_chs, se_ratio, ch_div)
        placed = limit_strides([stride for _, _, stride, _ in blocks], output_stride)
        layers, outputs = [], [Stage(True, channels, 2)]
        for index, ((out_chs, exp_ratio, asked, gate), (stride, dilation, reduction)) in enumerate(zip(blocks, placed)):
            layers.append(
                LinearBottleneck(
                    channels,
                    out_chs,
                    stride,
                    dilation,
                    asked == 1 and channels <= out_chs,
                    exp_ratio,
                    gate,
                    ch_div,
                    act_layer,
                    dw_act_layer,
                    drop_path_rate * index / (len(blocks) - 1),
                )
            )
            channels = out_chs
            outputs.append(Stage(asked > 1, channels, reduction))
        self.feature_info = stage_features(outputs[0], outputs[1:], "stem", "features")
        self.num_features = make_divisible(1280 * width_mult, ch_div)
        self.features = nn.Sequential(*layers, ConvNormAct(channels, self.num_features, act_layer=act_layer))
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        efficientnet_init_weights(self)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {"stem": r"^stem", "blocks": r"^features\.(\d+)"}

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out layers as `ImageModel` does; a kept head keeps the last convolution before it, too."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        if last == len(self.feature_info) - 1 and not (prune_norm or prune_head):
            return taken
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)


_VARIANTS = {
    "rexnet_100": {},
    "rexnet_130": {"width_mult": 1.3},
    "rexnet_150": {"width_mult": 1.5},
    "rexnet_200": {"width_mult": 2.0},
    "rexnet_300": {"width_mult": 3.0},
    "rexnetr_100": {"ch_div": 8},
    "rexnetr_130": {"width_mult": 1.3, "ch_div": 8},
    "rexnetr_150": {"width_mult": 1.5, "ch_div": 8},
    "rexnetr_200": {"width_mult": 2.0, "ch_div": 8},
    "rexnetr_300": {"width_mult": 3.0, "ch_div": 16},
}


register_variants(_VARIANTS, RexNet)
