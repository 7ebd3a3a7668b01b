"""A supernet together with the costs and the sampler of its paths."""

from __future__ import annotations

from dataclasses import dataclass

from cream.flops import CostTable
from cream.space import SearchSpace
from cream.supernet import SuperNet
from cream.train.sampler import Sampler


@dataclass(frozen=True)
class SearchNet:
    """A supernet, the costs of its paths in millions for images of ``resolution`` pixels, and the sampler of paths."""

    net: SuperNet
    resolution: int
    mflops: CostTable
    mparams: CostTable
    sampler: Sampler

    @property
    def space(self) -> SearchSpace:
        """The supernet's search space."""
        return self.net.space

    @property
    def tables(self) -> tuple[CostTable, CostTable]:
        """Millions of multiply-adds, and of parameters."""
        return self.mflops, self.mparams
