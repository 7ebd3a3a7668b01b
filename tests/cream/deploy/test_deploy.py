"""A trained net leaves: sources of nets, the export compared with the net, and the classes of images."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import golden
import numpy as np
import paddle
import pytest
import tiny
import yaml
from exports import IMAGES, OwnFilters, awakened, draw_images
from image_files import pack, save
from paths import ROOT
from PIL import Image
from torch_bytes import save_zip

import cream
from cream import cli
from cream.deploy import command
from cream.deploy.backends import EagerNet, OnnxNet
from cream.deploy.export import export
from cream.deploy.predict import predict
from cream.deploy.settings import read_settings, write_settings
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from cream.shuffle.nets import SPOS_ARCH, ShuffleNet
from pimm import create_model
from pimm.data.imagenet import describe_classes, imagenet_classes
from pimm.engine.program import PaddleNet
from pimm.errors import ConfigError
from pimm.models.torch_names import torch_names


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folders of a search and of the retraining of the net that it found."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    tiny.write_images(data)
    (data / "recipe.yaml").write_text(yaml.safe_dump({"EPOCHS": 2, "LR": 0.1, "OPT": "momentum", "WARMUP_EPOCHS": 0}))
    recipe = f"RETRAIN_CFG={data / 'recipe.yaml'}"
    search = tiny.run_search(data, output, recipe)
    more = ["WORKERS=0", "DATASET.BATCH_SIZE=6", "DATASET.CROP_PCT=1.0", "DATASET.INTERPOLATION=bicubic"]
    assert cli.retrain(["--cfg", str(search / "retrain.yaml"), *more]) == 0
    return search, output / "search_retrain", data


# Exports

NETS = {
    "cream-14": lambda: ChildNet(CHILD_NETS[14].arch),
    "spos": lambda: ShuffleNet(SPOS_ARCH, 1000),
    "tf_efficientnet_lite0": lambda: create_model("tf_efficientnet_lite0"),
    "mobilenetv3_small_075": lambda: create_model("mobilenetv3_small_075"),
}


@pytest.mark.parametrize("name", NETS)
def test_an_export_computes_what_the_net_does(name, tmp_path):
    """At other numbers and sizes of images than the export was checked with."""
    net = awakened(NETS[name]())
    assert export(net, IMAGES, tmp_path / "out")["model.json"] <= 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    exported = PaddleNet(tmp_path / "out")
    for count, size in ((1, 64), (5, 64), (2, 96)):
        images = draw_images(count, size)
        expected = EagerNet(net)(images)
        assert expected.std() > 0
        np.testing.assert_allclose(exported(images), expected, rtol=1e-4, atol=1e-5)
    assert read_settings(tmp_path / "out") == IMAGES


def test_onnx_computes_what_the_net_does(tmp_path):
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("onnxruntime")
    net = awakened(ChildNet(CHILD_NETS[14].arch, 10))
    differences = export(net, dataclasses.replace(IMAGES, class_names=tuple("abcdefghij")), tmp_path / "out", onnx=True)
    assert differences.keys() == {"model.json", "model.onnx"}
    exported = OnnxNet(tmp_path / "out")
    for count, size in ((1, 64), (4, 64), (2, 96)):
        images = draw_images(count, size)
        np.testing.assert_allclose(exported(images), EagerNet(net)(images), rtol=1e-4, atol=1e-5)


def test_an_export_leaves_the_net_as_it_was(tmp_path):
    net = awakened(ChildNet(CHILD_NETS[14].arch, 10))
    before = EagerNet(net)(draw_images(2, 64))
    export(net, IMAGES, tmp_path / "out")
    np.testing.assert_array_equal(EagerNet(net)(draw_images(2, 64)), before)
    assert list(ChildNet(CHILD_NETS[14].arch, 10).state_dict()) == list(net.state_dict())


def test_an_export_that_differs_is_refused_and_an_earlier_one_kept(tmp_path, monkeypatch):
    net = awakened(ChildNet(CHILD_NETS[14].arch, 10))
    export(net, IMAGES, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for wrong in (1e-3, float("nan")):
        monkeypatch.setattr(PaddleNet, "__call__", lambda self, images, wrong=wrong: EagerNet(net)(images) + wrong)
        with pytest.raises(ConfigError, match=r"model\.json: a logit differs by .* nothing is exported"):
            export(net, IMAGES, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_net_with_filters_from_each_batch_is_not_exported(tmp_path):
    paddle.seed(0)
    with pytest.raises(ConfigError, match="the filters of a convolution are made from the images"):
        export(awakened(OwnFilters()), dataclasses.replace(IMAGES, class_names=("a", "b")), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_exported_net_runs_without_this_repository(searched, tmp_path):
    """Twelve lines with Paddle and Pillow, in an interpreter that finds neither cream nor pimm."""
    _, retrained, data = searched
    assert command.export([str(retrained), "--output", str(tmp_path / "out")]) == 0
    image = data / "val" / "light" / "0.png"
    code = f"""
