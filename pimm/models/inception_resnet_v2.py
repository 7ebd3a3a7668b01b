"""Inception-ResNet v2 (https://arxiv.org/abs/1602.07261), whose weights came from TensorFlow."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Conv2d
from pimm.models.features import row_features
from pimm.models.inception_parts import Branches, average_pool, conv_block, convolutions, order_matcher, sequence
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants


def _branches(conv, in_chs, *branches):
    """Return the steps of branches ``branch0``, ``branch1`` ..., each the specs of its convolutions, or a layer."""
    return [
        sequence(f"branch{number}", convolutions(conv, in_chs, *specs) if isinstance(specs, list) else [specs])
        for number, specs in enumerate(branches)
    ]


class ResidualBranches(Branches):
    """Branches, and a convolution of their outputs whose scaled result is added to the input.

    Args:
        conv: what creates the branches' convolutions.
        in_chs: channels of the input.
        mid_chs: channels of all branches.
        branches: the specs of the convolutions of each branch.
        scale: factor of what is added.
        act: whether there is an activation at the end.
    """

    def __init__(self, conv, in_chs, mid_chs, *branches, scale=1.0, act=True):
        super().__init__(*_branches(conv, in_chs, *branches))
        self.conv2d = Conv2d(mid_chs, in_chs, 1)
        self.scale, self.act = scale, nn.ReLU() if act else None

    def forward(self, x):
        x = self.conv2d(super().forward(x)) * self.scale + x
        return x if self.act is None else self.act(x)


def _block35(conv):
    branches = ([(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)])
    return ResidualBranches(conv, 320, 128, *branches, scale=0.17)


def _block17(conv):
    branches = ([(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))])
    return ResidualBranches(conv, 1088, 384, *branches, scale=0.1)


def _block8(conv, **kwargs):
    branches = ([(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))])
    return ResidualBranches(conv, 2080, 448, *branches, **kwargs)


def _layers(conv, in_chans):
    pooled = nn.Sequential(average_pool(), conv(192, 64, 1))
    mixed_5b = _branches(conv, 192, [(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], pooled)
    mixed_6a = _branches(conv, 320, [(384, 3, 2)], [(256, 1), (256, 3), (384, 3, 2)], nn.MaxPool2D(3, 2))
    long = [(256, 1), (288, 3), (320, 3, 2)]
    mixed_7a = _branches(conv, 1088, [(256, 1), (384, 3, 2)], [(256, 1), (288, 3, 2)], long, nn.MaxPool2D(3, 2))
    return {
        "conv2d_1a": conv(in_chans, 32, 3, stride=2),
        "conv2d_2a": conv(32, 32, 3),
        "conv2d_2b": conv(32, 64, 3, padding=1),
        "maxpool_3a": nn.MaxPool2D(3, 2),
        "conv2d_3b": conv(64, 80, 1),
        "conv2d_4a": conv(80, 192, 3),
        "maxpool_5a": nn.MaxPool2D(3, 2),
        "mixed_5b": Branches(*mixed_5b),
        "repeat": nn.Sequential(*(_block35(conv) for _ in range(10))),
        "mixed_6a": Branches(*mixed_6a),
        "repeat_1": nn.Sequential(*(_block17(conv) for _ in range(20))),
        "mixed_7a": Branches(*mixed_7a),
        "repeat_2": nn.Sequential(*(_block8(conv, scale=0.2) for _ in range(9))),
        "block8": _block8(conv, act=False),
        "conv2d_7b": conv(2080, 1536, 1),
    }


class InceptionResnetV2(RowModel):
    """Convolutions, blocks of branches, and residual blocks of branches.

    Args:
        num_classes: classes.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        output_stride: only 32.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        norm_eps: added to the variance.
        act_layer: class or name of the activations of convolutions.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    classifier_name = "classif"

    def __init__(
        self,
        num_classes=1000,
        in_chans=3,
        drop_rate=0.0,
        output_stride=32,
        global_pool="avg",
        norm_layer="batchnorm2d",
        norm_eps=1e-3,
        act_layer="relu",
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride!r:.80}; an Inception-ResNet v2 has 32 alone")
        self.drop_rate, self.num_features = drop_rate, 1536
        layers = _layers(conv_block(norm_layer, norm_eps, act_layer), in_chans)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.stages_name = tuple(layers)
        taps = (
            ("conv2d_2b", 64, 2),
            ("conv2d_4a", 192, 4),
            ("repeat", 320, 8),
            ("repeat_1", 1088, 16),
            ("conv2d_7b", 1536, 32),
        )
        self.feature_info = row_features(self.stages_name, taps)
        self.create_head(num_classes, global_pool)

    def group_matcher(self, coarse=False):
        """Return a function that gives the depth of a parameter by its name."""
        first = [("conv2d_1", "conv2d_2"), ("conv2d_3", "conv2d_4")]
        return order_matcher(self, first, "classif", last=("block8", "conv2d_7"))


register_variants({"inception_resnet_v2": {}}, InceptionResnetV2)
