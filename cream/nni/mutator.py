"""Mutators, which draw the path of each training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable

import numpy as np

from cream.flops import CostTable
from cream.nni.paths import Cost, check_numbers, checked
from cream.space import Arch, SearchSpace
from cream.supernet import SuperNet
from cream.train.board import PrioritizedBoard
from cream.train.sampler import Sampler, choice_policy
from pimm.errors import ConfigError, check_whole


class Trials:
    """Draws paths until the cost of one lies in a range; the cost is any function of a path.

    Each path is drawn from one of ``bins`` equal parts of the range. A `Sampler` does the same without trials, but
    needs a table of costs.

    Args:
        space: the search space.
        cost: the cost of a path.
        low, high: the range.
        probabilities: maps the board to the probabilities of the choices.
        bins: number of equal parts of the range.
        attempts: number of trials for a path; ConfigError if none succeeds.
    """

    def __init__(
        self, space: SearchSpace, cost: Cost, low: float, high: float, probabilities: Callable, bins: int, attempts: int
    ):
        self.space, self.cost, self.probabilities, self.attempts = space, cost, probabilities, attempts
        self.edges = np.linspace(low, high, bins + 1) if bins > 1 else np.array([low, high])  # may be infinite

    def __call__(self, rng: np.random.Generator, board: PrioritizedBoard | None = None) -> Arch:
        part = rng.integers(len(self.edges) - 1)
        low, high = self.edges[part : part + 2]
        for row in self.space.sample(rng, self.attempts, self.probabilities(board)):
            arch = self.space.decode(row)
            if low <= self.cost(arch) <= high:
                return arch
        raise ConfigError(
            f"none of flops_sample_timeout={self.attempts} sampled paths costs between {low:g} and {high:g}: widen "
            "flops_lb and flops_ub, take fewer of flops_bin_num, or a CostTable as flops_func, which needs no trials"
        )


class SPOSSupernetTrainingMutator:
    """Draws the path of each training step evenly: uniform sampling under a FLOPs range (SPOS, section 3.2).

    A `CostTable` such as ``cost_tables(model, resolution)[0]`` is sampled exactly. With another ``flops_func`` paths
    are tried; if no trial succeeds, `sample_search` raises ConfigError, where NNI would train a path outside the
    range.

    Args:
        model: the supernet.
        flops_func: the cost of a path; without it any path is drawn.
        flops_lb, flops_ub: bounds of the cost, in the unit of ``flops_func``.
        flops_bin_num: number of equal parts of the range, from each of which equally many paths are drawn.
        flops_sample_timeout: largest number of trials for a path.
        seed: the seed of the draws, which are the same in all processes.
    """

    def __init__(
        self,
        model: SuperNet,
        flops_func: Cost | None = None,
        flops_lb: float | None = None,
        flops_ub: float | None = None,
        flops_bin_num: int = 7,
        flops_sample_timeout: int = 500,
        *,
        seed: int = 42,
    ):
        space = checked(model).space
        costs = (flops_func, flops_lb, flops_ub, flops_bin_num, flops_sample_timeout)
        self.space, self.flops_func = space, flops_func
        self.sampler = path_sampler(space, "even", None, *costs)
        self.rng = np.random.default_rng([seed, 1])

    def sample_search(self) -> Arch:
        """Draw the next path."""
        return self.sampler(self.rng)


class CreamSupernetTrainingMutator(SPOSSupernetTrainingMutator):
    """Draws the path of each training step as ``how_to_prob`` says.

    Args:
        model: the supernet.
        how_to_prob: ``even``; ``pre_prob``, by given probabilities; or ``teacher``, by how often the full board holds
            each choice.
        pre_prob: probabilities of the choices.
        CHOICE_NUM: number of choices at a block; where given, it must be the space's.
        sta_num: number of blocks in each searched stage; where given, it must be the space's.
        flops_func, flops_lb, flops_ub, flops_bin_num, flops_sample_timeout, seed: as for SPOS's mutator, with one
            part of the range by default.
    """

    def __init__(
        self,
        model: SuperNet,
        how_to_prob: str = "even",
        pre_prob: Sequence[float] = (0.05, 0.05, 0.2, 0.4, 0.2, 0.1),
        CHOICE_NUM: int | None = None,
        sta_num: Sequence[int] | None = None,
        flops_func: Cost | None = None,
        flops_lb: float | None = None,
        flops_ub: float | None = None,
        flops_bin_num: int = 1,
        flops_sample_timeout: int = 500,
        *,
        seed: int = 42,
    ):
        costs = (flops_func, flops_lb, flops_ub, flops_bin_num, flops_sample_timeout)
        super().__init__(model, *costs, seed=seed)
        check_numbers(self.space, CHOICE_NUM, sta_num)
        self.sampler = path_sampler(self.space, how_to_prob, pre_prob, *costs)


def path_sampler(
    space: SearchSpace,
    how: str,
    weights: Sequence[float] | None,
    cost: Cost | None,
    low: float | None,
    high: float | None,
    bins: int,
    attempts: int,
) -> Sampler | Trials:
    """Return a sampler of the paths in the given cost range, or of all paths without a cost."""
    if (cost is None) != (low is None) or (low is None) != (high is None):
        raise ConfigError("flops_func, flops_lb and flops_ub go together: give all three or none of them")
    for name, value in (("flops_bin_num", bins), ("flops_sample_timeout", attempts)):
        check_whole(name, value, least=1)
    if low is not None and not low <= high:
        raise ConfigError(f"flops_lb is {low} and flops_ub is {high}; flops_lb must be at most flops_ub")
    probabilities = choice_policy(space, how, weights)
    if cost is None:
        return Trials(space, lambda arch: 0.0, 0.0, 0.0, probabilities, bins=1, attempts=1)
    if isinstance(cost, CostTable):
        return Sampler(space, cost, low, high, how, weights, bins)
    if bins > 1 and not math.isfinite(high - low):
        raise ConfigError(f"flops_lb={low} and flops_ub={high} have no equal parts: give flops_bin_num=1")
    return Trials(space, cost, low, high, probabilities, bins, attempts)
