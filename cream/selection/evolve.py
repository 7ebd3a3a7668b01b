"""Evolution over a trained supernet: every path is scored as a search scores its candidates, by one process each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

import numpy as np
import paddle

from cream.build.build import (
    SearchNet,
    retrain_recipe,
    run_folder,
    search_net,
    selection_loader,
    settings_of_search,
    trained_search,
    training_loader,
    write_config,
    write_text,
)
from cream.config.rules import check_selectable
from cream.config.schema import Config
from cream.selection.candidates import Candidate, best_inside, complaints, score
from cream.selection.choose import limits_of, write_choice
from cream.selection.evolution import best_paths, evolve, unscored
from cream.space import Arch, SearchSpace, format_arch, parse_arch
from cream.train.runlog import RunLog, log
from cream.train.sampler import Sampler
from pimm.errors import CheckpointError, ConfigError
from pimm.models import load_checkpoint
from pimm.utils import (
    all_reduce_sum,
    atomic_file,
    barrier,
    file_sha256,
    is_main_process,
    latest_checkpoint,
    rank,
    single_process,
    world_size,
)
from pimm.utils.checkpoint import MODEL, read_manifest

STATE = "evolution.json"
FINAL = "architecture_final.json"  # NNI's name and form
GENERATIONS = "generations"  # folder of the best paths of each
CONVERGENCE = "convergence.png"
METRICS = ("prec1", "prec5", "loss", "mflops", "mparams")


# The supernet


def supernet_of_search(folder: Path, overrides: Sequence[str] = ()) -> tuple[SearchNet, str]:
    """The supernet of a search's folder, and the hash of its weights."""
    _, searched, _ = trained_search(folder, overrides)
    return searched, read_manifest(latest_checkpoint(folder))["files"][MODEL]["sha256"]


def given_supernet(cfg: Config) -> tuple[SearchNet, str]:
    """The supernet that was trained by these settings, or with weights of NET.INITIAL_WEIGHTS; and their hash.

    Raises CheckpointError where there is neither, and ConfigError where it was trained by other settings.
    """
    folder, weights = run_folder(cfg), cfg.NET.INITIAL_WEIGHTS
    if latest_checkpoint(folder):
        recorded, _ = settings_of_search(folder)
        check_selectable(recorded, cfg)
        return supernet_of_search(folder)
    if not weights:
        raise CheckpointError(f"{folder} holds no search, and NET.INITIAL_WEIGHTS names no weights of a supernet")
    searched = search_net(cfg)
    load_checkpoint(searched.net, weights)
    return searched, hash_of(Path(weights))


def hash_of(weights: Path) -> str:
    """The SHA-256 of a file of weights, or of those in a checkpoint's folder."""
    return file_sha256(weights / MODEL if weights.is_dir() else weights)


# The search


def evolve_paths(cfg: Config, searched: SearchNet, weights: str, run: RunLog) -> Candidate:
    """Evolution as ``cfg.EVOLUTION`` says, from the state in the run's folder if there is one; the best path.

    ``weights`` is the hash of the supernet's. Writes what ``cream.jobs.evolve`` says. Raises ConfigError if the folder
    holds an evolution by other settings, and where no path keeps the limits.
    """
    folder, space = run.folder, searched.space
    retrain_recipe(cfg)  # a mistake in it must not wait for the end
    limits = limits_of(cfg, searched)
    sampler = Sampler(space, searched.mflops, limits[0].least, limits[0].most)
    with single_process():  # each process reads all images
        train = training_loader(cfg, searched.resolution)
        images, scored_on = selection_loader(cfg, searched.resolution)

    def score_path(arch: Arch) -> Mapping[str, float]:
        (found,) = score(searched.net, [arch], searched.tables, train, images, cfg.SUPERNET.SELECT_BATCHES)
        return {name: getattr(found, name) for name in METRICS}

    settings = settings_of_evolution(cfg, weights)
    state = read_state(folder / STATE, settings)
    barrier()  # before anyone writes it
    record = Record(folder, settings, space, cfg.EVOLUTION.TOP)
    numbers = {name.lower(): value for name, value in vars(cfg.EVOLUTION).items()}
    state = evolve(
        space,
        lambda archs: shared_out(archs, score_path),
        lambda arch: not complaints(arch, limits),
        np.random.default_rng([cfg.SEED, 5]),
        **numbers,
        sample=sampler,
        state=state,
        save=record,
    )
    candidates = [Candidate(arch, **state["scores"][format_arch(arch)]) for arch in best_paths(state)]
    best = best_inside(candidates, limits)
    if is_main_process():
        record.export(state)
        named = replace(cfg, MODEL=f"{cfg.MODEL}_evolution")  # the search's own choice keeps its name
        with single_process():
            write_choice(named, searched, candidates, limits, train, scored_on, folder)
        write_text(folder / FINAL, space.to_nni_json(best.arch))
        write_config(cfg, folder)
    run.report(searched, len(state["generations"]))
    barrier()
    return best


