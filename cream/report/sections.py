"""The sections of a search's report: each function turns a search into sections with text, a picture and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np

from cream.report import figures
from cream.report.figures import Line, Point
from cream.report.page import Picture, Section, Table, number
from cream.report.search import Search
from cream.space import SKIP, format_arch

FEW = 25  # a table with more rows than this is folded
COLUMN_NAMES = {
    "arch": "architecture",
    "prec1": "top-1 (%)",
    "prec5": "top-5 (%)",
    "mflops": "MFLOPs",
    "mparams": "parameters (M)",
    "latency_ms": "latency (ms)",
    "outside": "violated constraints",
    "scored_on": "scored on",
    "resolution": "image size (pixels)",
    "num_classes": "classes",
}


def _named(row: dict) -> list[tuple[str, object]]:
    """Pair the readable name of each column with its value; lists become text."""
    return [
        (COLUMN_NAMES.get(name, name), json.dumps(value) if isinstance(value, (list, dict)) else value)
        for name, value in row.items()
    ]


def result(search: Search) -> list[Section]:
    """Describe the selected net in numbers."""
    net = search.result
    numbers = (
        f"The first of {len(search.candidates)} ranked candidates classifies {net['prec1']:.2f}% of the "
        f"{net.get('scored_on', 'validation images')} correctly. It takes {net['mflops']:.2f} MFLOPs for an image of "
        f"{net['resolution']} pixels and has {net['mparams']:.3f} million parameters."
    )
    caution = (
        "The net was measured with the weights that it shares with all other paths. Its own accuracy is known only "
        "after retraining, for which this folder holds retrain.yaml."
    )
    rows = [(name, number(value) if isinstance(value, (int, float)) else value) for name, value in _named(net)]
    return [Section("Result", (numbers, caution), tables=(Table("The selected net", ("what", "value"), rows),))]


def architecture(search: Search) -> list[Section]:
    """Show the selected net block by block."""
    blocks, rows = [], []
    for stage, index, position, choice in search.blocks:
        skipped = choice == SKIP
        operation = position.operations[0 if skipped else choice]
        name, costs = ("skipped", (0.0, 0.0)) if skipped else (operation.name, (operation.mflops, operation.mparams))
        block = figures.Block(
            stage, operation.name, operation.kernel, operation.expansion, position.channels, position.size, skipped
        )
        blocks.append(block)
        pixels = f"{position.size} x {position.size}"
        rows.append((f"{stage}.{index}", choice, name, position.channels, pixels, *costs))
    anatomy = search.anatomy
    rows.append(("", "", "stem and head", "", "", anatomy.shared_mflops, anatomy.shared_mparams))
    figure = figures.architecture(
        blocks,
        stem=(anatomy.stem_channels, anatomy.stem_size),
        image=(3, anatomy.resolution),
        classes=search.result["num_classes"],
    )
    words = "The net from left to right: " + ", ".join(block.name for block in blocks if not block.skipped)
    legend = (
        "Images enter on the left. The colour of a block shows the size of its largest kernel. Blocks with more output "
        "channels are higher, and blocks with a larger expansion are wider; e6 means six times as many channels inside "
        "the block as enter it. SE is squeeze-and-excitation, and d2 a dilation of 2. The numbers below a block are "
        "the channels of its output and the pixels along a side of it."
    )
    header = ("stage.block", "choice", "operation", "channels", "pixels", "MFLOPs", "parameters (M)")
    table = Table("Every block of the net", header, rows, folded=True)
    return [Section("Architecture", (legend,), Picture("architecture", figure, words), (table,))]


def candidates(search: Search) -> list[Section]:
    """Compare the candidates by accuracy and cost."""
    rows = search.candidates
    points = [Point(row["mflops"], row["prec1"]) for row in rows]
    # The column "outside" lists the constraints that a candidate violates; it is empty if there are none.
    inside = [index for index, row in enumerate(rows) if not row.get("outside")]
    outside = [index for index, row in enumerate(rows) if row.get("outside")]
    front = {inside[index] for index in figures.pareto_front([points[index] for index in inside])}
    selected = next(point for point, row in zip(points, rows) if row["arch"] == format_arch(search.arch))
    figure = figures.accuracy_against_cost(
        [points[index] for index in inside], selected, [points[index] for index in outside]
    )
    words = (
        f"Accuracy against MFLOPs of {len(points)} candidates, {len(front)} of them on the Pareto front; selected: "
        f"{selected.prec1:.2f}% at {selected.mflops:.2f} MFLOPs"
    )
    text = (
        "Each dot is a path with the weights of the supernet, after its batch-norm statistics were computed again from "
        "training images. The line is the Pareto front: no candidate is both cheaper and more accurate than one on "
        "it. The star is the selected net."
    )
    if outside:
        text += " Circles are candidates that violate a constraint."
    picture = Picture("accuracy_mflops", figure, words)
    return [Section("Accuracy against cost", (text,), picture, (_candidate_table(rows, front),))]


def _candidate_table(rows: list[dict], front: set[int]) -> Table:
    """List all candidates, by rank; ``front`` holds the indices of those on the Pareto front."""
    # A text that is the same in all rows compares nothing. The architecture may be long, so it is the last column.
    same = {name for name, text in rows[0].items() if isinstance(text, str) and all(row[name] == text for row in rows)}
    columns = [name for name in rows[0] if name not in {"arch", *same}] + ["arch"]
    listed = [_named({name: row[name] for name in columns}) for row in rows]
    header = ("rank", "on the front", *(name for name, _ in listed[0]))
    cells = [
        [rank + 1, "yes" if rank in front else "", *(value for _, value in row)] for rank, row in enumerate(listed)
    ]
    return Table("All candidates", header, cells, folded=len(cells) > FEW)


def generations(search: Search) -> list[Section]:
    """Show how accuracy improved from generation to generation, if the search was an evolution."""
    if not search.generations:
        return []
    accuracies = [[path["prec1"] for path in paths] for paths in search.generations]
    numbers = range(len(accuracies))
    best, worst = ([choose(values) for values in accuracies] for choose in (max, min))
    means = [float(np.mean(values)) for values in accuracies]
    best_so_far = np.maximum.accumulate(best).tolist()
    lines = [Line("best so far", numbers, best_so_far), Line("the generation", numbers, means, worst, best)]
    figure = figures.curves({"top-1 accuracy (%)": lines}, unit="generation")
    text = (
        "A generation adds new paths: mutations and crossovers of the best paths before it, and random paths. The "
        "upper line is the best accuracy so far. The lower line is the mean over the new paths of a generation, and "
        "the band reaches from the worst to the best of them."
    )
    words = (
        f"Accuracy over {len(best)} generations; the best rises from {best_so_far[0]:.2f}% to {best_so_far[-1]:.2f}%"
    )
    mflops = [float(np.mean([path["mflops"] for path in paths])) for paths in search.generations]
    header = ("generation", "new paths", "best so far (%)", "best (%)", "mean (%)", "worst (%)", "mean MFLOPs")
    rows = list(zip(numbers, map(len, accuracies), best_so_far, best, means, worst, mflops))
    picture = Picture("generations", figure, words)
    return [Section("Generations", (text,), picture, (Table("Every generation", header, rows, folded=True),))]


def board(search: Search) -> list[Section]:
    """Show the prioritized board after each epoch, if the search had one."""
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
    text = (
        "The prioritized board after each epoch holds the paths that teach the others: those with the highest accuracy "
        "on the batch of training images for which they were drawn. A batch has few images, and the best of many paths "
        "was also lucky. These values are therefore higher, and less reliable, than those of the candidates above."
    )
    words = f"Accuracy and MFLOPs of the board's paths over {len(populations)} epochs"
    header = ("epoch", "paths", "best top-1 (%)", "worst top-1 (%)", "mean MFLOPs")
    picture = Picture("board", figures.population_over_time(populations), words)
    return [Section("The board over time", (text,), picture, (Table("The board by epoch", header, rows, folded=True),))]


def _curve(search: Search, label: str, column: str) -> list[Line]:
    """Return a column of ``summary.csv`` as a curve, or nothing if it holds only zeros and gaps."""
    ys = [row.get(column, math.nan) for row in search.summary]
    if not any(math.isfinite(y) and y != 0 for y in ys):
        return []
    return [Line(label, [row["epoch"] for row in search.summary], ys)]


def _fixed_paths(search: Search) -> list[Line]:
    """Return the mean accuracy of the fixed paths as a curve, with a band from the worst to the best of them."""
    lines = [line for line in search.history if line.get("probes")]
    if not lines:
        return []
    accuracies = [[path["prec1"] for path in line["probes"]] for line in lines]
    means = [float(np.mean(values)) for values in accuracies]
    epochs = [line["epoch"] for line in lines]
    return [Line("fixed paths", epochs, means, [min(values) for values in accuracies], list(map(max, accuracies)))]


def training(search: Search) -> list[Section]:
    """Show losses and accuracies of the supernet's training, if this search trained."""
    if not search.summary:
        return []
    losses = [
        *_curve(search, "training", "train_loss"),
        *_curve(search, "fixed paths", "eval_loss"),
        *_curve(search, "distillation", "train_kd_loss"),
    ]
    accuracies = [
        *_curve(search, "training", "train_prec1"),
        *_fixed_paths(search),
        *_curve(search, "the board's best", "eval_board_prec1"),
    ]
    text = (
        "All values are means over an epoch. The training curve is measured on augmented images, with the path that "
        "was drawn for each batch. The fixed paths are the same in every epoch, spread over the range of costs, and "
        "measured on the validation images; the line is their mean, and the band reaches from the worst to the best."
    )
    if any(loss.label == "distillation" for loss in losses):
        text += " Distillation is the loss against the class probabilities of the teacher."
    last = search.summary[-1]
    words = f"Loss and accuracy over {len(search.summary)} epochs; training loss in the end {last['train_loss']:.3g}"
    figure = figures.curves({"loss": losses, "top-1 accuracy (%)": accuracies})
    rows = [list(row.values()) for row in search.summary]
    table = Table("Every epoch", list(search.summary[0]), rows, folded=True)
    return [Section("Training", (text,), Picture("training", figure, words), (table,))]


