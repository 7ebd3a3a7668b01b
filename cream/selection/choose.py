"""How a path of a trained supernet is selected, and the files that are left of the selected net."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from paddle import nn

from cream.selection.candidates import (
    Candidate,
    Constraint,
    best_inside,
    score,
    violations,
    write_architecture,
    write_candidates,
)
from cream.space import Arch
from cream.train.board import PrioritizedBoard
from cream.train.evaluation import Batches, recalibrated_bn
from cream.train.sampler import Sampler
from cream.train.search_net import SearchNet
from pimm.data.loader import Loader
from pimm.errors import ConfigError
from pimm.utils import is_main_process, save_arrays, write_text

_logger = logging.getLogger(__name__)

DRAWS_PER_PATH = 100
WEIGHTS = "architecture.pdparams"


@dataclass(frozen=True)
class Selection:
    """Selects the net among paths of a supernet, and hands it on.

    Args:
        searched: the supernet with its trained weights.
        constraints: what the selected path may cost.
        sampler: draws the random paths.
        random_paths: how many of them are scored beside the board's paths.
        seed: of these draws.
        train: loader of the batches that recalibrate batch norm, ``batches`` of them.
        loader: loader of the images that paths are scored on, which ``scored_on`` says in words.
        batches: number of recalibration batches.
        num_classes: number of classes.
        child: builds the single net of a path.
        retrain_yaml: writes the settings by which a path is retrained, as YAML text.
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
    num_classes: int
    child: Callable[[Arch], nn.Layer]
    retrain_yaml: Callable[[Arch], str]

    def select(self, board: PrioritizedBoard | None, folder: Path) -> Candidate:
        """Score the board's paths and random ones, and return the best that satisfies all constraints.

        Writes ``candidates.csv`` with all of them, and the files of ``write_selected``.

        Raises:
            ConfigError: no path satisfies all constraints.
        """
        archs = self.paths_to_score(board)
        _logger.info("selecting among %d paths on %s", len(archs), self.scored_on)
        return self.write_selected(self.score(archs), folder)

    def paths_to_score(self, board: PrioritizedBoard | None) -> list[Arch]:
        """Return the board's paths, and ``random_paths`` drawn ones that satisfy the constraints.

        Raises:
            ConfigError: there are none.
        """
        rng = np.random.default_rng([self.seed, 3])
        archs = [entry.arch for entry in board.entries] if board else []
        wanted = len(archs) + self.random_paths
        for _ in range(DRAWS_PER_PATH * self.random_paths):
            if len(archs) == wanted:
                break
            arch = self.sampler(rng)
            if arch not in archs and not violations(arch, self.constraints):
                archs.append(arch)
        if not archs:
            raise ConfigError(
                "there is no path to select: the board is empty, and SUPERNET.SELECT_RANDOM="
                f"{self.random_paths} found none inside the limits"
            )
        return archs

    def score(self, archs: Iterable[Arch]) -> list[Candidate]:
        """Return the paths with their accuracy after recalibration, the best first."""
        searched = self.searched
        return score(searched.net, archs, searched.tables, self.train, self.loader, self.batches)

    def write_selected(self, candidates: Sequence[Candidate], folder: Path) -> Candidate:
        """Return the best candidate that satisfies all constraints, after its files are written.

        These are ``candidates.csv`` with all candidates, ``architecture.json``, ``retrain.yaml``, and
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
            _logger.info("the net is trained by: python tools/retrain.py --cfg %s", shlex.quote(str(recipe)))
        return best

    def inherited_weights(self, arch: Arch) -> dict:
        """Return the state of one path's net with the supernet's weights, and its recalibrated batch norm."""
        child, net = self.child(arch), self.searched.net
        self.train.set_epoch(0)
        with recalibrated_bn(net, lambda x: net(x, arch), self.train, self.batches):
            child.inherit(net)
        return child.state_dict()
