"""Drawing the path of the next training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable

import numpy as np

from cream.flops import CostTable
from cream.space import SKIP, Arch, SearchSpace
from cream.train.board import PrioritizedBoard
from pimm.errors import ConfigError, check_whole

BATCH = 64  # paths drawn at once
ATTEMPTS = 500
DRAWS_PER_PATH = 64  # draws for each of the paths that are wanted
GRID = 8192  # steps from the cheapest to the most expensive path


class BoundedDraws:
    """Draws rows of independent choices, given that their costs sum up to between ``low`` and ``high``.

    Costs are rounded down to a grid, on which dynamic programming from the last position to the first gives the
    probability of ending in the range from every partial sum; each choice is then drawn with that probability. Paths
    that only rounding puts into the range are rejected by their exact cost, so that the distribution is exactly that
    of rejection sampling.

    Args:
        costs: for each position the costs of its options.
        weights: for each position the probabilities of its options.
        low, high: the range of the summed costs.
    """

    def __init__(self, costs: Sequence[np.ndarray], weights: Sequence[np.ndarray], low: float, high: float):
        self.costs, self.weights, self.low, self.high = costs, weights, low, high
        cheapest = sum(cost.min() for cost in costs)
        width = (sum(cost.max() for cost in costs) - cheapest) / GRID or 1.0
        self.steps = [((cost - cost.min()) / width).astype(np.int64) for cost in costs]
        size = sum(steps.max() for steps in self.steps) + 1
        # A sum of rounded costs lies below the exact one by less than one step a position.
        first, last = np.clip([(low - cheapest) / width - len(costs), (high - cheapest) / width], -1, size)
        ends = np.zeros(size)
        ends[max(math.ceil(first), 0) : math.floor(last) + 1] = 1.0
        self.chances = [ends]
        for steps, weight in zip(reversed(self.steps), reversed(weights)):
            sums = np.zeros(size)
            for step, share in zip(steps, weight):
                sums[: size - step] += share * self.chances[0][step:]
            self.chances.insert(0, sums)

    @property
    def possible(self) -> bool:
        """Whether the range may hold a path: False is certain, True holds up to rounding."""
        return bool(self.chances[0][0] > 0)

    def __call__(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n paths on the grid, and return those in the range, as indices of options [at most n, positions]."""
        reached, total = np.zeros(n, np.int64), np.zeros(n)
        columns = []
        for steps, weight, cost, chances in zip(self.steps, self.weights, self.costs, self.chances[1:]):
            shares = np.cumsum(weight * chances[reached[:, None] + steps], axis=1)  # [n, options]
            drawn = (rng.random((n, 1)) * shares[:, -1:] >= shares).sum(axis=1)
            reached, total = reached + steps[drawn], total + cost[drawn]
            columns.append(drawn)
        return np.stack(columns, axis=1)[(total >= self.low) & (total <= self.high)]


def normalise(weights: Sequence[float], num_choices: int) -> np.ndarray:
    """Return weights of the choices as probabilities.

    Raises:
        ConfigError: there are not ``num_choices`` weights, one is negative or not finite, or all are 0.
    """
    try:
        weights = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"SUPERNET.PRE_PROB is {weights!r:.80}; must be a list of numbers") from None
    if weights.shape != (num_choices,):
        raise ConfigError(f"SUPERNET.PRE_PROB has {weights.size} entries; the space offers {num_choices} choices")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ConfigError(f"SUPERNET.PRE_PROB is {weights.tolist()!r:.80}; must be at least 0, and one above")
    return weights / weights.sum()


def choice_policy(
    space: SearchSpace, how: str, weights: Sequence[float] | None
) -> Callable[[PrioritizedBoard | None], np.ndarray | None]:
    """Return the function that maps a board to the probabilities of the choices, or to None where all are equal.

    ``how`` and ``weights`` are those of `Sampler`.
    """
    given = normalise(weights, space.num_choices) if how == "pre_prob" else None
    policies = {
        "even": lambda board: None,
        "pre_prob": lambda board: given,
        "teacher": lambda board: board.choice_frequency(space) if board is not None else None,
    }
    if how not in policies:
        raise ConfigError(f"operations cannot be drawn by {how!r:.80}; must be {', '.join(policies)}")
    return policies[how]


