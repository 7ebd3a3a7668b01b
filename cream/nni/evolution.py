"""Evolution over a trained supernet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cream.nni.loop import Batches
from cream.nni.paths import Cost, Found, checked, path_cost, path_parameters
from cream.selection.candidates import Candidate, score
from cream.selection.evolution import best_paths, evolve
from cream.selection.evolve import read_state
from cream.space import Arch, format_arch
from cream.supernet import SuperNet
from pimm.utils import is_main_process, write_text


class SPOSEvolution(Found):
    """Searches a trained supernet by evolution (SPOS, algorithm 1): SPOS's or Cream's.

    ``max_epochs`` generations of ``num_population`` paths; the ``num_select`` best of all so far have ``num_mutation``
    mutants, each choice drawn anew with probability ``m_prob``, and ``num_crossover`` crosses. No path costs more than
    ``flops_limit``, which is in the unit of ``flops_func``, or in millions where there is none. Where ``file`` names a
    JSON file, every scored path is saved in it, and an evolution that finds it goes on to the same end: ConfigError if
    it is of another one, of other weights among them.
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
        self.seed, self.file = seed, None if file is None else Path(file)

    def search(
        self,
        model: SuperNet,
        train_loader: Iterable,
        valid_loader: Iterable,
        *,
        resolution: int | None = None,
        select_batches: int = 32,
    ) -> list[Candidate]:
        """All paths that were met, best first, also kept as ``candidates``.

        Each is scored on all validation images after ``select_batches`` training batches recalibrated batch norm.
        FLOPs are counted at ``resolution`` pixels unless there is a ``flops_func``.
        """
        self.space = checked(model).space
        loaders = Batches(train_loader), Batches(valid_loader)
        flops = self.flops_func or path_cost(model, resolution)
        costs = flops, partial(path_parameters, model)

        def score_each(archs: Sequence[Arch]) -> Iterator[dict]:
            for arch in archs:
                (found,) = score(model, [arch], costs, *loaders, select_batches)
                yield {name: value for name, value in vars(found).items() if name != "arch"}

        self.settings = self.settings_of(model, select_batches)
        state = evolve(
            self.space,
            score_each,
            lambda arch: flops(arch) <= self.flops_limit,
            np.random.default_rng([self.seed, 5]),
            **self.numbers,
            state=read_state(self.file, self.settings) if self.file else None,
            save=self.save,
        )
        self.candidates = [Candidate(arch, **state["scores"][format_arch(arch)]) for arch in best_paths(state)]
        return self.candidates

    def settings_of(self, model: SuperNet, select_batches: int) -> dict:
        """What an evolution that goes on must have in common with what it was, as plain data."""
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
        """Writes the state into ``file``, if there is one."""
        if self.file and is_main_process():
            write_text(self.file, json.dumps({"settings": self.settings, "state": state}))
