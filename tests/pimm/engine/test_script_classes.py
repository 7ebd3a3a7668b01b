"""Classes of images beside the classes that a model was trained on: what differs is an error that lists it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from script_runs import CLASSES, NET, write_classes

from pimm.commands import inference as pimm_inference
from pimm.commands import train as pimm_train
from pimm.commands import validate as pimm_validate
from pimm.data import check_class_names, set_img_extensions
from pimm.data.img_extensions import IMG_EXTENSIONS
from pimm.errors import ConfigError, DataError
from pimm.scripts import build_model
from pimm.utils.checkpoint import recorded_classes

pytestmark = pytest.mark.usefixtures("registered")


def train(images, output, name, *options):
    brief = ("--epochs", "1", "--warmup-epochs", "0", "--lr", "0.1", "--output", str(output), "--experiment", name)
    pimm_train.main([str(images), *NET, *brief, *options])
    return Path(output, name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, its images in ``images`` and its weights alone in ``weights.pdparams``."""
    folder = tmp_path_factory.mktemp("classes")
    for split in ("train", "val"):
        write_classes(folder / "images" / split)
    output = train(folder / "images", folder, "net")
    os.link(output / "checkpoint-0" / "model.pdparams", folder / "weights.pdparams")
    return folder


def validate(data, checkpoint, *options):
    pimm_validate.main([str(data), *NET, "--checkpoint", str(checkpoint), *options])


