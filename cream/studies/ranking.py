"""Rank correlation: do nets rank by a supernet's weights as they do when each is trained from scratch?

The experiment of Cream's section 4.2. Each finished piece of it is a file of its own, so that a kill costs little, any
number of processes share the work, and another supernet of the same space can be compared later.
"""

from __future__ import annotations

import copy
import fcntl
import functools
import itertools
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from scipy.stats import rankdata

from cream import jobs
from cream.build.build import SearchNet, retrain_config_for, selection_loader, trained_search, training_loader
from cream.config.keys import resume_settings
from cream.config.schema import Config
from cream.selection.candidates import score
from cream.space import Arch, format_arch
from cream.train.runlog import RunLog, log
from cream.train.sampler import DRAWS_A_PATH, Sampler
from pimm.errors import ConfigError
from pimm.utils import atomic_file, latest_checkpoint, single_process, write_csv, write_text
from pimm.utils.checkpoint import MODEL, read_manifest

RESAMPLES = 2000
CONFIDENCE = 0.95


# Statistics


@dataclass(frozen=True)
class Correlation:
    """A coefficient and its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def as_json(self) -> dict[str, float | None]:
        """The numbers by name; JSON has no NaN, so that one is null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


def correlate(predicted: Sequence[float], true: Sequence[float], seed: int = 0) -> dict[str, Correlation]:
    """Kendall's tau-b, Spearman's rho and Pearson's r of two lists, each with a 95% interval.

    The interval is the percentile bootstrap over pairs; resamples in which one side is constant have no coefficient
    and are left out. NaN where a list itself is constant.
    """
    resampled = resample(predicted, true, seed)
    return {name: Correlation(values[0], *_percentiles(values[1:])) for name, values in resampled.items()}


def compare(
    first: Sequence[float], second: Sequence[float], true: Sequence[float], seed: int = 0
) -> dict[str, Correlation]:
    """By how much the coefficients of ``first`` exceed those of ``second``, resampled together, as ``correlate``."""
    pairs = zip(resample(first, true, seed).items(), resample(second, true, seed).values())
    return {name: Correlation((a - b)[0], *_percentiles((a - b)[1:])) for (name, a), b in pairs}


def resample(predicted: Sequence[float], true: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Each coefficient of two lists, followed by those of RESAMPLES draws of their pairs, the same for a seed."""
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    draws = np.random.default_rng(seed).integers(len(true), size=(RESAMPLES, len(true)))
    parts = [np.arange(len(true))[None], *np.array_split(draws, 50)]  # in parts, for Kendall's compares all pairs
    with np.errstate(invalid="ignore"):  # 0 / 0 of what is constant
        return {
            name: np.concatenate([function(predicted[part], true[part]) for part in parts])
            for name, function in COEFFICIENTS.items()
        }


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tau-b of pairs [..., n]: concordant pairs less discordant ones, by the pairs that are not tied in x, and in y."""
    x, y = (np.sign(side[..., :, None] - side[..., None, :]) for side in (x, y))
    return (x * y).sum((-2, -1)) / np.sqrt(np.abs(x).sum((-2, -1)) * np.abs(y).sum((-2, -1)))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rho of pairs [..., n]: Pearson's r of the ranks."""
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """R of pairs [..., n]."""
    x, y = (side - side.mean(-1, keepdims=True) for side in (x, y))
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


COEFFICIENTS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "kendall": kendall,
    "spearman": spearman,
    "pearson": pearson,
}


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


# Which paths


def uniform(sampler: Sampler, rng: np.random.Generator, n: int) -> list[Arch]:
    """The first n different paths that are drawn, or as many as come soon."""
    drawn: dict[Arch, None] = {}
    for _ in range(DRAWS_A_PATH * n):
        if len(drawn) < n:
            drawn[sampler(rng)] = None
    return list(drawn)


