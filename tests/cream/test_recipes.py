"""Recipes: YAML files found by name from any folder, and the files that they name."""

import os

import pytest
from paths import ROOT

from cream import cli
from cream.config import load_config
from cream.mobile import load_space
from cream.recipes import FOLDER, find_recipe, recipes
from pimm.errors import ConfigError

NAMES = sorted(path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/**/*.yaml"))
SETTINGS = [name for name in NAMES if not name.startswith("spaces/")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_recipe_has_a_name():
    assert FOLDER == ROOT / "configs" and sorted(recipes()) == NAMES and len(NAMES) >= 16


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_found_by_its_name_and_by_its_path_in_a_clone(name):
    for named in (name, f"{name}.yaml", f"configs/{name}.yaml", f"./configs/{name}"):
        assert find_recipe(named) == ROOT / "configs" / f"{name}.yaml"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_says_the_same_under_both_names(name, monkeypatch):
    by_name = load_config(name)
    monkeypatch.chdir(ROOT)
    by_path = load_config(f"configs/{name}.yaml")
    if by_name.RETRAIN_CFG:
        assert by_name.RETRAIN_CFG in NAMES and f"configs/{by_name.RETRAIN_CFG}.yaml" == by_path.RETRAIN_CFG
        by_name.RETRAIN_CFG = by_path.RETRAIN_CFG
    assert by_name == by_path


def test_spaces_are_found_by_name(monkeypatch):
    tiny = load_config("cifar10/ranking/cream").SUPERNET.SPACE  # whose YAML file names the file of the space
    assert (
        tiny is not None
        and tiny == load_config(None, ["SUPERNET.SPACE=spaces/tiny", "SUPERNET.HOW_TO_PROB=even"]).SUPERNET.SPACE
    )
    assert load_space("spaces/small").spec == load_space(ROOT / "configs/spaces/small.yaml").spec


def test_a_file_that_exists_wins(elsewhere):
    (elsewhere / "demo").mkdir()
    (elsewhere / "demo" / "search").write_text("LR: 0.125\n")
    assert load_config("demo/search").LR == 0.125 != load_config("demo/search.yaml").LR


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (
            "demo/serch",
            "there is no such file, and no recipe of cream has this name; did you mean demo/search",
        ),
        ("configs/demo/retrian.yaml", "did you mean demo/retrain"),
        ("spaces/tinny", "did you mean spaces/tiny"),
        ("z" * 5000, "File name too long"),
        ("nowhere.yaml", "error: nowhere.yaml: No such file or directory\n"),
    ],
)
def test_an_unknown_name_is_told_with_those_near_it_in_one_line(named, says, capsys):
    assert cli.search(["--cfg", named]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and len(said) < 400


def test_the_folder_of_a_run_does_not_hide_a_recipe(elsewhere):
    (elsewhere / "demo" / "search").mkdir(parents=True)
    assert find_recipe("demo/search") == recipes()["demo/search"]


def test_an_unknown_space_is_told_with_those_near_it():
    with pytest.raises(ConfigError, match=r"spaces/smal: .* did you mean spaces/small"):
        load_config(None, ["SUPERNET.SPACE=spaces/smal"])


@pytest.mark.parametrize("key", ["RETRAIN_CFG", "RESUME_PATH", "NET.INITIAL_WEIGHTS", "SUPERNET.LATENCY_TABLE"])
def test_files_are_looked_for_beside_the_file_that_names_them(key, elsewhere):
    section, _, last = key.rpartition(".")
    (elsewhere / "mine").mkdir()
    text = f"{section}:\n  {last}: table\n" if section else f"{last}: table\n"
    (elsewhere / "mine" / "settings.yaml").write_text(text)
    found = []
    for path in ("mine/table", "table"):  # which was there first does not matter
        found.append(named(load_config("mine/settings.yaml"), key))
        (elsewhere / path).write_text("")
    found.append(named(load_config("mine/settings.yaml"), key))
    found.append(named(load_config("mine/settings.yaml", beside=False), key))
    assert found == ["table", os.path.join("mine", "table"), os.path.join("mine", "table"), "table"]


def named(cfg, key):
    for part in key.split("."):
        cfg = getattr(cfg, part)
    return cfg