def shared_out(
    archs: Sequence[Arch], score_path: Callable[[Arch], Mapping[str, float]]
) -> Iterator[Mapping[str, float]]:
    """The metrics of paths in turn, on all processes; as many as there are processes are scored at a time."""
    for start in range(0, len(archs), world_size()):
        part = archs[start : start + world_size()]
        rows = np.zeros((world_size(), len(METRICS)))
        if rank() < len(part):
            number = rank()
            with single_process():
                found = score_path(part[number])
            rows[number] = [found[name] for name in METRICS]
        barrier()
        rows = all_reduce_sum(paddle.to_tensor(rows)).numpy()
        yield from (dict(zip(METRICS, row.tolist())) for row in rows[: len(part)])


# What is kept of it


def settings_of_evolution(cfg: Config, weights: str) -> dict:
    """All that the course of an evolution depends on but for its length, as plain data."""
    limits = ("FLOPS_MINIMUM", "FLOPS_MAXIMUM", "PARAMS_MAXIMUM", "LATENCY_MAXIMUM")
    scoring = ("SELECT_BATCHES", "SELECT_ON", "HELD_OUT")
    return {
        "weights": weights,
        "SEED": cfg.SEED,
        "DATASET.BATCH_SIZE": cfg.DATASET.BATCH_SIZE,
        "SUPERNET.LATENCY_TABLE": cfg.SUPERNET.LATENCY_TABLE and hash_of(Path(cfg.SUPERNET.LATENCY_TABLE)),
        **{f"SUPERNET.{name}": getattr(cfg.SUPERNET, name) for name in (*limits, *scoring)},
        **{f"EVOLUTION.{name}": value for name, value in vars(cfg.EVOLUTION).items() if name != "GENERATIONS"},
    }


def read_state(path: Path, settings: Mapping) -> dict | None:
    """The state that ``path`` holds, None if there is no such file.

    Raises ConfigError if the evolution in it has other settings, CheckpointError if it is none.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known, state = content["settings"], content["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not the state of an evolution: {error!r}") from None
    changed = [
        f"{name} was {known.get(name)} and is {value}" for name, value in settings.items() if known.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"{path} is of other settings: {', '.join(changed)}; choose another place (--output), or remove it"
        )
    return state


class Record:
    """Writes the state of an evolution after every path, and what there is to show after every generation."""

    def __init__(self, folder: Path, settings: Mapping, space: SearchSpace, top: int):
        self.folder, self.settings, self.space, self.top = folder, settings, space, top

    def __call__(self, state: Mapping) -> None:
        if not is_main_process():
            return
        write_text(self.folder / STATE, json.dumps({"settings": self.settings, "state": state}) + "\n")
        if not unscored(state):
            self.export(state)
            number = len(state["generations"]) - 1
            best = best_paths(state)[0]
            metrics = state["scores"][format_arch(best)]
            log.info(
                "generation %d: %d paths, best so far %s: top-1 %.2f%%, %.1f MFLOPs",
                number, len(state["generations"][-1]), format_arch(best), metrics["prec1"], metrics["mflops"],
            )  # fmt: skip

    def export(self, state: Mapping) -> None:
        """The best paths up to each generation as ``GENERATION_PLACE.json``, and how they improved as a picture."""
        (self.folder / GENERATIONS).mkdir(exist_ok=True)
        for number in range(len(state["generations"])):
            for place, arch in enumerate(best_paths(state, number)[: self.top]):
                path = self.folder / GENERATIONS / f"{number:03d}_{place:03d}.json"
                if not path.exists():
                    write_text(path, self.space.to_nni_json(arch))
        self.plot(state)

    def plot(self, state: Mapping) -> None:
        """``convergence.png``: what each generation met, its parents among it."""
        from cream.report.figures import Point, population_over_time  # brings matplotlib, which takes a second

        def point(arch: Arch) -> Point:
            metrics = state["scores"][format_arch(arch)]
            return Point(metrics["mflops"], metrics["prec1"])

        populations = {}
        for number, members in enumerate(state["generations"]):
            parents = best_paths(state, number - 1)[: self.top] if number else []
            populations[number] = [point(arch) for arch in [*parents, *map(parse_arch, members)]]
        with atomic_file(self.folder / CONVERGENCE) as file:
            population_over_time(populations, "generation").savefig(file, format="png", dpi=150, facecolor="white")
