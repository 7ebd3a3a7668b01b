"""Results of the scripts: no file that is read, and nothing but a regular file, is ever replaced by them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_net import script_net

from pimm.commands import avg_checkpoints
from pimm.commands import inference as pimm_inference
from pimm.commands import validate as pimm_validate
from pimm.errors import CheckpointError, ConfigError
from pimm.utils.serialization import atomic_file, load_arrays, save_arrays, write_text

NET = ("--model", "script_net", "--num-classes", "2", "-j", "0", "-b", "4", "--device", "cpu", "--img-size", "8")
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def folder(tmp_path):
    """Images in ``images``, a list of them, a class map, and weights in ``net/weights.pdparams``."""
    for name, level in (("dark", 60), ("light", 180)):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / "images" / name / "1.png")
    (tmp_path / "list.csv").write_text("images/dark/1.png 0\nimages/light/1.png 1\n")
    (tmp_path / "names.json").write_text('["dark", "light"]')
    (tmp_path / "net").mkdir()
    save_arrays(tmp_path / "net" / "weights.pdparams", script_net(num_classes=2).state_dict())
    return tmp_path


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COLLIDING = {
    "the class map": (["--class-map", "names.json"], "names.json", "is the file --class-map"),
    "the weights": ([], "net/weights.pdparams", "is the file weights.pdparams of --checkpoint"),
    "a link to the weights": ([], "link.csv", "is the file weights.pdparams of --checkpoint"),
    "an image": ([], "images/dark/1.png", "has the name of an image"),
    "a folder": ([], "net", "is a folder; name a file"),
    "a device": ([], "/dev/null", "is no regular file; name a file"),
    "nowhere": ([], "nowhere/results.csv", "cannot be written: there is no folder nowhere"),
}


@pytest.mark.parametrize("case", COLLIDING)
def test_a_validation_replaces_nothing_that_it_reads(folder, monkeypatch, case):
    options, results, message = COLLIDING[case]
    monkeypatch.chdir(folder)
    os.link("net/weights.pdparams", "link.csv")
    before = content(folder)
    with pytest.raises(ConfigError, match=f"--results-file {results} {message}"):
        pimm_validate.main(
            ["images", "--split", "", *NET, "--checkpoint", "net/weights.pdparams", "--results-file", results, *options]
        )
    assert content(folder) == before
    assert Path("/dev/null").is_char_device()


def test_an_inference_replaces_nothing_that_it_reads(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = content(folder)
    command = [
        "images",
        "--split",
        "",
        *NET,
        "--checkpoint",
        "net/weights.pdparams",
        "--no-console-output",
        "--fullname",
    ]
    with pytest.raises(ConfigError, match=r"--results-format json: names.json is the file --class-map"):
        pimm_inference.main(
            [*command, "--class-map", "names.json", "--results-file", "names", "--results-format", "json"]
        )
    with pytest.raises(ConfigError, match=r"--results-format csv: list.csv is the file --config"):
        Path("list.csv").write_text("{}")
        pimm_inference.main([*command, "-c", "list.csv", "--results-file", "list"])
    Path("list.csv").write_bytes(before[folder / "list.csv"])
    assert content(folder) == before
    pimm_inference.main([*command, "--results-dir", "new/folder", "--results-file", "names"])
    assert len(Path("new/folder/names.csv").read_text().splitlines()) == 3


def test_an_average_replaces_nothing(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command = ["--input", "net", "--filter", "*.pdparams", "--no-sort", "--output"]
    for output, message in {
        "net/weights.pdparams": "exists already",
        "/dev/null": "exists already",
        "nowhere/a.pdparams": "cannot be written: there is no folder nowhere",
    }.items():
        with pytest.raises(ConfigError, match=message):
            avg_checkpoints.main([*command, output])
    avg_checkpoints.main([*command, "a.pdparams"])
    found, weights = load_arrays("a.pdparams"), load_arrays("net/weights.pdparams")
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name]) for name in found)


def test_what_is_no_regular_file_stays(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), pipe, link):
        with pytest.raises(CheckpointError, match=f"cannot write {path}: it is no regular file"):
            write_text(path, "text")
    with pytest.raises(CheckpointError, match="it is a folder"), atomic_file(tmp_path) as file:
        file.write(b"bytes")
    assert Path(os.devnull).is_char_device() and pipe.is_fifo() and link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, pipe]