class Sampler:
    """Draws paths whose cost lies in a range.

    As SPOS's authors do, each draw first picks one of ``bins`` equal parts of the range, evenly, and then a path from
    this part: otherwise the costs that most paths have would crowd out the other costs.

    Args:
        space: the search space.
        flops: the costs of paths.
        minimum, maximum: the range in MFLOPs; infinite bounds stand for the least and the most that paths cost.
        how: the weights of the choices: ``even``; ``pre_prob``, by ``weights``; or ``teacher``, by how often the full
            board holds each choice, and evenly before the board is full.
        weights: the weights of the choices for ``pre_prob``.
        bins: number of equal parts of the range.

    Raises:
        ConfigError: no path of the space has a cost in the range, or in one of its parts; or the costs are those of
            another space.
    """

    def __init__(
        self,
        space: SearchSpace,
        flops: CostTable,
        minimum: float,
        maximum: float,
        how: str = "even",
        weights: Sequence[float] | None = None,
        bins: int = 1,
    ):
        check_whole("the number of parts of the FLOPs range", bins, least=1)
        if tuple(tuple(len(costs) for costs in stage) for stage in flops.choices) != space.choices:
            raise ConfigError(f"the costs belong to another space than {space.choices!r:.200}")
        if math.isnan(minimum) or math.isnan(maximum):
            raise ConfigError(f"the FLOPs range is from {minimum} to {maximum}; must be numbers")
        self.space, self.flops = space, flops
        slack = 1e-9 * abs(flops.most)  # the sum of a path's costs is rounded
        self.minimum = minimum if math.isfinite(minimum) else min(flops.least - slack, maximum)
        self.maximum = maximum if math.isfinite(maximum) else max(flops.most + slack, minimum)
        self.bins = bins
        self.probabilities = choice_policy(space, how, weights)
        self.costs = [
            np.array([0.0 if option == SKIP else costs[option] for option in options])
            for options, costs in zip(space.options, (costs for stage in flops.choices for costs in stage))
        ]
        self._draws: dict[tuple, BoundedDraws] = {}
        self.edges = np.linspace(self.minimum, self.maximum, bins + 1)
        self._check((self.minimum, self.maximum), "")
        for part in zip(self.edges, self.edges[1:]):
            self._check(part, f", one of SUPERNET.FLOPS_BINS={bins} parts of the range")

    def _check(self, bounds: tuple[float, float], part: str) -> None:
        """Raise ConfigError if no path lies between the bounds; ``part`` describes them if they are not the range's."""
        low, high = bounds
        if not self._bounded(self.probabilities(None), low, high).possible:
            raise ConfigError(
                f"no path costs between SUPERNET.FLOPS_MINIMUM={low:.10g} and FLOPS_MAXIMUM={high:.10g} MFLOPs{part}: "
                f"this space reaches from {self.flops.least:.1f} to {self.flops.most:.1f}; move or widen the range"
            )

    def __call__(self, rng: np.random.Generator, board: PrioritizedBoard | None = None) -> Arch:
        """Draw one path; without a ``board`` the policy ``teacher`` draws evenly."""
        low, high = self._bin(rng)
        draws = self._bounded(self.probabilities(board), low, high)
        if not draws.possible:  # the frequencies of a full board may leave no path in the range
            draws = self._bounded(self.probabilities(None), low, high)
        for _ in range(ATTEMPTS if draws.possible else 0):
            for row in draws(rng, BATCH):
                arch = self.space.decode(options[index] for options, index in zip(self.space.options, row))
                if low <= self.flops(arch) <= high:  # exactly, not only up to rounding
                    return arch
        part = f", one of {self.bins} parts of the range" if self.bins > 1 else ""
        raise ConfigError(
            f"none of {ATTEMPTS * BATCH} sampled paths costs between SUPERNET.FLOPS_MINIMUM={low:.10g} and "
            f"FLOPS_MAXIMUM={high:.10g} MFLOPs{part} (this space reaches from {self.flops.least:.1f} to "
            f"{self.flops.most:.1f}): widen the range"
        )

    def _bounded(self, probabilities: np.ndarray | None, low: float, high: float) -> BoundedDraws:
        """Return the draws of a distribution in a range; the draws are cached until the distribution changes."""
        distribution = None if probabilities is None else probabilities.tobytes()
        self._draws = {key: draws for key, draws in self._draws.items() if key[0] == distribution}
        key = distribution, low, high
        if key not in self._draws:
            weights, slack = self.space.distribution(probabilities), 1e-9 * self.flops.most
            bounds = low - self.flops.fixed - slack, high - self.flops.fixed + slack
            self._draws[key] = BoundedDraws(self.costs, weights, *bounds)
        return self._draws[key]

    def _bin(self, rng: np.random.Generator) -> tuple[float, float]:
        """Draw the part of the range that the next path is drawn from."""
        if self.bins == 1:
            return self.minimum, self.maximum
        index = rng.integers(self.bins)
        return self.edges[index], self.edges[index + 1]

    def spread(self, rng: np.random.Generator, n: int) -> list[Arch]:
        """Draw n different paths whose costs are as evenly spaced as possible, and return them, the cheapest first.

        The result has fewer paths if the draws give fewer than n different ones.
        """
        drawn = list(dict.fromkeys(self(rng) for _ in range(DRAWS_PER_PATH * n)))
        costs = [self.flops(arch) for arch in drawn]
        picked = []
        for target in np.linspace(min(costs), max(costs), n)[: len(drawn)]:
            nearest = min(drawn, key=lambda arch, target=target: abs(self.flops(arch) - target))
            drawn.remove(nearest)
            picked.append(nearest)
        return sorted(picked, key=self.flops)