PATHS: Mapping[str, Callable[[Sampler, np.random.Generator, int], list[Arch]]] = {
    "spread": Sampler.spread,
    "uniform": uniform,
}


def draw_paths(searched: SearchNet, how: str, n: int, seed: int) -> list[Arch]:
    """n different paths inside the search's FLOPs range, whatever it prefers to sample.

    Raises ConfigError where the range has not as many.
    """
    even = Sampler(searched.space, searched.mflops, searched.sampler.minimum, searched.sampler.maximum)
    archs = PATHS[how](even, np.random.default_rng(seed), n)
    if len(archs) < n:
        raise ConfigError(f"only {len(archs)} different paths were found in the FLOPs range; must be {n}: widen it")
    return archs


# The experiment


def rank_correlation(
    folders: Sequence[Path],
    recipe: Config,
    output: Path,
    n: int = 30,
    how: str = "spread",
    seed: int = 0,
    trainings: int = 1,
) -> dict[str, dict[str, Correlation]]:
    """Scores n paths with each search's weights, trains each by ``recipe``, and correlates the two.

    ``folders`` are searches of one space; ``how`` is one of PATHS and ``seed`` draws the paths. Each path is trained
    ``trainings`` times, with seeds that follow on ``recipe.SEED``; what they reach on average is the truth, and how
    well one of them foretells the others is what a supernet can hope for. Writes ``ranking.csv``, ``correlation.json``
    and ``ranking.png`` into ``output``, and goes on with what is there. Under ``paddle.distributed.launch``, or started
    several times, the processes share the paths. Returns the coefficients by search. Raises ConfigError where the
    searches' spaces differ, or ``output`` holds another experiment.
    """
    if n < 3:
        raise ConfigError(f"{n} paths have no meaningful ranking; must be at least 3")
    if trainings < 1:
        raise ConfigError(f"{trainings} trainings of each path tell nothing; must be at least 1")
    with single_process():
        output.mkdir(parents=True, exist_ok=True)
        RunLog(output)
        names = distinct_names(folders)
        searches = {name: trained_search(folder)[:2] for name, folder in zip(names, folders)}
        check_comparable(searches)
        cfg, searched = searches[names[0]]
        archs = draw_paths(searched, how, n, seed)
        recipes = [retrain_config_for(recipe, cfg, arch, searched.resolution) for arch in archs]
        check_same_experiment(output / "experiment.json", archs, recipes[0])
        costs = [{"mflops": searched.mflops(arch), "mparams": searched.mparams(arch)} for arch in archs]
        scores = {name: score_paths(*searches[name], folder, archs, output) for name, folder in zip(names, folders)}
        searches.clear()  # the supernets make room for the nets
        trained = train_paths(recipes, costs, output, trainings)
        RunLog.current.close()
    rows = [
        {"path": i, "arch": format_arch(arch), **costs[i], **trained[i]}
        | {inherited(name): found[i]["prec1"] for name, found in scores.items()}
        for i, arch in enumerate(archs)
    ]
    return write_report(output, rows, names)


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many before it as tell all apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ConfigError("a search is named twice")
    length = next(length for length in range(1, 1000) if len({part[-length:] for part in parts}) == len(parts))
    return ["/".join(part[-length:]) for part in parts]


def check_comparable(searches: Mapping[str, tuple[Config, SearchNet]]) -> None:
    """Raises ConfigError where searches differ in what a path means."""
    first, *others = searches
    for name in others:
        for what, get in {
            "cost of paths": lambda cfg, searched: (searched.space, searched.mflops.choices),
            "image size": lambda cfg, searched: searched.resolution,
            "number of classes": lambda cfg, searched: cfg.DATASET.NUM_CLASSES,
            "FLOPs range": lambda cfg, searched: (searched.sampler.minimum, searched.sampler.maximum),
        }.items():
            if get(*searches[name]) != get(*searches[first]):
                raise ConfigError(f"{first} and {name} differ in {what}: their scores cannot be compared")


