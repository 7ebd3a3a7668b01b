"""Inception v4 (https://arxiv.org/abs/1602.07261), whose weights came from TensorFlow."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.models.features import row_features
from pimm.models.inception_parts import Branches, average_pool, conv_block, convolutions, sequence, steps
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants

_ROWS, _COLUMNS = (1, 7), (7, 1)


def _branches(conv, in_chs, *branches):
    """Return branches ``branch0``, ``branch1`` ..., each the specs of its convolutions, or a pooling."""
    return Branches(
        *(
            sequence(f"branch{number}", convolutions(conv, in_chs, *specs) if isinstance(specs, list) else [specs])
            for number, specs in enumerate(branches)
        )
    )


def _pooled(conv, in_chs, out_chs):
    return nn.Sequential(average_pool(), conv(in_chs, out_chs, 1))


def _inception_a(conv):
    double = [(64, 1), (96, 3), (96, 3)]
    return _branches(conv, 384, [(96, 1)], [(64, 1), (96, 3)], double, _pooled(conv, 384, 96))


def _reduction_a(conv):
    return _branches(conv, 384, [(384, 3, 2)], [(192, 1), (224, 3), (256, 3, 2)], nn.MaxPool2D(3, 2))


def _inception_b(conv):
    single = [(192, 1), (224, _ROWS), (256, _COLUMNS)]
    double = [(192, 1), (192, _COLUMNS), (224, _ROWS), (224, _COLUMNS), (256, _ROWS)]
    return _branches(conv, 1024, [(384, 1)], single, double, _pooled(conv, 1024, 128))


def _reduction_b(conv):
    long = [(256, 1), (256, _ROWS), (320, _COLUMNS), (320, 3, 2)]
    return _branches(conv, 1024, [(192, 1), (192, 3, 2)], long, nn.MaxPool2D(3, 2))


def _inception_c(conv):
    def fork(name, in_chs):
        kernels = (("a", (1, 3)), ("b", (3, 1)))
        return [(f"{name}{end}", *convolutions(conv, in_chs, (256, kernel))) for end, kernel in kernels]

    double = convolutions(conv, 1536, (384, 1), (448, (3, 1)), (512, (1, 3)))
    return Branches(
        [("branch0", conv(1536, 256, 1))],
        [("branch1_0", conv(1536, 384, 1)), fork("branch1_1", 384)],
        [*steps("branch2", double, first=0), fork("branch2_3", 512)],
        [("branch3", _pooled(conv, 1536, 256))],
    )


def _stem(conv, in_chans):
    long = [(64, 1), (64, _ROWS), (64, _COLUMNS), (96, 3, 1)]
    return [
        conv(in_chans, 32, 3, stride=2),
        conv(32, 32, 3),
        conv(32, 64, 3, padding=1),
        Branches([("maxpool", nn.MaxPool2D(3, 2))], [("conv", conv(64, 96, 3, stride=2))]),
        _branches(conv, 160, [(64, 1), (96, 3, 1)], long),
        Branches([("conv", conv(192, 192, 3, stride=2))], [("maxpool", nn.MaxPool2D(3, 2))]),
    ]


class InceptionV4(RowModel):
    """Convolutions and blocks of branches.

    Args:
        num_classes: classes.
        in_chans: channels of the images.
        output_stride: only 32.
        drop_rate: dropout before the classifier.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        norm_eps: added to the variance.
        act_layer: class or name of the activations.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    classifier_name = "last_linear"

    def __init__(
        self,
        num_classes=1000,
        in_chans=3,
        output_stride=32,
        drop_rate=0.0,
        global_pool="avg",
        norm_layer="batchnorm2d",
        norm_eps=1e-3,
        act_layer="relu",
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride!r:.80}; an Inception v4 has 32 alone")
        self.drop_rate, self.num_features = drop_rate, 1536
        conv = conv_block(norm_layer, norm_eps, act_layer)
        self.features = nn.Sequential(
            *_stem(conv, in_chans),
            *(_inception_a(conv) for _ in range(4)),
            _reduction_a(conv),
            *(_inception_b(conv) for _ in range(7)),
            _reduction_b(conv),
            *(_inception_c(conv) for _ in range(3)),
        )
        self.stages_name = tuple(f"features.{index}" for index in range(len(self.features)))
        taps = ((2, 64, 2), (3, 160, 4), (9, 384, 8), (17, 1024, 16), (21, 1536, 32))
        self.feature_info = row_features(self.stages_name, [(f"features.{index}", *rest) for index, *rest in taps])
        self.create_head(num_classes, global_pool)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth."""
        return {"stem": r"^features\.[012]\.", "blocks": r"^features\.(\d+)"}


register_variants({"inception_v4": {}}, InceptionV4)
