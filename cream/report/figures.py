"""The figures of a report: each function turns plain data into a matplotlib figure.

The colours are those of Okabe and Ito, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color);
whatever a colour says is also said by a shape, a position or a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
LINES = (BLUE, VERMILLION, GREEN, PURPLE)
FILLS = {1: "#bbbbbb", 3: "#56b4e9", 5: "#e69f00", 7: "#2fb78f"}  # of blocks, by kernel; dark text is readable on them
OTHER_FILL = "#cc79a7"
INK = "#1f2328"  # of text and axes; the page replaces this colour by that of its own text
TEXT_ON_FILL = "#111111"
STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
    **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor")},
}
WIDTH = 4.6  # inches; a figure of this width fits on a telephone
FEW = 30  # a line of at most so many points has a marker at each point
MANY = 300  # more points than this are small and drawn as pixels, because each would add an element to a vector drawing
NUMBERED_COLUMNS = 28  # a table of shares with at most so many columns has room for a number in each cell

styled = matplotlib.rc_context(STYLE)


class Point(NamedTuple):
    """The cost of a path, in millions of multiply-adds, and its top-1 accuracy, in percent."""

    mflops: float
    prec1: float


class Line(NamedTuple):
    """A curve through points (x, y), with a band from ``low`` to ``high`` if both are given."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Block(NamedTuple):
    """One block of a net.

    ``expansion`` is the ratio of inner channels to input channels; the output has ``channels`` maps of ``size`` by
    ``size`` pixels.
    """

    stage: int
    name: str
    kernel: int
    expansion: float
    channels: int
    size: int
    skipped: bool = False


def pareto_front(points: Sequence[Point]) -> list[int]:
    """List the indices of the points on the Pareto front, cheapest first.

    A point is on the front if every other point costs more or is less accurate. Of equal points one is listed.
    """
    front, best = [], -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i].mflops, -points[i].prec1)):
        if points[index].prec1 > best:
            front.append(index)
            best = points[index].prec1
    return front


@styled
def accuracy_against_cost(points: Sequence[Point], chosen: Point, outside: Sequence[Point] = ()) -> Figure:
    """Draw candidates by cost and accuracy, with their Pareto front.

    Args:
        points: the candidates that satisfy all constraints, drawn as dots; their Pareto front is drawn as steps.
        chosen: the selected candidate, drawn as a star.
        outside: candidates that violate a constraint, drawn as circles.
    """
    figure, (axes,) = _panels(1, 3.2)
    front = [points[index] for index in pareto_front(points)]
    _dots(axes, *zip(*points), label="candidate")
    if outside:
        axes.plot(*zip(*outside), "o", color=INK, alpha=0.5, markerfacecolor="none", label="violates a constraint")
    axes.step(*zip(*front), where="post", color=VERMILLION, label="Pareto front")
    axes.plot(*chosen, "*", color=VERMILLION, markeredgecolor=INK, markersize=14, label="selected")
    axes.set(xlabel="MFLOPs (millions of multiply-adds)", ylabel="top-1 accuracy (%)")
    axes.margins(0.08)
    _legend(axes, columns=2 if outside else 3)
    return figure


@styled
def population_over_time(populations: Mapping[int, Sequence[Point]], unit: str = "epoch") -> Figure:
    """Draw accuracy and cost of every member of a population over time, with the most accurate member as a line.

    Args:
        populations: the members at each time.
        unit: the unit of time, ``epoch`` or ``generation``.
    """
    figure, (above, below) = _panels(2, 4.2)
    times = [time for time, members in populations.items() for _ in members]
    members = [member for members in populations.values() for member in members]
    best = {time: max(members, key=lambda member: member.prec1) for time, members in populations.items() if members}
    for axes, name, label in ((above, "prec1", "top-1 accuracy (%)"), (below, "mflops", "MFLOPs")):
        values = [getattr(member, name) for member in members]
        _dots(axes, times, values, label="member")
        axes.plot(
            list(best), [getattr(point, name) for point in best.values()], "-", color=VERMILLION, label="the best"
        )
        axes.set(ylabel=label)
    _finish_time_axis(below, unit)
    _legend(above)
    return figure


