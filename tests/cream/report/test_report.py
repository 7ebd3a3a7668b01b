"""The report of a search: what is counted and recorded, what is drawn, and the page that shows it."""

import collections
import csv
import json
import runpy
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paths import ROOT
from PIL import Image

from cream.flops import CostTable, cost_tables
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import MobileSpace, read_spec
from cream.report import figures, report_search
from cream.report.figures import Block, Line, Point
from cream.report.operations import Anatomy, Operation, Position, anatomy, read_anatomy, write_anatomy
from cream.report.page import number
from cream.report.report import _offers, write_report
from cream.space import SKIP, SearchSpace, format_arch
from cream.train.board import PrioritizedBoard
from cream.train.history import History, OperationCounts, read_history
from cream.train.sampler import Sampler
from cream.train.steps import CreamStep, SinglePathStep
from pimm.engine import RunLog
from pimm.errors import CheckpointError

SPACE = SearchSpace(((1,), (3, 3)), ((False,), (False, True)), draws_skip=True)
COSTS = CostTable([[[1.0]], [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]], 0.5)


# Counts


def step_of(kind, seed=0, **kwargs):
    sampler = Sampler(SPACE, COSTS, 0, 100)
    update = SimpleNamespace(optimizer=None, state_dict=dict, load_state_dict=lambda state: None)
    return kind(SimpleNamespace(space=SPACE), None, update, sampler, np.random.default_rng(seed), **kwargs)


def counted(archs):
    """[stage][position][choice] by hand; skips last, where one may skip."""
    sizes = [[1], [3, 4]]
    return [
        [
            [sum(arch[stage][i] == (choice if choice < 3 else SKIP) for arch in archs) for choice in range(n)]
            for i, n in enumerate(row)
        ]
        for stage, row in enumerate(sizes)
    ]


def test_counts_equal_a_replay_of_the_sampler():
    step, replayed = step_of(SinglePathStep), step_of(SinglePathStep)
    drawn = [step.sample() for _ in range(60)]
    again = [replayed.sampler(replayed.rng, None) for _ in range(60)]
    assert drawn == again
    assert step.log_state() == {"sampled": counted(drawn)}
    assert 0 < step.log_state()["sampled"][1][1][SKIP] < 60


def test_counts_go_on_from_a_checkpoint():
    whole, first, second = (step_of(SinglePathStep) for _ in range(3))
    for _ in range(20):
        whole.sample()
    for _ in range(8):
        first.sample()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    first.sample()  # leaves what was saved alone
    for _ in range(12):
        second.sample()
    assert second.log_state() == whole.log_state()


def test_kept_counts_the_paths_that_found_a_place():
    step = step_of(CreamStep, board=PrioritizedBoard(2), flops=COSTS, slice_size=1)
    a, b, c, d = (((0,), choices) for choices in ((0, 0), (1, 1), (2, SKIP), (2, 2)))
    images, logits = paddle.zeros([2, 3, 4, 4]), paddle.zeros([2, 5])
    offers = [(a, 10.0), (b, 20.0), (c, 5.0), (a, 15.0), (a, 12.0), (d, 30.0), (c, 20.0)]
    for arch, prec1 in offers:
        step.offer_to_board(arch, prec1, images, logits)
    # c is too bad at first; a stays as it was when it is met again and worse; cheap c takes b's place in the end.
    course = step.log_state()
    assert course["kept"] == counted([a, b, a, d, c])
    assert [(entry["arch"], entry["prec1"], entry["mflops"]) for entry in course["board"]] == [
        (d, 30.0, 0.5 + 1 + 3 + 6),
        (c, 20.0, 0.5 + 1 + 3),
    ]
    resumed = step_of(CreamStep, board=PrioritizedBoard(2), flops=COSTS)
    resumed.load_state_dict(step.state_dict())
    assert resumed.log_state() == course


# Records


def test_records_come_back_and_are_rewound(tmp_path):
    with RunLog(tmp_path) as run:
        check_records(History(run), tmp_path)


