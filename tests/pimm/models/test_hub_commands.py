"""The commands with pretrained weights, from a hub on loopback."""

import json

import numpy as np
import pytest
from hub_models import CLASSES, NAME, REPO, TAG, as_safetensors, config, drawn, saved
from image_files import save
from tables import rows_of

import pimm
from cream.convert import main as convert
from pimm.commands import inference, train, validate
from pimm.errors import ConfigError, DataError
from pimm.models import save_for_hf
from pimm.utils.serialization import load_arrays


@pytest.fixture
def images(tmp_path):
    """Return a folder of three classes in two splits, of three images each."""
    for split in ("train", "validation"):
        for index, name in enumerate(("blue", "green", "red")):
            for number in range(3):
                save(tmp_path / "images" / split / name / f"{name}{number}.png", (80 * index, 40 * number, 9), (32, 32))
    return tmp_path / "images"


COMMON = ("--img-size", "32", "-b", "3", "-j", "0")


def test_a_training_starts_from_pretrained_weights(hub, images, tmp_path, capsys, caplog):
    hub.add(REPO, {"model.safetensors": as_safetensors(drawn())})
    options = [str(images), "--model", f"{NAME}.{TAG}", "--pretrained", "--num-classes", "3", *COMMON]
    options += ["--epochs", "1", "--lr", "1e-20", "--warmup-epochs", "0", "--output", str(tmp_path / "out")]
    train.main([*options, "--val-split", "validation", "--model-kwargs", f"cache_dir={tmp_path / 'cache'}"])
    assert "the classifier begins anew, with 3 classes in place of 1000" in caplog.text
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.endswith("-mnasnet_small_lamb_in1k-32")
    weights = load_arrays(folder / "model_best" / "model.pdparams")
    np.testing.assert_array_equal(weights["conv_head.weight"], drawn()["conv_head.weight"])
    assert (tmp_path / "cache" / f"models--{REPO.replace('/', '--')}").is_dir()


def test_a_pretrained_teacher(hub, images, tmp_path, caplog):
    hub.add("me/three", {"config.json": config(num_classes=3), "model.safetensors": as_safetensors(drawn(3))})
    hub.add("me/seven", saved())
    options = [
        str(images),
        "--model",
        NAME,
        "--num-classes",
        "3",
        "--epochs",
        "1",
        "--val-split",
        "validation",
        *COMMON,
    ]
    options += ["--output", str(tmp_path / "out"), "--kd-model-name"]
    train.main([*options, "hf-hub:me/three", "--task-loss-weight", "0"])
    assert "the teacher is hf-hub:me/three, with its pretrained weights" in caplog.text
    with pytest.raises(ConfigError, match="num_classes of the teacher hf-hub:me/seven is 7, and that of the net 3"):
        train.main([*options, "hf-hub:me/seven"])
    with pytest.raises(ConfigError, match="the teacher mnasnet_050 has no pretrained weights: --kd-checkpoint PATH"):
        train.main([*options, "mnasnet_050"])
    settings = {**json.loads(config(num_classes=3)), "label_names": ["blue", "red", "green"]}
    hub.add("me/three", {"config.json": json.dumps(settings).encode(), "model.safetensors": as_safetensors(drawn(3))})
    with pytest.raises(DataError, match="other classes: 'red' where the net has 'green'"):
        train.main([*options, "hf-hub:me/three"])


def test_validation_of_pretrained_weights(hub, images, tmp_path, capsys):
    hub.add(REPO, {"model.safetensors": as_safetensors(drawn())})
    hub.add("me/net", saved())
    (tmp_path / "classes.txt").write_text("\n".join(("a", "blue", "b", "c", "green", "d", "red")))
    options = [str(images), "--class-map", str(tmp_path / "classes.txt"), "--pretrained", *COMMON]
    for model in (f"{NAME}.{TAG}", "mnasnet_small*", "hf-hub:me/net"):
        validate.main([*options, "--model", model])
        found = json.loads(capsys.readouterr().out.partition("--result")[2])
        assert found["model"] == (model if ":" in model else f"{NAME}.{TAG}") and found["checkpoint"] == ""
        assert found["interpolation"] == ("bilinear" if ":" in model else "bicubic")


def test_inference_with_a_model_of_the_hub(hub, images, tmp_path):
    hub.add("me/net", saved())
    options = ["--model", "hf-hub:me/net", "--pretrained", "--results-dir", str(tmp_path), *COMMON]
    inference.main([str(images), *options, "--no-console-results"])
    rows = rows_of(tmp_path / "me_net-32.csv")
    assert len(rows) == 9 and all(0 <= int(row["index"]) < CLASSES for row in rows)


def test_a_grey_model_takes_grey_images(hub, images, tmp_path):
    files = saved(model_args={"in_chans": 1})
    hub.add("me/grey", {**files, "model.safetensors": as_safetensors(drawn(CLASSES, 1))})
    options = ["--model", "hf-hub:me/grey", "--pretrained", "--results-dir", str(tmp_path), *COMMON]
    inference.main([str(images), *options, "--no-console-results"])
    assert (tmp_path / "me_grey-32.csv").exists()


def test_a_model_of_the_hub_is_converted(hub, tmp_path, monkeypatch, capsys):
    hub.add(REPO, {"model.safetensors": as_safetensors(drawn())})
    monkeypatch.chdir(tmp_path)
    assert convert([f"hf-hub:{REPO}@main"]) == 0
    weights = load_arrays(tmp_path / "mnasnet_small.lamb_in1k.pdparams")
    np.testing.assert_array_equal(weights["classifier.weight"], drawn()["classifier.weight"].T)
    assert "mnasnet_small" in capsys.readouterr().out
    assert convert(["hf-hub:me/none"]) == 2
    assert "there is no such model, or it is private" in capsys.readouterr().err


def test_a_checkpoint_replaces_pretrained_weights(hub, images, tmp_path, capsys):
    net = pimm.create_model(NAME, num_classes=3)
    save_for_hf(net, tmp_path / "net")
    path = str(tmp_path / "net" / "model.safetensors")
    options = [str(images), "--model", NAME, "--pretrained", "--checkpoint", path, "--num-classes", "3", *COMMON]
    validate.main(options)
    inference.main([*options, "--results-dir", str(tmp_path), "--no-console-results"])
    assert hub.asked == []
