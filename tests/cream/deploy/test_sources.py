"""What an export and a prediction take from the notes beside weights, and what they must not replace."""

import dataclasses
import json
import tarfile

import paddle
import pytest
import tiny
import yaml
from exports import IMAGES
from image_files import save

from cream import cli
from cream.deploy import command
from cream.deploy.export import check_folder, export, finish
from cream.deploy.photographs import _indices
from cream.deploy.settings import read_settings, write_settings
from cream.deploy.source import load
from pimm import create_model
from pimm.errors import CheckpointError, ConfigError
from pimm.utils.checkpoint import MODEL, write_checkpoint
from pimm.utils.model_record import read_record, save_with_record

NET = "mobilenetv3_small_075"
ARGS = {"model": NET, "num_classes": 3, "in_chans": 1, "input_size": [1, 48, 32], "crop_pct": 0.9, "mean": [0.3]}
ARGS = {**ARGS, "std": [0.2], "interpolation": "bilinear", "classes": ["dark", "grey", "light"]}


@pytest.fixture(scope="module")
def weights():
    paddle.seed(0)
    return create_model(NET, num_classes=3, in_chans=1).state_dict()


@pytest.fixture
def noted(weights, tmp_path):
    """Return what writes weights with a note, whose settings are changed as given, and returns the file."""

    def write(**changes):
        save_with_record(tmp_path / "net.pdparams", weights, {"arch": NET, "args": {**ARGS, **changes}})
        return tmp_path / "net.pdparams"

    return write


# Preprocessing and classes


def _assert_as_trained(settings):
    assert (settings.model, settings.class_names) == (NET, ("dark", "grey", "light"))
    assert (settings.input_size, settings.crop_pct, settings.interpolation) == ((1, 48, 32), 0.9, "bilinear")
    assert (settings.mean, settings.std) == ((0.3,), (0.2,))


@pytest.mark.parametrize("model", ("auto", NET))
def test_a_named_net_sees_images_as_its_note_says(model, noted):
    _assert_as_trained(load(noted(), model)[1])


def test_a_file_of_a_checkpoint_has_the_note_of_the_checkpoint(weights, tmp_path):
    folder = tmp_path / "checkpoint-0"
    write_checkpoint(folder, {MODEL: weights}, {"epoch": 0, "metric": 1.0, "arch": NET, "args": ARGS})
    _assert_as_trained(load(folder / MODEL)[1])
    other = create_model(NET, num_classes=3, in_chans=1).state_dict()
    paddle.save(other, str(folder / MODEL))  # the note is that of other weights
    assert read_record(folder / MODEL) == {}


def test_weights_of_a_retraining_keep_its_preprocessing(tmp_path):
    """An averaged file, a checkpoint's file, and weights with the file of settings that names their net."""
    data, output = tmp_path / "data", tmp_path / "output"
    tiny.write_images(data)
    recipe = {"EPOCHS": 1, "LR": 0.1, "OPT": "momentum", "WARMUP_EPOCHS": 0, "COOLDOWN_EPOCHS": 0}
    (data / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    search = tiny.run_search(data, output, f"RETRAIN_CFG={data / 'recipe.yaml'}")
    more = ["WORKERS=0", "DATASET.BATCH_SIZE=6", "DATASET.SPOS_PREPROCESSING=True"]
    assert cli.retrain(["--cfg", str(search / "retrain.yaml"), *more]) == 0
    run = output / "search_retrain"
    expected = dataclasses.asdict(load(run / "checkpoint-0")[1])
    assert (expected["input_size"], expected["channel_order"]) == ((3, 16, 16), "bgr")
    assert expected["crop_pct"] == 0.875  # which no setting gives
    arrays = {name: value.numpy() for name, value in paddle.load(str(run / "checkpoint-0" / MODEL)).items()}
    save_with_record(tmp_path / "averaged.pdparams", arrays, read_record(run / "checkpoint-0"))
    for file, model in (
        (tmp_path / "averaged.pdparams", "auto"),
        (run / "checkpoint-0" / MODEL, "auto"),
        (run / "checkpoint-0" / MODEL, str(run / "config.yaml")),
    ):
        found = dataclasses.asdict(load(file, model)[1])
        assert {**found, "source": "", "sha256": ""} == {**expected, "source": "", "sha256": ""}
    with pytest.raises(ConfigError, match="these are the settings of a search"):
        load(search / "checkpoint-0" / MODEL)
    assert command.export([str(search), "--output", str(tmp_path / "out")]) == 0
    assert read_settings(tmp_path / "out").crop_pct == 0.875


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "abc"},
        {"classes": [["a"], ["b"], ["c"]]},
        {"model": ["a"]},
        {"num_classes": "3"},
        {"img_size": "32"},
        {"mean": "abc"},
        {"crop_pct": "all"},
        {"model_kwargs": [1]},
        {"gp": {}},
        {"bn_eps": "small"},
    ],
)
def test_a_note_of_wrong_types_is_told(change, noted):
    (name,) = change
    with pytest.raises(CheckpointError, match=rf"net\.pdparams\.json: {name} in the note of the model cannot be"):
        load(noted(**change))


def test_images_of_another_mode_are_told(noted):
    with pytest.raises(ConfigError, match="was trained on images of mode HSV; must be RGB, or L"):
        load(noted(input_img_mode="HSV"))