def check_records(run, tmp_path):
    for epoch in range(4):
        run.record(epoch, board=[{"arch": ((0,), (1, SKIP)), "prec1": epoch / 3}])
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 4, "boa')  # a kill
    lines = read_history(tmp_path / "history.jsonl")
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert lines[2] == {"epoch": 2, "board": [{"arch": [[0], [1, -1]], "prec1": 2 / 3}]}
    run.rewind(2)
    assert read_history(tmp_path / "history.jsonl") == lines[:2]
    run.record(2, board=[])
    assert [line["epoch"] for line in read_history(tmp_path / "history.jsonl")] == [0, 1, 2]


# What the operations are


SPEC = {
    "stem": 8,
    "head": 16,
    "stages": [
        {"channels": 8, "operations": [{"block": "ds", "kernel": 3, "se": 0.25}]},
        {
            "channels": 16,
            "stride": 2,
            "depth": [1, 2],
            "operations": [
                {"block": "ir", "kernel": 5, "expansion": 6},
                {"block": "ir", "kernel": 3, "expansion": 4, "dilation": 2},
                {"block": "ru", "kernel": 3, "reduction": 2},
                {"block": "ru", "kernel": 3, "reduction": 2},
            ],
        },
    ],
}


def test_operations_are_told_by_the_layers(tmp_path):
    net = MobileSuperNet(MobileSpace(read_spec(SPEC)), num_classes=3)
    tables = cost_tables(net, 32)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    described = anatomy(net, 32, tables)
    (first,), (second, third) = described.stages
    assert (described.stem_channels, described.stem_size) == (8, 16)
    assert [(place.channels, place.size, place.may_skip) for place in (first, second, third)] == [
        (8, 16, False),
        (16, 8, False),
        (16, 8, True),
    ]
    assert [operation.name for operation in first.operations] == ["DS 3x3 SE"]
    assert [operation.name for operation in second.operations] == [
        "MB 5x5 e6",
        "MB 3x3 e4 d2",
        "unit 3x3 (2)",
        "unit 3x3 (3)",
    ]
    assert [(one.kernel, one.expansion) for one in third.operations] == [(5, 6), (3, 4), (3, 0.5), (3, 0.5)]
    for table, name in zip(tables, ("mflops", "mparams")):
        costs = [[[getattr(one, name) for one in place.operations] for place in stage] for stage in described.stages]
        assert costs == table.choices
    assert (described.shared_mflops, described.shared_mparams) == (tables[0].fixed, tables[1].fixed)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert net.training
    write_anatomy(tmp_path, described)
    assert read_anatomy(tmp_path) == described


# Figures


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
        "outside the limits": [[9, 50]],
        "Pareto front": [[1, 10], [2, 30]],
        "chosen": [[2, 30]],
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


# Page


class Page(HTMLParser):
    """What is in a document, whose every element must be closed in order."""

    VOID = {"meta"}

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], collections.Counter()
        self.headings, self.pictures, self.tables, self.label = [], [], {}, None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        if tag == "div":
            self.label = dict(attrs)["aria-label"]
        elif tag == "svg":
            self.pictures.append(dict(attrs)["aria-label"])
        elif tag in ("h1", "h2"):
            self.headings.append("")
        elif tag == "tr":
            self.tables.setdefault(self.label, []).append([])
        elif tag in ("td", "th"):
            self.tables[self.label][-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[self.label][-1][-1] += data
        elif self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] += data


def some_anatomy():
    def place(channels, size, may_skip, *names):
        return Position(channels, size, may_skip, tuple(Operation(name, 3, 4.0, 1.5, 0.25) for name in names))

    stages = (
        (place(16, 16, False, "DS"),),
        (place(24, 8, False, "a", "b", "<c>"), place(24, 8, True, "a", "b", "<c>")),
    )
    return Anatomy(32, 16, 16, 0.5, 0.125, stages)


