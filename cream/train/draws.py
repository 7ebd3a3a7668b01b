"""The paths that one batch trains, where it trains several."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cream.space import Arch
from cream.train.sampler import Sampler
from pimm.errors import ConfigError

DRAWS = 1024  # among which the extreme path of a FLOPs range is looked for, where it is not that of the space


def extreme_path(sampler: Sampler, largest: bool) -> Arch:
    """Return the most or the least expensive path, always the same one: of the space, if it lies in the FLOPs range.

    Otherwise it is the most or the least expensive of many paths drawn from the range.
    """
    pick = np.argmax if largest else np.argmin
    choices = [options[int(pick(costs))] for options, costs in zip(sampler.space.options, sampler.costs)]
    arch = sampler.space.decode(choices)
    if sampler.minimum <= sampler.flops(arch) <= sampler.maximum:
        return arch
    rng = np.random.default_rng(0)
    return (max if largest else min)((sampler(rng) for _ in range(DRAWS)), key=sampler.flops)


class EvenDraw:
    """Draws ``n`` paths, each as the sampler does."""

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
    """Draws paths of which, at each position, no two share a choice (FairNAS, https://arxiv.org/abs/1907.01845).

    With as many paths as a position has choices, each choice of the position is trained once in every batch; with more,
    the choices start over in another order.

    Raises:
        ConfigError: the FLOPs range leaves out paths of the space, or draws are not even.
    """

    def __init__(self, sampler: Sampler, n: int):
        flops = sampler.flops
        if sampler.minimum > flops.least or sampler.maximum < flops.most or sampler.probabilities(None) is not None:
            raise ConfigError(
                "SUPERNET.DRAW=fair draws every choice equally often: SUPERNET.HOW_TO_PROB must be even, and the FLOPs "
                f"range must hold all paths of the space, which cost {flops.least:.4g} to {flops.most:.4g} MFLOPs"
            )
        self.space, self.n = sampler.space, n

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
