"""The result of a search: which path becomes the net."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cream.flops import CostTable
from cream.space import Arch, format_arch
from cream.supernet import SuperNet
from cream.train.evaluation import Batches, evaluate, recalibrated_bn
from cream.train.runlog import log
from pimm.data.loader import Loader
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError
from pimm.utils import write_csv, write_text


@dataclass(frozen=True)
class Candidate:
    """A path with the supernet's weights: accuracy in percent, cost in millions."""

    arch: Arch
    prec1: float
    prec5: float
    loss: float
    mflops: float
    mparams: float


@dataclass(frozen=True)
class Constraint:
    """What a path may cost at least and at most; ``keys`` are the settings that say so, and ``unit`` that of the cost.

    Raises ConfigError when no path of the space keeps it.
    """

    unit: str
    cost: CostTable
    least: float
    most: float
    keys: tuple[str, str]

    def __post_init__(self):
        if self.cost.least > self.most or self.cost.most < self.least:
            raise ConfigError(
                f"no path of this space keeps {self}: they cost from {self.cost.least:.4g} to {self.cost.most:.4g}"
            )

    def __str__(self) -> str:
        bounds = [f"{key}={bound:g}" for key, bound in zip(self.keys, (self.least, self.most)) if 0 < bound < math.inf]
        return f"{' and '.join(bounds)} {self.unit}" if bounds else ""

    def excess(self, arch: Arch) -> float:
        """How far outside a path is, as a share of the bound; 0 inside."""
        cost = self.cost(arch)
        return max(0.0, cost / self.most - 1, 1 - cost / self.least if self.least else 0.0)

    def complaint(self, arch: Arch) -> str:
        """What is wrong with a path in words, nothing if it is inside."""
        cost = self.cost(arch)
        if cost > self.most:
            return f"{cost:.4g} {self.unit} above {self.keys[1]}={self.most:g}"
        return f"{cost:.4g} {self.unit} below {self.keys[0]}={self.least:g}" if cost < self.least else ""


def complaints(arch: Arch, limits: Sequence[Constraint]) -> str:
    """All that is wrong with a path, nothing if it keeps all limits."""
    return "; ".join(filter(None, (limit.complaint(arch) for limit in limits)))


def score(
    net: SuperNet,
    archs: Iterable[Arch],
    tables: tuple[CostTable, CostTable],
    train: Loader,
    val: Batches,
    batches: int,
) -> list[Candidate]:
    """Every path's accuracy on ``val`` after its batch norms saw the first batches of ``train``; best first.

    Of equals the cheaper comes first. The net is left as it was.
    """
    mflops, mparams = tables
    candidates = []
    for arch in archs:

        def predict(images, arch=arch):
            return net(images, arch)

        train.set_epoch(0)  # the same images for every path
        with recalibrated_bn(net, predict, train, batches), train_mode(net, training=False):
            found = evaluate(predict, val)
        candidates.append(Candidate(arch, mflops=mflops(arch), mparams=mparams(arch), **found))
        log.info("candidate %s: top-1 %.2f%%, %.1f MFLOPs", format_arch(arch), found["prec1"], mflops(arch))
    return sorted(candidates, key=lambda candidate: (-candidate.prec1, candidate.mflops))


def best_inside(candidates: Sequence[Candidate], limits: Sequence[Constraint]) -> Candidate:
    """The first candidate that keeps all limits.

    Raises ConfigError where there is none; it names the limits and the candidate that misses them by least.
    """
    for candidate in candidates:
        if not complaints(candidate.arch, limits):
            return candidate
    nearest = min(candidates, key=lambda candidate: sum(limit.excess(candidate.arch) for limit in limits))
    raise ConfigError(
        f"none of {len(candidates)} candidates keeps {', '.join(str(limit) for limit in limits if str(limit))}; the "
        f"nearest, {format_arch(nearest.arch)}, has {complaints(nearest.arch, limits)}: choose again with other limits "
        "or a larger SUPERNET.SELECT_RANDOM (tools/select.py)"
    )


def rows_of(candidates: Iterable[Candidate], limits: Sequence[Constraint]) -> list[dict]:
    """Candidates as rows of a table, with what speaks against each."""
    latency = next((limit.cost for limit in limits if limit.unit == "ms"), None)
    return [
        {
            **vars(candidate),
            "arch": format_arch(candidate.arch),
            **({"latency_ms": latency(candidate.arch)} if latency else {}),
            "outside": complaints(candidate.arch, limits),
        }
        for candidate in candidates
    ]


def write_candidates(
    folder: Path, candidates: Sequence[Candidate], limits: Sequence[Constraint], scored_on: str
) -> None:
    """``candidates.csv``: all of them, best first, those outside the limits included and marked."""
    rows = [{**row, "scored_on": scored_on} for row in rows_of(candidates, limits)]
    write_csv(folder / "candidates.csv", rows)


def write_architecture(folder: Path, best: Candidate, limits: Sequence[Constraint], **facts: object) -> None:
    """``architecture.json``: the chosen path, its costs, and further facts."""
    (row,) = rows_of([best], limits)
    del row["outside"]
    write_text(folder / "architecture.json", json.dumps({**row, "arch": best.arch, **facts}, indent=2) + "\n")
