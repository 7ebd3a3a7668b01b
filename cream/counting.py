"""Multiply-adds and parameters of a net, by counting rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable

import paddle
from paddle import Tensor, nn

from pimm.layers import SelectAdaptivePool2d, SqueezeExcite, frozen_batch_norm_statistics

Rule = Callable[[nn.Layer, Tensor, Tensor], int]


def _elements(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def _convolution(layer: nn.Layer, x: Tensor, y: Tensor) -> int:
    return _elements(y) * math.prod(layer.weight.shape[1:])


def _convolution_with_bias(layer: nn.Layer, x: Tensor, y: Tensor) -> int:
    return _convolution(layer, x, y) + (_elements(y) if layer.bias is not None else 0)


def _sum_of_all_pixels(layer: nn.Layer, x: Tensor, y: Tensor) -> int:
    return _elements(x)


def _mean_over_all_pixels(layer: nn.Layer, x: Tensor, y: Tensor) -> int:
    return _elements(x) + x.shape[1]


def _linear(layer: nn.Layer, x: Tensor, y: Tensor) -> int:
    return _elements(layer.weight)


# What a layer costs for one image. Three conventions are in use for these nets: Cream's search counts as its official
# table of operation costs does (ptflops, modules alone), ...
SEARCH_RULES: Mapping[type, Rule] = {
    nn.Conv2D: _convolution_with_bias,
    nn.BatchNorm2D: lambda layer, x, y: 2 * _elements(y),
    nn.ReLU: lambda layer, x, y: _elements(y),
    SelectAdaptivePool2d: _sum_of_all_pixels,
    SqueezeExcite: _sum_of_all_pixels,  # its pooling; its convolutions count themselves
}
# ... SPOS's authors count convolutions and the classifier, ...
CONVOLUTION_RULES: Mapping[type, Rule] = {nn.Conv2D: _convolution, nn.Linear: _linear}
# ... and the figures printed for a fixed net come from thop, which counts the classifier too.
THOP_RULES: Mapping[type, Rule] = {
    nn.Conv2D: _convolution,
    nn.BatchNorm2D: lambda layer, x, y: 4 * _elements(y),
    SelectAdaptivePool2d: _mean_over_all_pixels,
    SqueezeExcite: _mean_over_all_pixels,
    nn.Linear: _linear,
}


def count_parameters(layer: nn.Layer) -> int:
    """Number of trainable values; batch-norm statistics are not among them."""
    return sum(_elements(parameter) for parameter in layer.parameters() if not parameter.stop_gradient)


class Count:
    """Multiply-adds so far."""

    macs = 0


@contextmanager
def counting(layers: Iterable[nn.Layer], rules: Mapping[type, Rule]) -> Iterator[Count]:
    """Counts what these layers do inside the block, whose batch-norm statistics and gradients stay as they are."""
    count = Count()

    def counter(rule: Rule) -> Callable:
        def hook(layer: nn.Layer, inputs: tuple, output: Tensor) -> None:
            count.macs += rule(layer, inputs[0], output)

        return hook

    hooks = [
        sublayer.register_forward_post_hook(counter(rule))
        for layer in layers
        for sublayer in layer.sublayers(include_self=True)
        for kind, rule in rules.items()
        if isinstance(sublayer, kind)
    ]
    try:
        with paddle.no_grad(), frozen_batch_norm_statistics():
            yield count
    finally:
        for hook in hooks:
            hook.remove()


def count_macs(layer: nn.Layer, x: Tensor, rules: Mapping[type, Rule] = THOP_RULES) -> tuple[int, Tensor]:
    """Multiply-adds of a forward pass of ``x``, one image, and what the layer returned for it.

    The layer's batch-norm statistics stay as they are.
    """
    with counting([layer], rules) as count:
        output = layer(x)
    return count.macs, output
