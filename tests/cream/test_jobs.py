"""Search, retraining and test through the commands that a user types, on the embedded images."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from paths import ROOT
from tables import rows_of

import cream
from cream import cli
from cream.space import parse_arch
from cream.train.board import PrioritizedBoard
from pimm.errors import ConfigError
from pimm.utils import latest_checkpoint, read_checkpoint

SMALL = [
    *("EPOCHS=3", "WORKERS=0", "LOG_INTERVAL=5", "DATASET.BATCH_SIZE=40", "RECOVERY_INTERVAL=7"),
    *("SUPERNET.META_STA_EPOCH=0", "SUPERNET.UPDATE_ITER=4", "SUPERNET.POOL_SIZE=2", "SUPERNET.PROBES=1"),
    *("SUPERNET.SELECT_BATCHES=2", "DATA_DIR=data/fashion_mnist"),
]


def search_args(folder, *more):
    return ["--cfg", "configs/demo/search.yaml", *SMALL, f"SAVE_PATH={folder}", *more]


def files_of(folder):
    """Everything that the next batch depends on, of a run's furthest checkpoint, as {name: array or value}."""
    return flatten(read_checkpoint(latest_checkpoint(folder)).files)


def flatten(value, prefix=""):
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{prefix}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{prefix}/{i}").items()}
    return {prefix: value}


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    os.chdir(ROOT)
    assert cli.search(search_args(folder)) == 0
    return folder / "search"


