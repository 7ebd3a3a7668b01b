"""The arguments of a model, ``--model-kwargs``, for the commands that convert, export and run nets."""

import numpy as np
import paddle
import pytest
from PIL import Image

from cream import convert
from cream.deploy import command
from cream.deploy.source import load, open_source
from pimm import create_model
from pimm.models.torch_names import to_torch_arrays
from pimm.torch_file import save_torch
from pimm.utils import load_arrays, save_arrays
from pimm.utils.model_record import save_with_record

NET, KWARGS = "test_vit", {"depth": 1, "num_heads": 4}
WORDS = ["--model", NET, "--model-kwargs", "depth=1", "num_heads=4"]


@pytest.fixture(scope="module")
def net():
    paddle.seed(0)
    net = create_model(NET, num_classes=3, **KWARGS)
    net.eval()
    return net


def arrays_of(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def test_weights_of_a_changed_model_are_converted_there_and_back(net, tmp_path, capsys):
    source, target, back = (str(tmp_path / name) for name in ("a.pth", "b.pdparams", "c.pth"))
    save_torch(source, {"state_dict": to_torch_arrays(net, arrays_of(net))})
    assert convert.main([source, target, "--model", NET]) == 2
    assert "do not fit" in capsys.readouterr().err
    assert convert.main([source, target, *WORDS]) == 0
    found = load_arrays(target)
    assert found.keys() == arrays_of(net).keys()
    for name, value in arrays_of(net).items():
        np.testing.assert_array_equal(found[name], value)
    assert convert.main([target, back, "--to-torch", *WORDS]) == 0
    assert convert.main([back, str(tmp_path / "d.pdparams"), *WORDS]) == 0
    assert load_arrays(tmp_path / "d.pdparams").keys() == found.keys()


def test_a_changed_model_is_exported(net, tmp_path, capsys):
    save_arrays(tmp_path / "net.pdparams", arrays_of(net))
    assert command.export([str(tmp_path / "net.pdparams"), "--output", str(tmp_path / "out"), *WORDS]) == 0
    images = np.random.default_rng(0).random((2, 3, 160, 160), np.float32)
    with paddle.no_grad():
        expected = net(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(open_source(tmp_path / "out")[0](images), expected, atol=1e-5)


def test_arguments_that_are_given_replace_those_noted_with_the_weights(net, tmp_path):
    args = {"model": NET, "num_classes": 3, "model_kwargs": {"depth": 9}}
    save_with_record(tmp_path / "net.pdparams", arrays_of(net), {"arch": NET, "args": args})
    found, _ = load(tmp_path / "net.pdparams", model_kwargs=KWARGS)
    assert len(found.blocks) == 1
    np.testing.assert_array_equal(found.head.weight.numpy(), net.head.weight.numpy())


@pytest.mark.parametrize(
    "words, message",
    [
        (["test_vit", "--model-kwargs", "deep=1"], "--model test_vit has no such option"),
        (["test_vit", "--model-kwargs", "embed_dim=x"], "test_vit cannot be made with embed_dim='x'"),
        (["test_vit", "--model-kwargs", "depth"], "expected KEY=VALUE, got 'depth'"),
        (["cream-14", "--model-kwargs", "depth=1"], "--model-kwargs are for models of pimm, and 'cream-14' is none"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(words, message, tmp_path, capsys):
    try:
        code = command.export([words[0], "--output", str(tmp_path / "out"), *words[1:]])
    except SystemExit as left:  # argparse
        code = left.code
    assert code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1 and message in error[0]


def test_a_net_of_cream_takes_no_arguments(tmp_path, capsys):
    paddle.seed(0)
    state = create_model("cream_14", num_classes=3).state_dict()
    args = {"NET.SELECTION": 14, "classes": ["a", "b", "c"], "DATASET.NUM_CLASSES": 3}
    save_with_record(tmp_path / "net.pdparams", state, {"arch": "cream-14", "args": args})
    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    paths = [str(tmp_path / name) for name in ("net.pdparams", "grey.png")]
    assert command.predict([*paths, "--model-kwargs", "depth=1"]) == 2
    assert "--model-kwargs are for models of pimm, and this is none" in capsys.readouterr().err
