"""The final choice: what limits it, which images decide it, and what it leaves behind."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from paths import ROOT
from tables import rows_of

from cream import cli
from cream.build.held_out import hold_out
from cream.build.search import search_net
from cream.config.load import load_config
from cream.flops import CostTable
from cream.jobs import retrain, search, select
from cream.jobs import test as evaluate_net
from cream.selection.candidates import Candidate, Constraint, best_inside, violations
from cream.space import parse_arch
from pimm.engine import Trainer
from pimm.errors import ConfigError
from pimm.utils import latest_checkpoint, load_arrays, read_checkpoint

pytestmark = pytest.mark.usefixtures("without_report")
FLOPS = CostTable([[[1.0, 3.0], [2.0, 6.0]]], 10.0)  # paths cost 13, 15, 17 and 19
PARAMS = CostTable([[[4.0, 1.0], [4.0, 1.0]]], 0.0)  # and 8, 5, 5 and 2
ARCHS = [((0, 0),), ((1, 0),), ((0, 1),), ((1, 1),)]


def flops_limit(least, most):
    return Constraint("MFLOPs", FLOPS, least, most, ("FLOPS_MINIMUM", "FLOPS_MAXIMUM"))


def params_limit(most):
    return Constraint("million parameters", PARAMS, 0.0, most, ("", "PARAMS_MAXIMUM"))


def candidates():
    """The path of index i has accuracy 90 - i: the best come first."""
    return [Candidate(arch, 90 - i, 99, 1.0, FLOPS(arch), PARAMS(arch)) for i, arch in enumerate(ARCHS)]


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ([flops_limit(0, 600)], 0),
        ([flops_limit(14, 600)], 1),
        ([flops_limit(13, 13)], 0),  # the bounds themselves are inside
        ([flops_limit(0, 600), params_limit(5)], 1),
        ([flops_limit(16, 600), params_limit(5)], 2),
        ([flops_limit(0, 600), params_limit(2)], 3),
    ],
)
def test_the_best_inside_all_limits_is_chosen(limits, chosen):
    assert best_inside(candidates(), limits).arch == ARCHS[chosen]


def test_without_one_inside_the_limits_and_the_nearest_are_named():
    limits = [flops_limit(0, 14), params_limit(5)]
    # The first misses the parameters by 60%; the second the FLOPs by 7%: it is the nearest.
    with pytest.raises(ConfigError) as raised:
        best_inside(candidates(), limits)
    words = "none of 4 candidates satisfies FLOPS_MAXIMUM=14 MFLOPs, PARAMS_MAXIMUM=5 million parameters; the nearest, "
    assert words + "[[1, 0]], has 15 MFLOPs above FLOPS_MAXIMUM=14: select again" in str(raised.value)


def test_every_broken_limit_is_told():
    told = violations(ARCHS[2], [flops_limit(0, 14), params_limit(4.5)])
    assert told == "17 MFLOPs above FLOPS_MAXIMUM=14; 5 million parameters above PARAMS_MAXIMUM=4.5"
    assert violations(ARCHS[0], [flops_limit(14, 20)]) == "13 MFLOPs below FLOPS_MINIMUM=14"


def test_a_limit_that_no_path_keeps_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"satisfies PARAMS_MAXIMUM=1.5 million parameters: paths cost from 2 to 8"):
        params_limit(1.5)


# Held-out images


@pytest.mark.parametrize(
    ("sizes", "amount", "counts"),
    [
        ([8, 8, 8], 6, [2, 2, 2]),
        ([8, 8, 8], 0.25, [2, 2, 2]),
        ([8, 8, 8], 7, [3, 2, 2]),
        ([30, 10, 5], 0.2, [6, 2, 1]),
        ([30, 10, 5], 10, [7, 2, 1]),
    ],
)
def test_held_out_images_are_in_proportion_to_the_classes(sizes, amount, counts):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    train, held = hold_out(labels, amount, seed=3)
    assert np.bincount(labels[held]).tolist() == counts
    assert sorted([*train, *held]) == list(range(len(labels)))  # none twice, none lost


def test_held_out_images_are_drawn_by_seed():
    labels = np.repeat(np.arange(3), 50)
    first, again, other = (hold_out(labels, 30, seed)[1].tolist() for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("amount", [24, 0.99, 0.01])
def test_no_class_is_held_out_as_a_whole_and_some_image_must_be(amount):
    with pytest.raises(ConfigError, match=r"of 24 training images in 3 classes; must be at least one, and leave"):
        hold_out(np.repeat(np.arange(3), 8), amount, seed=0)


# A whole search


@pytest.fixture
def finished(searched, tmp_path):
    """A copy of the finished search, to choose again in."""
    return shutil.copytree(searched, tmp_path / "search")


def test_the_weights_of_the_choice_test_as_it_was_scored(searched):
    chosen = json.loads((searched / "architecture.json").read_text())
    assert chosen["scored_on"] == "validation images"
    best, *others = rows_of(searched / "candidates.csv")
    assert chosen["prec1"] == float(best["prec1"]) >= max(float(row["prec1"]) for row in others)
    weights = f"RESUME_PATH={searched / 'architecture.pdparams'}"
    cfg = load_config(searched / "retrain.yaml", ["WORKERS=0", "DATASET.CROP_PCT=1.0", "NET.EMA.USE=False", weights])
    metrics = evaluate_net(cfg)
    assert metrics["loss"] == pytest.approx(chosen["loss"], rel=1e-5)
    assert metrics["prec1"] == pytest.approx(chosen["prec1"])


def test_a_retraining_may_start_from_the_supernets_weights(searched, tmp_path):
    weights = f"NET.INITIAL_WEIGHTS={searched / 'architecture.pdparams'}"
    place = (f"SAVE_PATH={tmp_path}", "MODEL=net", "NET.DROPOUT_RATE=0")
    recipe = [*tiny.RECIPE, *place, "EPOCHS=1", "LR=1e-9", "SCHED=step", "WARMUP_EPOCHS=0", "WEIGHT_DECAY=0"]
    retrain(load_config(searched / "retrain.yaml", [*recipe, weights]))
    trained = read_checkpoint(latest_checkpoint(tmp_path / "net")).files["model.pdparams"]
    inherited = load_arrays(searched / "architecture.pdparams")
    assert trained.keys() == inherited.keys()
    for name in (name for name in inherited if not name.endswith(("_mean", "_variance"))):
        np.testing.assert_allclose(trained[name], inherited[name], atol=1e-6, err_msg=name)


def test_choosing_again_takes_more_paths_and_new_limits_and_trains_nothing(finished):
    before = (finished / "checkpoint-0" / "model.pdparams").read_bytes()
    found = select(finished, ["SUPERNET.SELECT_RANDOM=40"])
    everything = rows_of(finished / "candidates.csv")
    assert len(everything) == 18  # the whole space
    assert (finished / "checkpoint-0" / "model.pdparams").read_bytes() == before
    costs = sorted(float(row["mparams"]) for row in everything)
    assert cli.select([str(finished), "SUPERNET.SELECT_RANDOM=40", f"SUPERNET.PARAMS_MAXIMUM={costs[4]}"]) == 0
    cheaper = json.loads((finished / "architecture.json").read_text())
    assert cheaper["mparams"] <= costs[4]
    inside = [row for row in everything if float(row["mparams"]) <= costs[4]]
    assert cheaper["prec1"] == max(float(row["prec1"]) for row in inside) <= found.prec1
    assert parse_arch(cheaper["arch"]) == load_config(finished / "retrain.yaml").NET.INPUT_ARCH


@pytest.fixture
def logged(caplog):
    """What the project logs, also inside a run, whose lines do not reach the root logger."""
    logging.getLogger("cream").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("cream").removeHandler(caplog.handler)


def test_another_choice_may_go_into_a_folder_of_its_own(finished, tmp_path, logged):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    other = tmp_path / "more" / "small"
    limit = f"SUPERNET.PARAMS_MAXIMUM={min(float(row['mparams']) for row in rows_of(finished / 'candidates.csv'))}"
    assert cli.select([str(finished), "--output", str(other), "SUPERNET.SELECT_RANDOM=40", limit]) == 0
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before
    assert len(rows_of(other / "candidates.csv")) == 1
    recipe = load_config(other / "retrain.yaml", ["NET.EMA.USE=False", *tiny.RECIPE, "EPOCHS=1"])
    assert recipe.MODEL == "search_small_retrain"
    assert f"the net is trained by: python tools/retrain.py --cfg {other / 'retrain.yaml'}" in logged.messages
    retrain(recipe)
    run = Path(recipe.SAVE_PATH) / recipe.MODEL
    assert logged.messages[-2:] == [
        f"it classifies images by: python tools/predict.py {run} IMAGES",
        f"it is exported by: python tools/export.py {run} --output FOLDER",
    ]
    command = logged.messages[-3].removeprefix("the net is tested by: python tools/test.py ")
    assert command == f"--cfg {run}/config.yaml RESUME_PATH={run}"
    assert cli.test(command.split()) == 0


def test_paths_outside_a_latency_limit_are_listed_with_the_reason(data, tmp_path):
    # In this table only the first position's operation costs time: 1 ms or 5 ms, and 2 ms are shared.
    mflops = search_net(tiny.settings(data, tmp_path)).mflops.choices
    table = {
        "mflops": mflops,
        "choices": [[[1.0, 5.0], [0.0, 0.0], [0.0, 0.0]]],
        "fixed": 2.0,
        "resolution": 16,
        "batch_size": 1,
    }
    facts = {"device": "cpu", "machine": "m", "threads": 1, "paddle": "3", "repeats": 1, "check": []}
    (tmp_path / "latency.json").write_text(json.dumps({**table, **facts}))
    cream = ("SUPERNET.METHOD=cream", "SUPERNET.SLICE=2", "EPOCHS=2", "SUPERNET.META_STA_EPOCH=0")
    limit = (f"SUPERNET.LATENCY_TABLE={tmp_path / 'latency.json'}", "SUPERNET.LATENCY_MAXIMUM=4")
    folder = tiny.run_search(data, tmp_path, *cream, *limit, "SUPERNET.SELECT_RANDOM=6")
    listed = rows_of(folder / "candidates.csv")
    for row in listed:
        slow = parse_arch(row["arch"])[0][0] == 1
        assert float(row["latency_ms"]) == (7 if slow else 3)
        assert row["outside"] == ("7 ms above SUPERNET.LATENCY_MAXIMUM=4" if slow else "")
    assert {row["outside"] for row in listed} == {"", "7 ms above SUPERNET.LATENCY_MAXIMUM=4"}
    assert json.loads((folder / "architecture.json").read_text())["latency_ms"] == 3


def test_a_search_trains_without_what_it_holds_out_and_chooses_on_it(data, tmp_path, monkeypatch):
    seen = []
    plain = Trainer.train_epoch

    def train_epoch(self):
        seen.append(self.loader.dataset)
        plain(self)

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    held_out = ("SUPERNET.SELECT_ON=held_out", "SUPERNET.HELD_OUT=6")
    folder = tiny.run_search(data, tmp_path, *held_out)
    assert len(seen[0]) == 18
    assert json.loads((folder / "architecture.json").read_text())["scored_on"] == "6 held-out training images"
    # Of six images each accuracy is a multiple of a sixth.
    for row in rows_of(folder / "candidates.csv"):
        assert (float(row["prec1"]) * 6 / 100) % 1 == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("LR=1", "LR was 0.05 in the search and cannot be 1.0"),
        ("SEED=3", "SEED was 1 in the search and cannot be 3"),
        ("SUPERNET.SELECT_ON=held_out", "the search trained on all training images"),
        ("RETRAIN_CFG=none.yaml", "none.yaml"),
        ("SUPERNET.PARAMS_MAXIMUM=1e-9", "no path of this space satisfies SUPERNET.PARAMS_MAXIMUM=1e-09"),
    ],
)
def test_a_choice_that_the_supernet_cannot_serve_is_refused(finished, override, says, capsys):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.suffix != ".txt" and path.is_file()}
    assert cli.select([str(finished), override]) == 2
    assert says in capsys.readouterr().err
    if "PARAMS" not in override:  # then the candidates tell why
        assert before == {name: (finished / name).read_bytes() for name in before}


def test_a_choice_does_not_overwrite_a_trainings_settings(finished, tmp_path, capsys):
    before = (finished / "config.yaml").read_bytes()
    (tmp_path / "file").touch()
    for output, says in {finished: "is the folder of a training", tmp_path / "file": "file: File exists"}.items():
        assert cli.select([str(finished), "--output", str(output), "SUPERNET.FLOPS_MAXIMUM=300"]) == 2
        assert says in capsys.readouterr().err
    assert cli.spos_search([str(finished), "--output", str(finished)]) == 2
    assert (finished / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("command", ["select", "spos_search"])
def test_results_do_not_replace_a_file_that_the_settings_name(finished, tmp_path, capsys, command):
    recipe = tmp_path / "retrain.yaml"
    recipe.write_text("EPOCHS: 3  # mine\n")
    args = [str(finished), "--output", str(tmp_path), f"RETRAIN_CFG={recipe}"]
    assert getattr(cli, command)(args) == 2
    assert f"RETRAIN_CFG={recipe} would be replaced by the results in {tmp_path}" in capsys.readouterr().err
    assert recipe.read_text() == "EPOCHS: 3  # mine\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["retrain.yaml"]


def test_a_search_does_not_replace_the_recipe_that_it_takes(data, tmp_path):
    recipe = tmp_path / "search" / "retrain.yaml"
    recipe.parent.mkdir()
    recipe.write_text("EPOCHS: 3\n")
    with pytest.raises(ConfigError, match="would be replaced by the results in"):
        search(tiny.settings(data, tmp_path, f"RETRAIN_CFG={recipe}"))
    assert [path.name for path in recipe.parent.iterdir()] == ["retrain.yaml"]


def test_no_results_are_written_into_a_checkpoint(finished, capsys):
    checkpoint = latest_checkpoint(finished)
    before = sorted(path.name for path in checkpoint.iterdir())
    assert cli.select([str(finished), "--output", str(checkpoint)]) == 2
    assert "is a checkpoint; must be another folder" in capsys.readouterr().err
    assert sorted(path.name for path in checkpoint.iterdir()) == before


def test_a_rank_correlation_does_not_write_into_a_search(finished, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("EPOCHS: 1\n")
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    assert cli.rank_correlation([str(finished), "--cfg", str(recipe), "--output", str(finished)]) == 2
    assert "is the folder of a training" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}


def test_a_choice_in_an_unfinished_supernet_is_told(finished, logged):
    settings = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(settings.replace("EPOCHS: 1\n", "EPOCHS: 4\n"))
    select(finished)
    assert f"the supernet in {finished} is unfinished: 1 of 4 epochs are done" in logged.messages


def test_a_folder_without_a_search_is_told(tmp_path, capsys):
    assert cli.select([str(tmp_path / "none")]) == 2
    assert "holds no search; must be its SAVE_PATH/MODEL" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_in_tools_still_find_the_standard_librarys_select(script):
    """tools/select.py has the name of a module that subprocess and asyncio import."""
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.modules['paddle'] = None\n"
    code += "try: runpy.run_path(sys.argv[2])\nexcept ImportError: pass  # of Paddle, which follows the first lines\n"
    code += "import select; print(callable(select.select))"
    command = [sys.executable, "-c", code, script.parent, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
