"""The result of a search: which path of the board becomes the net."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pimm.data.loader import Loader

from .evaluate import Batches, evaluate, mode, recalibrated_bn
from .flops import CostTable
from .runlog import log
from .space import Arch, format_arch
from .supernet import SuperNet


@dataclass(frozen=True)
class Candidate:
    """A path with the supernet's weights: accuracy in percent, cost in millions."""

    arch: Arch
    prec1: float
    prec5: float
    loss: float
    mflops: float
    mparams: float


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
        with recalibrated_bn(net, predict, train, batches), mode(net, training=False):
            found = evaluate(predict, val)
        candidates.append(Candidate(arch, mflops=mflops(arch), mparams=mparams(arch), **found))
        log.info("candidate %s: top-1 %.2f%%, %.1f MFLOPs", format_arch(arch), found["prec1"], mflops(arch))
    return sorted(candidates, key=lambda candidate: (-candidate.prec1, candidate.mflops))


def write_result(folder: Path, candidates: list[Candidate], resolution: int, num_classes: int) -> None:
    """Writes the best candidate as ``architecture.json`` and all, best first, as ``candidates.csv``."""
    rows = [{**vars(candidate), "arch": format_arch(candidate.arch)} for candidate in candidates]
    best = {**rows[0], "arch": candidates[0].arch, "resolution": resolution, "num_classes": num_classes}
    (folder / "architecture.json").write_text(json.dumps(best, indent=2) + "\n")
    with open(folder / "candidates.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
