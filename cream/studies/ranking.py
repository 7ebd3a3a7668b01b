"""Rank correlation: does a supernet rank its paths as training each of them from scratch does?

This is the experiment of Cream's section 4.2. Each score and each training is a file of its own, so that a kill costs
little, any number of processes share the work, and another supernet of the same space can be compared later.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from cream.space import Arch, format_arch
from cream.studies.correlation import CONFIDENCE, Correlation, compare, correlate
from cream.train.sampler import DRAWS_PER_PATH, Sampler
from cream.train.search_net import SearchNet
from pimm.errors import ConfigError, DataError
from pimm.messages import changes
from pimm.utils import atomic_file, write_csv, write_text
from pimm.utils.locks import try_lock

_logger = logging.getLogger(__name__)


# The paths


def uniform(sampler: Sampler, rng: np.random.Generator, n: int) -> list[Arch]:
    """Return the first n different paths that are drawn; fewer if DRAWS_PER_PATH draws for each do not find them."""
    drawn: dict[Arch, None] = {}
    for _ in range(DRAWS_PER_PATH * n):
        if len(drawn) < n:
            drawn[sampler(rng)] = None
    return list(drawn)


PATHS: Mapping[str, Callable[[Sampler, np.random.Generator, int], list[Arch]]] = {
    "spread": Sampler.spread,
    "uniform": uniform,
}


def draw_paths(searched: SearchNet, how: str, n: int, seed: int) -> list[Arch]:
    """Return n different paths inside the search's FLOPs range, drawn evenly whatever the search's HOW_TO_PROB is.

    Raises:
        ConfigError: fewer than n paths were found in the range.
    """
    even = Sampler(searched.space, searched.mflops, searched.sampler.minimum, searched.sampler.maximum)
    archs = PATHS[how](even, np.random.default_rng(seed), n)
    if len(archs) < n:
        raise ConfigError(f"only {len(archs)} different paths were found in the FLOPs range; must be {n}: widen it")
    return archs


# The experiment


@dataclass(frozen=True)
class Study:
    """Compares accuracies with the weights of supernets to accuracies after training from scratch.

    Args:
        archs: the paths.
        costs: ``mflops`` and ``mparams`` of each path.
        searches: for each name of a search a hash of the supernet's weights, and the function that scores a path.
        train: trains a path from scratch and returns its metrics; its arguments are the number of the path, the number
            of the training, and the folder.
        trainings: number of trainings of each path.
        output: folder of all results.
    """

    archs: Sequence[Arch]
    costs: Sequence[Mapping[str, float]]
    searches: Mapping[str, tuple[str, Callable[[Arch], Mapping]]]
    train: Callable[[int, int, Path], Mapping]
    trainings: int
    output: Path

    def scores(self) -> dict[str, list[dict]]:
        """Return the scores of all paths by search; scores that are in the output folder are not computed again."""
        return {name: self._score_paths(*search) for name, search in self.searches.items()}

    def _score_paths(self, weights: str, score: Callable[[Arch], Mapping]) -> list[dict]:
        # Files are named after the weights: a search that was trained further is scored anew.
        files = [path_folder(self.output, i) / f"inherited-{weights[:12]}.json" for i in range(len(self.archs))]
        return share_out({file: functools.partial(score, arch) for file, arch in zip(files, self.archs)})

    def trained(self) -> list[dict]:
        """Return the mean top-1 of each path after training, and with several trainings the top-1 of each training.

        The most expensive path is trained first.
        """
        order = sorted(range(len(self.archs)), key=lambda i: -self.costs[i]["mflops"])
        folders = {(i, k): training_folder(self.output, i, k) for k in range(self.trainings) for i in order}
        tasks = {
            folder / "trained.json": functools.partial(self.train, *key, folder) for key, folder in folders.items()
        }
        top1 = {key: found["prec1"] for key, found in zip(folders, share_out(tasks))}
        rows = []
        for i in range(len(self.archs)):
            each = [top1[i, k] for k in range(self.trainings)]
            rows.append({"trained": sum(each) / self.trainings})
            if self.trainings > 1:
                rows[i] |= {training_column(k): value for k, value in enumerate(each)}
        return rows

    def rows(self, scores: Mapping[str, list[dict]], trained: Sequence[Mapping]) -> list[dict]:
        """Return the table of all paths."""
        return [
            {"path": i, "arch": format_arch(arch), **self.costs[i], **trained[i]}
            | {inherited(name): found[i]["prec1"] for name, found in scores.items()}
            for i, arch in enumerate(self.archs)
        ]


def check_numbers(paths: int, trainings: int) -> None:
    """Raise ConfigError for numbers with which the experiment says nothing."""
    if paths < 3:
        raise ConfigError(f"{paths} paths have no meaningful ranking; must be at least 3")
    if trainings < 1:
        raise ConfigError(f"{trainings} trainings of each path tell nothing; must be at least 1")


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the last part of each path, and as many parts before it as distinguish all paths."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ConfigError("a search is named twice")
    length = next(length for length in range(1, 1000) if len({part[-length:] for part in parts}) == len(parts))
    return ["/".join(part[-length:]) for part in parts]


def check_comparable(searches: Mapping[str, SearchNet]) -> None:
    """Raise ConfigError for searches whose scores of a path cannot be compared."""
    first, *others = searches
    for name in others:
        for what, get in {
            "cost of paths": lambda searched: (searched.space, searched.mflops.choices),
            "image size": lambda searched: searched.resolution,
            "number of classes": lambda searched: searched.net.num_classes,
            "FLOPs range": lambda searched: (searched.sampler.minimum, searched.sampler.maximum),
        }.items():
            if get(searches[name]) != get(searches[first]):
                raise ConfigError(f"{first} and {name} differ in {what}: their scores cannot be compared")


def check_same_experiment(path: Path, archs: Sequence[Arch], recipe: Mapping[str, object]) -> None:
    """Write paths and recipe into ``path``; raise ConfigError if the file holds those of another experiment."""
    wanted = {"paths": [format_arch(arch) for arch in archs], "recipe": recipe}
    if not path.exists():
        write_json(path, wanted)
    known = read_json(path)
    if not isinstance(known.get("paths"), list) or not isinstance(known.get("recipe"), dict):
        raise ConfigError(f"{path} does not describe an experiment; remove it, or give another output")
    if known["paths"] != wanted["paths"]:
        raise ConfigError(
            f"{path} belongs to an experiment with other paths: another number, seed, sampling or space; give another "
            "output"
        )
    recorded = {name: value for name, value in recipe.items() if name in known["recipe"]}
    changed = changes(known["recipe"], recorded)  # an earlier version recorded fewer settings
    if changed:
        raise ConfigError(
            f"{path} belongs to an experiment with another recipe: {', '.join(changed[:5])}; give another output"
        )


def training_column(training: int) -> str:
    """Return the name of the column of one of several trainings."""
    return f"trained {training + 1}"


def training_folder(output: Path, number: int, training: int) -> Path:
    """Return the folder of one training of a path: the path's folder for the first, folders inside for the others."""
    folder = path_folder(output, number)
    if training:
        folder /= f"training-{training + 1}"
        folder.mkdir(exist_ok=True)
    return folder


