"""The report of a search: all that its folder tells, as one HTML file and as pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from cream.report import figures
from cream.report.figures import Line, Point
from cream.report.operations import OPERATIONS, Anatomy, Position, read_anatomy
from cream.report.page import Picture, Section, Table, number, page
from cream.space import SKIP, Arch, format_arch, parse_arch
from cream.train.history import HISTORY, read_history
from pimm.errors import CheckpointError
from pimm.utils import atomic_file, write_text

REPORT = "report.html"
PICTURES = "report"  # folder of the same figures as PNG
NEEDED = ("architecture.json", "candidates.csv", "config.yaml", OPERATIONS)
DPI = 150
FEW = 25  # rows of a table that need not be folded
NAMES = {
    "arch": "architecture",
    "prec1": "top-1 (%)",
    "prec5": "top-5 (%)",
    "mflops": "MFLOPs",
    "mparams": "parameters (M)",
    "latency_ms": "latency (ms)",
    "outside": "outside the limits",
    "scored_on": "scored on",
    "resolution": "image size (pixels)",
    "num_classes": "classes",
}


@dataclass(frozen=True)
class Search:
    """What the folder of a finished search tells; ``summary`` and ``history`` are empty where nothing was trained."""

    folder: Path
    result: dict
    candidates: list[dict]
    anatomy: Anatomy
    summary: list[dict[str, float]]
    history: list[dict]
    settings: dict[str, object]

    @property
    def arch(self) -> Arch:
        return parse_arch(self.result["arch"])


def write_report(folder: Path) -> dict[str, np.ndarray]:
    """Writes ``report.html`` and ``report/NAME.png`` into a search's folder; the pictures as {name: [H, W, 3] uint8}.

    Raises CheckpointError if it is not the folder of a finished search.
    """
    search = read_search(Path(folder))
    sections = [section for make in SECTIONS for section in make(search)]
    (search.folder / PICTURES).mkdir(exist_ok=True)
    pixels = {}
    for picture in (section.picture for section in sections if section.picture is not None):
        content = io.BytesIO()
        picture.figure.savefig(content, format="png", dpi=DPI, facecolor="white")
        picture.figure.set_layout_engine("none")  # it is laid out: the page need not do it again
        with atomic_file(search.folder / PICTURES / f"{picture.name}.png") as file:
            file.write(content.getvalue())
        pixels[picture.name] = np.asarray(Image.open(content).convert("RGB"))
    write_text(search.folder / REPORT, page(f"Search report: {search.folder.resolve().name}", sections))
    return pixels


def read_search(folder: Path) -> Search:
    """Reads a search's folder; raises CheckpointError if what a finished search leaves is not there."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not the folder of a finished search: it lacks {', '.join(missing)}")
    result = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
    candidates = _read_table(folder / "candidates.csv")
    if format_arch(parse_arch(result["arch"])) not in [row["arch"] for row in candidates]:
        raise CheckpointError(
            f"{folder}: candidates.csv is of a later choice, which found no net; choose again with limits that can be "
            "kept (tools/select.py)"
        )
    return Search(
        folder,
        result,
        candidates,
        read_anatomy(folder),
        _read_table(folder / "summary.csv") if (folder / "summary.csv").exists() else [],
        read_history(folder / HISTORY) if (folder / HISTORY).exists() else [],
        dict(_flat(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))),
    )


