"""Parts that Inception networks share: branches side by side, and the order of layers."""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn

from pimm.layers import ConvNormAct
from pimm.ops.geometry import to_pair


def conv_block(norm_layer, norm_eps, act_layer):
    """Return what creates convolutions with normalisation and activation, without padding unless it is given.

    Args:
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        norm_eps: added to the variance.
        act_layer: class or name of the activation.
    """
    layers = {"norm_layer": norm_layer, "act_layer": act_layer, "norm_kwargs": {"eps": norm_eps}}
    return partial(ConvNormAct, padding=0, **layers)


def convolutions(conv, in_chs, *specs):
    """Return convolutions in a row.

    Args:
        conv: what creates them.
        in_chs: channels of the input.
        specs: (channels, kernel) of a convolution that keeps the size of images, (channels, kernel, stride) of one
            without padding.
    """
    layers = []
    for out_chs, kernel, *stride in specs:
        padding = 0 if stride else tuple(size // 2 for size in to_pair(kernel))
        layers.append(conv(in_chs, out_chs, kernel, stride=stride[0] if stride else 1, padding=padding))
        in_chs = out_chs
    return layers


def sequence(name, layers):
    """Return a branch of one step: a layer, or a `paddle.nn.Sequential` of several."""
    return [(name, layers[0] if len(layers) == 1 else nn.Sequential(*layers))]


def steps(name, layers, first=1):
    """Return a branch whose layers have names of their own, which count from ``first``."""
    return [(f"{name}_{number}", layer) for number, layer in enumerate(layers, start=first)]


def average_pool(include_padding=False):
    """Return average pooling of 3x3 pixels that keeps the size of images."""
    return nn.AvgPool2D(3, 1, 1, exclusive=not include_padding)


class Branches(nn.Layer):
    """Branches of the same input, whose outputs are side by side.

    Args:
        branches: a list of the steps of each branch. A step is (name, layer), or a list of them, which take the same
            input and whose outputs are side by side too.
    """

    def __init__(self, *branches):
        super().__init__()
        self.paths = []
        for branch in branches:
            path = [step if isinstance(step, list) else [step] for step in branch]
            self.paths.append([[name for name, _ in step] for step in path])
            for name, layer in (pair for step in path for pair in step):
                self.add_sublayer(name, layer)

    def forward(self, x):
        outputs = []
        for path in self.paths:
            ends = [x]
            for names in path:
                ends = [self._sub_layers[name](ends[0]) for name in names]
            outputs += ends
        return paddle.concat(outputs, axis=1)


def order_matcher(model, first, classifier, last=()):
    """Return a function that gives the depth of a parameter by its name.

    Args:
        model: a net whose layers were set in forward order.
        first: a list of (beginnings of names) of the layers of depth 0, of depth 1 ...
        classifier: name of the classifier, which is deeper than all.
        last: beginnings of the names of layers that are deeper than others but the classifier.
    """
    order = []
    for name, layer in model.named_children():
        inner = [f"{name}.{own}" for own, _ in layer.named_children()] if type(layer) is nn.Sequential else [name]
        order += [f"{path}." for path in inner if path != classifier]

    def depth(name):
        for number, beginnings in enumerate(first):
            if name.startswith(beginnings):
                return number
        if last and name.startswith(last):
            return len(order) + 2  # timm counts the dropout as a layer too, and one more
        return next((number for number, path in enumerate(order) if name.startswith(path)), float("inf"))

    return depth
