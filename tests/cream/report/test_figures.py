"""The figures of a report: what they draw."""

import numpy as np
import pytest

from cream.report import figures
from cream.report.figures import Block, Line, Point


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(3, 5)], [0]),
        ([(1, 1), (2, 2), (3, 3)], [0, 1, 2]),
        ([(3, 1), (2, 2), (1, 3)], [2]),
        ([(2, 5), (1, 4), (2, 6), (3, 6), (4, 5), (5, 7)], [1, 2, 5]),
        ([(1, 4), (1, 4)], [0]),
    ],
)
def test_pareto_front(points, front):
    assert figures.pareto_front([Point(*point) for point in points]) == front


def test_pareto_front_holds_what_nothing_dominates():
    points = [Point(*pair) for pair in np.random.default_rng(0).uniform(0, 100, (200, 2))]

    def dominated(point):
        return any(o != point and o.mflops <= point.mflops and o.prec1 >= point.prec1 for o in points)

    expected = sorted((p for p in points if not dominated(p)), key=lambda p: p.mflops)
    assert [points[i] for i in figures.pareto_front(points)] == expected


def lines_of(axes):
    return {line.get_label(): np.stack(line.get_data(), axis=1).tolist() for line in axes.lines}


def test_accuracy_against_cost_draws_points_front_and_choice():
    points = [Point(1.0, 10.0), Point(2.0, 30.0), Point(3.0, 20.0)]
    figure = figures.accuracy_against_cost(points, points[1], outside=[Point(9.0, 50.0)])
    assert lines_of(figure.axes[0]) == {
        "candidate": [[1, 10], [2, 30], [3, 20]],
        "violates a constraint": [[9, 50]],
        "Pareto front": [[1, 10], [2, 30]],
        "selected": [[2, 30]],
    }


def test_population_over_time_draws_every_member_and_the_best():
    figure = figures.population_over_time({3: [Point(5, 40), Point(4, 60)], 5: [Point(2, 70)], 6: []}, "generation")
    above, below = (lines_of(axes) for axes in figure.axes)
    assert above == {"member": [[3, 40], [3, 60], [5, 70]], "the best": [[3, 60], [5, 70]]}
    assert below == {"member": [[3, 5], [3, 4], [5, 2]], "the best": [[3, 4], [5, 2]]}
    assert figure.axes[1].get_xlabel() == "generation"


def test_curves_have_their_ranges():
    figure = figures.curves({"loss": [Line("a", [0, 1], [2.0, 1.0], [1.5, 0.5], [3.0, 2.0])]})
    assert lines_of(figure.axes[0]) == {"a": [[0, 2], [1, 1]]}
    (band,) = figure.axes[0].collections
    assert {(0, 1.5), (0, 3), (1, 0.5), (1, 2)} == {tuple(point) for point in band.get_paths()[0].vertices}


def test_shares_are_written_into_their_cells():
    matrix = np.array([[0.25, 0.75], [1.0, np.nan]])
    figure = figures.shares({"kept": matrix}, ["1.0", "1.1"], ["a", "skip"], [1, None])
    (axes,) = figure.axes
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0.5, 0.5): "25",
        (1.5, 0.5): "75",
        (0.5, 1.5): "100",
    }
    (frame,) = axes.patches
    assert frame.get_xy() == (1, 0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "skip"]
    wide = figures.shares({"kept": np.full((1, 40), 1 / 40)}, ["1.0"], [str(i) for i in range(40)], [0])
    assert len(wide.axes) == 2 and not wide.axes[0].texts


def test_blocks_are_as_wide_as_they_expand_and_as_high_as_their_channels():
    blocks = [Block(0, "a", 3, 1, 16, 8), Block(1, "b", 5, 6, 16, 4), Block(1, "c", 7, 6, 64, 4, skipped=True)]
    figure = figures.architecture(blocks, stem=(8, 16), image=(3, 32), classes=10)
    _, _, a, b, c, _ = figure.axes[0].patches
    assert b.get_width() > a.get_width() and b.get_width() == c.get_width()
    assert a.get_height() == b.get_height() < c.get_height()
    assert [patch.get_fill() and patch.get_facecolor()[3] for patch in (a, b, c)] == [1, 1, 0]
    words = [text.get_text() for text in figure.axes[0].texts]
    drawn = [("image", "3", "32"), ("stem", "8", "16"), ("a", "16", "8"), ("b", "16", "4"), ("skipped", "64", "4")]
    assert list(zip(*[iter(words[:18])] * 3)) == [*drawn, ("classifier", "10", "1")]
    assert words[18:] == ["channels", "pixels", "stage", "0", "1"]
