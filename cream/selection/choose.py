"""The selection of a path of a trained supernet, and the files that are written for the selected net."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Callable

import numpy as np
from paddle import nn

from cream import typed
from cream.selection.candidates import (
    Candidate,
    Constraint,
    best_inside,
    score,
    violations,
    write_architecture,
    write_candidates,
)
from cream.selection.shared_scoring import KeptBatches, shares_work
from cream.space import Arch, format_arch
from cream.train.board import PrioritizedBoard
from cream.train.evaluation import Batches, recalibrated_bn
from cream.train.sampler import Sampler
from cream.train.search_net import SearchNet
from pimm.data.loader import Loader
from pimm.errors import ConfigError
from pimm.utils import is_main_process, save_arrays, write_text

_logger = logging.getLogger(__name__)

DRAWS_PER_PATH = 100
WITH_ESTIMATE = "loss_and_estimate"
WEIGHTS = "architecture.pdparams"


@dataclass(frozen=True)
class Selection:
    """Selects the best path of a supernet under constraints, and writes the files of the selected net.

    Args:
        searched: the supernet with its trained weights.
        constraints: the constraints on the selected path.
        sampler: draws the random paths.
        random_paths: number of random paths that are scored beside the board's paths.
        seed: the seed of these draws.
        train: loader of the training batches that recalibrate batch norm.
        loader: loader of the images that paths are scored on.
        scored_on: a description of these images.
        batches: number of recalibration batches.
        by: the metric that ranks the candidates: ``prec1`` or ``loss``, or WITH_ESTIMATE for the sum of the loss and
            its estimate.
        engine: how paths are scored, see ``cream.selection.candidates.score``.
        num_classes: number of classes.
        child: builds the single net of a path.
        retrain_yaml: returns the settings that retrain a path, as YAML text.
    """

    searched: SearchNet
    constraints: Sequence[Constraint]
    sampler: Sampler
    random_paths: int
    seed: int
    train: Loader
    loader: Batches
    scored_on: str
    batches: int
    by: str
    engine: str
    num_classes: int
    child: Callable[[Arch], nn.Layer]
    retrain_yaml: Callable[[Arch], str]

    def select(
        self, board: PrioritizedBoard | None, folder: Path, estimate: Callable[[Arch], float] | None = None
    ) -> Candidate:
        """Score the board's paths and random ones, and return the best candidate that satisfies all constraints.

        Writes the files of ``write_selected``. The arguments are those of ``paths_to_score``, and the folder.

        Raises:
            ConfigError: no candidate satisfies all constraints, or there is no estimate to rank by.
        """
        if self.by == WITH_ESTIMATE and estimate is None:
            raise ConfigError(f"SUPERNET.SELECT_BY={self.by} needs a search with SUPERNET.ESTIMATE=True")
        archs = self.paths_to_score(board, estimate)
        _logger.info("selecting among %d paths on %s", len(archs), self.scored_on)
        candidates = self.score(archs)
        if estimate is not None:
            candidates = [replace(candidate, estimate=estimate(candidate.arch)) for candidate in candidates]
        if self.by == WITH_ESTIMATE:
            candidates.sort(key=lambda candidate: candidate.loss + candidate.estimate)
        for place, candidate in enumerate(candidates, start=1):
            _logger.info(
                "candidate %d/%d %s: top-1 %.2f%%, %s%.1f MFLOPs",
                *(place, len(candidates), format_arch(candidate.arch), candidate.prec1),
                *(self._losses_that_rank(candidate), candidate.mflops),
            )
        return self.write_selected(candidates, folder)

    def _losses_that_rank(self, candidate: Candidate) -> str:
        if self.by == WITH_ESTIMATE:
            return f"loss {candidate.loss:.4f} and estimate {candidate.estimate:.4f}, "
        return f"loss {candidate.loss:.4f}, " if self.by == "loss" else ""

    def paths_to_score(
        self, board: PrioritizedBoard | None, estimate: Callable[[Arch], float] | None = None
    ) -> list[Arch]:
        """Return the board's paths, and up to ``random_paths`` random ones that satisfy the constraints.

        Args:
            board: the board, if the search has one.
            estimate: the estimated loss of a path: the random paths are then the best of many times as many.

        Raises:
            ConfigError: there are no such paths.
        """
        rng = np.random.default_rng([self.seed, 3])
        archs = [entry.arch for entry in board.entries] if board else []
        wanted = self.random_paths * (1 if estimate is None else DRAWS_PER_PATH)
        drawn: dict[Arch, None] = {}
        for _ in range(DRAWS_PER_PATH * self.random_paths):
            if len(drawn) == wanted:
                break
            arch = self.sampler(rng)
            if arch not in archs and not violations(arch, self.constraints):
                drawn[arch] = None
        archs += list(drawn) if estimate is None else sorted(drawn, key=estimate)[: self.random_paths]
        if not archs:
            raise ConfigError(
                "there is no path to select: the board is empty, and SUPERNET.SELECT_RANDOM="
                f"{self.random_paths} found none that satisfies the constraints"
            )
        return archs

    def score(self, archs: Iterable[Arch]) -> list[Candidate]:
        """Return the paths as candidates, with their accuracies after recalibration, the best first.

        WITH_ESTIMATE ranks them by their losses alone.
        """
        searched, by = self.searched, "loss" if self.by == WITH_ESTIMATE else self.by
        images = self.kept_images if shares_work(searched.net, self.engine) else (self.train, self.loader)
        return score(searched.net, archs, searched.tables, *images, self.batches, by, self.engine)

    @cached_property
    def kept_images(self) -> tuple[KeptBatches, KeptBatches]:
        """The batches for recalibration and those for scores, decoded once for all calls of ``score``."""
        return KeptBatches(self.train, self.batches), KeptBatches(self.loader)

    def write_selected(self, candidates: Sequence[Candidate], folder: Path) -> Candidate:
        """Write the files of a selection, and return the best candidate that satisfies all constraints.

        The files are ``candidates.csv`` with all candidates, ``architecture.json``, ``retrain.yaml``, and
        ``architecture.pdparams`` with the supernet's weights for the selected net.

        Args:
            candidates: the best first.
            folder: where the files go.

        Raises:
            ConfigError: no candidate satisfies all constraints.
        """
        if is_main_process():
            write_candidates(folder, candidates, self.constraints, self.scored_on)
        best = best_inside(candidates, self.constraints)
        weights = self.inherited_weights(best.arch)
        if is_main_process():
            facts = {
                "resolution": self.searched.resolution,
                "num_classes": self.num_classes,
                "scored_on": self.scored_on,
            }
            write_architecture(folder, best, self.constraints, **facts)
            recipe = folder / "retrain.yaml"
            write_text(recipe, self.retrain_yaml(best.arch))
            save_arrays(folder / WEIGHTS, weights)
            _logger.info("the net is trained by: %s --cfg %s", typed.command("retrain"), shlex.quote(str(recipe)))
        return best

    def inherited_weights(self, arch: Arch) -> dict:
        """Return the state of one path's single net: the supernet's weights and recalibrated batch-norm statistics."""
        child, net = self.child(arch), self.searched.net
        self.train.set_epoch(0)
        with recalibrated_bn(net, lambda x: net(x, arch), self.train, self.batches):
            child.inherit(net)
        return child.state_dict()