# Settings of an exported net


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_names": "abc"}, "class_names is a text; must be a list"),
        ({"class_names": {"a": 1}}, "class_names is a mapping; must be a list"),
        ({"class_names": [["a"], "b"]}, "an entry of class_names is a list; must be a text"),
        ({"input_size": "364"}, "input_size is a text; must be a list"),
        ({"input_size": [3, 64]}, "input_size has 2 numbers; must be channels, height and width"),
        ({"input_size": [3, 0, 64]}, "a side has 1 to 16384 pixels"),
        ({"input_size": [3, 10**9, 10**9]}, "a side has 1 to 16384 pixels"),
        ({"crop_pct": 0}, "crop_pct is 0.0; must be above 0"),
        ({"crop_pct": "nan"}, "crop_pct is nan; must be above 0"),
        ({"crop_pct": 1e-6}, "with a crop_pct of 1e-06; a side has 1 to 16384 pixels"),
        ({"mean": [0.5]}, "mean has 1 numbers; must be 3, one for each channel"),
        ({"std": [0.5, 0, 0.5]}, "std is .*; must be numbers above 0"),
        ({"mean": [0.5, "inf", 0.5]}, "mean is .*; must be numbers"),
        ({"model": ["a"]}, "model is a list; must be a text"),
    ],
)
def test_settings_that_would_change_images_or_classes_are_told(change, message, tmp_path):
    write_settings(tmp_path, IMAGES, "")
    content = yaml.safe_load((tmp_path / "inference.yml").read_text())
    (tmp_path / "inference.yml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)


@pytest.mark.parametrize("mode, how", [("center", "just covers"), ("border", "just fits into"), ("squash", "whatever")])
def test_the_comment_tells_how_images_are_scaled(mode, how, tmp_path):
    (tmp_path / "partial").mkdir()
    finish(tmp_path / "partial", tmp_path / "out", dataclasses.replace(IMAGES, crop_mode=mode))
    assert how in (tmp_path / "out" / "inference.yml").read_text()


def test_the_settings_of_another_program_are_kept(tmp_path):
    (tmp_path / "inference.yml").write_text("Global: {model_name: PP-LCNet}\n")
    with pytest.raises(ConfigError, match="holds other files"):
        check_folder(tmp_path)
    write_settings(tmp_path, IMAGES, "")
    check_folder(tmp_path)


def test_an_export_leaves_the_mode_of_the_net(tmp_path):
    net = create_model(NET, num_classes=3, drop_rate=0.5)
    net.train()
    net.bn1.eval()  # as a training that keeps these statistics
    before = [layer.training for layer in net.sublayers(include_self=True)]
    images = dataclasses.replace(IMAGES, input_size=(3, 32, 32), class_names=("a", "b", "c"))
    export(net, images, tmp_path / "out")
    assert [layer.training for layer in net.sublayers(include_self=True)] == before and any(before)


def test_an_empty_folder_to_quantize_with_is_told(tmp_path, capsys):
    """As an unset variable of a shell gives it: it must not become an export in FP32."""
    assert command.export([NET, "--output", str(tmp_path / "out"), "--quantize", ""]) == 2
    assert "--quantize is empty; must be a folder of images" in capsys.readouterr().err


# Predictions


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """The folder of an exported net, of one whose settings say another number of channels, and of images."""
    folder = tmp_path_factory.mktemp("exported")
    save_with_record(folder / "net.pdparams", weights, {"arch": NET, "args": ARGS})
    assert command.export([str(folder / "net.pdparams"), "--output", str(folder / "out")]) == 0
    (folder / "colour").mkdir()
    for path in (folder / "out").iterdir():
        (folder / "colour" / path.name).write_bytes(path.read_bytes())
    own = read_settings(folder / "out")
    colour = dataclasses.replace(own, input_size=(3, 48, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    write_settings(folder / "colour", colour, "")
    save(folder / "a.png")
    return folder


@pytest.mark.parametrize("kept", ("out/model.json", "net.pdparams.json", "manifest.json", "summary.csv"))
def test_results_replace_no_file_of_a_net(kept, exported, capsys):
    (exported / "manifest.json").write_text("{}")
    (exported / "summary.csv").write_text("epoch\n")
    before = (exported / kept).read_bytes()
    assert command.predict([str(exported / "out"), str(exported / "a.png"), "--output", str(exported / kept)]) == 2
    assert "belongs to a trained net, and would be replaced" in capsys.readouterr().err
    assert (exported / kept).read_bytes() == before


def test_results_replace_earlier_results(exported):
    for _ in range(2):
        done = command.predict([str(exported / "out"), str(exported / "a.png"), "--output", str(exported / "c.json")])
        assert done == 0


def test_images_of_two_tar_files_have_rows_of_their_own(exported, tmp_path):
    for name in ("one.tar", "two.tar"):
        with tarfile.open(tmp_path / name, "w") as file:
            file.add(exported / "a.png", "x/a.png")
    tars = [str(tmp_path / name) for name in ("one.tar", "two.tar")]
    assert command.predict([str(exported / "out"), *tars, "--output", str(tmp_path / "o.json")]) == 0
    assert list(json.loads((tmp_path / "o.json").read_text())) == [f"{tar}/x/a.png" for tar in tars]


def test_images_of_other_channels_than_the_program_takes_are_told(exported, capsys):
    assert command.predict([str(exported / "colour"), str(exported / "a.png")]) == 2
    told = capsys.readouterr().err
    assert "model.json does not compute with images of shape [1, 3, 48, 32]" in told and "Traceback" not in told


def test_a_word_of_several_classes_is_no_class():
    assert _indices(["golden eagle", "golden fish", "n01440764 tench"]) == {
        **{"golden eagle": 0, "golden fish": 1, "n01440764 tench": 2},
        "n01440764": 2,
    }