def _read_table(path: Path) -> list[dict]:
    """Rows of a CSV file, numbers as such."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _named(row: dict) -> list[tuple[str, object]]:
    """Names for people, and values that a cell can show."""
    return [
        (NAMES.get(name, name), json.dumps(value) if isinstance(value, (list, dict)) else value)
        for name, value in row.items()
    ]


def result(search: Search) -> list[Section]:
    found = search.result
    said = (
        f"The best of {len(search.candidates)} candidates is right on {found['prec1']:.2f}% of the "
        f"{found.get('scored_on', 'validation images')}, takes {found['mflops']:.2f} MFLOPs for an image of "
        f"{found['resolution']} pixels, and has {found['mparams']:.3f} million parameters."
    )
    caution = (
        "That accuracy is what the net reaches with the weights it shares with all others. What it reaches alone, "
        "only retraining tells: retrain.yaml in this folder is ready for it."
    )
    rows = [(name, number(value) if isinstance(value, (int, float)) else value) for name, value in _named(found)]
    return [Section("Result", (said, caution), tables=(Table("The net that was found", ("what", "value"), rows),))]


def _blocks(search: Search) -> list[tuple[int, int, Position, int]]:
    """Stage, position, what is known of the place, and the choice of the result there."""
    return [
        (stage, position, place, choice)
        for stage, (places, path) in enumerate(zip(search.anatomy.stages, search.arch))
        for position, (place, choice) in enumerate(zip(places, path))
    ]


def architecture(search: Search) -> list[Section]:
    drawn, rows = [], []
    for stage, position, place, choice in _blocks(search):
        skipped = choice == SKIP
        operation = place.operations[0 if skipped else choice]
        name, costs = ("skipped", (0.0, 0.0)) if skipped else (operation.name, (operation.mflops, operation.mparams))
        drawn.append(
            figures.Block(
                stage, operation.name, operation.kernel, operation.expansion, place.channels, place.size, skipped
            )
        )
        rows.append((f"{stage}.{position}", choice, name, place.channels, f"{place.size} x {place.size}", *costs))
    known, found = search.anatomy, search.result
    rows.append(("", "", "stem and head", "", "", known.shared_mflops, known.shared_mparams))
    figure = figures.architecture(
        drawn, (known.stem_channels, known.stem_size), (3, known.resolution), found["num_classes"]
    )
    words = "The net from left to right: " + ", ".join(block.name for block in drawn if not block.skipped)
    said = (
        "Images enter on the left. A block's colour is the size of its largest kernel, its height grows with the "
        "channels it puts out and its width with its expansion, the channels inside it by those it takes (e6 is six "
        "times as many). SE is squeeze-and-excitation, d2 a dilation of 2. Below each block stand the channels and the "
        "pixels along a side of what it puts out."
    )
    table = Table(
        "Every block of the net",
        ("stage.block", "choice", "operation", "channels", "pixels", "MFLOPs", "parameters (M)"),
        rows,
        folded=True,
    )
    return [Section("Architecture", (said,), Picture("architecture", figure, words), (table,))]


def candidates(search: Search) -> list[Section]:
    rows = search.candidates
    points = [Point(row["mflops"], row["prec1"]) for row in rows]
    # Columns of a selection with limits: what speaks against a candidate, nothing where it keeps them.
    inside = [index for index, row in enumerate(rows) if not row.get("outside")]
    front = {inside[index] for index in figures.pareto_front([points[index] for index in inside])}
    chosen = next(point for point, row in zip(points, rows) if row["arch"] == format_arch(search.arch))
    figure = figures.accuracy_against_cost(
        [points[index] for index in inside], chosen, [point for i, point in enumerate(points) if i not in set(inside)]
    )
    words = (
        f"Accuracy against MFLOPs of {len(points)} candidates, {len(front)} of them on the Pareto front; chosen: "
        f"{chosen.prec1:.2f}% at {chosen.mflops:.2f} MFLOPs"
    )
    said = (
        "Each dot is a path with the supernet's weights, its batch-norm statistics taken anew from training images. "
        "No candidate is both cheaper and more accurate than those on the line, the Pareto front; the star is the net "
        "that was chosen."
    )
    if len(inside) < len(points):
        said += " Hollow dots lie outside the limits that the net had to keep."
    # What is said of all alike is no matter of comparison; the architecture, which may be long, comes last.
    same = {name for name, text in rows[0].items() if isinstance(text, str) and all(row[name] == text for row in rows)}
    told = [name for name in rows[0] if name not in {"arch", *same}] + ["arch"]
    listed = [{name: row[name] for name in told} for row in rows]
    header = ("rank", "on the front", *(name for name, _ in _named(listed[0])))
    cells = [
        [rank + 1, "yes" if rank in front else "", *(value for _, value in _named(row))]
        for rank, row in enumerate(listed)
    ]
    picture = Picture("accuracy_mflops", figure, words)
    return [
        Section(
            "Accuracy against cost",
            (said,),
            picture,
            (Table("All candidates", header, cells, folded=len(cells) > FEW),),
        )
    ]


def board(search: Search) -> list[Section]:
    populations = {
        line["epoch"]: [Point(entry["mflops"], entry["prec1"]) for entry in line["board"]]
        for line in search.history
        if line.get("board")
    }
    if not populations:
        return []
    rows = [
        (
            epoch,
            len(members),
            max(member.prec1 for member in members),
            min(member.prec1 for member in members),
            float(np.mean([member.mflops for member in members])),
        )
        for epoch, members in populations.items()
    ]
    said = (
        "The prioritized board after each epoch: the paths that were most accurate on the batch of training images "
        "they were met with, which teach the others. One batch is few images, and the best of many is lucky: these "
        "values are higher than what the candidates above reach, and say less."
    )
    words = f"Accuracy and MFLOPs of the board's paths over {len(populations)} epochs"
    header = ("epoch", "paths", "best top-1 (%)", "worst top-1 (%)", "mean MFLOPs")
    picture = Picture("board", figures.population_over_time(populations), words)
    return [Section("The board over time", (said,), picture, (Table("The board by epoch", header, rows, folded=True),))]


def _line(search: Search, label: str, name: str) -> list[Line]:
    """A column of summary.csv as a curve, if there is more in it than zeros and gaps."""
    ys = [row.get(name, math.nan) for row in search.summary]
    told = any(math.isfinite(y) and y != 0 for y in ys)
    return [Line(label, [row["epoch"] for row in search.summary], ys)] if told else []


def _fixed_paths(search: Search) -> list[Line]:
    """The fixed paths' mean accuracy, and the range from the worst to the best."""
    found = [(line["epoch"], [one["prec1"] for one in line["probes"]]) for line in search.history if line.get("probes")]
    if not found:
        return []
    epochs, values = zip(*found)
    means, least, most = ([f(v) for v in values] for f in (lambda v: float(np.mean(v)), min, max))
    return [Line("fixed paths", epochs, means, least, most)]


