"""Conversions that must not happen: files that would be destroyed, and weights that are not those of the net."""

import json
import os
import time
import zipfile

import golden
import numpy as np
import paddle
import pytest
from paths import ROOT
from PIL import Image
from torch_bytes import save_zip

from cream.convert import from_torch, main, to_torch
from cream.convert.differences import WeightsDiffer
from cream.mobile.space import WIDTHS_AND_STRIDES
from pimm import create_model
from pimm.errors import CheckpointError, ConfigError
from pimm.models.prefixes import without_prefix
from pimm.models.torch_names import torch_names
from pimm.output_paths import check_output_paths
from pimm.utils import load_arrays, save_arrays

NAMES_SHAPES = golden.facts("childnets")["nets"]["14"]["names_shapes"]


def child_state(prefix=""):
    return {f"{prefix}{name}": value for name, value in golden.state(NAMES_SHAPES).items()}


def error_of(capsys, *args):
    """Run the command, which must fail with one line of under 400 characters, and return the line."""
    assert main([str(arg) for arg in args]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == "" and len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 400
    return lines[0]


# Files that would be destroyed


@pytest.fixture
def folder(tmp_path):
    """Make a folder with weights, links to them, an image and settings."""
    save_zip(tmp_path / "a.pth", child_state())
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "net.yaml").write_text("NET: {SELECTION: 14}\n")
    (tmp_path / "link").symlink_to("a.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "new").symlink_to("out.pdparams")
    os.link(tmp_path / "a.pth", tmp_path / "hard")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("a.pth", "OUT a.pth is the file IN and would replace what it is made from"),
        ("folder/../a.pth", "OUT folder/../a.pth is the file IN and"),
        ("link", "OUT link is the file IN and"),
        ("hard", "OUT hard is the file IN and"),
        ("out.pdparams --report a.pth", "--report a.pth is the file IN and would replace what it is made from"),
        ("out.pdparams --report link", "--report link is the file IN and"),
        ("out.pdparams --report hard", "--report hard is the file IN and"),
        ("--report a.pdparams", "--report a.pdparams is the file OUT too; each needs a file of its own"),
        ("out.pdparams --report new", "--report new is the file OUT too"),
        ("image.png --verify image.png", "OUT image.png is the file --verify and"),
        ("out.pdparams --verify image.png --report image.png", "--report image.png is the file --verify and"),
        ("out.pdparams --model net.yaml --report net.yaml", "--report net.yaml is the file --model and"),
        ("out.pdparams --report folder", "--report folder is a folder; name a file"),
        ("out.pdparams --report /dev/null", "--report /dev/null is no regular file; name a file"),
        ("none/out.pdparams", "OUT none/out.pdparams cannot be written: there is no folder none"),
        ("out.pdparams --report none/report.json", "--report none/report.json cannot be written: there is no folder"),
    ],
)
def test_no_output_is_an_input_or_another_output(arguments, says, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert says in error_of(capsys, "a.pth", *arguments.split())
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_way_back_spares_its_source_too(tmp_path, capsys):
    save_arrays(tmp_path / "a.pdparams", {"w": np.zeros(3, "float32")})
    before = (tmp_path / "a.pdparams").read_bytes()
    out = tmp_path / "out.pth.tar"
    for arguments in ([tmp_path / "a.pdparams"], [out, "--report", tmp_path / "a.pdparams"]):
        error_of(capsys, tmp_path / "a.pdparams", *arguments, "--to-torch")
    assert (tmp_path / "a.pdparams").read_bytes() == before and not out.exists()


def test_files_that_are_there_may_be_replaced(folder):
    (folder / "out.pdparams").write_text("old")
    (folder / "report.json").write_text("old")
    arguments = [folder / "a.pth", folder / "out.pdparams", "--report", folder / "report.json"]
    assert main(list(map(str, arguments))) == 0
    assert json.loads((folder / "report.json").read_text())["net"] == "cream-14"
    assert len(load_arrays(folder / "out.pdparams")) > 100
    assert not list(folder.glob(".tmp-*"))


def test_links_that_lead_in_circles(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="is the file"):
        check_output_paths({"--report": tmp_path / "a"}, {"IN": tmp_path / "a"})


# Weights that are not those of the net


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"w": np.zeros(3, "float32"), "epoch": 5}, "'epoch' is 5, which is no weight of a net"),
        ({"w": np.zeros(3, "float32"), "best": {"a": 1}, "lr": 0.5}, "'best' is a dict, which is no weight of a net"),
        ({"w": np.zeros(3, "float32"), "best": {"a": 1}, "lr": 0.5}, ", and so are 1 more entries"),
        ({"w": np.array(["cat", "dog"])}, "'w' is an array of type <U3"),
        ({"w": np.zeros(3, "complex64")}, "'w' is an array of type complex64"),
        ({7: np.zeros(3, "float32")}, "7 is an array of type float32"),
        ({"x" * 5000: 3}, "xxx... is 3, which is no weight of a net"),
        ([np.zeros(3, "float32")], "it is a list and not a dict"),
    ],
)
def test_the_entry_that_is_no_weight_is_named(content, says, tmp_path, capsys):
    save_arrays(tmp_path / "a.pdparams", content)
    assert says in error_of(capsys, tmp_path / "a.pdparams", "--to-torch", "--model", "cream-14")