def _offers(search: Search, counts: dict) -> Iterator[tuple[str, list[str], dict[str, list[int]], str]]:
    """Yield every block that has more than one choice.

    Args:
        search: the search.
        counts: tables of ``OperationCounts``, [stage][position][choice], by name.

    Yields:
        The place of the block as ``STAGE.INDEX``, the names of its choices, the counts of the choices by table, and the
        name of the choice of the selected net.
    """
    for stage, index, position, choice in search.blocks:
        block_counts = {name: table[stage][index] for name, table in counts.items()}
        names = [operation.name for operation in position.operations]
        if position.may_skip and (choice == SKIP or any(row[SKIP] for row in block_counts.values())):
            names.append("skip")
        if len(names) > 1:
            yield f"{stage}.{index}", names, block_counts, names[choice]


def operations(search: Search) -> list[Section]:
    """Show how often each operation was drawn, and how often a path with it entered the board."""
    last = search.history[-1] if search.history else {}
    tables = {name: last.get(name, []) for name in ("sampled", "kept")}
    counts = {name: table for name, table in tables.items() if any(n for stage in table for row in stage for n in row)}
    offers = list(_offers(search, counts)) if counts else []
    if not offers:
        return []
    all_names = [name for _, names, _, _ in offers for name in names]
    columns = list(dict.fromkeys(sorted(all_names, key="skip".__eq__)))  # in the order of the choices, a skip last
    panels = {name: np.full((len(offers), len(columns)), np.nan) for name in counts}
    rows = []
    for row, (place, names, block_counts, _) in enumerate(offers):
        for name, panel in panels.items():
            shares = np.array(block_counts[name][: len(names)]) / sum(block_counts[name])
            panel[row, [columns.index(each) for each in names]] = shares
        rows += [(place, each, *(block_counts[name][index] for name in counts)) for index, each in enumerate(names)]
    marked = [columns.index(chosen) for *_, chosen in offers]
    figure = figures.shares(panels, [place for place, *_ in offers], columns, marked)
    text = (
        "The percentages say how often each operation was drawn for training, for each block that offers a choice. A "
        "frame marks the choice of the selected net."
    )
    if "kept" in counts:
        text += (
            " The second table says how often a path with the operation entered the board, in percent of all paths "
            "that did. An operation that is kept more often than it is drawn does better than the others."
        )
    words = f"Shares of the operations among {sum(last['sampled'][0][0])} paths, block by block"
    table = Table("Counts", ("stage.block", "operation", *counts), rows, folded=True)
    return [Section("Operations", (text,), Picture("operations", figure, words), (table,))]


def settings(search: Search) -> list[Section]:
    """List the settings of the search."""
    rows = [
        (name, json.dumps(value) if isinstance(value, list) else str(value)) for name, value in search.settings.items()
    ]
    text = "These are all settings that differ from their defaults, as in config.yaml."
    return [Section("Settings", (text,), tables=(Table("Settings of the search", ("key", "value"), rows),))]


SECTIONS = (result, architecture, candidates, generations, board, training, operations, settings)
