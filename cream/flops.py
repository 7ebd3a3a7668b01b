"""What each choice of a supernet costs, so that the cost of a path is a sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
from paddle import Tensor

from cream.counting import Rule, count_macs, count_parameters, counting
from cream.space import SKIP, Arch, SearchSpace
from cream.supernet import Choices, SuperNet
from pimm.engine.evaluation import train_mode


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
    with train_mode(net, training=False):  # without dropout, which would draw random numbers
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
            blocks = [position.standalone(choice) for choice in range(count)]
            counted = [count_macs(block, x, self.rules) for block in blocks]
            mflops = [macs / 1e6 for macs, _ in counted]
            self.known[key] = mflops, [count_parameters(block) / 1e6 for block in blocks], counted[0][1]
        return self.known[key]
