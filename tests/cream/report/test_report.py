"""The report of a search: the counts and records that it is made from, and its page."""

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

from cream.flops import CostTable
from cream.report import report_search
from cream.report.operations import Anatomy, Operation, Position, write_anatomy
from cream.report.page import number
from cream.report.report import write_report
from cream.report.search import Search
from cream.report.sections import _offers
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
    update = SimpleNamespace(optimizer=None, complete=True, state_dict=dict, load_state_dict=lambda state: None)
    return kind(SimpleNamespace(space=SPACE), None, update, sampler, np.random.default_rng(seed), **kwargs)


def counted(archs):
    """Count the choices of paths by hand, [stage][position][choice], with skips last where they are valid."""
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
    first.sample()  # must not change what was saved
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
    # First c is not accurate enough. Later a, offered again, is less accurate and keeps its entry; cheap c replaces b.
    state = step.log_state()
    assert state["kept"] == counted([a, b, a, d, c])
    assert [(entry["arch"], entry["prec1"], entry["mflops"]) for entry in state["board"]] == [
        (d, 30.0, 0.5 + 1 + 3 + 6),
        (c, 20.0, 0.5 + 1 + 3),
    ]
    resumed = step_of(CreamStep, board=PrioritizedBoard(2), flops=COSTS)
    resumed.load_state_dict(step.state_dict())
    assert resumed.log_state() == state


# Records


def test_records_come_back_and_are_rewound(tmp_path):
    with RunLog(tmp_path) as run:
        check_records(History(run), tmp_path)


def check_records(run, tmp_path):
    for epoch in range(4):
        run.record(epoch, board=[{"arch": ((0,), (1, SKIP)), "prec1": epoch / 3}])
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 4, "boa')  # the line that a killed process left
    lines = read_history(tmp_path / "history.jsonl")
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert lines[2] == {"epoch": 2, "board": [{"arch": [[0], [1, -1]], "prec1": 2 / 3}]}
    run.rewind(2)
    assert read_history(tmp_path / "history.jsonl") == lines[:2]
    run.record(2, board=[])
    assert [line["epoch"] for line in read_history(tmp_path / "history.jsonl")] == [0, 1, 2]


# Page


class Page(HTMLParser):
    """The contents of an HTML document, in which every element must be closed in order."""

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
    """Write the folder of an invented search, whose second candidate is the result."""
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
    result = {**rows[1], "arch": archs[1], "mparams": 1.25, "resolution": 32, "num_classes": 10}
    (folder / "architecture.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text('DATA_DIR: "/data/<b>\'&quot;"\nSUPERNET:\n  STAGE_DEPTHS: [1, 2]\n')
    write_anatomy(folder, some_anatomy())
    counts = OperationCounts(SPACE)
    with open(folder / "history.jsonl", "w") as history, open(folder / "summary.csv", "w") as summary:
        summary.write("epoch,train_loss,train_kd_loss,train_prec1,eval_loss,eval_board_prec1\n")
        for epoch in range(epochs):
            for arch in archs:
                counts.add(arch)
            state = {"kept": counts.counts, "board": [{"arch": archs[0], "prec1": 40.0 + epoch, "mflops": 9}] * 10}
            probes = [{"prec1": 30.0 + epoch}, {"prec1": 20.0}]
            history.write(
                json.dumps({"epoch": epoch, "probes": probes, "sampled": counts.counts, **(state if board else {})})
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
    *_, document = reported
    assert document.headings == [
        "Search report: a<b>&'\"c",
        *("Result", "Architecture", "Accuracy against cost", "The board over time", "Training", "Operations"),
        "Settings",
    ]
    assert document.tables["Settings of the search"][1:] == [
        ["DATA_DIR", "/data/<b>'&quot;"],
        ["SUPERNET.STAGE_DEPTHS", "[1, 2]"],
    ]
    assert ["top-1 (%)", "49.00"] in document.tables["The selected net"]


def test_the_page_has_all_candidates(reported):
    _, rows, _, document = reported
    header, *listed = document.tables["All candidates"]
    assert header == ["rank", "on the front", "top-1 (%)", "MFLOPs", "violated constraints", "architecture"]
    # Each is cheaper and less accurate than the one before. The first violates a constraint, all others on the front.
    assert listed == [
        [str(i + 1), "yes" if i else "", number(50.0 - i), number(9 - i / 8), row["outside"], row["arch"]]
        for i, row in enumerate(rows)
    ]


def test_the_page_shows_the_history_of_the_search(reported):
    folder, _, _, document = reported
    last = read_history(folder / "history.jsonl")[-1]
    names = {"1.0": ["a", "b", "<c>"], "1.1": ["a", "b", "<c>", "skip"]}
    counts = dict(zip(names, last["sampled"][1]))
    assert sum(counts["1.0"]) == sum(counts["1.1"]) == 18
    assert document.tables["Counts"][1:] == [
        [place, name, str(count), str(count)] for place in names for name, count in zip(names[place], counts[place])
    ]
    assert document.tables["The board by epoch"][1:] == [
        [str(e), "10", f"{40 + e}.00", f"{40 + e}.00", "9.000"] for e in range(3)
    ]
    assert [row[0] for row in document.tables["Every epoch"][1:]] == ["0", "1", "2"]
    assert [row[-1] for row in document.tables["Every epoch"][1:]] == ["-", "40.50", "40.50"]


def test_the_page_shows_the_net_block_by_block(reported):
    *_, document = reported
    assert document.tables["Every block of the net"][1:] == [
        ["0.0", "0", "DS", "16", "16 x 16", "1.500", "0.2500"],
        ["1.0", "1", "b", "24", "8 x 8", "1.500", "0.2500"],
        ["1.1", "-1", "skipped", "24", "8 x 8", "0.000", "0.000"],
        ["", "", "stem and head", "", "", "0.5000", "0.1250"],
    ]


def test_the_page_needs_nothing_else_and_repeats_no_id(reported):
    folder, _, _, document = reported
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert "http" not in text and "@import" not in text
    assert not document.tags.keys() & {"script", "link", "iframe", "object", "embed", "base", "b"}
    links = [value for name, value in document.attributes if name in ("href", "xlink:href", "src")]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    ids = [value for name, value in document.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_picture_has_words_and_a_file(reported):
    folder, _, pixels, document = reported
    assert len(document.pictures) == len(pixels) == 5 and all(len(words) > 20 for words in document.pictures)
    assert {path.stem for path in (folder / "report").iterdir()} == pixels.keys()
    for name, picture in pixels.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "report" / f"{name}.png").convert("RGB")), picture)
        assert picture.std() > 10


