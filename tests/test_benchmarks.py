"""The script that runs all benchmarks: its jobs, its turns, and what it writes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import growth
import measuring
import run
from measuring import Figure

FOLDER = Path(run.__file__).parent


@pytest.mark.parametrize("name", run.JOBS)
def test_every_job_has_a_function(name):
    module, function = run.JOBS[name]
    assert callable(getattr(importlib.import_module(module), function))


def test_curves_are_jobs():
    assert set(growth.PANELS) == {name for name, (module, _) in run.JOBS.items() if module == "growth"}


def test_rivals_take_turns_and_the_first_does_not_count(monkeypatch):
    monkeypatch.setattr(measuring, "TURNS", 5)
    calls, values = [], {"a": iter([100, 3, 1, 2, 5, 4]), "b": iter([0, 30, 10, 20, 50, 40])}

    def runner(name):
        return lambda seconds: calls.append((name, seconds)) or next(values[name])

    assert measuring.in_turns({"a": runner("a"), "b": runner("b")}, 24) == {
        "a": [3, 1, 2, 5, 4],
        "b": [30, 10, 20, 50, 40],
    }
    assert calls == [("a", 2), ("b", 2)] * 6


def test_turns_end_in_time_but_not_before_the_first(monkeypatch):
    monkeypatch.setattr(measuring.time, "perf_counter", iter([0, 100]).__next__)
    values = iter([9, 7])  # of the first turn, and of the one that counts
    assert measuring.in_turns({"a": lambda seconds: next(values)}, 10) == {"a": [7]}


def test_figures_are_compared_turn_by_turn():
    turns = {"here": [20.0, 9.0, 30.0], "rival": [10.0, 6.0, 5.0]}
    ours, its = measuring.figures_of("net", turns)
    assert (ours.value, its.value, ours.by, ours.unit) == (20.0, 6.0, "here", "images/s")
    assert measuring.times_as_good(ours, its) == 2.0  # of 2, 1.5 and 6
    slow, fast = measuring.figures_of("net", turns, "ms")
    assert measuring.times_as_good(slow, fast) == 0.5
    assert measuring.times_as_good(ours, its._replace(turns=())) == 20.0 / 6.0


def test_images_per_second(monkeypatch):
    steps = []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: 2.0 * len(steps))
    assert measuring.images_per_second(lambda: steps.append(1), 8)(5.0) == 8 / 2  # three steps of two seconds
    assert len(steps) == 3


FIGURES = {
    "training": [
        Figure("train", "here", 150.0, "images/s"),
        Figure("train", "PyTorch eager", 100.0, "images/s"),
        Figure("train", "PyTorch compile", 120.0, "images/s"),
    ],
    "operators": [Figure("swish", "Paddle", 9.0, "ms"), Figure("swish", "here", 3.0, "ms")],
    "supernet": [Figure("step", "here, plain", 1234.5, "images/s"), Figure("step", "here, taught", 7.0, "images/s")],
    "growth: batch": [Figure("net", "here, train", 5.0 * batch, "images/s", batch) for batch in (8, 16)],
}


def test_the_table_compares_with_the_best_rival():
    jobs = {name: {"figures": [figure._asdict() for figure in figures]} for name, figures in FIGURES.items()}
    jobs["loader"] = {"figures": [], "error": "it failed"}
    assert run.table(jobs).splitlines() == [
        "| training | train | 150 images/s | PyTorch eager 100 images/s; PyTorch compile 120 images/s | 1.25 |",
        "| operators | swish | 3 ms | Paddle 9 ms | 3.00 |",
        "| supernet | step | plain 1,234 images/s; taught 7 images/s |  |  |",
        "| growth: batch | net, 8 (batch) | train 40 images/s |  |  |",
        "| growth: batch | net, 16 (batch) | train 80 images/s |  |  |",
        "| loader | it failed | | | |",
    ]


def test_the_picture_has_a_panel_for_each_curve(tmp_path):
    growth.draw(FIGURES, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().count('id="axes_') == 1
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]


def test_a_job_from_end_to_end(tmp_path):
    command = [sys.executable, FOLDER / "run.py", "--small", "--only", "index", "--output", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    figures = found["jobs"]["index"]["figures"]
    assert [(each["what"], each["by"]) for each in figures] == [
        ("index of 2000 files", "here, new"),
        ("index of 2000 files", "here, kept"),
    ]
    assert all(0 < each["value"] < 60 and each["unit"] == "s" for each in figures)
    assert "error" not in found["jobs"]["index"] and found["machine"]["paddle"][0].isdigit()
    assert run.table(found["jobs"]) in (tmp_path / "out.md").read_text()
    assert run.table(found["jobs"]) in done.stdout