def write_search(folder, epochs=3, board=True, candidates=6):
    """The folder of a search that never was; of its candidates the second is the result."""
    folder.mkdir(parents=True)
    archs = [((0,), (i % 3, (i + 3) % 4 - 1)) for i in range(candidates)]
    rows = [
        {
            "arch": format_arch(arch),
            "prec1": 50.0 - i,
            "mflops": 9.0 - i / 8,
            "outside": "" if i else "too dear",
            "scored_on": "images",
        }
        for i, arch in enumerate(archs)
    ]
    with open(folder / "candidates.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = {**rows[1], "arch": archs[1], "mparams": 1.25, "resolution": 32, "num_classes": 10}
    (folder / "architecture.json").write_text(json.dumps(found))
    (folder / "config.yaml").write_text('DATA_DIR: "/data/<b>\'&quot;"\nSUPERNET:\n  STAGE_DEPTHS: [1, 2]\n')
    write_anatomy(folder, some_anatomy())
    counts = OperationCounts(SPACE)
    with open(folder / "history.jsonl", "w") as history, open(folder / "summary.csv", "w") as summary:
        summary.write("epoch,train_loss,train_kd_loss,train_prec1,eval_loss,eval_board_prec1\n")
        for epoch in range(epochs):
            for arch in archs:
                counts.add(arch)
            course = {"kept": counts.counts, "board": [{"arch": archs[0], "prec1": 40.0 + epoch, "mflops": 9}] * 10}
            probes = [{"prec1": 30.0 + epoch}, {"prec1": 20.0}]
            history.write(
                json.dumps({"epoch": epoch, "probes": probes, "sampled": counts.counts, **(course if board else {})})
            )
            history.write("\n")
            summary.write(f"{epoch},{3 - epoch / epochs},0.0,{epoch},2.5,{40.5 if epoch else 'nan'}\n")
    return rows


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a<b>&'\"c"
    rows = write_search(folder)
    pixels = write_report(folder)
    return folder, rows, pixels, Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_every_section(reported):
    *_, found = reported
    assert found.headings == [
        "Search report: a<b>&'\"c",
        *("Result", "Architecture", "Accuracy against cost", "The board over time", "Training", "Operations"),
        "Settings",
    ]
    assert found.tables["Settings of the search"][1:] == [
        ["DATA_DIR", "/data/<b>'&quot;"],
        ["SUPERNET.STAGE_DEPTHS", "[1, 2]"],
    ]
    assert ["top-1 (%)", "49.00"] in found.tables["The net that was found"]


def test_the_page_has_all_candidates(reported):
    _, rows, _, found = reported
    header, *listed = found.tables["All candidates"]
    assert header == ["rank", "on the front", "top-1 (%)", "MFLOPs", "outside the limits", "architecture"]
    # Each is cheaper and worse than the one before it: all are on the front but the first, which is outside the limits.
    assert listed == [
        [str(i + 1), "yes" if i else "", number(50.0 - i), number(9 - i / 8), row["outside"], row["arch"]]
        for i, row in enumerate(rows)
    ]


def test_the_page_tells_the_course_of_the_search(reported):
    folder, _, _, found = reported
    last = read_history(folder / "history.jsonl")[-1]
    names = {"1.0": ["a", "b", "<c>"], "1.1": ["a", "b", "<c>", "skip"]}
    counts = dict(zip(names, last["sampled"][1]))
    assert sum(counts["1.0"]) == sum(counts["1.1"]) == 18
    assert found.tables["Counts"][1:] == [
        [place, name, str(count), str(count)] for place in names for name, count in zip(names[place], counts[place])
    ]
    assert found.tables["The board by epoch"][1:] == [
        [str(e), "10", f"{40 + e}.00", f"{40 + e}.00", "9.000"] for e in range(3)
    ]
    assert [row[0] for row in found.tables["Every epoch"][1:]] == ["0", "1", "2"]
    assert [row[-1] for row in found.tables["Every epoch"][1:]] == ["-", "40.50", "40.50"]


def test_the_page_shows_the_net_block_by_block(reported):
    *_, found = reported
    assert found.tables["Every block of the net"][1:] == [
        ["0.0", "0", "DS", "16", "16 x 16", "1.500", "0.2500"],
        ["1.0", "1", "b", "24", "8 x 8", "1.500", "0.2500"],
        ["1.1", "-1", "skipped", "24", "8 x 8", "0.000", "0.000"],
        ["", "", "stem and head", "", "", "0.5000", "0.1250"],
    ]


def test_the_page_needs_nothing_else_and_repeats_no_id(reported):
    folder, _, _, found = reported
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert "http" not in text and "@import" not in text
    assert not found.tags.keys() & {"script", "link", "iframe", "object", "embed", "base", "b"}
    links = [value for name, value in found.attributes if name in ("href", "xlink:href", "src")]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_picture_has_words_and_a_file(reported):
    folder, _, pixels, found = reported
    assert len(found.pictures) == len(pixels) == 5 and all(len(words) > 20 for words in found.pictures)
    assert {path.stem for path in (folder / "report").iterdir()} == pixels.keys()
    for name, picture in pixels.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "report" / f"{name}.png").convert("RGB")), picture)
        assert picture.std() > 10


