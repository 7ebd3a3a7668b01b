"""Nets by name, with random weights: to be measured, not to be believed."""

import json

import numpy as np
import paddle
import pytest
from exports import draw_images
from golden import state
from torch_bytes import save_zip

import cream
from cream.deploy import command
from cream.deploy.backends import EagerNet
from cream.deploy.settings import read_settings
from cream.deploy.source import load, open_source
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from cream.space import format_arch
from pimm import create_model
from pimm.data.imagenet import imagenet_classes
from pimm.errors import ConfigError
from pimm.models.torch_names import torch_names


@pytest.mark.parametrize(
    "name, model, size",
    [
        ("mobilenetv3_small_075", "mobilenetv3_small_075", 224),
        ("cream_14", "cream_14", 64),
        ("cream-14", "cream-14", 64),
        ("spos", "spos", 224),
        ("tf_mobilenetv3_small_minimal_100", "tf_mobilenetv3_small_minimal_100", 224),
    ],
)
def test_a_name_is_exported_with_random_weights_and_says_so(name, model, size, tmp_path, caplog):
    assert command.export([name, "--output", str(tmp_path / "out")]) == 0
    settings = read_settings(tmp_path / "out")
    assert (settings.model, settings.input_size) == (model, (3, size, size))
    assert (settings.source, settings.sha256) == ("random weights", "")
    assert settings.class_names == tuple(imagenet_classes())
    assert f"{name} has random weights: give a file of weights as SOURCE, and --model {name}" in caplog.text
    backend, _ = open_source(tmp_path / "out")
    assert backend(draw_images(2, 64)).shape == (2, 1000)


def test_an_architecture_names_a_net(tmp_path):
    arch = CHILD_NETS[43].arch
    for content in ({"arch": format_arch(arch), "prec1": 1.0}, {"arch": [list(stage) for stage in arch]}):
        (tmp_path / "architecture.json").write_text(json.dumps(content))
        net, settings = load(tmp_path / "architecture.json", untrained=True)
        assert net.arch == arch and settings.model == f"cream-{format_arch(arch)}"


def test_weights_with_an_architecture(tmp_path):
    paddle.seed(0)
    net = ChildNet(CHILD_NETS[14].arch, 3)
    net.eval()
    paddle.save(net.state_dict(), str(tmp_path / "a.pdparams"))
    (tmp_path / "architecture.json").write_text(json.dumps([list(stage) for stage in CHILD_NETS[14].arch]))
    loaded, settings = cream.load(tmp_path / "a.pdparams", model=str(tmp_path / "architecture.json"))
    images = draw_images(2, 64)
    np.testing.assert_array_equal(EagerNet(loaded)(images), EagerNet(net)(images))
    assert settings.class_names == ("class 0", "class 1", "class 2")


def test_weights_with_a_name(tmp_path):
    save_zip(tmp_path / "a.pth", state(torch_names(create_model("mobilenetv3_small_075", num_classes=2))))
    assert (
        command.export([str(tmp_path / "a.pth"), "--model", "mobilenetv3_small_075", "--output", f"{tmp_path}/o"]) == 0
    )
    assert read_settings(tmp_path / "o").source == str(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "efficientnet_lite9",
            "nothing is there; must be .* or a net's name: unknown net 'efficientnet_lite9'; did you",
        ),
        ("cream-supernet-4-4-5-4-4", "is a supernet of many paths; must be one net"),
        ("{folder}/missing.json", r"missing\.json"),
        ("{folder}/wrong.json", "is no architecture in JSON"),
    ],
)
def test_names_of_no_net_are_told(name, message, tmp_path):
    (tmp_path / "wrong.json").write_text('{"a": 1}')
    with pytest.raises((ConfigError, OSError), match=message):
        load(name.format(folder=tmp_path), untrained=True)


def test_prediction_and_load_take_no_random_weights(tmp_path, capsys):
    assert command.predict(["cream-14", str(tmp_path)]) == 2
    assert "cream-14: nothing is there; must be the folder of a run" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="nothing is there"):
        cream.load("cream-14")
