"""Evolution over a trained supernet; the processes of a launch share the paths to score."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable

import numpy as np
import paddle

from cream.selection.candidates import ORDERS, Candidate, best_inside, violations
from cream.selection.choose import Selection
from cream.selection.evolution import best_paths, evolve, unscored
from cream.selection.shared_scoring import PATHS_AT_ONCE, shares_work
from cream.space import Arch, SearchSpace, format_arch, parse_arch
from cream.train.sampler import Sampler
from pimm.errors import CheckpointError, ConfigError
from pimm.messages import changes
from pimm.utils import (
    all_reduce_sum,
    atomic_file,
    barrier,
    is_main_process,
    rank,
    single_process,
    world_size,
    write_text,
)

_logger = logging.getLogger(__name__)

STATE = "evolution.json"
FINAL = "architecture_final.json"  # NNI's name and format
GENERATIONS = "generations"  # folder with the best paths of each generation
CONVERGENCE = "convergence.png"
METRICS = ("prec1", "prec5", "loss", "mflops", "mparams")


def evolve_paths(
    selection: Selection, numbers: Mapping[str, float], seed: int, settings: Mapping, folder: Path
) -> tuple[Candidate, int]:
    """Evolve paths from the state in the folder, if there is one; return the best path and the number of generations.

    Writes ``evolution.json``, from which the same call resumes, and the files of the selected net.

    Args:
        selection: scores a path, holds the constraints, and writes the files of the selected net.
        numbers: arguments of ``evolve``: population, top, crossover, mutation, mutation_probability, generations.
        seed: the seed of the evolution.
        settings: the settings that a resumed evolution must share with the interrupted one, as plain data.
        folder: folder of all results.

    Raises:
        ConfigError: the folder holds an evolution with other settings, or no path satisfies the constraints.
    """
    if selection.by not in ORDERS:
        raise ConfigError(f"SUPERNET.SELECT_BY={selection.by} ranks no evolution; must be {' or '.join(ORDERS)}")
    searched, constraints = selection.searched, selection.constraints
    flops = constraints[0]

    def score_paths(archs: Sequence[Arch]) -> list[list[float]]:
        found = {candidate.arch: candidate for candidate in selection.score(archs)}
        return [[getattr(found[arch], name) for name in METRICS] for arch in archs]

    with single_process():  # each process scores paths of its own
        at_once = PATHS_AT_ONCE if shares_work(searched.net, selection.engine) else 1
    state = read_state(folder / STATE, settings, searched.mflops)
    barrier()  # all processes read the state before the first one writes it
    record = Record(folder, settings, searched.space, numbers["top"])
    state = evolve(
        searched.space,
        lambda archs: shared_out(archs, score_paths, at_once),
        lambda arch: not violations(arch, constraints),
        np.random.default_rng([seed, 5]),
        **numbers,
        by=selection.by,
        sample=Sampler(searched.space, searched.mflops, flops.least, flops.most),
        state=state,
        save=record,
    )
    candidates = [Candidate(arch, **state["scores"][format_arch(arch)]) for arch in best_paths(state)]
    best = best_inside(candidates, constraints)
    if is_main_process():
        record.export(state)
        with single_process():
            selection.write_selected(candidates, folder)
        write_text(folder / FINAL, searched.space.to_nni_json(best.arch))
    return best, len(state["generations"])


def shared_out(
    archs: Sequence[Arch], score_paths: Callable[[Sequence[Arch]], Sequence[Sequence[float]]], at_once: int
) -> Iterator[Mapping[str, float]]:
    """Yield the metrics of paths, in their order and in all processes.

    Args:
        archs: the paths.
        score_paths: returns the values of METRICS for each of some paths.
        at_once: how many paths a process scores before all processes exchange their results.
    """
    step = at_once * world_size()
    for start in range(0, len(archs), step):
        part = archs[start : start + step]
        share = math.ceil(len(part) / world_size())
        mine = slice(rank() * share, (rank() + 1) * share)
        rows = np.zeros((len(part), len(METRICS)))
        if part[mine]:
            with single_process():
                rows[mine] = score_paths(part[mine])
        barrier()
        rows = all_reduce_sum(paddle.to_tensor(rows)).numpy()
        yield from (dict(zip(METRICS, row.tolist())) for row in rows)


# The saved state of an evolution


def read_state(path: Path, settings: Mapping, mflops: Callable[[Arch], float]) -> dict | None:
    """Return the state of an evolution in a file, or None if there is no such file.

    Args:
        path: the file.
        settings: the settings that the evolution must have.
        mflops: the cost of a path, which must be that in the file.

    Raises:
        ConfigError: the evolution in the file has other settings, or paths had other costs.
        CheckpointError: the file holds no evolution.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known, state = content["settings"], content["state"]
        recorded = {name: value for name, value in settings.items() if name in {"weights", *known}}
        changed = changes(known, recorded)  # an earlier version recorded fewer settings
        costs = {arch: (found["mflops"], mflops(parse_arch(arch))) for arch, found in state["scores"].items()}
        unscored(state), state["rng"]["state"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not the state of an evolution: {error!r:.200}") from None
    other = [each for each, (before, now) in costs.items() if not math.isclose(before, now, rel_tol=1e-6)]
    if other and not changed:  # another image size, for example
        before, now = costs[other[0]]
        changed = [f"path {other[0]:.100} cost {before:.6g} MFLOPs and costs {now:.6g}"]
    if changed:
        raise ConfigError(
            f"{path} belongs to an evolution with other settings: {', '.join(changed)}; "
            "give another place (--output), or remove the file"
        )
    return state


class Record:
    """Writes the state of an evolution after every path, and its best paths and a picture after every generation."""

    def __init__(self, folder: Path, settings: Mapping, space: SearchSpace, top: int):
        self.folder, self.settings, self.space, self.top = folder, settings, space, top

    def __call__(self, state: Mapping) -> None:
        """Write the state, and after the last path of a generation also the best paths and the picture."""
        if not is_main_process():
            return
        write_text(self.folder / STATE, json.dumps({"settings": self.settings, "state": state}) + "\n")
        if not unscored(state):
            self.export(state)
            number = len(state["generations"]) - 1
            best = best_paths(state)[0]
            metrics = state["scores"][format_arch(best)]
            _logger.info(
                "generation %d: %d paths, best so far %s: top-1 %.2f%%, %.1f MFLOPs",
                *(number, len(state["generations"][-1]), format_arch(best), metrics["prec1"], metrics["mflops"]),
            )

    def export(self, state: Mapping) -> None:
        """Write the best paths up to each generation as ``GENERATION_PLACE.json``, and a picture of all generations."""
        (self.folder / GENERATIONS).mkdir(exist_ok=True)
        for number in range(len(state["generations"])):
            for place, arch in enumerate(best_paths(state, number)[: self.top]):
                path = self.folder / GENERATIONS / f"{number:03d}_{place:03d}.json"
                if not path.exists():
                    write_text(path, self.space.to_nni_json(arch))
        self.plot(state)

    def plot(self, state: Mapping) -> None:
        """Draw ``convergence.png``: the paths of each generation and their parents."""
        from cream.report.figures import Point, population_over_time  # imports matplotlib, which takes a second

        def point(arch: Arch) -> Point:
            metrics = state["scores"][format_arch(arch)]
            return Point(metrics["mflops"], metrics["prec1"])

        populations = {}
        for number, members in enumerate(state["generations"]):
            parents = best_paths(state, number - 1)[: self.top] if number else []
            populations[number] = [point(arch) for arch in [*parents, *map(parse_arch, members)]]
        with atomic_file(self.folder / CONVERGENCE) as file:
            population_over_time(populations, "generation").savefig(file, format="png", dpi=150, facecolor="white")