@styled
def curves(panels: Mapping[str, Sequence[Line]], unit: str = "epoch") -> Figure:
    """Draw panels of curves over the same time.

    Args:
        panels: the curves of each panel, by the label of its y-axis.
        unit: the unit of time, ``epoch`` or ``generation``.
    """
    figure, panes = _panels(len(panels), 2.2 * len(panels))
    for axes, (label, lines) in zip(panes, panels.items()):
        for line, colour in zip(lines, LINES):
            marker = "o" if len(line.xs) <= FEW else ""
            axes.plot(line.xs, line.ys, marker=marker, color=colour, label=line.label)
            if line.low is not None:
                axes.fill_between(line.xs, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
        axes.set(ylabel=label)
        _legend(axes)
    _finish_time_axis(panes[-1], unit)
    return figure


@styled
def shares(
    panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], marked: Sequence[int | None]
) -> Figure:
    """Draw tables of shares side by side; the cells of larger shares are darker.

    Args:
        panels: by title, shares [rows, columns] from 0 to 1, or NaN where there is none.
        rows: the labels of the rows.
        columns: the labels of the columns.
        marked: for each row the column of the cell that gets a frame, or None.
    """
    numbered = len(columns) * len(panels) <= NUMBERED_COLUMNS
    width = 1.0 + (0.27 if numbered else 0.2) * len(columns) * len(panels)
    figure = Figure(figsize=(max(width, 2.4), 1.6 + 0.24 * len(rows)), layout="constrained")
    panes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    most = max(np.nanmax(matrix) for matrix in panels.values())
    for axes, (title, matrix) in zip(panes, panels.items()):
        mesh = axes.pcolormesh(matrix, cmap="Blues", vmin=0, vmax=most, edgecolors="none")
        axes.set(title=title, xticks=np.arange(len(columns)) + 0.5, yticks=np.arange(len(rows)) + 0.5)
        axes.set_xticklabels(columns, rotation=90)
        axes.set_yticklabels(rows)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        for row, column in enumerate(marked):
            if column is not None:
                axes.add_patch(
                    Rectangle((column, row), 1, 1, fill=False, edgecolor=VERMILLION, linewidth=1.6, zorder=3)
                )
        if numbered:
            _number_cells(axes, matrix, most)
    panes[0].set_ylabel("stage.block")
    panes[0].invert_yaxis()
    if not numbered:
        figure.colorbar(mesh, ax=panes, label="share")
    return figure


def _number_cells(axes: Axes, matrix: np.ndarray, most: float) -> None:
    """Write each share in percent into its cell, white on dark cells; ``most`` is the share of the darkest one."""
    for (row, column), share in np.ndenumerate(matrix):
        if not np.isnan(share):
            colour = "#ffffff" if share > 0.6 * most else TEXT_ON_FILL
            axes.text(
                column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=7.5
            )


class _Box(NamedTuple):
    """One box of the drawing of an architecture: its name, its size in inches, its fill and its output."""

    name: str
    width: float
    height: float
    fill: str
    channels: int
    size: int
    stage: str = ""


@styled
def architecture(blocks: Sequence[Block], stem: tuple[int, int], image: tuple[int, int], classes: int) -> Figure:
    """Draw a net from left to right; blocks with a larger expansion are wider, blocks with more channels are higher.

    Args:
        blocks: the blocks in forward order.
        stem: channels and pixels of the stem's output.
        image: channels and pixels of an image.
        classes: number of logits.
    """
    boxes, highest = _boxes(blocks, stem, image, classes)
    stages = [box.stage for box in boxes]
    gaps = [0.2 if before != after else 0.06 for before, after in zip(stages, stages[1:])]
    lefts = np.cumsum([0.75, *(box.width + gap for box, gap in zip(boxes, gaps))])
    right = lefts[-1] + boxes[-1].width + 0.1
    figure = Figure(figsize=(right, highest + 1.15))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, right), ylim=(-highest / 2 - 0.5, highest / 2 + 0.65))
    axes.axis("off")
    for left, box in zip(lefts, boxes):
        _draw_box(axes, left, box)
        for line, value in enumerate((box.channels, box.size)):
            axes.text(
                left + box.width / 2, -highest / 2 - 0.15 - 0.17 * line, value, ha="center", va="center", fontsize=8
            )
    for line, label in enumerate(("channels", "pixels")):
        axes.text(0.05, -highest / 2 - 0.15 - 0.17 * line, label, va="center", fontsize=8)
    _name_stages(axes, stages, lefts, [box.width for box in boxes], highest / 2 + 0.12)
    kernels = sorted({block.kernel for block in blocks if not block.skipped})
    handles = [Patch(facecolor=FILLS.get(k, OTHER_FILL), edgecolor=INK, label=f"{k}x{k}") for k in kernels]
    axes.legend(handles=handles, loc="upper left", ncols=len(handles), title="kernel", alignment="left")
    return figure