def check_same_experiment(path: Path, archs: Sequence[Arch], recipe: Config) -> None:
    """Notes paths and recipe in ``path``; raises ConfigError if it tells of others."""
    settings = {name: value for name, value in resume_settings(recipe).items() if name != "NET.INPUT_ARCH"}
    settings |= {"EPOCHS": recipe.EPOCHS, "LR": recipe.LR}
    wanted = {"paths": [format_arch(arch) for arch in archs], "recipe": settings}
    if not path.exists():
        write_json(path, wanted)
    known = json.loads(path.read_text())
    if known["paths"] != wanted["paths"]:
        raise ConfigError(f"{path} is of other paths: another number, seed, sampling or space; choose another output")
    changed = [
        f"{name} was {known['recipe'].get(name)} and is {value}"
        for name, value in wanted["recipe"].items()
        if known["recipe"].get(name) != value
    ]
    if changed:
        raise ConfigError(f"{path} is of another recipe: {', '.join(changed[:5])}; choose another output")


def score_paths(cfg: Config, searched: SearchNet, folder: Path, archs: Sequence[Arch], output: Path) -> list[dict]:
    """Accuracies with inherited weights, measured as the search measures them for its final choice."""
    weights = read_manifest(latest_checkpoint(folder))["files"][MODEL]["sha256"][:12]
    loaders = training_loader(cfg, searched.resolution), selection_loader(cfg, searched.resolution)[0]

    def score_path(arch: Arch) -> dict:
        (found,) = score(searched.net, [arch], searched.tables, *loaders, cfg.SUPERNET.SELECT_BATCHES)
        return vars(found)

    return share_out(
        {
            # Named after the weights: a search that went on is scored anew.
            path_folder(output, i) / f"inherited-{weights}.json": functools.partial(score_path, arch)
            for i, arch in enumerate(archs)
        }
    )


def train_paths(recipes: Sequence[Config], costs: Sequence[Mapping], output: Path, trainings: int) -> list[dict]:
    """Top-1 of each net from scratch, the mean of all its trainings and each of several; the dearest is begun first."""

    def train(i: int, training: int, folder: Path) -> dict:
        recipe = copy.deepcopy(recipes[i])
        recipe.SAVE_PATH, recipe.MODEL = str(folder.parent), folder.name
        recipe.AUTO_RESUME, recipe.RESUME_PATH, recipe.CHECKPOINT_HISTORY = True, "", 1
        recipe.SEED = (recipe.SEED + training) % 2**32
        log.info("path %d of %d from scratch: %s", i, len(recipes), format_arch(recipe.NET.INPUT_ARCH))
        started = time.perf_counter()
        found = jobs.retrain(recipe)
        RunLog(output)  # in place of this experiment's first one, which the training closed
        log.info("path %d: top-1 %.2f%%, %.0f s", i, found["prec1"], time.perf_counter() - started)
        return {"arch": recipe.NET.INPUT_ARCH, **found}

    order = sorted(range(len(recipes)), key=lambda i: -costs[i]["mflops"])
    folders = {(i, k): training_folder(output, i, k) for k in range(trainings) for i in order}
    tasks = {folder / "trained.json": functools.partial(train, *key, folder) for key, folder in folders.items()}
    top1 = {key: found["prec1"] for key, found in zip(folders, share_out(tasks))}
    rows = []
    for i in range(len(recipes)):
        each = [top1[i, k] for k in range(trainings)]
        rows.append({"trained": sum(each) / trainings})
        if trainings > 1:
            rows[i] |= {again(k): value for k, value in enumerate(each)}
    return rows


def again(training: int) -> str:
    """The column of one of several trainings of each path."""
    return f"trained {training + 1}"


def training_folder(output: Path, number: int, training: int) -> Path:
    """Where a path's run of training lies: the first one's in the path's own folder, the others' in folders there."""
    folder = path_folder(output, number)
    if training:
        folder /= f"training-{training + 1}"
        folder.mkdir(exist_ok=True)
    return folder


