"""The cost of each choice of a supernet, from which the cost of a path is a sum."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import paddle
from paddle import Tensor

from cream.counting import Rule, count_macs, count_parameters, counting
from cream.space import SKIP, Arch, SearchSpace
from cream.supernet import Choices, SuperNet
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError, check_whole


class CostTable:
    """The cost of every choice at every position: ``table(arch)`` adds up the cost of a path.

    ``least`` and ``most`` are the costs of the cheapest and of the dearest path that may be drawn.

    Args:
        choices: ``choices[stage][position]`` lists the costs of the operations at that position.
        fixed: the cost of the layers that all paths share.
        space: the space of the paths, which says where skipping a block, at no cost, may be drawn; None: nowhere.

    Raises:
        ConfigError: the costs belong to another space.
    """

    def __init__(self, choices: list[list[list[float]]], fixed: float, space: SearchSpace | None = None):
        self.choices = choices
        self.fixed = fixed
        self.depths = [len(stage) for stage in choices]
        counts = tuple(tuple(len(costs) for costs in stage) for stage in choices)
        if space is not None and counts != space.choices:
            raise ConfigError(f"the costs belong to choices {counts!r:.120}; the space has {space.choices!r:.120}")
        skips = iter([SKIP in options for options in space.options] if space else itertools.repeat(False))
        cheapest = [[SKIP if next(skips) else costs.index(min(costs)) for costs in stage] for stage in choices]
        # Summed up as the cost of any path is: a constraint may be exactly one of these bounds.
        self.least = self(cheapest)
        self.most = self([[costs.index(max(costs)) for costs in stage] for stage in choices])

    def __call__(self, arch: Arch) -> float:
        """Return the cost of a path; raise ConfigError for a path of another space."""
        if [len(stage) for stage in arch] != self.depths:
            raise ConfigError(f"architecture {arch!r:.100} has not the positions of the table, {self.depths!r:.80}")
        total = self.fixed
        for stage, path in zip(self.choices, arch):
            total += sum(costs[choice] for costs, choice in zip(stage, path) if choice != SKIP)
        return total


def cost_tables(net: SuperNet, resolution: int, in_chans: int | None = None) -> tuple[CostTable, CostTable]:
    """Count what every choice of a supernet costs, by the ``cost_rules`` of the net.

    Args:
        net: the supernet; its weights, batch-norm statistics, mode and the random numbers stay as they are.
        resolution: the side of an image, in pixels.
        in_chans: the number of channels of an image; None: ``net.in_chans``.

    Raises:
        ConfigError: ``resolution`` is not a whole number above 0.

    Returns:
        The table of multiply-adds and the table of parameters, both in millions. Their fixed parts are the costs of
        ``net.counted_layers()``.
    """
    costs_at = _ChoiceCosts(net.cost_rules)
    check_whole("resolution", resolution, least=1)
    shared = list(net.counted_layers())
    mflops, mparams = [], []
    image = paddle.zeros([1, in_chans or net.in_chans, resolution, resolution])
    with train_mode(net, training=False):  # evaluation mode, because dropout would draw random numbers
        with counting(shared, net.cost_rules) as stem_count:
            x = net.stem(image)
        for stage, counts in zip(net.blocks, net.space.choices):
            stage_costs = []
            for position, count in zip(stage, counts):
                *costs, x = costs_at(position, count, x)
                stage_costs.append(costs)
            stage_mflops, stage_mparams = zip(*stage_costs)
            mflops.append(list(stage_mflops))
            mparams.append(list(stage_mparams))
        with counting(shared, net.cost_rules) as head_count:
            net.head(x)
    shared_mflops = (stem_count.macs + head_count.macs) / 1e6
    shared_mparams = sum(count_parameters(layer) for layer in shared) / 1e6
    return CostTable(mflops, shared_mflops, net.space), CostTable(mparams, shared_mparams, net.space)


class _ChoiceCosts:
    """Counts the costs of the choices at a position, once for all positions of the same blocks and input shape."""

    def __init__(self, rules: Mapping[type, Rule]):
        self.rules = rules
        self.known: dict[tuple, tuple[list[float], list[float], Tensor]] = {}

    def __call__(self, position: Choices, count: int, x: Tensor) -> tuple[list[float], list[float], Tensor]:
        """Return the costs of the first ``count`` choices for the input ``x``.

        Returns:
            The multiply-adds of each choice and its parameters, both in millions, and the output of the position.
        """
        key = (repr(position), tuple(x.shape))
        if key not in self.known:
            blocks = [position.standalone(choice) for choice in range(count)]
            counted = [count_macs(block, x, self.rules) for block in blocks]
            mflops = [macs / 1e6 for macs, _ in counted]
            self.known[key] = mflops, [count_parameters(block) / 1e6 for block in blocks], counted[0][1]
        return self.known[key]
