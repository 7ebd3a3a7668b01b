"""Xception, as Keras has it: "Deep Learning with Depthwise Separable Convolutions", https://arxiv.org/abs/1610.02357."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import BatchNorm2d, Conv2d
from pimm.models.features import feature_map
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants


class SeparableConv2d(nn.Layer):
    """A convolution of each channel, and one of one pixel."""

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, padding=0, dilation=1):
        super().__init__()
        self.conv1 = Conv2d(
            in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=False
        )
        self.pointwise = Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x):
        return self.pointwise(self.conv1(x))


class Block(nn.Layer):
    """Separable convolutions ``rep`` beside a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        reps: number of convolutions.
        strides: stride of the pooling at the end, and of the shortcut.
        start_with_relu: whether an activation comes first.
        grow_first: whether the first convolution changes the number of channels, instead of the last.
    """

    def __init__(self, in_channels, out_channels, reps, strides=1, start_with_relu=True, grow_first=True):
        super().__init__()
        self.skip = None
        if out_channels != in_channels or strides != 1:
            self.skip = Conv2d(in_channels, out_channels, 1, stride=strides, bias=False)
            self.skipbn = BatchNorm2d(out_channels)
        layers, grows_at = [], 0 if grow_first else reps - 1
        for index in range(reps):
            ins, outs = (out_channels if number > grows_at else in_channels for number in (index, index + 1))
            layers += [nn.ReLU(), SeparableConv2d(ins, outs, 3, padding=1), BatchNorm2d(outs)]
        layers = layers if start_with_relu else layers[1:]
        self.rep = nn.Sequential(*layers, *([nn.MaxPool2D(3, strides, 1)] if strides != 1 else []))

    def forward(self, x):
        shortcut = x if self.skip is None else self.skipbn(self.skip(x))
        return self.rep(x) + shortcut


_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
_BLOCKS = tuple(f"block{number}" for number in range(1, 13))
_END = ("conv3", "bn3", "act3", "conv4", "bn4", "act4")


class Xception(RowModel):
    """Two convolutions, twelve blocks, and two separable convolutions.

    The feature maps inside the net are those after the first activation of the next block.

    Args:
        num_classes: classes.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
    """

    classifier_name = "fc"

    def __init__(self, num_classes=1000, in_chans=3, drop_rate=0.0, global_pool="avg"):
        super().__init__()
        self.drop_rate, self.num_features, self.stages_name = drop_rate, 2048, (*_STEM, *_BLOCKS, *_END)
        self.conv1, self.bn1, self.act1 = Conv2d(in_chans, 32, 3, 2, bias=False), BatchNorm2d(32), nn.ReLU()
        self.conv2, self.bn2, self.act2 = Conv2d(32, 64, 3, bias=False), BatchNorm2d(64), nn.ReLU()
        self.block1 = Block(64, 128, 2, 2, start_with_relu=False)
        self.block2 = Block(128, 256, 2, 2)
        self.block3 = Block(256, 728, 2, 2)
        for name in _BLOCKS[3:11]:
            setattr(self, name, Block(728, 728, 3, 1))
        self.block12 = Block(728, 1024, 2, 2, grow_first=False)
        self.conv3, self.bn3, self.act3 = SeparableConv2d(1024, 1536, 3, 1, 1), BatchNorm2d(1536), nn.ReLU()
        self.conv4, self.bn4, self.act4 = SeparableConv2d(1536, 2048, 3, 1, 1), BatchNorm2d(2048), nn.ReLU()
        taps = (
            ("act2", 64, 2, "act2"),
            ("block2.rep.0", 128, 4, "block1"),
            ("block3.rep.0", 256, 8, "block2"),
            ("block12.rep.0", 728, 16, "block11"),
            ("act4", 2048, 32, "act4"),
        )
        self.feature_info = [
            feature_map(module, self.stages_name.index(last) + 1, channels, reduction)
            for module, channels, reduction, last in taps
        ]
        self.create_head(num_classes, global_pool)
        init_convolutions(self)

    def feature_map(self, x, number):
        """Return the output of a stage as a feature map, inside the net after the next block's first activation."""
        return x if self.stages_name[number - 1] in ("act2", "act4") else F.relu(x)

    def keep_stages(self, count):
        """Take out the layers after the first ``count``; after a block, the next one's first activation stays."""
        following = self.stages_name[count]
        super().keep_stages(count)
        if following in _BLOCKS[1:]:
            setattr(self, following, nn.ReLU())
            self.stages_name = (*self.stages_name, following)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth."""
        return {"stem": r"^conv[12]|bn[12]", "blocks": [(r"^block(\d+)", None), (r"^conv[34]|bn[34]", (99,))]}


register_variants({"legacy_xception": {}}, Xception)