def test_a_search_without_a_board_has_a_report(tmp_path):
    write_search(tmp_path / "run", board=False)
    write_report(tmp_path / "run")
    document = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "The board over time" not in document.headings and "Operations" in document.headings
    assert document.tables["Counts"][0] == ["stage.block", "operation", "sampled"]


@pytest.mark.parametrize(
    ("choice", "skips", "names"),
    [(2, 0, ["a", "b", "<c>"]), (2, 1, ["a", "b", "<c>", "skip"]), (SKIP, 0, ["a", "b", "<c>", "skip"])],
)
def test_a_skip_is_shown_where_it_was_drawn_or_chosen(choice, skips, names):
    search = Search(None, {"arch": [[0], [1, choice]]}, [], some_anatomy(), [], [], {})
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


def test_an_evolution_shows_its_generations(tmp_path):
    write_search(tmp_path / "run", board=False)
    archs = [[[0], [0, choice]] for choice in (0, 1, 2, SKIP)]
    metrics = [(40.0, 2.0), (60.0, 4.0), (55.0, 3.0), (45.0, 1.0)]
    scores = {format_arch(arch): {"prec1": p, "mflops": m} for arch, (p, m) in zip(archs, metrics)}
    state = {"generations": [archs[:2], archs[2:]], "scores": scores}
    (tmp_path / "run" / "evolution.json").write_text(json.dumps({"settings": {}, "state": state}))
    assert write_report(tmp_path / "run").keys() >= {"generations"}
    document = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert document.headings[4] == "Generations"
    assert document.tables["Every generation"][1:] == [
        ["0", "2", "60.00", "60.00", "50.00", "40.00", "3.000"],
        ["1", "2", "60.00", "55.00", "50.00", "45.00", "2.000"],
    ]
    (tmp_path / "run" / "evolution.json").write_text(json.dumps({"state": {**state, "scores": {}}}))
    with pytest.raises(CheckpointError, match=r"evolution\.json is damaged"):
        write_report(tmp_path / "run")


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("architecture.json", '{"arch": [[0]'),
        ("architecture.json", '{"arch": 3}'),
        ("architecture.json", "[" * 100_000),
        ("operations.json", "{}"),
        ("operations.json", '{"stages": [[{"operations": 1}]]}'),
        ("config.yaml", "a: ["),
        ("config.yaml", "[1]"),
        ("summary.csv", "epoch\n1,2\n\xff"),
    ],
)
def test_a_damaged_file_is_named(name, content, tmp_path):
    write_search(tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content.encode("latin1"))
    with pytest.raises(CheckpointError) as caught:
        write_report(tmp_path / "run")
    message = str(caught.value).replace(str(tmp_path), "")
    assert message.startswith(f"/run/{name} is damaged: ") and "\n" not in message and len(message) < 300


def test_candidates_of_a_choice_that_found_nothing(tmp_path):
    write_search(tmp_path / "run")
    path = tmp_path / "run" / "architecture.json"
    result = json.loads(path.read_text())
    result["arch"][1][0] = 1 - min(result["arch"][1][0], 1)
    path.write_text(json.dumps(result))
    with pytest.raises(CheckpointError, match=r"candidates\.csv is from a later selection, which found no net"):
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