import sys, numpy, yaml
from paddle import inference
from PIL import Image
settings = yaml.safe_load(open("out/inference.yml"))
image = numpy.asarray(Image.open("{image}").convert("RGB").resize((16, 16), Image.Resampling.BICUBIC), "float32") / 255
x = ((image - numpy.float32(settings["mean"])) / numpy.float32(settings["std"])).transpose(2, 0, 1)[None]
net = inference.create_predictor(inference.Config("out/model.json", "out/model.pdiparams"))
handle = net.get_input_handle(net.get_input_names()[0])
handle.copy_from_cpu(numpy.ascontiguousarray(x))
net.run()
logits = net.get_output_handle(net.get_output_names()[0]).copy_to_cpu()
print(settings["class_names"][logits.argmax()], logits.tolist(), not {{"cream", "pimm", "torch"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, logits, alone = done.stdout.splitlines()[-1].replace("[[", "|").replace("]]", "|").split("|")
    net, settings = cream.load(retrained)
    expected = EagerNet(net)(settings.transform()(Image.open(image).convert("RGB"))[None])
    assert alone.strip() == "True" and name.strip() == settings.class_names[expected.argmax()]
    np.testing.assert_allclose([float(value) for value in logits.split(",")], expected[0], rtol=1e-4, atol=1e-5)


# Sources


def test_a_run_folder_gives_the_net_that_was_tested(searched, capsys):
    """The accuracy by `predict` is what tools/test.py prints."""
    _, retrained, data = searched
    net, settings = cream.load(retrained)
    assert settings.class_names == tiny.CLASSES and settings.input_size == (3, 16, 16) and not net.training
    found = list(predict(EagerNet(net), settings, [data / "val"], topk=1, batch_size=4))
    right = sum(guesses[0].name == guesses[0].image.split("/")[-2] for guesses in found)
    assert len(found) == 15
    assert cli.test(["--cfg", str(retrained / "config.yaml"), f"RESUME_PATH={retrained}"]) == 0
    prec1 = float(capsys.readouterr().out.partition("prec1 ")[2].partition(",")[0])
    assert prec1 == pytest.approx(100 * right / 15, abs=1e-3)


def test_a_search_gives_the_net_that_it_found(searched):
    search, _, _ = searched
    found = json.loads((search / "architecture.json").read_text())
    nets = [cream.load(source) for source in (search, search / "architecture.pdparams")]
    for net, settings in nets:
        assert settings.model == f"cream-{found['arch']}" and settings.class_names == tiny.CLASSES
        np.testing.assert_array_equal(EagerNet(net)(draw_images(2, 16)), EagerNet(nets[0][0])(draw_images(2, 16)))


def test_a_checkpoint_of_a_run_is_a_source(searched):
    _, retrained, _ = searched
    checkpoint = max(retrained.glob("checkpoint-*"))
    _, settings = cream.load(checkpoint)
    assert settings.source.startswith(str(checkpoint)) and settings.class_names == tiny.CLASSES


def test_a_training_of_pimm_is_a_source(searched, tmp_path):
    data = searched[2]
    args = ["--data-dir", data, "--model", "mobilenetv3_small_075", "--num-classes", "3", "--img-size", "32"]
    args += ["-b", "6", "--epochs", "1", "--workers", "0", "--mean", "0.4", "0.5", "0.6", "--output", tmp_path]
    args += ["--experiment", "run", "--model-ema"]
    done = subprocess.run(
        [sys.executable, ROOT / "tools/pimm_train.py", *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    net, settings = cream.load(tmp_path / "run")
    assert (settings.model, settings.class_names) == ("mobilenetv3_small_075", tiny.CLASSES)
    assert settings.input_size == (3, 32, 32) and settings.mean == (0.4, 0.5, 0.6)
    assert settings.source.endswith("ema.pdema") and EagerNet(net)(draw_images(2, 32)).shape == (2, 3)


def test_a_file_of_pytorch_is_a_source(tmp_path):
    """The official logits of golden data come out."""
    facts = golden.facts("childnets")["nets"]["14"]
    state = golden.state(facts["names_shapes"], gain=facts["gain"])
    save_zip(tmp_path / "a.pth.tar", {"state_dict": state})
    net, settings = cream.load(tmp_path / "a.pth.tar")
    assert settings.model == "cream-14" and settings.input_size == (3, 64, 64)
    assert settings.class_names == tuple(imagenet_classes())
    expected = golden.arrays("childnets")["14/eval_logits_gain"]
    logits = EagerNet(net)(golden.inputs((2, 3, 64, 64)))
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-4


def test_weights_of_several_models_need_a_name(tmp_path):
    state = golden.state(torch_names(create_model("mobilenetv3_small_075", num_classes=2)))
    save_zip(tmp_path / "a.pth", state)
    with pytest.raises(ConfigError, match="say with --model which of them was trained"):
        cream.load(tmp_path / "a.pth")
    net, settings = cream.load(tmp_path / "a.pth", model="tf_mobilenetv3_small_075")
    assert settings.model == "tf_mobilenetv3_small_075" and settings.class_names == ("class 0", "class 1")
    assert net.num_classes == 2


def test_nets_of_spos_see_blue_first_from_0_to_255(tmp_path):
    settings = dataclasses.replace(
        IMAGES, input_size=(3, 4, 4), mean=(0.0,) * 3, std=(1 / 255,) * 3, channel_order="bgr", interpolation="nearest"
    )
    prepared = settings.transform()(Image.new("RGB", (4, 4), (10, 20, 30)))
    np.testing.assert_allclose(prepared[:, 0, 0], [30, 20, 10], rtol=1e-6)


@pytest.mark.parametrize(
    "names, count, expected",
    [
        (["cat", "dog"], 2, ("cat", "dog")),
        (["cat", "dog"], 3, ("class 0", "class 1", "class 2")),
        (["n01440764", "other"], 2, ("n01440764 tench, Tinca tinca", "other")),
        (None, 1000, tuple(imagenet_classes())),
    ],
)
def test_names_of_classes(names, count, expected):
    assert describe_classes(names, count) == expected


# Predictions


class Brightness:
    """Stands for a net of two classes: the logits are the mean of the image and its negative."""

    def __call__(self, images):
        mean = images.mean((1, 2, 3))
        return np.stack([mean, -mean], axis=1)


def test_probabilities_are_the_softmax_of_logits(tmp_path):
    settings = dataclasses.replace(
        IMAGES, input_size=(3, 4, 4), mean=(0.5,) * 3, std=(0.5,) * 3, class_names=("light", "dark")
    )
    save(tmp_path / "in" / "a.png", (0, 0, 0), (4, 4))
    save(tmp_path / "in" / "deep" / "b.png", (255, 255, 255), (4, 4))
    (tmp_path / "in" / "c.png").write_bytes(b"no image")
    pack(tmp_path / "in", tmp_path / "in.tar")
    likely = 1 / (1 + np.exp(-2.0))
    for source in (tmp_path / "in", tmp_path / "in.tar"):
        found = list(predict(Brightness(), settings, [source, tmp_path / "in" / "a.png"], topk=2, batch_size=2))
        assert [guesses[0].image.rpartition("/")[2] for guesses in found] == ["a.png", "b.png", "a.png"]
        assert [[guess.name for guess in guesses] for guesses in found] == [
            ["dark", "light"],
            ["light", "dark"],
            ["dark", "light"],
        ]
        for guesses in found:
            assert [guess.probability for guess in guesses] == pytest.approx([likely, 1 - likely], rel=1e-6)


def test_eager_and_exported_net_print_the_same_and_write_files(searched, tmp_path, capsys):
    _, retrained, data = searched
    assert command.export([str(retrained), "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    printed = []
    for source, name in ((retrained, "a.csv"), (tmp_path / "out", "b.json")):
        assert command.predict([str(source), str(data / "val"), "--topk", "2", "--output", str(tmp_path / name)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and len(printed[0].splitlines()) == 15
    with open(tmp_path / "a.csv") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "b.json").read_text())
    assert len(rows) == 30 and len(content) == 15
    for row in rows:
        guess = content[row["image"]][int(row["rank"]) - 1]
        assert (guess["name"], str(guess["index"])) == (row["name"], row["index"])
        assert guess["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)


# Mistakes


@pytest.mark.parametrize(
    "what, message",
    [
        (["export", "{folder}/missing", "--output", "{folder}/o"], "nothing is there; must be the folder of a run"),
        (["export", "{folder}", "--output", "{folder}"], "holds other files; must be a new folder, an empty one or an"),
        (["export", "{folder}", "--output", "{folder}/a.png"], "is a file; must be a folder"),
        (["export", "{folder}", "--output", "{folder}/o"], "there is no checkpoint in this folder"),
        (["predict", "{folder}", "{folder}/a.png", "--onnx"], "--onnx runs model.onnx of an exported net"),
        (["predict", "{folder}", "{folder}/a.png", "--output", "{folder}/o.txt"], "must end with .csv or .json"),
        (["predict", "{folder}/exported", "{folder}/none.png"], "no such image, folder of images or tar file"),
        (["predict", "{folder}/exported", "{folder}/broken.png"], "no image could be read in"),
        (["predict", "{folder}/damaged", "{folder}/a.png"], "model.pdiparams cannot be run: "),
        (["predict", "{folder}/fewer", "{folder}/a.png"], "the net has 1000 classes, its settings name 2"),
        (["predict", "{folder}/partial", "{folder}/a.png"], "model.json is missing: tools/export.py writes it"),
        (
            ["predict", "{folder}/wrong", "{folder}/a.png"],
            "inference.yml: must hold exactly channel_order, class_names",
        ),
        (["export", "{folder}/exported", "--output", "{folder}/o"], "is an exported net, which tools/predict.py runs"),
    ],
)
def test_a_mistake_is_told_in_one_line(what, message, exported, capsys):
    job, *args = (text.replace("{folder}", str(exported)) for text in what)
    assert getattr(command, job)(args) == 2
    told = capsys.readouterr()
    assert message in told.err and "Traceback" not in told.err and not (exported / "o").exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an image, a broken one, an exported net, and folders that lack something."""
    folder = tmp_path_factory.mktemp("exported")
    save(folder / "a.png")
    (folder / "broken.png").write_bytes(b"")
    paddle.seed(0)
    export(ChildNet(CHILD_NETS[14].arch), IMAGES, folder / "exported")
    for name in ("partial", "wrong"):
        (folder / name).mkdir()
    for name in ("damaged", "fewer"):
        shutil.copytree(folder / "exported", folder / name)
    (folder / "damaged" / "model.pdiparams").write_bytes(b"no weights")
    write_settings(folder / "fewer", dataclasses.replace(IMAGES, class_names=("a", "b")), "")
    write_settings(folder / "partial", IMAGES, "")
    (folder / "wrong" / "inference.yml").write_text("model: a\n")
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input_size": [3, "wide", 4]}, "a value is of the wrong type"),
        ({"input_size": [2, 4, 4]}, "takes images of 2 channels; here it must be 1 or 3"),
        ({"channel_order": "brg"}, "channel_order is 'brg'; must be rgb or bgr"),
        ({"crop_pct": None}, "a value is of the wrong type"),
    ],
)
def test_wrong_settings_are_told(change, message, tmp_path):
    write_settings(tmp_path, IMAGES, "")
    content = yaml.safe_load((tmp_path / "inference.yml").read_text())
    (tmp_path / "inference.yml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)
