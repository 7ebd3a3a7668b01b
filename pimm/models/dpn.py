"""Dual path networks (https://arxiv.org/abs/1707.01629), whose weights came from MXNet."""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNormAct2d, ConvNormAct, create_classifier, create_conv2d, get_norm_act_layer
from pimm.models.features import row_features
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants

_EPS = 1e-3
_KINDS = {"proj": (1, True), "down": (2, True), "normal": (1, False)}  # stride, and whether there is a projection
_WIDTHS = (64, 128, 256, 512)


class BnAct(nn.Layer):
    """Normalisation and activation."""

    def __init__(self, in_chs, norm_layer=BatchNormAct2d):
        super().__init__()
        self.bn = norm_layer(in_chs, eps=_EPS)

    def forward(self, x):
        return self.bn(x)


class BnActConv2d(nn.Layer):
    """Normalisation, activation and a convolution."""

    def __init__(self, in_chs, out_chs, kernel_size, stride, groups=1, norm_layer=BatchNormAct2d):
        super().__init__()
        self.bn = norm_layer(in_chs, eps=_EPS)
        self.conv = create_conv2d(in_chs, out_chs, kernel_size, stride=stride, groups=groups)

    def forward(self, x):
        return self.conv(self.bn(x))


class DualPathBlock(nn.Layer):
    """Add to the first channels, as a residual net does, and put new ones beside the others, as a dense net does.

    Args:
        in_chs: channels of the input.
        num_1x1_a: channels after the first convolution.
        num_3x3_b: channels after the second one.
        num_1x1_c: channels that are added to.
        inc: new channels.
        groups: groups of channels of the second convolution.
        block_type: ``normal``, ``proj`` for a convolution on the shortcut, ``down`` for one of stride 2.
        b: whether the channels that are added and the new ones come from convolutions of their own.
    """

    def __init__(self, in_chs, num_1x1_a, num_3x3_b, num_1x1_c, inc, groups, block_type="normal", b=False):
        super().__init__()
        self.num_1x1_c = num_1x1_c
        stride, has_projection = _KINDS[block_type]
        projection = BnActConv2d(in_chs, num_1x1_c + 2 * inc, 1, stride) if has_projection else None
        self.c1x1_w_s1 = projection if stride == 1 else None
        self.c1x1_w_s2 = projection if stride == 2 else None
        self.c1x1_a = BnActConv2d(in_chs, num_1x1_a, 1, 1)
        self.c3x3_b = BnActConv2d(num_1x1_a, num_3x3_b, 3, stride, groups)
        self.c1x1_c1 = self.c1x1_c2 = None
        if b:
            self.c1x1_c = BnAct(num_3x3_b)
            self.c1x1_c1 = create_conv2d(num_3x3_b, num_1x1_c, 1)
            self.c1x1_c2 = create_conv2d(num_3x3_b, inc, 1)
        else:
            self.c1x1_c = BnActConv2d(num_3x3_b, num_1x1_c + inc, 1, 1)

    def forward(self, x):
        projection = self.c1x1_w_s2 if self.c1x1_w_s1 is None else self.c1x1_w_s1
        shortcut, added = x if projection is None else projection(x), self.num_1x1_c
        x = self.c1x1_c(self.c3x3_b(self.c1x1_a(x)))
        if self.c1x1_c1 is None:
            residual, new = x[:, :added], x[:, added:]
        else:
            residual, new = self.c1x1_c1(x), self.c1x1_c2(x)
        return paddle.concat([shortcut[:, :added] + residual, shortcut[:, added:], new], axis=1)