def _boxes(
    blocks: Sequence[Block], stem: tuple[int, int], image: tuple[int, int], classes: int
) -> tuple[list[_Box], float]:
    """Size the boxes of image, stem, blocks and classifier; return them and the height of the highest, in inches."""
    longest = max(len(block.name) for block in blocks)
    least = 0.25 + 0.072 * longest  # inches that the longest name takes, because names are written into the boxes
    most_channels = max(block.channels for block in blocks)
    most_expansion = max(block.expansion for block in blocks)
    boxes = [
        _Box(
            "skipped" if block.skipped else block.name,
            0.3 + 0.22 * block.expansion / most_expansion,
            least + 1.1 * math.sqrt(block.channels) / math.sqrt(most_channels),
            "none" if block.skipped else FILLS.get(block.kernel, OTHER_FILL),
            block.channels,
            block.size,
            str(block.stage),
        )
        for block in blocks
    ]
    ends = {"image": image, "stem": stem, "classifier": (classes, 1)}
    image_box, stem_box, classifier_box = (_Box(name, 0.34, least, "none", *output) for name, output in ends.items())
    return [image_box, stem_box, *boxes, classifier_box], least + 1.1


def _draw_box(axes: Axes, left: float, box: _Box) -> None:
    """Draw a box with its name inside; its outline is dashed if it has no fill."""
    hollow = box.fill == "none"
    axes.add_patch(
        Rectangle(
            (left, -box.height / 2),
            box.width,
            box.height,
            facecolor=box.fill,
            edgecolor=INK,
            linewidth=0.8,
            linestyle="dashed" if hollow else "solid",
        )
    )
    colour = INK if hollow else TEXT_ON_FILL
    axes.text(left + box.width / 2, 0, box.name, rotation=90, ha="center", va="center", color=colour, fontsize=8)


def _name_stages(
    axes: Axes, stages: Sequence[str], lefts: Sequence[float], widths: Sequence[float], height: float
) -> None:
    """Draw a line over the boxes of each stage, with the number of the stage above.

    Args:
        axes: where to draw.
        stages: the stage of each box, or an empty text.
        lefts: the left side of each box, in inches.
        widths: the width of each box, in inches.
        height: where the numbers stand, in inches.
    """
    axes.text(0.05, height, "stage", va="center", fontsize=8)
    for stage in dict.fromkeys(stage for stage in stages if stage):
        first, last = stages.index(stage), len(stages) - 1 - stages[::-1].index(stage)
        begin, end = lefts[first], lefts[last] + widths[last]
        axes.plot([begin, end], [height - 0.09] * 2, color=INK, linewidth=0.8)
        axes.text((begin + end) / 2, height, stage, ha="center", va="center", fontsize=8)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``height`` inches with panels below each other that share the x-axis."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _dots(axes: Axes, xs: Sequence[float], ys: Sequence[float], label: str) -> None:
    """Draw points as dots, which are smaller where there are many."""
    many = len(xs) > MANY
    axes.plot(xs, ys, "o", color=BLUE, alpha=0.6, markersize=2 if many else 4, label=label, rasterized=many)


def _legend(axes: Axes, columns: int = 3) -> None:
    """Place the legend above the axes, where it hides no point."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def _finish_time_axis(axes: Axes, unit: str) -> None:
    """Label the x-axis and give it whole numbers alone."""
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
