"""The demonstration's parts: its whole runs take minutes, and are what ``make demo`` is for."""

import json

import pytest
from console_scripts import scripts

from cream import cli, demo
from cream.config import load_config


def test_the_demo_runs_installed_commands_and_recipes():
    assert {
        command: f"cream.cli:{function}" for command, function in demo.COMMANDS.items()
    }.items() <= scripts().items()
    assert all(callable(getattr(cli, function)) for function in demo.COMMANDS.values())
    for recipe in (demo.SEARCH_CFG, demo.SPOS_CFG, demo.SCRATCH_CFG):
        assert load_config(recipe).DATA_DIR == "data/fashion_mnist"


def test_a_command_of_the_demo_is_shown_and_runs_in_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "select.py").write_text("raise SystemExit('a file of the user hides a module of Python')\n")
    assert "settings, with their defaults" in demo.run("Help", "cream-test", "--help")
    assert capsys.readouterr().out.startswith("\n== Help ==\n$ cream-test --help\n")


def test_a_command_that_fails_ends_the_demo_with_its_code(capfd):
    with pytest.raises(SystemExit) as ended:
        demo.run("Test", "cream-test", "--cfg", "no_recipe")
    assert ended.value.code == 2
    assert "error: no_recipe: No such file or directory" in capfd.readouterr().err


def test_the_best_of_each_generation(tmp_path):
    scores = {"[0]": {"prec1": 10.0}, "[1]": {"prec1": 30.0}, "[2]": {"prec1": 20.0}}
    state = {"generations": [[[0]], [[1], [2]], [[2]]], "scores": scores}
    (tmp_path / "evolution.json").write_text(json.dumps({"state": state}))
    assert demo.best_by_generation(tmp_path) == [("0", "10.0%"), ("1", "30.0%"), ("2", "30.0%")]