class DPN(RowModel):
    """A stem, four stages of dual path blocks, and a classifier that is a convolution.

    Args:
        k_sec: number of blocks of each stage.
        inc_sec: new channels of a block of each stage.
        k_r: channels inside the blocks of the first stage.
        groups: groups of channels inside a block.
        num_classes: classes.
        in_chans: channels of the images.
        output_stride: only 32.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        small: whether the stem's kernel is of 3x3 pixels instead of 7x7, and blocks add to a fourth of the channels.
        num_init_features: channels of the stem.
        b: as in `DualPathBlock`.
        drop_rate: dropout before the classifier.
        norm_layer: as in `pimm.layers.get_norm_act_layer`, for the stem and the last normalisation.
        act_layer: class or name of their activations.
        fc_act_layer: ignored, as in timm: ``act_layer`` is the last activation too.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    def __init__(
        self,
        k_sec=(3, 4, 20, 3),
        inc_sec=(16, 32, 24, 128),
        k_r=96,
        groups=32,
        num_classes=1000,
        in_chans=3,
        output_stride=32,
        global_pool="avg",
        small=False,
        num_init_features=64,
        b=False,
        drop_rate=0.0,
        norm_layer="batchnorm2d",
        act_layer="relu",
        fc_act_layer="elu",
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride}; a DPN has 32 alone")
        self.drop_rate = drop_rate
        bn_act = partial(get_norm_act_layer(norm_layer, act_layer), eps=_EPS)
        stem = ConvNormAct(in_chans, num_init_features, 3 if small else 7, stride=2, norm_layer=bn_act)
        layers, channels = {"conv1_1": stem, "conv1_pool": nn.MaxPool2D(3, 2, 1)}, num_init_features
        taps = [("features.conv1_1", channels, 2)]
        for stage, (width, depth, inc) in enumerate(zip(_WIDTHS, k_sec, inc_sec)):
            out, inner, kind = width if small else 4 * width, k_r * width // 64, "down" if stage else "proj"
            for number in range(1, depth + 1):
                name = f"conv{stage + 2}_{number}"
                layers[name] = DualPathBlock(channels, inner, inner, out, inc, groups, kind, b)
                channels = channels + inc if number > 1 else out + 3 * inc
                kind = "normal"
            taps.append((f"features.{name}", channels, 4 * 2**stage))
        layers["conv5_bn_ac"] = BnAct(channels, bn_act)
        self.features = nn.Sequential(*layers.items())
        self.stages_name = tuple(f"features.{name}" for name in layers)
        self.feature_info = row_features(self.stages_name, taps)
        self.num_features = channels
        self.create_head(num_classes, global_pool)

    def create_classifier(self, num_features, num_classes):
        """Return a new classifier, a convolution of one pixel."""
        return create_classifier(num_features, num_classes, use_conv=True)[1]

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = self.global_pool(x)
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        x = x if pre_logits else self.classifier(x)
        return x.flatten(1) if self.global_pool.pool_type else x

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = r"^features\.conv(\d+)" if coarse else r"^features\.conv(\d+)_(\d+)"
        return {"stem": r"^features\.conv1", "blocks": [(blocks, None), (r"^features\.conv5_bn_ac", (99999,))]}


_SMALL = {"small": True, "num_init_features": 10, "k_r": 128, "groups": 32, "inc_sec": (16, 32, 32, 64)}


register_variants(
    {
        "dpn48b": {**_SMALL, "b": True, "k_sec": (3, 4, 6, 3), "act_layer": "silu"},
        "dpn68": {**_SMALL, "k_sec": (3, 4, 12, 3)},
        "dpn68b": {**_SMALL, "b": True, "k_sec": (3, 4, 12, 3)},
        "dpn92": {
            "num_init_features": 64,
            "k_r": 96,
            "groups": 32,
            "k_sec": (3, 4, 20, 3),
            "inc_sec": (16, 32, 24, 128),
        },
        "dpn98": {
            "num_init_features": 96,
            "k_r": 160,
            "groups": 40,
            "k_sec": (3, 6, 20, 3),
            "inc_sec": (16, 32, 32, 128),
        },
        "dpn131": {
            "num_init_features": 128,
            "k_r": 160,
            "groups": 40,
            "k_sec": (4, 8, 28, 3),
            "inc_sec": (16, 32, 32, 128),
        },
        "dpn107": {
            "num_init_features": 128,
            "k_r": 200,
            "groups": 50,
            "k_sec": (4, 8, 20, 3),
            "inc_sec": (20, 64, 64, 128),
        },
    },
    DPN,
)
