"""The candidates of a search: their scores, their costs, and the constraints on them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from cream import typed
from cream.flops import CostTable
from cream.selection.shared_scoring import score_many, shares_work
from cream.space import Arch, format_arch
from cream.supernet import SuperNet
from cream.train.evaluation import Batches, evaluate, recalibrated_bn
from pimm.data.loader import Loader
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError
from pimm.utils import write_csv, write_text

_logger = logging.getLogger(__name__)


# Sort keys of the metrics of a path, by the name of the metric that ranks; of equal paths the cheapest comes first.
ORDERS: Mapping[str, Callable[[Mapping[str, float]], tuple[float, float]]] = {
    "prec1": lambda metrics: (-metrics["prec1"], metrics["mflops"]),
    "loss": lambda metrics: (metrics["loss"], metrics["mflops"]),
}


@dataclass(frozen=True)
class Candidate:
    """A path scored with the supernet's weights: accuracies in percent, costs in millions.

    ``estimate`` is the loss of the path as fitted to the batches of the training, None if the search has no fit.
    """

    arch: Arch
    prec1: float
    prec5: float
    loss: float
    mflops: float
    mparams: float
    estimate: float | None = None


@dataclass(frozen=True)
class Constraint:
    """Bounds the cost of a path.

    Args:
        unit: unit of the cost.
        cost: the costs of paths.
        least, most: the bounds; a cost equal to a bound is allowed.
        keys: the names of the settings that give the two bounds.

    Raises:
        ConfigError: no path of the space satisfies the constraint.
    """

    unit: str
    cost: CostTable
    least: float
    most: float
    keys: tuple[str, str]

    def __post_init__(self):
        if self.cost.least > self.most or self.cost.most < self.least:
            raise ConfigError(
                f"no path of this space satisfies {self}: paths cost from {self.cost.least:.4g} to {self.cost.most:.4g}"
            )

    def __str__(self) -> str:
        bounds = [f"{key}={bound:g}" for key, bound in zip(self.keys, (self.least, self.most)) if 0 < bound < math.inf]
        return f"{' and '.join(bounds)} {self.unit}" if bounds else ""

    def violation(self, arch: Arch) -> float:
        """Return how far a path's cost lies outside the bounds, as a share of the bound; 0 inside the bounds."""
        cost = self.cost(arch)
        return max(0.0, cost / self.most - 1, 1 - cost / self.least if self.least else 0.0)

    def explain(self, arch: Arch) -> str:
        """Return in words how a path violates the constraint, an empty text if it does not."""
        cost = self.cost(arch)
        if cost > self.most:
            return f"{cost:.4g} {self.unit} above {self.keys[1]}={self.most:g}"
        return f"{cost:.4g} {self.unit} below {self.keys[0]}={self.least:g}" if cost < self.least else ""


def violations(arch: Arch, constraints: Sequence[Constraint]) -> str:
    """Return in words how a path violates constraints, an empty text if it satisfies all."""
    return "; ".join(filter(None, (constraint.explain(arch) for constraint in constraints)))


def score(
    net: SuperNet,
    archs: Iterable[Arch],
    tables: tuple[CostTable, CostTable],
    train: Loader,
    val: Batches,
    batches: int,
    by: str = "prec1",
    engine: str = "auto",
) -> list[Candidate]:
    """Return the paths as candidates, with their accuracies after batch norm was recalibrated for each path.

    The best candidate comes first, and of equally accurate ones the cheapest. The net is left as it was.

    Args:
        net: the supernet.
        archs: the paths.
        tables: millions of multiply-adds, and of parameters.
        train: training batches that recalibrate batch norm; each path sees the same batches.
        val: batches of the images that paths are scored on.
        batches: number of recalibration batches.
        by: the metric that ranks the candidates, one of ORDERS.
        engine: ``eager`` scores one path after the other by the net's own layers; otherwise, where one process works on
            a CPU, paths share what they have in common, as ``score_many`` has it.
    """
    mflops, mparams = tables
    archs, candidates = list(archs), []
    for number, (arch, found) in enumerate(zip(archs, _metrics(net, archs, train, val, batches, engine)), start=1):
        candidates.append(Candidate(arch, mflops=mflops(arch), mparams=mparams(arch), **found))
        place = f"path {number}/{len(archs)} " if len(archs) > 1 else ""
        _logger.info("%s%s: top-1 %.2f%%, %.1f MFLOPs", place, format_arch(arch), found["prec1"], mflops(arch))
    return sorted(candidates, key=lambda candidate: ORDERS[by](vars(candidate)))


def _metrics(
    net: SuperNet, archs: Sequence[Arch], train: Loader, val: Batches, batches: int, engine: str
) -> Iterator[dict[str, float]]:
    """Yield ``loss``, ``prec1`` and ``prec5`` of the paths, in their order."""
    if archs and shares_work(net, engine):
        different = list(dict.fromkeys(archs))
        found = dict(zip(different, score_many(net, different, train, val, batches, engine)))
        yield from (found[arch] for arch in archs)
        return
    for arch in archs:
        predict = partial(net, arch=arch)
        train.set_epoch(0)  # the same images for every path
        with recalibrated_bn(net, predict, train, batches), train_mode(net, training=False):
            yield evaluate(predict, val)


def best_inside(candidates: Sequence[Candidate], constraints: Sequence[Constraint]) -> Candidate:
    """Return the first candidate that satisfies all constraints.

    Raises:
        ConfigError: no candidate does; the message names the constraints, and the candidate that violates them least.
    """
    for candidate in candidates:
        if not violations(candidate.arch, constraints):
            return candidate
    nearest = min(candidates, key=lambda candidate: sum(each.violation(candidate.arch) for each in constraints))
    listed = ", ".join(filter(None, map(str, constraints)))
    raise ConfigError(
        f"none of {len(candidates)} candidates satisfies {listed}; the nearest, {format_arch(nearest.arch)}, has "
        f"{violations(nearest.arch, constraints)}: select again with other constraints or a larger "
        f"SUPERNET.SELECT_RANDOM ({typed.script('select')})"
    )


def rows_of(candidates: Iterable[Candidate], constraints: Sequence[Constraint]) -> list[dict]:
    """Return candidates as rows of a table, with the constraints that each violates."""
    latency = next((constraint.cost for constraint in constraints if constraint.unit == "ms"), None)
    return [
        {
            **{name: value for name, value in vars(candidate).items() if value is not None},
            "arch": format_arch(candidate.arch),
            **({"latency_ms": latency(candidate.arch)} if latency else {}),
            "outside": violations(candidate.arch, constraints),
        }
        for candidate in candidates
    ]


def write_candidates(
    folder: Path, candidates: Sequence[Candidate], constraints: Sequence[Constraint], scored_on: str
) -> None:
    """Write ``candidates.csv``: all candidates, the best first; those outside the constraints are marked."""
    rows = [{**row, "scored_on": scored_on} for row in rows_of(candidates, constraints)]
    write_csv(folder / "candidates.csv", rows)


def write_architecture(folder: Path, best: Candidate, constraints: Sequence[Constraint], **facts: object) -> None:
    """Write ``architecture.json``: the selected path, its costs, and further facts."""
    (row,) = rows_of([best], constraints)
    del row["outside"]
    write_text(folder / "architecture.json", json.dumps({**row, "arch": best.arch, **facts}, indent=2) + "\n")
