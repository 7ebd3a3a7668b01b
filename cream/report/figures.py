"""Figures of searches: plain data in, a matplotlib figure out; nothing here knows where the data came from.

Colours are Okabe and Ito's, which colour-blind people tell apart, and no meaning hangs on colour alone
(https://jfly.uni-koeln.de/color).
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
FILLS = {1: "#bbbbbb", 3: "#56b4e9", 5: "#e69f00", 7: "#2fb78f"}  # by kernel: light enough for dark words
OTHER_FILL = "#cc79a7"
INK = "#1f2328"  # of words and axes; a page may put its own colour in its place
WORDS = "#111111"  # on a fill, whatever the page
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
WIDTH = 4.6  # inches, of figures that a page shows in full
FEW = 30  # points that are marked one by one on a line
MANY = 300  # points from which they are small, and dots in a vector drawing: each would take a line there
NUMBERED = 14  # columns of shares that leave room for a number in each cell

styled = matplotlib.rc_context(STYLE)


class Point(NamedTuple):
    """What a path costs, in millions of multiply-adds, and how accurate it is, in percent."""

    mflops: float
    prec1: float


class Line(NamedTuple):
    """A curve, and the range around it where there is one."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Block(NamedTuple):
    """One block of a net: ``expansion`` times its input's channels inside, ``channels`` maps of ``size`` pixels out."""

    stage: int
    name: str
    kernel: int
    expansion: float
    channels: int
    size: int
    skipped: bool = False


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other one beats in cost and accuracy together, cheapest first; of equals one."""
    front, best = [], -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i].mflops, -points[i].prec1)):
        if points[index].prec1 > best:
            front.append(index)
            best = points[index].prec1
    return front


@styled
def accuracy_against_cost(points: Sequence[Point], chosen: Point, outside: Sequence[Point] = ()) -> Figure:
    """All points, the Pareto front as steps, and the chosen point as a star; those outside the limits hollow."""
    figure, (axes,) = _panels(1, 3.2)
    front = [points[index] for index in pareto_front(points)]
    _dots(axes, *zip(*points), label="candidate")
    if outside:
        axes.plot(*zip(*outside), "o", color=INK, alpha=0.5, markerfacecolor="none", label="outside the limits")
    axes.step(*zip(*front), where="post", color=VERMILLION, label="Pareto front")
    axes.plot(*chosen, "*", color=VERMILLION, markeredgecolor=INK, markersize=14, label="chosen")
    axes.set(xlabel="MFLOPs (millions of multiply-adds)", ylabel="top-1 accuracy (%)")
    axes.margins(0.08)
    _legend(axes, columns=2 if outside else 3)
    return figure


@styled
def population_over_time(populations: Mapping[int, Sequence[Point]], unit: str = "epoch") -> Figure:
    """Accuracy and cost of every member at each time, with the best member's as a line."""
    figure, (above, below) = _panels(2, 4.2)
    times = [time for time, members in populations.items() for _ in members]
    members = [member for members in populations.values() for member in members]
    best = {time: max(members, key=lambda member: member.prec1) for time, members in populations.items() if members}
    for axes, name, label in ((above, "prec1", "accuracy when met (%)"), (below, "mflops", "MFLOPs")):
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
    """A panel of curves for each label of a y-axis, over a common time."""
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
def shares(panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], marked: Sequence[int | None]):
    """Tables of shares [rows, columns], 0 to 1 and NaN where there is none, as shades; one cell a row has a frame."""
    numbered = len(columns) * len(panels) <= NUMBERED * 2
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
    for (row, column), share in np.ndenumerate(matrix):
        if not np.isnan(share):
            colour = "#ffffff" if share > 0.6 * most else WORDS
            axes.text(
                column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=7.5
            )


@styled
def architecture(blocks: Sequence[Block], stem: tuple[int, int], image: tuple[int, int], classes: int) -> Figure:
    """A net from left to right: blocks as wide as they expand and as high as the channels they put out.

    ``stem`` and ``image`` are channels and pixels of what the stem makes and takes.
    """
    longest = max(len(block.name) for block in blocks)
    least = 0.25 + 0.072 * longest  # inches: the name stands inside
    highest = math.sqrt(max(block.channels for block in blocks))
    widest = max(block.expansion for block in blocks)
    drawn = [
        ("image", 0.34, least, "none", *image, ""),
        ("stem", 0.34, least, "none", *stem, ""),
        *(
            (
                "skipped" if block.skipped else block.name,
                0.3 + 0.22 * block.expansion / widest,
                least + 1.1 * math.sqrt(block.channels) / highest,
                "none" if block.skipped else FILLS.get(block.kernel, OTHER_FILL),
                block.channels,
                block.size,
                str(block.stage),
            )
            for block in blocks
        ),
        ("classifier", 0.34, least, "none", classes, 1, ""),
    ]
    height = least + 1.1
    stages = [stage for *_, stage in drawn]
    gaps = [0.2 if before != after else 0.06 for before, after in zip(stages, stages[1:])]
    lefts = np.cumsum([0.75, *(item[1] + gap for item, gap in zip(drawn, gaps))])
    right = lefts[-1] + drawn[-1][1] + 0.1
    figure = Figure(figsize=(right, height + 1.15))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, right), ylim=(-height / 2 - 0.5, height / 2 + 0.65))
    axes.axis("off")
    for left, (name, width, tall, fill, channels, size, _) in zip(lefts, drawn):
        style = "dashed" if fill == "none" else "solid"
        axes.add_patch(
            Rectangle((left, -tall / 2), width, tall, facecolor=fill, edgecolor=INK, linewidth=0.8, linestyle=style)
        )
        middle = left + width / 2
        axes.text(
            middle, 0, name, rotation=90, ha="center", va="center", color=INK if fill == "none" else WORDS, fontsize=8
        )
        for line, value in enumerate((channels, size)):
            axes.text(middle, -height / 2 - 0.15 - 0.17 * line, value, ha="center", va="center", fontsize=8)
    for line, label in enumerate(("channels", "pixels")):
        axes.text(0.05, -height / 2 - 0.15 - 0.17 * line, label, va="center", fontsize=8)
    _name_stages(axes, stages, lefts, [item[1] for item in drawn], height / 2 + 0.12)
    kernels = sorted({block.kernel for block in blocks if not block.skipped})
    handles = [Patch(facecolor=FILLS.get(k, OTHER_FILL), edgecolor=INK, label=f"{k}x{k}") for k in kernels]
    axes.legend(handles=handles, loc="upper left", ncols=len(handles), title="kernel", alignment="left")
    return figure


def _name_stages(
    axes: Axes, stages: Sequence[str], lefts: Sequence[float], widths: Sequence[float], height: float
) -> None:
    axes.text(0.05, height, "stage", va="center", fontsize=8)
    for stage in dict.fromkeys(stage for stage in stages if stage):
        first, last = stages.index(stage), len(stages) - 1 - stages[::-1].index(stage)
        begin, end = lefts[first], lefts[last] + widths[last]
        axes.plot([begin, end], [height - 0.09] * 2, color=INK, linewidth=0.8)
        axes.text((begin + end) / 2, height, stage, ha="center", va="center", fontsize=8)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _dots(axes: Axes, xs: Sequence[float], ys: Sequence[float], label: str) -> None:
    many = len(xs) > MANY
    axes.plot(xs, ys, "o", color=BLUE, alpha=0.6, markersize=2 if many else 4, label=label, rasterized=many)


def _legend(axes: Axes, columns: int = 3) -> None:
    """Above the axes, where it hides no point."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def _finish_time_axis(axes: Axes, unit: str) -> None:
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
