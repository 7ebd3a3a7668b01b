"""The script that measures NAS-Bench-Macro: its settings are those of the methods, and are accepted."""

import sys
import types

import pytest
from paths import ROOT

from cream.build.checks import check_search, check_supernet
from cream.build.recipe import supernet_optimizer
from cream.build.search import search_net, supernet_step
from cream.config.load import load_config
from cream.train.estimate import EstimatedBoard
from cream.train.held_out_board import HeldOutBoard
from cream.train.multi_path import MultiPathStep
from cream.train.steps import CreamStep, SinglePathStep

STEPS = {"single_path": SinglePathStep, "cream": CreamStep, "multi_path": MultiPathStep}


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "nas_bench_macro.py"
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[path.stem] = module  # for the class of its records
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    yield module
    del sys.modules[path.stem]


def test_every_method_is_trained_as_its_settings_say(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, method in script.METHODS.items():
        cfg = load_config(str(script.SETTINGS), script.overrides(method, 27))
        check_search(cfg)
        check_supernet(cfg)
        searched = search_net(cfg)
        step = supernet_step(cfg, searched, supernet_optimizer(cfg, searched.net))
        assert type(step) is STEPS[method.settings["METHOD"]], name
        board = {"estimate": EstimatedBoard, "held_out": HeldOutBoard}.get(method.settings.get("BOARD_SCORE"))
        assert board is None or type(step.board) is board, name
        assert (step.ema is not None) == ("AVERAGE" in method.settings), name
        assert round(27 * method.epochs) == cfg.EPOCHS, name


def test_teaching_starts_where_the_method_says(script):
    fitted = ["SUPERNET.ESTIMATE=True", "SUPERNET.FIT_WINDOW=1500"]
    single = script.overrides(script.METHODS["single_path"], 27)
    assert single == ["EPOCHS=27", "SUPERNET.METHOD=single_path", *fitted]
    assert script.overrides(script.METHODS["cream"], 27) == [
        *("EPOCHS=20", "SUPERNET.METHOD=cream", *fitted, "SUPERNET.META_STA_EPOCH=3"),  # the first 4 of 20 epochs
    ]
    assert script.overrides(script.METHODS["estimate"], 27)[-1] == "SUPERNET.META_STA_EPOCH=15"  # the last 8 of 24