def all_differences(state):
    """List by kind how weights differ from those of cream-14, as the report does."""
    own = {name: shape for name, shape in NAMES_SHAPES if not name.endswith("num_batches_tracked")}
    given = {name: list(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {
        "missing": [f"{name} {shape}" for name, shape in own.items() if name not in given],
        "left over": [f"{name} {shape}" for name, shape in given.items() if name not in own],
        "shape differs": [
            f"{name} {given[name]}, the model has {shape}"
            for name, shape in own.items()
            if name in given and given[name] != shape
        ],
    }


def stranger():
    """Return the state of a net whose blocks have other names, with a stem of another shape and a very long name."""
    state = {f"layers.{name}" if name.startswith("blocks") else name: value for name, value in child_state().items()}
    return {**state, "conv_stem.weight": np.zeros((8, 3, 3, 3), "float32"), "y" * 4000: np.zeros(1, "float32")}


def paddle_names(state):
    """Return a state under Paddle's names, without batch counters."""
    endings = {".running_mean": "._mean", ".running_var": "._variance"}
    renamed = {}
    for name, value in state.items():
        for torch_ending, ending in endings.items():
            name = name.replace(torch_ending, ending)
        if not name.endswith("num_batches_tracked"):
            renamed[name] = value
    return renamed


@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_the_first_differences_of_every_kind_are_printed_and_all_are_in_the_report(direction, tmp_path, capsys):
    state, report = stranger(), tmp_path / "report.json"
    options = ["--model", "cream-14", "--report", report]
    if direction == "from torch":
        source = tmp_path / "a.pth"
        save_zip(source, {"state_dict": state})
    else:
        source = tmp_path / "a.pdparams"
        save_arrays(source, paddle_names(state))
        options.append("--to-torch")
    message = error_of(capsys, source, *options)
    found = json.loads(report.read_text())
    assert found["source"] == str(source) and f"error: {found['error']}" == message
    count = sum(map(len, found["differences"].values()))
    assert "its weights do not fit cream-14, " in message and f" {count} differences: missing: blocks.0.0." in message
    assert "left over: layers.blocks.0.0." in message and "shape differs: conv_stem.weight [8, 3, 3, 3], the" in message
    assert message.endswith(" more, all of them in the file of --report")
    shown = message.count("missing: ") + message.count("left over: ") + message.count("shape differs: ")
    assert shown >= 3 and f"and {count - shown} more, all of them" in message
    if direction == "from torch":
        assert found["differences"] == all_differences(state) and count > 300
    assert not (tmp_path / "a.pdparams").exists() or direction == "to torch"


def test_a_torchscript_file_is_called_by_its_name(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"a/{name}", b"\x80\x02}.")
    assert "TorchScript" in error_of(capsys, tmp_path / "a.pt")


def test_a_net_that_was_guessed_is_named(tmp_path):
    with paddle.LazyGuard():
        names = torch_names(create_model("mnasnet_small"))
    state = {name.replace("blocks.", "trunk."): value for name, value in golden.state(names).items()}
    save_zip(tmp_path / "a.pth", state)
    with pytest.raises(WeightsDiffer, match="do not fit mnasnet_small, the net that their shapes suggest, ") as caught:
        from_torch(tmp_path / "a.pth", tmp_path / "a.pdparams")
    assert len(str(caught.value)) < 400
    assert len(caught.value.differences["missing"]) == len(caught.value.differences["left over"]) > 100


def test_no_line_is_long_however_long_the_path(tmp_path, capsys):
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    save_zip(deep / "weights.pth", {"state_dict": stranger()})
    for name in ("cream-14", "auto"):
        assert "weights.pth" in error_of(capsys, deep / "weights.pth", "--model", name)


@pytest.mark.parametrize("part", ["IN", "OUT", "--report", "--model"])
def test_names_that_are_too_long_for_a_file(part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_zip("a.pth", child_state())
    long = "x" * 300
    arguments = {"IN": [long], "OUT": ["a.pth", long]}.get(part, ["a.pth", "out.pdparams", part, long])
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error and error.count("\n") == 1


def test_a_path_that_is_no_text(tmp_path, capsys):
    source = f"{tmp_path}/\udcff.pth"
    save_zip(source, child_state())
    assert main([source, str(tmp_path / "out.pdparams")]) == 0
    assert "\\udcff.pth" in capsys.readouterr().out


# Prefixes


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "module.backbone.", "student.net."])
def test_a_prefix_of_all_names_is_removed(prefix, tmp_path, capsys):
    save_zip(tmp_path / "a.pth", {"state_dict": child_state(prefix)})
    assert main([str(tmp_path / "a.pth")]) == 0
    printed = capsys.readouterr().out
    assert "cream-14\n" in printed
    found = load_arrays(tmp_path / "a.pdparams")
    np.testing.assert_array_equal(found["conv_stem.weight"], child_state()["conv_stem.weight"])
    save_arrays(tmp_path / "b.pdparams", {f"{prefix}{name}": value for name, value in found.items()})
    _, report = to_torch(tmp_path / "b.pdparams", tmp_path / "b.pth")
    assert report.net == "cream-14" and report.weights == f"plain, without the prefix {prefix}"
    from_torch(tmp_path / "b.pth", tmp_path / "c.pdparams")
    assert (tmp_path / "c.pdparams").read_bytes() == (tmp_path / "a.pdparams").read_bytes()


def test_a_prefix_of_some_names_is_named(tmp_path, capsys):
    state = {**child_state("backbone."), "head.weight": np.zeros((3, 3), "float32")}
    save_zip(tmp_path / "a.pth", {"state_dict": state})
    message = error_of(capsys, tmp_path / "a.pth")
    assert "of no net that is known here" in message
    assert message.endswith(f"The arrays are called backbone.* ({len(NAMES_SHAPES)}), head.* (1)")


def test_no_known_net_has_a_prefix_of_its_own():
    nets = [facts["names_shapes"] for facts in golden.facts("timm_models")["models"].values()]
    nets += [facts["names_shapes"] for facts in golden.facts("childnets")["nets"].values()]
    spos = json.loads((ROOT / "tests" / "data" / "spos_names.json").read_text())
    for names in ([name for name, _ in shapes] for shapes in nets):
        assert without_prefix(dict.fromkeys(names)) == (dict.fromkeys(names), "")
    for kind in ("net", "supernet"):
        assert without_prefix(spos[kind]) == (spos[kind], "")


def test_names_without_a_point_have_no_prefix():
    assert without_prefix({"w": 1}) == ({"w": 1}, "")
    assert without_prefix({"a.w": 1, "b": 2}) == ({"a.w": 1, "b": 2}, "")
    assert without_prefix({"a.b.w": 1, "a.b.v": 2}) == ({"w": 1, "v": 2}, "a.b.")
    assert without_prefix({}) == ({}, "")
    assert without_prefix({"a." * 9 + "w": 1}) == ({"a." * 5 + "w": 1}, "a." * 4)


def cream_widths(block):
    """Return shapes that make the blocks of a file look like those of Cream's own space."""
    widths = (width for width, _ in WIDTHS_AND_STRIDES)
    return {f"blocks.{stage}.{block}conv_pwl.weight": (width, 1) for stage, width in enumerate(widths, 1)}


def zeros(shapes):
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


@pytest.mark.parametrize("block", ["", "0."])
def test_blocks_without_their_other_weights_are_of_no_net(block, tmp_path, capsys):
    save_arrays(tmp_path / "a.pdparams", zeros({"w": (1,), **cream_widths(block)}))
    assert "of no net that is known here" in error_of(capsys, tmp_path / "a.pdparams", "--to-torch")


@pytest.mark.parametrize(
    "names",
    [
        ["a." * 300_000 + "w"],
        [f"blocks.{stage}.{index}.x" for stage in range(1, 6) for index in range(1000)] + ["meta_layer.weight"],
    ],
    ids=["a million parts", "a thousand blocks"],
)
def test_names_that_claim_much_are_refused_at_once(names, tmp_path, capsys):
    shapes = dict.fromkeys(names, (1,))
    if len(names) > 1:
        shapes.update(cream_widths("0.0."))
    save_arrays(tmp_path / "a.pdparams", zeros(shapes))
    started = time.perf_counter()
    assert "of no net that is known here" in error_of(capsys, tmp_path / "a.pdparams", "--to-torch")
    assert time.perf_counter() - started < 10


# Images


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40], ids=["text", "damaged PNG"])
def test_an_image_that_cannot_be_read(content, tmp_path, capsys):
    save_zip(tmp_path / "a.pth", child_state())
    (tmp_path / "image.png").write_bytes(content)
    assert main([str(tmp_path / "a.pth"), "--verify", str(tmp_path / "image.png")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'image.png'} is no image that can be read\n"


def test_errors_are_those_of_checkpoints():
    assert issubclass(WeightsDiffer, CheckpointError)


# Contents that cannot be converted


def changed(**changes):
    """Return the state of a child net with entries replaced, or left out where the new value is None."""
    state = {**child_state(), **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


MISTAKES = {
    "missing": (changed(bn1__bias=None, bn1__weight=None), ["missing: bn1.weight [16]", "missing: bn1.bias [16]"]),
    "left over": (
        changed(**{f"extra__{i}": np.zeros(2, np.float32) for i in range(9)}),
        [f"left over: extra.{i} [2]" for i in range(9)],
    ),
    "shape": (
        changed(bn1__bias=np.zeros(4, np.float32), conv_stem__weight=np.zeros((16, 3, 3, 5), np.float32)),
        ["bn1.bias [4], the model has [16]", "conv_stem.weight [16, 3, 3, 5], the model has [16, 3, 3, 3]"],
    ),
    "not an array": (changed(bn1__bias="text"), ["'bn1.bias' is 'text'"]),
    "whole numbers": (changed(bn1__bias=np.zeros(16, np.int64)), ["'bn1.bias' is of type int64"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_weights_that_do_not_fit_are_all_listed(name, tmp_path, monkeypatch, capsys):
    state, says = MISTAKES[name]
    save_zip(tmp_path / "a.pth.tar", {"state_dict": state})
    monkeypatch.chdir(tmp_path)  # a long path would leave less room for the list
    message = error_of(capsys, "a.pth.tar", "--model", "cream-14")
    assert "a.pth.tar" in message
    for text in says:
        assert text in message
    assert not (tmp_path / "a.pdparams").exists()


def test_a_file_is_not_replaced_by_what_is_made_from_it(tmp_path, capsys):
    save_zip(tmp_path / "a.pth", child_state())
    assert "would replace what it is made from" in error_of(capsys, tmp_path / "a.pth", tmp_path / "a.pth")
    assert "no such file" in error_of(capsys, tmp_path / "b.pth").lower()
