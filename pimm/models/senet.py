"""The first squeeze-and-excitation nets (https://arxiv.org/abs/1709.01507), for weights that were made from Caffe's.

Names, state names and numbers are those of timm, where the nets are called ``legacy``. See `pimm.models.resnet` for
those that are trained today.
"""

from __future__ import annotations

from paddle import nn

from pimm.layers import BatchNorm2d, Conv2d, SEModule
from pimm.models.features import row_features
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import ImageModel, RowMixin
from pimm.models.registry import register_variants


class _Block(nn.Layer):
    """Convolutions and a gate of channels beside a shortcut.

    Args:
        inplanes: channels of the input.
        planes: channels of the output, as a share of ``expansion``.
        groups: groups of the convolution of 3x3 pixels.
        reduction: by which the hidden channels of the gate are fewer.
        stride: of the block.
        downsample: layer in the shortcut; None for none.
    """

    expansion = 4

    def __init__(self, inplanes, planes, groups, reduction, stride=1, downsample=None):
        super().__init__()
        outplanes = planes * self.expansion
        for number, (channels, *geometry) in enumerate(self.convolutions(planes, groups, stride), start=1):
            setattr(self, f"conv{number}", Conv2d(inplanes, channels, *geometry, bias=False))
            setattr(self, f"bn{number}", BatchNorm2d(channels))
            inplanes = channels
        self.relu = nn.ReLU()
        self.se_module = SEModule(outplanes, rd_channels=outplanes // reduction)
        self.downsample = downsample

    def convolutions(self, planes, groups, stride):
        """Return channels, kernel, stride, padding, dilation and groups of each convolution."""
        raise NotImplementedError

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(self.se_module(x) + shortcut)


class SEBottleneck(_Block):
    """Block of SENet-154."""

    def convolutions(self, planes, groups, stride):
        """Return channels, kernel, stride, padding, dilation and groups of each convolution."""
        return (planes * 2, 1), (planes * 4, 3, stride, 1, 1, groups), (planes * 4, 1)


class SEResNetBottleneck(_Block):
    """Block whose first convolution has the stride, as in Caffe."""

    def convolutions(self, planes, groups, stride):
        """Return channels, kernel, stride, padding, dilation and groups of each convolution."""
        return (planes, 1, stride), (planes, 3, 1, 1, 1, groups), (planes * 4, 1)


class SEResNeXtBottleneck(_Block):
    """Block with groups of four channels, for 64 ``planes``."""

    def convolutions(self, planes, groups, stride):
        """Return channels, kernel, stride, padding, dilation and groups of each convolution."""
        width = planes * 4 // 64 * groups
        return (width, 1), (width, 3, stride, 1, 1, groups), (planes * 4, 1)


class SEResNetBlock(_Block):
    """Two convolutions of 3x3 pixels, with an activation before the gate."""

    expansion = 1

    def convolutions(self, planes, groups, stride):
        """Return channels, kernel, stride, padding, dilation and groups of each convolution."""
        return (planes, 3, stride, 1), (planes, 3, 1, 1, 1, groups)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.se_module(x) + shortcut)


class SENet(RowMixin, ImageModel):
    """Classify images with a stem, pooling, four stages of blocks, pooling and a classifier.

    Args:
        block: class of the blocks.
        layers: number of blocks of each stage.
        groups: groups of the convolutions of 3x3 pixels.
        reduction: by which the hidden channels of the gates are fewer.
        drop_rate: dropout before the classifier.
        in_chans: channels of the images.
        inplanes: channels of the stem.
        input_3x3: whether the stem is three convolutions of 3x3 pixels, in place of one of 7x7.
        downsample_kernel_size: kernel in the shortcuts with a stride.
        downsample_padding: padding there.
        num_classes: classes; 0 for a net that returns the pooled features.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
    """

    classifier_name = "last_linear"
    stages_name = ("layer0", "pool0", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        block,
        layers,
        groups,
        reduction,
        drop_rate=0.2,
        in_chans=3,
        inplanes=64,
        input_3x3=False,
        downsample_kernel_size=1,
        downsample_padding=0,
        num_classes=1000,
        global_pool="avg",
    ):
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.layer0 = nn.Sequential(*_stem(in_chans, inplanes, input_3x3))
        self.pool0 = nn.MaxPool2D(3, 2, ceil_mode=True)
        taps = [("layer0", inplanes, 2)]
        for number, (planes, blocks) in enumerate(zip((64, 128, 256, 512), layers)):
            stride = 2 if number else 1
            geometry = (downsample_kernel_size, stride, downsample_padding) if number else (1, 1, 0)
            shortcut, outplanes = None, planes * block.expansion
            if stride != 1 or inplanes != outplanes:
                shortcut = nn.Sequential(Conv2d(inplanes, outplanes, *geometry, bias=False), BatchNorm2d(outplanes))
            stage = nn.Sequential(block(inplanes, planes, groups, reduction, stride, shortcut))
            for index in range(1, blocks):
                stage.add_sublayer(str(index), block(outplanes, planes, groups, reduction))
            self.add_sublayer(f"layer{number + 1}", stage)
            inplanes = outplanes
            taps.append((f"layer{number + 1}", outplanes, 4 * 2**number))
        self.feature_info = row_features(self.stages_name, taps)
        self.num_features = inplanes
        self.create_head(num_classes, global_pool)
        init_convolutions(self)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        return {"stem": r"^layer0", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


def _stem(in_chans, channels, input_3x3):
    """Return the layers of the stem with their names."""
    convolutions = ((64, 3, 2, 1), (64, 3, 1, 1), (channels, 3, 1, 1)) if input_3x3 else ((channels, 7, 2, 3),)
    layers = []
    for number, (outs, *geometry) in enumerate(convolutions, start=1):
        layers.append((f"conv{number}", Conv2d(in_chans, outs, *geometry, bias=False)))
        layers += [(f"bn{number}", BatchNorm2d(outs)), (f"relu{number}", nn.ReLU())]
        in_chans = outs
    return layers


def _variant(block, layers, groups, **kwargs):
    return {"block": block, "layers": layers, "groups": groups, "reduction": 16, **kwargs}


_154 = {"downsample_kernel_size": 3, "downsample_padding": 1, "inplanes": 128, "input_3x3": True}

VARIANTS = {
    "legacy_seresnet18": _variant(SEResNetBlock, (2, 2, 2, 2), 1),
    "legacy_seresnet34": _variant(SEResNetBlock, (3, 4, 6, 3), 1),
    "legacy_seresnet50": _variant(SEResNetBottleneck, (3, 4, 6, 3), 1),
    "legacy_seresnet101": _variant(SEResNetBottleneck, (3, 4, 23, 3), 1),
    "legacy_seresnet152": _variant(SEResNetBottleneck, (3, 8, 36, 3), 1),
    "legacy_senet154": _variant(SEBottleneck, (3, 8, 36, 3), 64, **_154),
    "legacy_seresnext26_32x4d": _variant(SEResNeXtBottleneck, (2, 2, 2, 2), 32),
    "legacy_seresnext50_32x4d": _variant(SEResNeXtBottleneck, (3, 4, 6, 3), 32),
    "legacy_seresnext101_32x4d": _variant(SEResNeXtBottleneck, (3, 4, 23, 3), 32),
}


register_variants(VARIANTS, SENet)
