"""Classes of images beside the classes that a model was trained on: what differs is an error that lists it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from script_net import load_script, script_net

from pimm.class_names import check_classes, class_differences, recorded_classes
from pimm.errors import ConfigError
from pimm.models import registry

pimm_inference, pimm_train, pimm_validate = (
    load_script(f"tools/pimm_{name}.py") for name in ("inference", "train", "validate")
)
CLASSES = ("dark", "grey", "light")
NET = ("--model", "script_net", "--num-classes", "3", "-j", "0", "-b", "6", "--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register the net for these tests alone: others count all models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._entrypoints, "script_net", script_net)
        yield


def write_images(folder, names=CLASSES, count=2):
    rng = np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.normal(60 + 60 * level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}{number}.png")
    return folder


def train(images, output, name, *options):
    brief = ("--epochs", "1", "--warmup-epochs", "0", "--lr", "0.1", "--output", str(output), "--experiment", name)
    pimm_train.main([str(images), *NET, *brief, *options])
    return Path(output, name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, its images in ``images`` and its weights alone in ``weights.pdparams``."""
    folder = tmp_path_factory.mktemp("classes")
    for split in ("train", "val"):
        write_images(folder / "images" / split)
    output = train(folder / "images", folder, "net")
    os.link(output / "checkpoint-0" / "model.pdparams", folder / "weights.pdparams")
    return folder


def validate(data, checkpoint, *options):
    pimm_validate.main([str(data), *NET, "--checkpoint", str(checkpoint), *options])


CHANGED = {  # names of class folders: what the error lists, for a checkpoint with names and for weights alone
    "renamed": (
        ("dark", "grey", "white"),
        ["class white has number 2, which in the training was light", "missing here: light", "training: white"],
        None,  # three classes of other names: weights alone do not know
    ),
    "renamed into another order": (
        ("dark", "light", "zgrey"),
        ["class light has number 1", "missing here: grey"],
        None,
    ),
    "first missing": (("grey", "light"), ["class grey has number 0", "missing here: dark"], "2 classes"),
    "last missing": (("dark", "grey"), ["missing here: light"], "2 classes (dark, grey) and the model 3"),
    "one more": ((*CLASSES, "mild"), ["classes up to number 3, the model only 3"], "classes up to number 3"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_changed_class_folders(trained, tmp_path, change):
    names, listed, told_of_weights = CHANGED[change]
    write_images(tmp_path / "val", names)
    with pytest.raises(ConfigError) as error:
        validate(tmp_path, trained / "net")
    assert all(text in str(error.value) for text in listed), error.value
    assert len(str(error.value)) < 400 + len(str(tmp_path))
    if told_of_weights is None:
        validate(tmp_path, trained / "weights.pdparams")
    else:
        with pytest.raises(ConfigError) as error:
            validate(tmp_path, trained / "weights.pdparams")
        assert told_of_weights in str(error.value)


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_the_same_classes_are_taken(trained, checkpoint, capsys):
    validate(trained / "images", trained / checkpoint)
    assert json.loads(capsys.readouterr().out.rpartition("--result\n")[2])["top5"] == 100.0


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_a_folder_without_class_folders(trained, tmp_path, checkpoint):
    write_images(tmp_path, ("flat",))
    (tmp_path / "flat").rename(tmp_path / "val")
    with pytest.raises(ConfigError, match=r"images without class folders, expected .*val/CLASS/NAME"):
        validate(tmp_path, trained / checkpoint)
    with pytest.raises(ConfigError, match=r"1 classes \(pile\) and the model 3|class pile has number 0"):
        validate(write_images(tmp_path / "other", ("pile",)), trained / checkpoint)


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_a_class_map_numbers_what_is_there(trained, tmp_path, checkpoint, capsys):
    write_images(tmp_path / "val", ("grey", "light"))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    validate(tmp_path, trained / checkpoint, "--class-map", str(tmp_path / "names.txt"))
    assert json.loads(capsys.readouterr().out.rpartition("--result\n")[2])["top5"] == 100.0
    (tmp_path / "names.txt").write_text("\n".join(reversed(CLASSES)))
    if checkpoint == "net":
        with pytest.raises(ConfigError, match="class light has number 0, which in the training was dark"):
            validate(tmp_path, trained / checkpoint, "--class-map", str(tmp_path / "names.txt"))


def test_a_resumed_training_has_the_same_classes(trained, tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / split, ("dark", "grey", "white"))
    resume = ("--resume", str(trained / "net"), "--epochs", "2")
    with pytest.raises(ConfigError, match="class white has number 2, which in the training was light"):
        train(tmp_path, tmp_path, "resumed", *resume)
    assert train(trained / "images", tmp_path, "resumed", *resume).exists()


def test_an_inference_does_not_rename_classes_in_another_order(trained, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(["grey", "dark", "light"]))
    options = ["--checkpoint", str(trained / "net"), "--results-dir", str(tmp_path), "--no-console-output"]
    with pytest.raises(ConfigError, match="class grey has number 0, which in the training was dark"):
        pimm_inference.main([str(trained / "images"), *NET, *options, "--class-map", str(tmp_path / "names.txt")])
    (tmp_path / "names.txt").write_text("\n".join(["dunkel", "grau", "hell"]))  # a translation
    pimm_inference.main([str(trained / "images"), *NET, *options, "--class-map", str(tmp_path / "names.txt")])
    assert {"dunkel", "grau", "hell"} & set(next(tmp_path.glob("*.csv")).read_text().replace("\n", ",").split(","))


def labelled(classes):
    return SimpleNamespace(root="here", class_to_idx=classes)


@pytest.mark.parametrize(
    "classes, trained",
    [
        ({"0": 0, "2": 2}, ("0", "1", "2")),  # a list of numbers without the class 1
        ({"0": 0, "2": 2}, CLASSES),
        ({"0": 0, "2": 2}, None),
        ({"a": 0, "b": 1, "c": 2}, ("0", "1", "2")),  # trained on a list of numbers
        (dict(zip(CLASSES, range(3))), CLASSES),
        (dict(zip(CLASSES, range(3))), None),
    ],
)
def test_classes_that_fit(classes, trained):
    if set(classes) == {"0", "2"}:
        assert list(classes.items()) == [(name, int(name)) for name in classes]
    check_classes(labelled(classes), 3, trained)


def test_folders_called_by_numbers_of_which_one_is_missing():
    digits = [str(number) for number in range(10)]
    nine = {name: index for index, name in enumerate(name for name in digits if name != "3")}
    with pytest.raises(ConfigError, match="class 4 has number 3, which in the training was 3; missing here: 3"):
        check_classes(labelled(nine), 10, digits)
    with pytest.raises(ConfigError, match=r"9 classes \(0, 1, 2 and 6 more\) and the model 10"):
        check_classes(labelled(nine), 10)


def test_long_differences_are_short_messages():
    trained = [f"{'long' * 30}{number}" for number in range(1000)]
    text = "; ".join(class_differences({"a": 0}, trained))
    assert "and 997 more" in text and len(text) < 400


def test_recorded_classes(trained, tmp_path):
    assert recorded_classes(trained / "net") == recorded_classes(trained / "net" / "checkpoint-0") == list(CLASSES)
    assert recorded_classes("") is recorded_classes(trained / "weights.pdparams") is recorded_classes(tmp_path) is None