CHANGED = {  # names of class folders: what the error lists, for a checkpoint with names and for weights alone
    "renamed": (
        ("dark", "grey", "white"),
        ["its classes are not those of the training: light is missing; white is new. --class-map FILE"],
        None,  # three classes of other names: weights alone do not know
    ),
    "renamed into another order": (
        ("dark", "light", "zgrey"),
        ["grey is missing", "zgrey is new", "light has number 1 and had 2"],
        None,
    ),
    "first missing": (
        ("grey", "light"),
        ["dark is missing; grey has number 0 and had 1; light has number 1 and had 2"],
        "2 classes",
    ),
    "last missing": (("dark", "grey"), ["light is missing"], "2 classes (dark, grey), and the training had 3"),
    "one more": ((*CLASSES, "mild"), ["classes up to number 3, the model only 3"], "classes up to number 3"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_changed_class_folders(trained, tmp_path, change):
    names, listed, told_of_weights = CHANGED[change]
    kind = ConfigError if change == "one more" else DataError
    write_classes(tmp_path / "val", names)
    with pytest.raises(kind) as error:
        validate(tmp_path, trained / "net")
    assert all(text in str(error.value) for text in listed), error.value
    assert len(str(error.value)) < 400 + len(str(tmp_path))
    if told_of_weights is None:
        validate(tmp_path, trained / "weights.pdparams")
    else:
        with pytest.raises(kind) as error:
            validate(tmp_path, trained / "weights.pdparams")
        assert told_of_weights in str(error.value)


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_the_same_classes_are_taken(trained, checkpoint, capsys):
    validate(trained / "images", trained / checkpoint)
    assert json.loads(capsys.readouterr().out.rpartition("--result\n")[2])["top5"] == 100.0


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_a_folder_without_class_folders(trained, tmp_path, checkpoint):
    write_classes(tmp_path, ("flat",))
    (tmp_path / "flat").rename(tmp_path / "val")
    with pytest.raises(DataError, match=r"images without class folders, expected .*val/CLASS/NAME"):
        validate(tmp_path, trained / checkpoint)
    with pytest.raises(DataError, match=r"1 classes \(pile\), and the training had 3|light are missing; pile is new"):
        validate(write_classes(tmp_path / "other", ("pile",)), trained / checkpoint)


@pytest.mark.parametrize("checkpoint", ["net", "weights.pdparams"])
def test_a_class_map_numbers_what_is_there(trained, tmp_path, checkpoint, capsys):
    write_classes(tmp_path / "val", ("grey", "light"))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    validate(tmp_path, trained / checkpoint, "--class-map", str(tmp_path / "names.txt"))
    assert json.loads(capsys.readouterr().out.rpartition("--result\n")[2])["top5"] == 100.0
    (tmp_path / "names.txt").write_text("\n".join(reversed(CLASSES)))
    if checkpoint == "net":
        with pytest.raises(DataError, match="light has number 0 and had 2; dark has number 2 and had 0"):
            validate(tmp_path, trained / checkpoint, "--class-map", str(tmp_path / "names.txt"))


def test_a_resumed_training_has_the_same_classes(trained, tmp_path):
    for split in ("train", "val"):
        write_classes(tmp_path / split, ("dark", "grey", "white"))
    resume = ("--resume", str(trained / "net"), "--epochs", "2")
    with pytest.raises(DataError, match="light is missing; white is new"):
        train(tmp_path, tmp_path, "resumed", *resume)
    assert train(trained / "images", tmp_path, "resumed", *resume).exists()


def test_an_inference_does_not_rename_classes_in_another_order(trained, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(["grey", "dark", "light"]))
    options = ["--checkpoint", str(trained / "net"), "--results-dir", str(tmp_path), "--no-console-output"]
    with pytest.raises(ConfigError, match=r"names.txt: grey has number 0 and had 1 in the training"):
        pimm_inference.main([str(trained / "images"), *NET, *options, "--class-map", str(tmp_path / "names.txt")])
    (tmp_path / "names.txt").write_text("\n".join(["dunkel", "grau", "hell"]))  # a translation
    pimm_inference.main([str(trained / "images"), *NET, *options, "--class-map", str(tmp_path / "names.txt")])
    assert {"dunkel", "grau", "hell"} & set(next(tmp_path.glob("*.csv")).read_text().replace("\n", ",").split(","))


def labelled(classes, fixed_indices=False):
    reader = SimpleNamespace(fixed_indices=fixed_indices)
    return SimpleNamespace(root="here", class_to_idx=classes, reader=reader)


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
    if is_list := set(classes) == {"0", "2"}:
        assert list(classes.items()) == [(name, int(name)) for name in classes]
    check_class_names(trained or 3, labelled(classes, fixed_indices=is_list))


def test_folders_called_by_numbers_of_which_one_is_missing():
    digits = [str(number) for number in range(10)]
    nine = {name: index for index, name in enumerate(name for name in digits if name != "3")}
    with pytest.raises(DataError, match=r"training: 3 is missing; 4 has number 3 and had 4; .*, and 3 more"):
        check_class_names(digits, labelled(nine))
    with pytest.raises(DataError, match=r"9 classes \(0, 1, 2 and 6 more\), and the training had 10"):
        check_class_names(10, labelled(nine))


def test_a_new_training_may_have_fewer_classes_than_outputs():
    check_class_names(10, labelled({"a": 0, "b": 1}), complete=False)
    with pytest.raises(DataError, match=r"2 classes \(a, b\), and the training had 10"):
        check_class_names(10, labelled({"a": 0, "b": 1}))
    with pytest.raises(DataError, match="images without class folders, expected here/CLASS/NAME for the 10 classes"):
        check_class_names(10, labelled({"": 0}), complete=False)


def test_long_differences_are_short_messages():
    trained = [f"{'long' * 30}{number}" for number in range(1000)]
    with pytest.raises(DataError, match="and 997 more") as error:
        check_class_names(trained, labelled({"a": 0}))
    assert len(str(error.value)) < 400
    swapped = dict(zip(reversed(trained), range(1000)))
    with pytest.raises(DataError, match="has number 0 and had 999") as error:
        check_class_names(trained, labelled(swapped))
    assert len(str(error.value)) < 400


def test_recorded_classes(trained, tmp_path):
    assert recorded_classes(trained / "net") == recorded_classes(trained / "net" / "checkpoint-0") == list(CLASSES)
    assert recorded_classes("") is recorded_classes(trained / "weights.pdparams") is recorded_classes(tmp_path) is None


@pytest.mark.parametrize("is_asked", [False, True])
def test_images_of_further_endings(trained, tmp_path, is_asked):
    write_classes(tmp_path / "val")
    for name in CLASSES:
        image = tmp_path / "val" / name / f"{name}0.png"
        Image.open(image).save(image.with_suffix(".TIF"))
        image.unlink()
    more = ("--img-extensions", ".tif", ".gif") if is_asked else ()
    results = tmp_path / "results.json"
    options = ["--checkpoint", str(trained / "net"), "--results-dir", str(tmp_path), "--results-file", "rows"]
    try:
        pimm_inference.main([str(tmp_path / "val"), *NET, *options, *more, "--no-console-output"])
        validate(tmp_path, trained / "net", "--results-file", str(results), *more)
        (tmp_path / "train").symlink_to(tmp_path / "val")
        train(tmp_path, tmp_path, "further", "-b", "3", *more)
    finally:
        set_img_extensions(IMG_EXTENSIONS)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 1 + (6 if is_asked else 3)
    assert json.loads(results.read_text())[0]["top5"] == 100.0
    manifest = json.loads((tmp_path / "further" / "checkpoint-0" / "manifest.json").read_text())
    assert manifest["args"]["img_extensions"] == ([".tif", ".gif"] if is_asked else None)


def test_a_wrong_ending_is_told(trained):
    with pytest.raises(ConfigError, match=r"'tif' is not an extension; write it as '.jpg'"):
        validate(trained / "images", trained / "net", "--img-extensions", "tif")


def test_the_image_size_reaches_nets_that_are_made_for_one_size():
    common = {"in_chans": None, "num_classes": 2, "gp": None, "pretrained": False}
    for sizes in ({"img_size": 48, "input_size": None}, {"img_size": None, "input_size": (3, 48, 48)}):
        args = SimpleNamespace(model="test_vit3", model_kwargs={}, **common, **sizes)
        assert build_model(args).patch_embed.img_size == (48, 48)
        args = SimpleNamespace(model="test_vit3", model_kwargs={"img_size": 32}, **common, **sizes)
        assert build_model(args).patch_embed.img_size == (32, 32)
