"""ResNet, ResNeXt, SE-ResNet, ECA-ResNet, ResNet-RS and their like, with the names, state names and numbers of timm.

ResNet: https://arxiv.org/abs/1512.03385. Stems and shortcuts called c, d, e, s and t: https://arxiv.org/abs/1812.01187.
ResNeXt: https://arxiv.org/abs/1611.05431. Wide ResNet: https://arxiv.org/abs/1605.07146. ResNet-RS:
https://arxiv.org/abs/2103.07579. Blurred: https://arxiv.org/abs/1904.11486. Pruned: https://arxiv.org/abs/2002.08258.
"""

from __future__ import annotations

import functools

from paddle import nn

from pimm.layers import (
    BatchNorm2d,
    Conv2d,
    DropBlock2d,
    DropPath,
    calculate_drop_path_rates,
    create_aa,
    get_act_layer,
    get_norm_layer,
)
from pimm.models.features import feature_map, row_features
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import ImageModel, RowMixin
from pimm.models.pruned import prune_channels
from pimm.models.registry import register_variants
from pimm.models.resnet_blocks import BasicBlock, Bottleneck, downsample_avg, downsample_conv
from pimm.models.resnet_variants import VARIANTS
from pimm.models.stage_strides import stage_strides

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]

_DROP_BLOCKS = ({}, {}, {"block_size": 5, "gamma_scale": 0.25}, {"block_size": 3})  # by stage; none in the first two