def path_folder(output: Path, number: int) -> Path:
    """Return the folder of everything about one path."""
    folder = output / "paths" / f"{number:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Work that any number of processes share


def share_out(tasks: Mapping[Path, Callable[[], Mapping]]) -> list[dict]:
    """Return the contents of JSON files; one of the processes that share the work runs the task of a missing file.

    All processes return when all files exist. If a process dies during a task, another process runs the task.
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
    return [read_json(path) for path in tasks]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Lock the task of a file inside the context; yield False where another process holds the lock."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        try:
            is_mine = try_lock(file)
        except OSError as error:  # waiting for this lock would never end
            raise ConfigError(f"{path.parent} is on storage without locks: {error}; give another output") from error
        yield is_mine


def read_json(path: Path) -> dict:
    """Read a JSON object that ``write_json`` wrote; raise DataError for a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error!s:.100}; remove it, and its work is done again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no JSON object; remove it, and its work is done again")
    return content


def write_json(path: Path, content: Mapping) -> None:
    """Write the content as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


# The report


def write_report(output: Path, rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, dict[str, Correlation]]:
    """Write table, coefficients and plot, and return the coefficients.

    The coefficients are: those of each search and of the costs with the accuracy after training; with several
    trainings, those of the first training with the mean of the others; by how much the first search exceeds each
    other search; and those of the searches with each other, because a ranking that changes with the seed says little
    about the nets.
    """
    columns = {**{name: inherited(name) for name in names}, "mflops": "mflops"}
    true = [row["trained"] for row in rows]
    values = {name: [row[column] for row in rows] for name, column in columns.items()}
    found = {name: correlate(column, true) for name, column in values.items()}
    for name, column in [*zip(names, values.values()), ("training from scratch", true)]:
        if len(set(column)) == 1:
            _logger.warning("all paths have %.2f%% by %s: nothing to rank (a moving average lags)", column[0], name)
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
    """Return the name of the column of a search's accuracies."""
    return f"inherited {name}"


def plot(path: Path, rows: Sequence[Mapping], found: Mapping[str, Mapping[str, Correlation]]) -> None:
    """Draw accuracy from scratch against accuracy with inherited weights, coloured by cost, in a panel per search."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # matplotlib logs the fonts that it finds
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