def path_folder(output: Path, number: int) -> Path:
    """Where all that is known of one path lies, its training's run among it."""
    folder = output / "paths" / f"{number:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Work that any number of processes share


def share_out(tasks: Mapping[Path, Callable[[], Mapping]]) -> list[dict]:
    """The contents of JSON files; each that is missing is made by its task, in one of the processes that run this.

    Ends when all are there. A process that dies in the middle of a task leaves it to the others.
    """
    while missing := {path: task for path, task in tasks.items() if not path.exists()}:
        worked = False
        for path, task in missing.items():
            with claimed(path) as mine:
                if mine and not path.exists():
                    write_json(path, task())
                    worked = True
        if not worked:
            time.sleep(1)
    return [json.loads(path.read_text()) for path in tasks]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether no other process works on this file; keeps others off it until the end, or until this one dies."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the process: its workers do not inherit it
            mine = True
        except (BlockingIOError, PermissionError):
            mine = False
        except OSError as error:  # to wait for it would be to wait for ever
            raise ConfigError(f"{path.parent} is on storage without locks: {error.strerror}; choose another") from error
        yield mine


def write_json(path: Path, content: Mapping) -> None:
    """Writes the content, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


# The report


def write_report(output: Path, rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, dict[str, Correlation]]:
    """Writes table, coefficients and plot, and returns the coefficients.

    They are those of each search and of the costs with the truth, of several trainings those of the first one with the
    mean of the others, the differences of the first search and each other, and those of the searches with each other:
    what does not repeat itself from one seed to the next is no knowledge of the nets.
    """
    columns = {**{name: inherited(name) for name in names}, "mflops": "mflops"}
    true = [row["trained"] for row in rows]
    values = {name: [row[column] for row in rows] for name, column in columns.items()}
    found = {name: correlate(column, true) for name, column in values.items()}
    for name, column in [*zip(names, values.values()), ("training from scratch", true)]:
        if len(set(column)) == 1:
            log.warning("by %s all paths have %.2f%% (a moving average lags): nothing to rank", name, column[0])
    trainings = [[row[name] for row in rows] for name in rows[0] if name.startswith("trained ")]
    if trainings:
        found["one training"] = correlate(trainings[0], np.mean(trainings[1:], axis=0))
    for other in names[1:]:
        found[f"{names[0]} - {other}"] = compare(values[names[0]], values[other], true)
    for one, other in itertools.combinations(names, 2):
        found[f"{one} with {other}"] = correlate(values[one], values[other])
    write_csv(output / "ranking.csv", rows)
    coefficients = {name: {key: one.as_json() for key, one in each.items()} for name, each in found.items()}
    summary = {"paths": len(rows), "confidence": CONFIDENCE, "coefficients": coefficients}
    write_json(output / "correlation.json", summary)
    plot(output / "ranking.png", rows, {name: found[name] for name in names})
    return found


def inherited(name: str) -> str:
    """The column of a search's accuracies."""
    return f"inherited {name}"


def plot(path: Path, rows: Sequence[Mapping], found: Mapping[str, Mapping[str, Correlation]]) -> None:
    """A panel a search: accuracy from scratch against accuracy with inherited weights, coloured by cost."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of the fonts that it finds
    figure = Figure(figsize=(1 + 4.5 * len(found), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for panel, (name, coefficients) in zip(panels, found.items()):
        points = panel.scatter(
            [row[inherited(name)] for row in rows], [row["trained"] for row in rows], c=[row["mflops"] for row in rows]
        )
        panel.set_title(f"{name}\nKendall's tau {coefficients['kendall']}")
        panel.set_xlabel("top-1 % with inherited weights")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 % trained from scratch")
    figure.colorbar(points, ax=list(panels), label="MFLOPs")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