class ResNet(RowMixin, ImageModel):
    """Classify images with a stem, pooling, four stages of residual blocks, pooling and a classifier.

    Args:
        block: class of the blocks, `BasicBlock` or `Bottleneck`, or a sequence of one for each stage.
        layers: number of blocks of each stage.
        num_classes: classes; 0 for a net that returns the pooled features.
        in_chans: channels of the images.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        cardinality: groups of the 3x3 convolutions of `Bottleneck`.
        base_width: channels of a group, for the first stage.
        stem_width: channels of the stem's convolutions.
        stem_type: ``""`` for a convolution of 7x7 pixels to 64 channels; ``deep`` for three of 3x3 pixels to
            ``stem_width``, ``stem_width`` and twice that; ``deep_tiered`` for three of which the first has fewer.
        replace_stem_pool: whether a convolution takes the place of the stem's maximum pooling.
        block_reduce_first: by which the channels of the first convolution of blocks are divided.
        down_kernel_size: kernel in the shortcuts with a stride.
        avg_down: whether shortcuts with a stride pool the average.
        channels: channels of the stages, before the expansion of blocks.
        act_layer: class or name of the activations.
        norm_layer: class or name of the normalisation.
        aa_layer: blur before strides, as in `pimm.layers.get_aa_layer`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        drop_block_rate: share of pixels that `pimm.layers.DropBlock2d` drops in the last two stages.
        zero_init_last: whether the last normalisation of each branch begins as 0.
        block_args: further arguments of the blocks.

    Raises:
        ConfigError: for an unknown name, and another ``output_stride``.
    """

    classifier_name = "fc"

    def __init__(
        self,
        block,
        layers,
        num_classes=1000,
        in_chans=3,
        output_stride=32,
        global_pool="avg",
        cardinality=1,
        base_width=64,
        stem_width=64,
        stem_type="",
        replace_stem_pool=False,
        block_reduce_first=1,
        down_kernel_size=1,
        avg_down=False,
        channels=(64, 128, 256, 512),
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        aa_layer=None,
        drop_rate=0.0,
        drop_path_rate=0.0,
        drop_block_rate=0.0,
        zero_init_last=True,
        block_args=None,
    ):
        super().__init__()
        act_layer, norm_layer = get_act_layer(act_layer), get_norm_layer(norm_layer)
        self.in_chans, self.drop_rate = in_chans, drop_rate
        stem_chs = self._create_stem(in_chans, stem_width, stem_type, norm_layer, act_layer)
        self.maxpool = _stem_pool(stem_chs, replace_stem_pool, aa_layer, norm_layer, act_layer)
        shared = {
            "cardinality": cardinality,
            "base_width": base_width,
            "reduce_first": block_reduce_first,
            "act_layer": act_layer,
            "norm_layer": norm_layer,
            "aa_layer": aa_layer,
            **(block_args or {}),
        }
        downsample = functools.partial(downsample_avg if avg_down else downsample_conv, kernel_size=down_kernel_size)
        blocks = (block,) * len(channels) if isinstance(block, type) else block
        rates = calculate_drop_path_rates(drop_path_rate, layers, stagewise=True)
        taps, inplanes = [], stem_chs
        strides = stage_strides((1, 2, 2, 2), output_stride, reduction=4)
        for number, (stride, dilations, reduction) in enumerate(strides):
            name, planes = f"layer{number + 1}", channels[number]
            settings = {**shared, "drop_block": _drop_block(drop_block_rate, number)}
            stage = _stage(blocks[number], inplanes, planes, stride, dilations, rates[number], downsample, settings)
            self.add_sublayer(name, stage)
            inplanes = planes * blocks[number].expansion
            taps.append((name, inplanes, reduction))
        self.stages_name = ("maxpool", *(name for name, *_ in taps))
        stem_tap = feature_map("act1", 0, stem_chs, 2)
        self.feature_info = [stem_tap, *row_features(self.stages_name, taps)]
        self.num_features = inplanes
        self.create_head(num_classes, global_pool)
        init_convolutions(self)
        if zero_init_last:
            for layer in self.sublayers():
                if hasattr(layer, "zero_init_last"):
                    layer.zero_init_last()

    def _create_stem(self, in_chans, stem_width, stem_type, norm_layer, act_layer):
        """Create the convolutions before the pooling, and return their channels."""
        if "deep" in stem_type:
            first = 3 * (stem_width // 4) if "tiered" in stem_type else stem_width
            channels = 2 * stem_width
            self.conv1 = nn.Sequential(
                Conv2d(in_chans, first, 3, 2, 1, bias=False),
                norm_layer(first),
                act_layer(),
                Conv2d(first, stem_width, 3, 1, 1, bias=False),
                norm_layer(stem_width),
                act_layer(),
                Conv2d(stem_width, channels, 3, 1, 1, bias=False),
            )
        else:
            channels = 64
            self.conv1 = Conv2d(in_chans, channels, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(channels)
        self.act1 = act_layer()
        return channels

    def embed(self, x):  # [N, in_chans, H, W]
        """Return the output of the stem before its pooling."""
        return self.act1(self.bn1(self.conv1(x)))  # [N, channels, H / 2, W / 2]

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        return {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


def _stem_pool(channels, replaced, aa_layer, norm_layer, act_layer):
    """Return what halves the stem's output: pooling, or a convolution if ``replaced``, with a blur if there is one."""
    blur = create_aa(aa_layer, channels, 2, noop=None)
    if replaced:
        conv = Conv2d(channels, channels, 3, 1 if blur else 2, 1, bias=False)
        return nn.Sequential(*([conv, blur] if blur else [conv]), norm_layer(channels), act_layer())
    if blur is None:
        return nn.MaxPool2D(3, 2, 1)
    return blur if isinstance(blur, nn.AvgPool2D) else nn.Sequential(nn.MaxPool2D(3, 1, 1), blur)


def _drop_block(rate, stage):
    settings = _DROP_BLOCKS[stage]
    return functools.partial(DropBlock2d, drop_prob=rate, **settings) if rate and settings else None


def _stage(block, inplanes, planes, stride, dilations, rates, downsample, settings):
    """Return the blocks of a stage, of which the first has the stride.

    Args:
        block: class of the blocks.
        inplanes: channels of the input.
        planes: channels, before the expansion of blocks.
        stride: of the stage.
        dilations: of the first convolution, and of the others.
        rates: stochastic depth of each block.
        downsample: function that creates the shortcut of the first block.
        settings: further arguments of the blocks.
    """
    first_dilation, dilation = dilations
    outplanes = planes * block.expansion
    shortcut = None
    if stride != 1 or inplanes != outplanes:
        shortcut = downsample(
            inplanes,
            outplanes,
            stride=stride,
            dilation=dilation,
            first_dilation=first_dilation,
            norm_layer=settings["norm_layer"],
        )
    blocks = []
    for rate in rates:
        own = (inplanes, planes, 1, None) if blocks else (inplanes, planes, stride, shortcut)
        drop_path = DropPath(rate) if rate else None
        blocks.append(block(*own, dilation=dilation, first_dilation=first_dilation, drop_path=drop_path, **settings))
        inplanes, first_dilation = outplanes, dilation
    return nn.Sequential(*blocks)


def _create(variant, **kwargs):
    arguments = {**variant, **kwargs}
    pruned = arguments.pop("pruned", None)
    model = ResNet(**arguments)
    if pruned:
        prune_channels(model, pruned)
    return model


register_variants(VARIANTS, _create)
