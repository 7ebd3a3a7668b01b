"""Commands in messages: those of a clone here, those of the installation where there are no scripts."""

from console_scripts import scripts
from paths import ROOT

from cream import typed


def test_a_clone_names_its_scripts():
    assert (typed.script("train"), typed.command("train")) == ("tools/train.py", "python tools/train.py")


def test_an_installation_names_its_commands(monkeypatch, tmp_path):
    monkeypatch.setattr(typed, "_TOOLS", tmp_path)
    assert (typed.script("train"), typed.command("train")) == ("cream-search", "cream-search")


def test_every_script_of_cream_has_a_command():
    own = {path.stem for path in ROOT.glob("tools/*.py") if "from cream" in path.read_text()}
    assert typed.COMMANDS.keys() == own - {"main"}  # main.py takes the official command line
    assert set(typed.COMMANDS.values()) <= scripts().keys()