def training(search: Search) -> list[Section]:
    if not search.summary:
        return []
    losses = [
        *_line(search, "training", "train_loss"),
        *_line(search, "fixed paths", "eval_loss"),
        *_line(search, "distillation", "train_kd_loss"),
    ]
    accuracies = [
        *_line(search, "training", "train_prec1"),
        *_fixed_paths(search),
        *_line(search, "the board's best", "eval_board_prec1"),
    ]
    said = (
        "Means over each epoch. Training is measured on augmented images, of whatever path was drawn. The fixed paths "
        "are the same in every epoch, spread over the range of costs, and measured on the validation images: the line "
        "is their mean, and the band reaches from the worst to the best of them."
    )
    if len(losses) == 3:
        said += " Distillation is the loss against the teacher's probabilities."
    last = search.summary[-1]
    words = f"Loss and accuracy over {len(search.summary)} epochs; training loss in the end {last['train_loss']:.3g}"
    figure = figures.curves({"loss": losses, "top-1 accuracy (%)": accuracies})
    rows = [list(row.values()) for row in search.summary]
    table = Table("Every epoch", list(search.summary[0]), rows, folded=True)
    return [Section("Training", (said,), Picture("training", figure, words), (table,))]


def _offers(search: Search, counts: dict) -> Iterator[tuple[str, list[str], dict[str, list[int]], str]]:
    """Where there is a choice: the place, names of what it offers, how often each was counted, and the one chosen."""
    for stage, position, place, choice in _blocks(search):
        found = {name: table[stage][position] for name, table in counts.items()}
        names = [operation.name for operation in place.operations]
        if place.may_skip and (choice == SKIP or any(one[SKIP] for one in found.values())):
            names.append("skip")
        if len(names) > 1:
            yield f"{stage}.{position}", names, found, names[choice]


def operations(search: Search) -> list[Section]:
    last = search.history[-1] if search.history else {}
    told = {name: last.get(name, []) for name in ("sampled", "kept")}
    counts = {name: table for name, table in told.items() if any(n for stage in table for row in stage for n in row)}
    offers = list(_offers(search, counts)) if counts else []
    if not offers:
        return []
    # Each name once, in the order of the choices; a skip comes last.
    columns = list(dict.fromkeys(sorted((one for _, names, _, _ in offers for one in names), key="skip".__eq__)))
    panels = {name: np.full((len(offers), len(columns)), np.nan) for name in counts}
    rows = []
    for row, (place, names, found, _) in enumerate(offers):
        for name, panel in panels.items():
            panel[row, [columns.index(one) for one in names]] = np.array(found[name][: len(names)]) / sum(found[name])
        rows += [(place, one, *(found[name][index] for name in counts)) for index, one in enumerate(names)]
    marked = [columns.index(chosen) for *_, chosen in offers]
    figure = figures.shares(panels, [place for place, *_ in offers], columns, marked)
    said = (
        "How often each operation was drawn for training at each place that offers a choice, in percent of the paths "
        "drawn. A frame marks the choice of the net that was found."
    )
    if "kept" in counts:
        said += (
            " Beside it how often a path with the operation found a place on the board, in percent of those that did: "
            "an operation kept more often than drawn does better than its rivals."
        )
    words = f"Shares of the operations among {sum(last['sampled'][0][0])} paths, block by block"
    table = Table("Counts", ("stage.block", "operation", *counts), rows, folded=True)
    return [Section("Operations", (said,), Picture("operations", figure, words), (table,))]


def settings(search: Search) -> list[Section]:
    rows = [
        (name, json.dumps(value) if isinstance(value, list) else str(value)) for name, value in search.settings.items()
    ]
    said = "All settings that differ from the defaults, as in config.yaml."
    return [Section("Settings", (said,), tables=(Table("Settings of the search", ("key", "value"), rows),))]


SECTIONS = (result, architecture, candidates, board, training, operations, settings)
