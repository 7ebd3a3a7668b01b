"""Trainings of Cream that start from weights of other classes or channels, and keep layers as they are."""

import importlib

import numpy as np
import pytest
import tiny

from cream import cli
from cream.build.families import child_net
from cream.config import load_config
from cream.jobs import retrain
from cream.jobs import test as evaluate_net
from pimm.commands.train import main as train
from pimm.errors import CheckpointError
from pimm.models import create_model
from pimm.utils import latest_checkpoint, load_arrays, read_checkpoint, save_arrays


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny.write_images(folder)
    return folder


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    return tiny.run_search(data, tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def other(searched, tmp_path_factory):
    """Weights of the found net for five classes."""
    _, net = child_net(load_config(searched / "retrain.yaml", ["DATASET.NUM_CLASSES=5"]))
    path = tmp_path_factory.mktemp("weights") / "five.pdparams"
    save_arrays(path, {name: tensor.numpy() for name, tensor in net.state_dict().items()})
    return path


def settings(searched, folder, *more):
    recipe = [*tiny.RECIPE, "EPOCHS=1", "WARMUP_EPOCHS=0", f"SAVE_PATH={folder}", "MODEL=net", *more]
    return load_config(searched / "retrain.yaml", recipe)


def trained_arrays(folder):
    return read_checkpoint(latest_checkpoint(folder)).files["model.pdparams"]


def test_a_retraining_adapts_and_keeps_what_is_frozen(searched, other, tmp_path):
    frozen = "NET.FREEZE=conv_stem, bn1, blocks.[01]"
    retrain(settings(searched, tmp_path, f"NET.INITIAL_WEIGHTS={other}", frozen))
    assert (tmp_path / "net" / "log.txt").read_text().count("begins anew, with 3 classes in place of 5") == 1
    theirs, ours = load_arrays(other), trained_arrays(tmp_path / "net")
    same = {name for name in theirs if np.array_equal(theirs[name], ours[name])}
    assert same == {name for name in theirs if name.startswith(("conv_stem.", "bn1.", "blocks.0.", "blocks.1."))}
    assert {"bn1._mean", "conv_stem.weight"} < same and ours["classifier.weight"].shape[-1] == 3
    # The net that was trained tests as any other: with all its layers, and strictly.
    again = settings(searched, tmp_path, f"RESUME_PATH={tmp_path / 'net'}", "NET.EMA.USE=False")
    assert evaluate_net(again)["loss"] > 0
    with pytest.raises(CheckpointError, match="does not fit the model"):
        evaluate_net(settings(searched, tmp_path, f"RESUME_PATH={other}", "NET.EMA.USE=False"))


def test_a_pattern_that_fits_nothing_ends_in_one_line(searched, tmp_path, capsys):
    place = [f"SAVE_PATH={tmp_path}", "MODEL=net", *tiny.RECIPE, "NET.FREEZE=conv_stm"]
    assert cli.retrain(["--cfg", str(searched / "retrain.yaml"), *place]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no layer or parameter of ChildNet has a name like 'conv_stm'; did you mean conv_stem" in error
    assert len(error) < 400


@pytest.mark.parametrize("name", ("cream_14", "spos"))
def test_nets_by_name_start_from_weights_of_other_classes_and_channels(name, tmp_path):
    importlib.import_module("cream.registered")  # as the entry point does
    net = create_model(name, num_classes=3)
    save_arrays(tmp_path / "w.pdparams", {key: tensor.numpy() for key, tensor in net.state_dict().items()})
    other = create_model(name, num_classes=4, in_chans=1, checkpoint_path=tmp_path / "w.pdparams")
    first, second = (dict(each.state_dict()) for each in (net, other))
    (stem,) = (key for key in first if first[key].shape != second[key].shape and not key.startswith("classifier"))
    np.testing.assert_allclose(second[stem].numpy(), first[stem].numpy().sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_found_net_teaches(data, tmp_path):
    """A net of another architecture than its name's, as a search finds it, teaches the one of the name."""
    importlib.import_module("cream.registered")
    arch = "[[0],[3],[3,3],[3,1,3],[3,3,3,3],[3,3,3],[0]]"
    teacher = create_model("cream_14", num_classes=3, arch=arch)
    save_arrays(tmp_path / "w.pdparams", {key: tensor.numpy() for key, tensor in teacher.state_dict().items()})
    net = [str(data), "--model", "cream_14", "--num-classes", "3", "--img-size", "32", "-j", "0", "-b", "12"]
    kd = ["--kd-model-name", "cream_14", "--kd-model-kwargs", f"arch={arch}", "--kd-temperature", "2"]
    places = ["--output", str(tmp_path), "--experiment", "net", "--epochs", "1", "--warmup-epochs", "0"]
    train([*net, *kd, "--kd-checkpoint", str(tmp_path / "w.pdparams"), *places])
    header, row = (line.split(",") for line in (tmp_path / "net" / "summary.csv").read_text().splitlines())
    values = dict(zip(header, map(float, row)))
    assert values["train_kd_loss"] > 0
    assert values["train_loss"] == pytest.approx(values["train_task_loss"] + values["train_kd_loss"], rel=1e-5)
