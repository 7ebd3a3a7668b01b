"""Multiply-adds and parameters, of a net and of every choice in a supernet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

import numpy as np
import paddle
from paddle import Tensor, nn

from pimm.layers import SelectAdaptivePool2d, SqueezeExcite, frozen_batch_norm_statistics

from .evaluate import mode
from .space import SKIP, Arch, SearchSpace

if TYPE_CHECKING:
    from .supernet import Choices, SuperNet

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


class CostTable:
    """Cost of every choice at every position, so that the cost of a path is a sum.

    ``choices[stage][position]`` lists the cost of each operation; ``fixed`` is the part that every path shares. Of a
    ``space`` that draws skips a block may cost nothing; ``least`` and ``most`` are those of its paths.
    """

    def __init__(self, choices: list[list[list[float]]], fixed: float, space: SearchSpace | None = None):
        self.choices = choices
        self.fixed = fixed
        rows = [costs for stage in choices for costs in stage]
        widest = max(len(costs) for costs in rows)
        # One column more than there are choices: -1, a skipped block, picks it and costs nothing.
        self._table = np.array([costs + [0.0] * (widest + 1 - len(costs)) for costs in rows])
        skips = [SKIP in options for options in space.options] if space else [False] * len(rows)
        self.least = fixed + sum(0.0 if skipped else min(costs) for skipped, costs in zip(skips, rows))
        self.most = fixed + sum(max(costs) for costs in rows)

    def __call__(self, arch: Arch) -> float:
        """Cost of one path."""
        total = self.fixed
        for stage, path in zip(self.choices, arch):
            total += sum(costs[choice] for costs, choice in zip(stage, path) if choice >= 0)
        return total

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Costs [n] of paths given as rows of choices [n, positions]."""
        return self.fixed + self._table[np.arange(len(self._table)), rows].sum(axis=1)


def cost_tables(net: SuperNet, resolution: int) -> tuple[CostTable, CostTable]:
    """Tables of a supernet's costs in millions: multiply-adds at ``resolution`` pixels, and parameters.

    Counted by the net's ``cost_rules``; the fixed part is its ``counted_layers()``.
    """
    table = _ChoiceCosts(net.cost_rules)
    shared = list(net.counted_layers())
    mflops, mparams = [], []
    with mode(net, training=False):  # without dropout, which would draw random numbers
        with counting(shared, net.cost_rules) as first:
            x = net.stem(paddle.zeros([1, net.in_chans, resolution, resolution]))
        for stage, counts in zip(net.blocks, net.space.choices):
            costs = []
            for position, count in zip(stage, counts):
                *cost, x = table(position, count, x)
                costs.append(cost)
            stage_macs, stage_params = zip(*costs)
            mflops.append(list(stage_macs))
            mparams.append(list(stage_params))
        with counting(shared, net.cost_rules) as last:
            net.head(x)
    fixed_params = sum(count_parameters(layer) for layer in shared)
    shared_mflops, shared_mparams = (first.macs + last.macs) / 1e6, fixed_params / 1e6
    return CostTable(mflops, shared_mflops, net.space), CostTable(mparams, shared_mparams, net.space)


class _ChoiceCosts:
    """Costs of all choices at a position; positions built alike, for images of one size, are counted once."""

    def __init__(self, rules: Mapping[type, Rule]):
        self.rules = rules
        self.known: dict[tuple, tuple[list[float], list[float], Tensor]] = {}

    def __call__(self, position: Choices, count: int, x: Tensor) -> tuple[list[float], list[float], Tensor]:
        """Millions of multiply-adds and of parameters by choice, and what comes out of the position."""
        key = (repr(position), tuple(x.shape))
        if key not in self.known:
            blocks = [position.alone(choice) for choice in range(count)]
            counted = [count_macs(block, x, self.rules) for block in blocks]
            mflops = [macs / 1e6 for macs, _ in counted]
            self.known[key] = mflops, [count_parameters(block) / 1e6 for block in blocks], counted[0][1]
        return self.known[key]
