"""Evolution over a trained supernet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cream.flops import CostTable
from cream.nni.loop import Batches
from cream.nni.paths import Cost, Found, checked, path_cost, path_parameters
from cream.selection.candidates import Candidate, score
from cream.selection.evolution import best_paths, evolve
from cream.selection.evolve import read_state
from cream.selection.shared_scoring import PATHS_AT_ONCE, shares_work
from cream.space import Arch, format_arch
from cream.supernet import SuperNet
from cream.train.sampler import Sampler
from pimm.utils import is_main_process, write_text


class SPOSEvolution(Found):
    """Searches a trained supernet, SPOS's or Cream's, by evolution (SPOS, algorithm 1).

    Args:
        max_epochs: number of generations.
        num_select: number of parents: the best paths of all generations so far.
        num_population: number of paths in a generation.
        m_prob: probability that a mutation draws a choice anew.
        num_crossover: number of crosses in a generation.
        num_mutation: number of mutants in a generation.
        flops_limit: the most that a path may cost, in the unit of ``flops_func``, or in millions without one.
        flops_func: the cost of a path.
        seed: the seed of the evolution.
        file: JSON file in which every scored path is saved, and from which an interrupted evolution resumes;
            ConfigError if it belongs to another evolution, for example with other weights or costs.
    """

    def __init__(
        self,
        max_epochs: int = 20,
        num_select: int = 10,
        num_population: int = 50,
        m_prob: float = 0.1,
        num_crossover: int = 25,
        num_mutation: int = 25,
        flops_limit: float = math.inf,
        *,
        flops_func: Cost | None = None,
        seed: int = 42,
        file: str | Path | None = None,
    ):
        self.numbers = {
            "generations": max_epochs,
            "top": num_select,
            "population": num_population,
            "mutation_probability": m_prob,
            "crossover": num_crossover,
            "mutation": num_mutation,
        }
        self.flops_limit, self.flops_func = flops_limit, flops_func
        self.seed, self.file = seed, Path(file) if file else None

    def search(
        self,
        model: SuperNet,
        train_loader: Iterable,
        valid_loader: Iterable,
        *,
        resolution: int | None = None,
        select_batches: int = 32,
    ) -> list[Candidate]:
        """Evolve paths, and return all scored paths, the best first; ``candidates`` keeps them.

        Args:
            model: the trained supernet.
            train_loader: batches that recalibrate batch norm.
            valid_loader: batches of the images that paths are scored on.
            resolution: side of the images in pixels, at which FLOPs are counted unless there is a ``flops_func``.
            select_batches: number of recalibration batches.

        Raises:
            ConfigError: no path satisfies ``flops_limit``.
        """
        self.space = checked(model).space
        loaders = Batches(train_loader), Batches(valid_loader)
        at_once = PATHS_AT_ONCE if shares_work(model, "auto") else 1
        flops = self.flops_func or path_cost(model, resolution)
        costs = flops, partial(path_parameters, model)

        def score_each(archs: Sequence[Arch]) -> Iterator[dict]:
            for start in range(0, len(archs), at_once):
                part = archs[start : start + at_once]
                found = {one.arch: vars(one) for one in score(model, part, costs, *loaders, select_batches)}
                for arch in part:
                    yield {name: value for name, value in found[arch].items() if name != "arch"}

        self.settings = self.settings_of(model, select_batches)
        state = evolve(
            self.space,
            score_each,
            lambda arch: flops(arch) <= self.flops_limit,
            np.random.default_rng([self.seed, 5]),
            **self.numbers,
            sample=self.sampler_below_limit(flops),
            state=read_state(self.file, self.settings, flops) if self.file else None,
            save=self.save,
        )
        self.candidates = [Candidate(arch, **state["scores"][format_arch(arch)]) for arch in best_paths(state)]
        return self.candidates

    def sampler_below_limit(self, flops: Cost) -> Sampler | None:
        """Return a sampler of the paths within ``flops_limit``, or None where only trials can find them."""
        if math.isinf(self.flops_limit) or not isinstance(flops, CostTable):
            return None
        return Sampler(self.space, flops, flops.least, self.flops_limit)

    def settings_of(self, model: SuperNet, select_batches: int) -> dict:
        """Return the settings that a resumed evolution must share with the interrupted one, as plain data."""
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        numbers = {name: value for name, value in self.numbers.items() if name != "generations"}
        limit = None if math.isinf(self.flops_limit) else self.flops_limit
        return {
            "weights": digest.hexdigest(),
            **numbers,
            "flops_limit": limit,
            "seed": self.seed,
            "select_batches": select_batches,
        }

    def save(self, state: dict) -> None:
        """Write the state into ``file``, if there is one."""
        if self.file and is_main_process():
            write_text(self.file, json.dumps({"settings": self.settings, "state": state}))