def test_a_search_without_a_board_has_a_report(tmp_path):
    write_search(tmp_path / "run", board=False)
    write_report(tmp_path / "run")
    found = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "The board over time" not in found.headings and "Operations" in found.headings
    assert found.tables["Counts"][0] == ["stage.block", "operation", "sampled"]


@pytest.mark.parametrize(
    ("choice", "skips", "names"),
    [(2, 0, ["a", "b", "<c>"]), (2, 1, ["a", "b", "<c>", "skip"]), (SKIP, 0, ["a", "b", "<c>", "skip"])],
)
def test_a_skip_is_shown_where_it_was_drawn_or_chosen(choice, skips, names):
    search = SimpleNamespace(anatomy=some_anatomy(), arch=((0,), (1, choice)))
    offers = list(_offers(search, {"sampled": [[[4]], [[1, 1, 2], [4 - skips, 0, 0, skips]]]}))
    assert [(place, offered, chosen) for place, offered, _, chosen in offers] == [
        ("1.0", ["a", "b", "<c>"], "b"),
        ("1.1", names, names[choice]),
    ]


def test_a_search_that_trained_nothing_has_a_report(tmp_path):
    write_search(tmp_path / "run")
    for name in ("history.jsonl", "summary.csv"):
        (tmp_path / "run" / name).unlink()
    assert write_report(tmp_path / "run").keys() == {"architecture", "accuracy_mflops"}


def test_a_long_search_has_a_small_report(tmp_path):
    write_search(tmp_path / "run", epochs=120, candidates=200)
    write_report(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").stat().st_size < 1e6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (12.345, "12.35"),
        (0.000123456, "0.0001235"),
        (float("nan"), "-"),
        (float("inf"), "-"),
        (-2.0, "-2.000"),
    ],
)
def test_number(value, text):
    assert number(value) == text


# Failures


def test_a_folder_that_holds_no_finished_search(tmp_path):
    write_search(tmp_path / "run")
    (tmp_path / "run" / "candidates.csv").unlink()
    with pytest.raises(CheckpointError, match=r"run is not the folder of a finished search: it lacks candidates\.csv"):
        write_report(tmp_path / "run")


def test_candidates_of_a_choice_that_found_nothing(tmp_path):
    write_search(tmp_path / "run")
    path = tmp_path / "run" / "architecture.json"
    result = json.loads(path.read_text())
    result["arch"][1][0] = 1 - min(result["arch"][1][0], 1)
    path.write_text(json.dumps(result))
    with pytest.raises(CheckpointError, match=r"candidates\.csv is of a later choice, which found no net"):
        write_report(tmp_path / "run")


def test_the_tool_writes_the_report_of_a_folder(tmp_path, monkeypatch, capsys):
    folders = []
    monkeypatch.setattr("cream.report.report.write_report", folders.append)
    monkeypatch.setattr("sys.argv", ["report.py", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "tools" / "report.py"), run_name="__main__")
    assert (left.value.code, capsys.readouterr().out) == (0, f"{tmp_path / 'report.html'}\n")
    assert folders == [tmp_path]


def test_a_report_that_fails_costs_a_line_and_not_the_search(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cream.report.after_search.anatomy", lambda *args: 1 / 0)
    with RunLog(tmp_path) as run:
        report_search(run, SimpleNamespace(net=None, resolution=32, tables=()), epoch=3)
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert record.getMessage().endswith(f"python tools/report.py {tmp_path} writes it again")