def test_a_search_fills_the_board_and_teaches_the_matching_network(searched):
    state = read_checkpoint(latest_checkpoint(searched)).files["state.pdstate"]["step"]
    board = PrioritizedBoard(2)
    board.load_state_dict(state["board"])
    assert len(board) == 2
    assert state["meta_updates"] == state["batches_taught"] // 4 > 5
    rows = rows_of(searched / "summary.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["train_rho"]) == 0 and 0 < float(rows[2]["train_rho"]) < 1
    assert float(rows[2]["train_kd_loss"]) > 0


def test_the_result_is_the_best_candidate_of_the_board(searched):
    result = json.loads((searched / "architecture.json").read_text())
    candidates = rows_of(searched / "candidates.csv")
    assert len(candidates) == 2
    assert result["prec1"] == max(float(row["prec1"]) for row in candidates)
    assert parse_arch(candidates[0]["arch"]) == parse_arch(result["arch"])
    assert 0 < result["mflops"] <= 6 and result["resolution"] == 32


def test_the_course_of_a_search_is_recorded_and_reported(searched):
    history = [json.loads(line) for line in (searched / "history.jsonl").read_text().splitlines()]
    state = read_checkpoint(latest_checkpoint(searched)).files["state.pdstate"]["step"]
    assert [line["epoch"] for line in history] == [0, 1, 2]
    for line in history:
        assert {sum(position) for stage in line["sampled"] for position in stage} == {25 * (line["epoch"] + 1)}
    assert history[0]["board"] == [] and not np.any([p for stage in history[0]["kept"][1:-1] for p in stage])
    last = history[-1]
    assert (last["sampled"], last["kept"]) == (state["sampled"], state["kept"])
    assert last["board"] == [
        {name: entry[name] for name in ("arch", "prec1", "mflops")} for entry in state["board"]["entries"]
    ]
    probed = [float(row["eval_prec1"]) for row in rows_of(searched / "summary.csv")]
    assert [line["probes"][0]["prec1"] for line in history] == pytest.approx(probed)
    page = (searched / "report.html").read_text()
    assert all(row["arch"] in page for row in rows_of(searched / "candidates.csv"))


def test_the_retrain_file_runs_as_it_is_and_its_checkpoint_tests_alike(searched, capsys):
    from cream import jobs
    from cream.config.load import load_config

    path = str(searched / "retrain.yaml")
    assert cli.retrain(["--cfg", path, "EPOCHS=2", "WORKERS=0"]) == 0
    run = searched.parent / "search_retrain"
    rows = rows_of(run / "summary.csv")
    lags = float(rows[1]["eval_prec1_without_ema"]) > float(rows[1]["eval_prec1"])
    log = (run / "log.txt").read_text()
    assert ("which NET.EMA.USE=False tests" in log) == lags
    source = run / "model_best" / "model.pdparams" if lags else run
    assert f"python tools/predict.py {source} IMAGES" in log and f"python tools/export.py {source} --output" in log
    for trained in (run, run / "model_best", searched, searched / "architecture.pdparams"):
        with pytest.raises(ConfigError, match="names its net itself: --model cream_14"):
            cream.load(trained, model="cream_14")
    metrics = jobs.test(load_config(path, ["WORKERS=0", f"RESUME_PATH={run / 'checkpoint-1'}"]))
    assert metrics["prec1"] == pytest.approx(float(rows[1]["eval_prec1"]))
    assert metrics["loss"] == pytest.approx(float(rows[1]["eval_loss"]))
    own = jobs.test(load_config(path, ["WORKERS=0", f"RESUME_PATH={run / 'checkpoint-1'}", "NET.EMA.USE=False"]))
    assert own["prec1"] == pytest.approx(float(rows[1]["eval_prec1_without_ema"]))
    capsys.readouterr()
    for job, args, says in (  # and one in place of the other
        (cli.test, ["--cfg", path, f"RESUME_PATH={searched}"], "is a search; must be the training of the net"),
        (cli.select, [str(run)], f"{run} holds no search"),
        (cli.spos_search, [str(run)], f"{run} holds no search"),
    ):
        assert job(args) == 2
        assert says in capsys.readouterr().err


def run_and_kill(script, args, marker, after, sent=signal.SIGKILL):
    """Starts a tool, ends it ``after`` seconds after ``marker`` appears in its log, and returns its exit code."""
    process = subprocess.Popen([sys.executable, f"tools/{script}.py", *args], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if marker in line:
            break
    time.sleep(after)
    process.send_signal(sent)
    process.stderr.read()
    process.stderr.close()
    return process.wait()


def test_a_killed_search_goes_on_as_if_nothing_had_happened(searched, tmp_path):
    args = search_args(tmp_path, "AUTO_RESUME=True")
    assert run_and_kill("train", args, "epoch 0 [10/25]", after=0.1) == -signal.SIGKILL
    assert run_and_kill("train", args, "epoch 1 [15/25]", after=0.2, sent=signal.SIGTERM) == 0
    position = read_checkpoint(latest_checkpoint(tmp_path / "search")).manifest
    assert position["epoch"] == 1 and position["batch"] > 15  # not the last interval's, which is a multiple of 7
    assert cli.search(args) == 0
    assert_same_state(files_of(tmp_path / "search"), files_of(searched))
    for name in ("architecture.json", "candidates.csv", "summary.csv", "history.jsonl", "operations.json"):
        assert (tmp_path / "search" / name).read_text() == (searched / name).read_text()


def test_a_killed_retraining_goes_on_as_if_nothing_had_happened(searched, tmp_path):
    args = ["--cfg", str(searched / "retrain.yaml"), "EPOCHS=2", "WORKERS=2", "RECOVERY_INTERVAL=6", "AUTO_RESUME=True"]
    args += ["NET.DROPOUT_RATE=0.2", "LOG_INTERVAL=10"]
    assert run_and_kill("retrain", [*args, f"SAVE_PATH={tmp_path / 'broken'}"], "epoch 1 [10/20]", 0.3) < 0
    assert cli.retrain([*args, f"SAVE_PATH={tmp_path / 'broken'}"]) == 0
    assert cli.retrain([*args, f"SAVE_PATH={tmp_path / 'whole'}"]) == 0
    assert_same_state(files_of(tmp_path / "broken" / "search_retrain"), files_of(tmp_path / "whole" / "search_retrain"))
