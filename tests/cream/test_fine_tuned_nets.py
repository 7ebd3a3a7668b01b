"""Trainings of Cream that start from weights of other classes or channels, and keep layers as they are."""

import importlib

import numpy as np
import pytest
import tiny

from cream import cli
from cream.build.families import child_net, fresh_supernet, search_space
from cream.build.recipe import classify_step
from cream.build.search import plan_search
from cream.config import load_config
from cream.jobs import retrain
from cream.jobs import test as evaluate_net
from pimm.commands.train import main as train
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.models import create_model
from pimm.optim import group_lrs
from pimm.utils import latest_checkpoint, load_arrays, read_checkpoint, save_arrays


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


# Teachers of retrainings


def last_row(folder):
    header, *rows = ((folder / "summary.csv").read_text()).splitlines()
    return dict(zip(header.split(","), rows[-1].split(",")))


def test_a_search_teaches_a_retraining(searched, tmp_path):
    """From the teacher's own weights, and without the labels' loss, nothing is left to learn; from others, there is."""
    theirs = load_arrays(searched / "architecture.pdparams")
    bare = ("WEIGHT_DECAY=0", "NET.DROPOUT_RATE=0", "COOLDOWN_EPOCHS=0")
    alone = ("KD.TASK_LOSS_WEIGHT=0", f"KD.CHECKPOINT={searched}", "NET.FREEZE=*bn*")
    retrain(settings(searched, tmp_path, *alone, f"NET.INITIAL_WEIGHTS={searched / 'architecture.pdparams'}", *bare))
    ours = trained_arrays(tmp_path / "net")
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)
    assert float(last_row(tmp_path / "net")["train_kd_loss"]) < 1e-6

    retrain(settings(searched, tmp_path / "anew", f"KD.CHECKPOINT={searched}", "KD.TEMPERATURE=2", "COOLDOWN_EPOCHS=0"))
    row = {name: float(value) for name, value in last_row(tmp_path / "anew" / "net").items() if name[:6] == "train_"}
    assert row["train_kd_loss"] > 1e-4
    assert row["train_loss"] == pytest.approx(row["train_task_loss"] + row["train_kd_loss"], rel=1e-5)


def test_a_run_of_cream_teaches_a_training_of_pimm(data, searched, tmp_path):
    line = [
        str(data),
        "--model",
        "mobilenetv3_small_075",
        "--num-classes",
        "3",
        "--img-size",
        "32",
        "-j",
        "0",
        "-b",
        "12",
    ]
    line += ["--epochs", "1", "--warmup-epochs", "0", "--output", str(tmp_path)]
    kd = ["--kd-checkpoint", str(searched), "--task-loss-weight", "0.25"]
    train([*line, *kd, "--experiment", "net"])
    row = {name: float(value) for name, value in last_row(tmp_path / "net").items()}
    assert row["train_kd_loss"] > 0
    assert row["train_loss"] == pytest.approx(0.25 * row["train_task_loss"] + 0.75 * row["train_kd_loss"], rel=1e-5)
    renamed = tmp_path / "images"
    tiny.write_images(renamed)
    for split in ("train", "val"):
        (renamed / split / "grey").rename(renamed / split / "gray")
    with pytest.raises(DataError, match="trained on other classes: 'grey' where the net has 'gray'"):
        train([str(renamed), *line[1:], *kd, "--experiment", "other"])
    with pytest.raises(ConfigError, match=r"num_classes of the teacher in .* is 3, and that of the net 5"):
        train([*line, *kd, "--experiment", "five", "--num-classes", "5"])


def test_a_teacher_lies_beside_the_file_that_names_it(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "retrain.yaml").write_text("KD:\n  CHECKPOINT: teacher\n")
    found = load_config(tmp_path / "retrain.yaml").KD.CHECKPOINT
    assert found == str(tmp_path / "teacher")


