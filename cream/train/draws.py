"""Draws of the paths that train on one batch, where several do."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np

from cream.space import Arch
from cream.train.sampler import Sampler
from pimm.errors import ConfigError

_logger = logging.getLogger(__name__)

DRAWS = 1024  # paths among which the extreme one of a FLOPs range is looked for, where that of the space lies outside


def extreme_path(sampler: Sampler, largest: bool) -> Arch:
    """Return the most or the least expensive path of the space, if that lies in the FLOPs range.

    Otherwise return the most or the least expensive of DRAWS paths drawn from the range, the same one at every call.
    """
    pick = np.argmax if largest else np.argmin
    choices = [options[int(pick(costs))] for options, costs in zip(sampler.space.options, sampler.costs)]
    arch = sampler.space.decode(choices)
    if sampler.minimum <= sampler.flops(arch) <= sampler.maximum:
        return arch
    rng = np.random.default_rng(0)
    return (max if largest else min)((sampler(rng) for _ in range(DRAWS)), key=sampler.flops)


class EvenDraw:
    """Draws ``n`` paths independently, as the sampler draws one."""

    def __init__(self, sampler: Sampler, n: int):
        self.sampler, self.n = sampler, n

    def __call__(self, rng: np.random.Generator) -> list[Arch]:
        """Return the paths of one batch."""
        return [self.sampler(rng) for _ in range(self.n)]


class SandwichDraw:
    """Draws ``n`` paths: the most expensive one first, random ones, and last the cheapest (BigNAS's sandwich rule).

    See https://arxiv.org/abs/2003.11142.

    Raises:
        ConfigError: ``n`` is below 3, so that no random path is drawn.
    """

    def __init__(self, sampler: Sampler, n: int):
        if n < 3:
            raise ConfigError(f"SUPERNET.PATHS is {n}; must be at least 3 where SUPERNET.DRAW is sandwich")
        self.sampler, self.n = sampler, n
        self.largest, self.smallest = (extreme_path(sampler, largest) for largest in (True, False))

    def __call__(self, rng: np.random.Generator) -> list[Arch]:
        """Return the paths of one batch."""
        return [self.largest, *(self.sampler(rng) for _ in range(self.n - 2)), self.smallest]


class FairDraw:
    """Draws ``n`` paths that use every choice of a position equally often (FairNAS, https://arxiv.org/abs/1907.01845).

    With as many paths as a position has choices, each choice of the position is trained once in every batch. With more
    paths, the choices start over in another random order, and each is trained equally often on average.

    Raises:
        ConfigError: the FLOPs range leaves out paths of the space or has several parts, or draws are not even.
    """

    def __init__(self, sampler: Sampler, n: int):
        flops, rule = sampler.flops, "SUPERNET.DRAW=fair draws every choice equally often"
        if sampler.probabilities(None) is not None:
            raise ConfigError(f"{rule}: SUPERNET.HOW_TO_PROB must be even")
        if sampler.bins > 1:
            raise ConfigError(f"{rule}: SUPERNET.FLOPS_BINS must be 1, not {sampler.bins}")
        if sampler.minimum > flops.least or sampler.maximum < flops.most:
            least, most = _below(flops.least), -_below(-flops.most)  # a range that can be given as it is printed
            raise ConfigError(
                f"{rule}: SUPERNET.FLOPS_MINIMUM={sampler.minimum:.10g} to FLOPS_MAXIMUM={sampler.maximum:.10g} must "
                f"hold all paths of the space, which cost {least:.10g} to {most:.10g} MFLOPs; a later selection can "
                "narrow the range"
            )
        self.space, self.n = sampler.space, n
        most_choices = max(map(len, self.space.options))
        if n % most_choices:
            _logger.warning(
                "SUPERNET.PATHS=%d is no multiple of the %d choices of a block: on a batch, some are used more often "
                "than others",
                *(n, most_choices),
            )

    def __call__(self, rng: np.random.Generator) -> list[Arch]:
        """Return the paths of one batch."""
        columns = []
        for options in self.space.options:
            rounds = [rng.permutation(options) for _ in range(-(-self.n // len(options)))]
            columns.append(np.concatenate(rounds)[: self.n])
        return [self.space.decode(row) for row in np.stack(columns, axis=1)]


Draw = Callable[[np.random.Generator], "list[Arch]"]
DRAW_RULES: Mapping[str, Callable[[Sampler, int], Draw]] = {
    "even": EvenDraw,
    "fair": FairDraw,
    "sandwich": SandwichDraw,
}


def _below(number: float) -> float:
    """Return the largest number of two decimals that is not above ``number``."""
    found = math.floor(100 * number) / 100
    return found if found <= number else round(found - 0.01, 2)  # 100 * number may be rounded up
