"""Inception v3, "Rethinking the Inception Architecture for Computer Vision" (https://arxiv.org/abs/1512.00567)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import Linear, trunc_normal_
from pimm.models.features import row_features
from pimm.models.inception_parts import Branches, average_pool, conv_block, convolutions, order_matcher, steps
from pimm.models.interface import RowModel
from pimm.models.registry import register_variants

_AUXILIARY = "AuxLogits"


def _pooled(conv, in_chs, out_chs):
    return [("pool", average_pool(include_padding=True)), ("branch_pool", conv(in_chs, out_chs, 1))]


def _inception_a(conv, in_chs, pool_features):
    return Branches(
        [("branch1x1", conv(in_chs, 64, 1))],
        steps("branch5x5", convolutions(conv, in_chs, (48, 1), (64, 5))),
        steps("branch3x3dbl", convolutions(conv, in_chs, (64, 1), (96, 3), (96, 3))),
        _pooled(conv, in_chs, pool_features),
    )


def _inception_b(conv, in_chs):
    return Branches(
        [("branch3x3", conv(in_chs, 384, 3, stride=2))],
        steps("branch3x3dbl", convolutions(conv, in_chs, (64, 1), (96, 3), (96, 3, 2))),
        [("pool", nn.MaxPool2D(3, 2))],
    )


def _inception_c(conv, in_chs, c7):
    rows, columns = (1, 7), (7, 1)
    double = convolutions(conv, in_chs, (c7, 1), (c7, columns), (c7, rows), (c7, columns), (192, rows))
    return Branches(
        [("branch1x1", conv(in_chs, 192, 1))],
        steps("branch7x7", convolutions(conv, in_chs, (c7, 1), (c7, rows), (192, columns))),
        steps("branch7x7dbl", double),
        _pooled(conv, in_chs, 192),
    )


def _inception_d(conv, in_chs):
    return Branches(
        steps("branch3x3", convolutions(conv, in_chs, (192, 1), (320, 3, 2))),
        steps("branch7x7x3", convolutions(conv, in_chs, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))),
        [("pool", nn.MaxPool2D(3, 2))],
    )


def _inception_e(conv, in_chs):
    def fork(name):
        kernels = (("a", (1, 3)), ("b", (3, 1)))
        return [(f"{name}{end}", *convolutions(conv, 384, (384, kernel))) for end, kernel in kernels]

    return Branches(
        [("branch1x1", conv(in_chs, 320, 1))],
        [("branch3x3_1", conv(in_chs, 384, 1)), fork("branch3x3_2")],
        [*steps("branch3x3dbl", convolutions(conv, in_chs, (448, 1), (384, 3))), fork("branch3x3dbl_3")],
        _pooled(conv, in_chs, 192),
    )


class InceptionAux(nn.Layer):
    """A classifier of feature maps inside the net, for training.

    Args:
        in_channels: channels of the feature maps.
        num_classes: classes.
        conv: what creates convolutions.
    """

    def __init__(self, in_channels, num_classes, conv):
        super().__init__()
        self.conv0 = conv(in_channels, 128, 1)
        self.conv1 = conv(128, 768, 5)
        self.fc = Linear(768, num_classes) if num_classes else nn.Identity()

    def forward(self, x):
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InceptionV3(RowModel):
    """Convolutions and blocks of branches.

    Args:
        num_classes: classes.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        aux_logits: whether there is a second classifier inside the net. Then the net returns the logits of both, and
            `forward_features` the feature maps and the second's logits.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        norm_eps: added to the variance.
        act_layer: class or name of the activations.
    """

    classifier_name = "fc"

    def __init__(
        self,
        num_classes=1000,
        in_chans=3,
        drop_rate=0.0,
        global_pool="avg",
        aux_logits=False,
        norm_layer="batchnorm2d",
        norm_eps=1e-3,
        act_layer="relu",
    ):
        super().__init__()
        self.drop_rate, self.num_features, self.aux_logits = drop_rate, 2048, aux_logits
        conv = conv_block(norm_layer, norm_eps, act_layer)
        layers = _layers(conv, in_chans)
        for name, layer in layers.items():
            setattr(self, name, layer)
            if name == "Mixed_6e" and aux_logits:
                self.AuxLogits = InceptionAux(768, num_classes, conv)
        self.stages_name = tuple(layers)
        taps = (
            ("Conv2d_2b_3x3", 64, 2),
            ("Conv2d_4a_3x3", 192, 4),
            ("Mixed_5d", 288, 8),
            ("Mixed_6e", 768, 16),
            ("Mixed_7c", 2048, 32),
        )
        self.feature_info = row_features(self.stages_name, taps)
        self.create_head(num_classes, global_pool)
        for layer in self.sublayers():
            if isinstance(layer, (nn.Conv2D, nn.Linear)):
                trunc_normal_(layer.weight, std=0.1)
        if aux_logits and num_classes:
            trunc_normal_(self.AuxLogits.fc.weight, std=0.001)

    def forward_features(self, x):
        """Return the feature maps before pooling, and with ``aux_logits`` the logits of the second classifier too."""
        if not self.aux_logits:
            return super().forward_features(x)
        auxiliary = None
        for name, layer in zip(self.stages_name, self.stage_list()):
            x = self._run(layer, x)
            auxiliary = self.AuxLogits(x) if name == "Mixed_6e" else auxiliary
        return x, auxiliary

    def forward(self, x):
        if not self.aux_logits:
            return super().forward(x)
        x, auxiliary = self.forward_features(x)
        return self.forward_head(x), auxiliary

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifiers; arguments as in `ImageModel`."""
        super().reset_classifier(num_classes, global_pool)
        if self.aux_logits:
            self.AuxLogits.fc = Linear(768, num_classes) if num_classes else nn.Identity()

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, as `ImageModel` does, and the second classifier."""
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if self.aux_logits and isinstance(self.fc, nn.Identity):
            del self.AuxLogits
            self.aux_logits = False
        return taken

    def group_matcher(self, coarse=False):
        """Return a function that gives the depth of a parameter by its name."""
        return order_matcher(self, [("Conv2d_1", "Conv2d_2"), ("Conv2d_3", "Conv2d_4")], "fc")


def _layers(conv, in_chans):
    return {
        "Conv2d_1a_3x3": conv(in_chans, 32, 3, stride=2),
        "Conv2d_2a_3x3": conv(32, 32, 3),
        "Conv2d_2b_3x3": conv(32, 64, 3, padding=1),
        "Pool1": nn.MaxPool2D(3, 2),
        "Conv2d_3b_1x1": conv(64, 80, 1),
        "Conv2d_4a_3x3": conv(80, 192, 3),
        "Pool2": nn.MaxPool2D(3, 2),
        "Mixed_5b": _inception_a(conv, 192, 32),
        "Mixed_5c": _inception_a(conv, 256, 64),
        "Mixed_5d": _inception_a(conv, 288, 64),
        "Mixed_6a": _inception_b(conv, 288),
        "Mixed_6b": _inception_c(conv, 768, 128),
        "Mixed_6c": _inception_c(conv, 768, 160),
        "Mixed_6d": _inception_c(conv, 768, 160),
        "Mixed_6e": _inception_c(conv, 768, 192),
        "Mixed_7a": _inception_d(conv, 768),
        "Mixed_7b": _inception_e(conv, 1280),
        "Mixed_7c": _inception_e(conv, 2048),
    }


def checkpoint_filter_fn(state_dict, model):
    """Return the weights without those of the second classifier, if the net has none.

    Args:
        state_dict: arrays under PyTorch's names.
        model: the net.
    """
    if model.aux_logits:
        return state_dict
    return {name: value for name, value in state_dict.items() if not name.startswith(f"{_AUXILIARY}.")}


register_variants({"inception_v3": {}}, InceptionV3)
