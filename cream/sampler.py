"""Drawing the path of the next training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np

from pimm.errors import ConfigError

from .board import PrioritizedBoard
from .flops import CostTable
from .space import Arch, SearchSpace

BATCH = 64  # paths drawn at once: a narrow FLOPs range turns most of them away
ATTEMPTS = 500


def normalise(weights: Sequence[float], num_choices: int) -> np.ndarray:
    """Weights of the operations as probabilities; raises ConfigError when there are not ``num_choices`` of them."""
    if len(weights) != num_choices:
        raise ConfigError(f"SUPERNET.PRE_PROB has {len(weights)} entries; the space offers {num_choices} operations")
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum()


class Sampler:
    """Draws paths whose cost lies in [``minimum``, ``maximum``] MFLOPs.

    ``how`` weighs the operations: ``even``, ``pre_prob`` (by ``weights``) or ``teacher`` (by how often the full board
    holds each; evenly before it is full). Each path is drawn from one of ``bins`` equal parts of the range, picked
    evenly, as SPOS's authors do: else costs that many paths have would crowd out the others. Raises ConfigError when
    the space has no path of such a cost.
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
        self.space, self.flops = space, flops
        self.minimum, self.maximum = minimum, maximum
        self.bins = bins
        self.num_choices = max(count for stage in space.choices for count in stage)
        policies: dict[str, Callable[[PrioritizedBoard], np.ndarray | None]] = {
            "even": lambda board: None,
            "pre_prob": lambda board: self.weights,
            "teacher": lambda board: board.choice_frequency(self.num_choices) if board is not None else None,
        }
        self.weights = normalise(weights, self.num_choices) if how == "pre_prob" else None
        self.probabilities = policies[how]
        if maximum < flops.least or minimum > flops.most:
            raise ConfigError(
                f"no path costs between SUPERNET.FLOPS_MINIMUM={minimum:.10g} and FLOPS_MAXIMUM={maximum:.10g} MFLOPs: "
                f"this space reaches from {flops.least:.1f} to {flops.most:.1f}"
            )

    def __call__(self, rng: np.random.Generator, board: PrioritizedBoard | None = None) -> Arch:
        """One path; without a ``board`` the policy ``teacher`` draws evenly."""
        probabilities = self.probabilities(board)
        low, high = self._bin(rng)
        for _ in range(ATTEMPTS):
            rows = self.space.sample(rng, BATCH, probabilities)
            costs = self.flops.of_rows(rows)
            inside = np.flatnonzero((costs >= low) & (costs <= high))
            if len(inside):
                return self.space.decode(rows[inside[0]])
        part = f", one of {self.bins} parts of the range" if self.bins > 1 else ""
        raise ConfigError(
            f"none of {ATTEMPTS * BATCH} sampled paths costs between SUPERNET.FLOPS_MINIMUM={low:.10g} and "
            f"FLOPS_MAXIMUM={high:.10g} MFLOPs{part} (this space reaches from {self.flops.least:.1f} to "
            f"{self.flops.most:.1f}): widen the range"
        )

    def _bin(self, rng: np.random.Generator) -> tuple[float, float]:
        """The part of the range that the next path is drawn from."""
        if self.bins == 1:
            return self.minimum, self.maximum
        edges = np.linspace(self.minimum, self.maximum, self.bins + 1)
        index = rng.integers(self.bins)
        return edges[index], edges[index + 1]

    def spread(self, rng: np.random.Generator, n: int) -> list[Arch]:
        """n paths spread evenly over the costs that the range allows, cheapest first."""
        drawn = {self(rng) for _ in range(16 * n)}
        ordered = sorted(drawn, key=self.flops)
        picked = np.linspace(0, len(ordered) - 1, num=min(n, len(ordered))).round().astype(int)
        return [ordered[i] for i in picked]
