"""Multiply-adds and parameters of a net, by counting rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable, NamedTuple

import paddle
from paddle import Tensor, nn

from pimm.layers import SelectAdaptivePool2d, SqueezeExcite, frozen_batch_norm_statistics

Rule = Callable[[nn.Layer, Tensor, Tensor], int]  # multiply-adds of a layer, from the layer, its input and its output


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


# Three conventions are in use for what a layer of these nets costs on one image.
# Cream's search: the official table of operation costs, which ptflops measured by modules alone.
SEARCH_RULES: Mapping[type, Rule] = {
    nn.Conv2D: _convolution_with_bias,
    nn.BatchNorm2D: lambda layer, x, y: 2 * _elements(y),
    nn.ReLU: lambda layer, x, y: _elements(y),
    SelectAdaptivePool2d: _sum_of_all_pixels,
    SqueezeExcite: _sum_of_all_pixels,  # of its pooling alone, because its convolutions are counted as layers
}
# Single Path One-Shot: its authors count the convolutions and the classifier.
CONVOLUTION_RULES: Mapping[type, Rule] = {nn.Conv2D: _convolution, nn.Linear: _linear}
# Published child nets: their figures come from thop, which counts the classifier too.
THOP_RULES: Mapping[type, Rule] = {
    nn.Conv2D: _convolution,
    nn.BatchNorm2D: lambda layer, x, y: 4 * _elements(y),
    SelectAdaptivePool2d: _mean_over_all_pixels,
    SqueezeExcite: _mean_over_all_pixels,
    nn.Linear: _linear,
}


class Convention(NamedTuple):
    """The rules that count the paths of a supernet, and those that count a single net."""

    supernet: Mapping[type, Rule]
    net: Mapping[type, Rule]


CONVENTIONS = {
    "cream": Convention(SEARCH_RULES, THOP_RULES),
    "convolutions": Convention(CONVOLUTION_RULES, CONVOLUTION_RULES),
}


def count_parameters(layer: nn.Layer) -> int:
    """Count the trainable values of a layer, without the statistics of batch norms."""
    return sum(_elements(parameter) for parameter in layer.parameters() if not parameter.stop_gradient)


class Count:
    """A running total of multiply-adds."""

    macs = 0


@contextmanager
def counting(layers: Iterable[nn.Layer], rules: Mapping[type, Rule]) -> Iterator[Count]:
    """Count the multiply-adds of layers while the block runs, without gradients and with batch-norm statistics frozen.

    Args:
        layers: the layers to count; their sublayers are counted as well.
        rules: the multiply-adds of each type of layer; layers of other types count nothing.

    Yields:
        The total, which grows with every forward pass inside the block.
    """
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
    """Count the multiply-adds of one forward pass, which leaves batch-norm statistics as they are.

    Args:
        layer: the net or layer to run.
        x: the input, of one image.
        rules: the multiply-adds of each type of layer.

    Returns:
        The multiply-adds, and the output of the layer.
    """
    with counting([layer], rules) as count:
        output = layer(x)
    return count.macs, output