def test_mistakes_of_a_distillation_end_in_one_line(data, searched, other, tmp_path, capsys):
    cases = {
        ("KD.TEMPERATURE=2",): "KD.TEMPERATURE is given, but no KD.CHECKPOINT",
        ("KD.CHECKPOINT=nowhere",): "nowhere: nothing is there; must be the folder of a run",
        (f"KD.CHECKPOINT={searched}", "KD.TASK_LOSS_WEIGHT=2"): "must be 0 or more, got 2 of labels and -1",
        (f"KD.CHECKPOINT={searched}", "KD.TEMPERATURE=0"): "KD.TEMPERATURE",
        (f"KD.CHECKPOINT={other}", f"KD.MODEL_NAME={searched / 'five.yaml'}"): "num_classes of the teacher in",
    }
    text = (searched / "retrain.yaml").read_text()
    (searched / "five.yaml").write_text(text.replace("NUM_CLASSES: 3", "NUM_CLASSES: 5"))
    for number, (given, message) in enumerate(cases.items()):
        place = [f"SAVE_PATH={tmp_path}", f"MODEL=net{number}", *tiny.RECIPE]
        assert cli.retrain(["--cfg", str(searched / "retrain.yaml"), *place, *given]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error and len(error) < 400, error


# Rates and supernets


def test_rates_of_the_body_and_of_layers(searched):
    """The rate of each part of the net at LR 0.1."""
    rates = {}
    for key in ("BACKBONE_LR_SCALE", "LAYER_DECAY"):
        cfg = settings(searched, "unused", f"{key}=0.25")
        _, net = child_net(cfg)
        optimizer = classify_step(cfg, net).update.optimizer
        names = {param.name: name for name, param in net.named_parameters()}
        groups = zip(optimizer._param_groups, group_lrs(optimizer))
        rates[key] = {names[param.name]: rate for group, rate in groups for param in group["params"]}
    for name, rate in rates["BACKBONE_LR_SCALE"].items():
        assert rate == pytest.approx(0.1 if name.startswith("classifier.") else 0.025), name
    decayed = rates["LAYER_DECAY"]
    assert decayed["classifier.weight"] == pytest.approx(0.1)
    assert max(rate for name, rate in decayed.items() if name.startswith("blocks.")) == pytest.approx(0.025)
    assert decayed["conv_stem.weight"] == min(decayed.values()) < 0.01


def test_a_search_starts_from_a_supernet_of_other_classes(data, searched, tmp_path):
    """Cream's method, whose matching network depends on the number of classes too, and SPOS's supernet."""
    cfg = tiny.settings(data, tmp_path, "DATASET.NUM_CLASSES=7")
    net = fresh_supernet(cfg, search_space(cfg)[0])
    save_arrays(tmp_path / "seven.pdparams", {name: tensor.numpy() for name, tensor in net.state_dict().items()})
    started = tiny.settings(data, tmp_path, f"NET.INITIAL_WEIGHTS={tmp_path / 'seven.pdparams'}")
    plan = plan_search(started)
    ours, theirs = plan.searched.net.state_dict(), load_arrays(tmp_path / "seven.pdparams")
    same = {name for name in theirs if np.array_equal(ours[name].numpy(), theirs[name])}
    new = {"classifier.weight", "classifier.bias", "meta_layer.weight"}
    assert theirs.keys() - same - {"meta_layer.bias"} == new
    assert tuple(ours["classifier.bias"].shape) == (3,)


def test_classes_are_counted_without_a_bias_too(tmp_path, caplog):
    importlib.import_module("cream.registered")
    net = create_model("spos", num_classes=3)
    save_arrays(tmp_path / "w.pdparams", {key: tensor.numpy() for key, tensor in net.state_dict().items()})
    create_model("spos", num_classes=4, checkpoint_path=tmp_path / "w.pdparams")
    create_model("spos", num_classes=0, checkpoint_path=tmp_path / "w.pdparams")
    anew, left = (record.message for record in caplog.records if "classifier" in record.message)
    assert "begins anew, with 4 classes in place of 3" in anew and "the classifier is left out" in left
