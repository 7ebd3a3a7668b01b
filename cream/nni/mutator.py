"""Mutators: what draws the path of each training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np

from cream.flops import CostTable
from cream.nni.paths import Cost, check_numbers, checked
from cream.space import Arch, SearchSpace
from cream.supernet import SuperNet
from cream.train.board import PrioritizedBoard
from cream.train.sampler import Sampler, choice_policy
from pimm.errors import ConfigError


class Trials:
    """Draws paths until one costs what it must, by any function of a path.

    Each is drawn from one of ``bins`` equal parts of the range, as a `Sampler` does, which needs no trials but a table
    of costs. Raises ConfigError when none of so many ``attempts`` lies in its part.
    """

    def __init__(
        self, space: SearchSpace, cost: Cost, low: float, high: float, probabilities: Callable, bins: int, attempts: int
    ):
        self.space, self.cost, self.probabilities, self.attempts = space, cost, probabilities, attempts
        self.edges = np.linspace(low, high, bins + 1)

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

    ``flops_func`` gives the cost of a path, in the unit of ``flops_lb`` and ``flops_ub``. Paths come from
    ``flops_bin_num`` equal parts of that range alike. A `CostTable`, such as ``cost_tables(model, resolution)[0]``,
    is drawn from exactly; with another function paths are tried, at most ``flops_sample_timeout`` for each that is
    needed. Unlike NNI's it raises ConfigError then, instead of training a path outside. All processes draw alike, by
    ``seed``.
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
        limits = (flops_func, flops_lb, flops_ub, flops_bin_num, flops_sample_timeout)
        self.space, self.flops_func = space, flops_func
        self.sampler = path_sampler(space, "even", None, *limits)
        self.rng = np.random.default_rng([seed, 1])

    def sample_search(self) -> Arch:
        """The next path."""
        return self.sampler(self.rng)


class CreamSupernetTrainingMutator(SPOSSupernetTrainingMutator):
    """Draws the path of each training step as ``how_to_prob`` says.

    That is ``even``; ``pre_prob``, by the probabilities in ``pre_prob``, one for each choice; or ``teacher``, by how
    often the full board holds each. ``CHOICE_NUM`` and ``sta_num``, where given, must be the space's: the number of
    choices at a block, and of blocks in each searched stage. The FLOPs range is as SPOS's, in one part by default.
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
        limits = (flops_func, flops_lb, flops_ub, flops_bin_num, flops_sample_timeout)
        super().__init__(model, *limits, seed=seed)
        check_numbers(self.space, CHOICE_NUM, sta_num)
        self.sampler = path_sampler(self.space, how_to_prob, pre_prob, *limits)


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
    """What draws paths in the range that is given, or any."""
    if (cost is None) != (low is None) or (low is None) != (high is None):
        raise ConfigError("flops_func, flops_lb and flops_ub go together: give all three or none of them")
    probabilities = choice_policy(space, how, weights)
    if cost is None:
        return Trials(space, lambda arch: 0.0, 0.0, 0.0, probabilities, bins=1, attempts=1)
    if isinstance(cost, CostTable):
        return Sampler(space, cost, low, high, how, weights, bins)
    return Trials(space, cost, low, high, probabilities, bins, attempts)
