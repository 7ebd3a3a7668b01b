"""Find weights in PyTorch's checkpoints: under which key, behind which prefix, and what is said without any."""

import numpy as np
import pytest
from paddle import nn
from torch_bytes import Call, Name, save_zip

from pimm.errors import CheckpointError
from pimm.models import load_checkpoint
from pimm.models.torch_weights import AVERAGED, PLAIN, find_weights
from pimm.torch_file import Inert, load_torch

STATE = {"0.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "0.bias": np.ones(3, np.float32)}
OTHER = {name: -array for name, array in STATE.items()}


def small_net():
    return nn.Sequential(nn.Linear(2, 3))


def prefixed(prefix, state=STATE):
    return {prefix + name: array for name, array in state.items()}


def load(net, content, folder, **options):
    save_zip(folder / "a.pth", content)
    load_checkpoint(net, folder / "a.pth", **options)
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "net.", "_orig_mod.", "module.model."])
@pytest.mark.parametrize("key", ["", *PLAIN, *AVERAGED])
def test_every_key_and_prefix(key, prefix, tmp_path):
    state = prefixed(prefix)
    found = load(small_net(), {"epoch": 3, key: state} if key else state, tmp_path, use_ema=None)
    np.testing.assert_array_equal(found["0.weight"], STATE["0.weight"].T)
    np.testing.assert_array_equal(found["0.bias"], STATE["0.bias"])
    weights = find_weights(load_torch(tmp_path / "a.pth"))
    assert (weights.key, weights.prefix, weights.averaged) == (key, prefix, key in AVERAGED)


@pytest.mark.parametrize(("use_ema", "sign"), [(None, -1), (True, -1), (False, 1)])
def test_averages_and_plain_weights_side_by_side(use_ema, sign, tmp_path):
    found = load(small_net(), {"params": STATE, "params_ema": OTHER}, tmp_path, use_ema=use_ema)
    np.testing.assert_array_equal(found["0.bias"], sign * STATE["0.bias"])


def test_pytorchs_average_counts_and_the_count_is_left(tmp_path):
    average = {"n_averaged": np.array(7), **prefixed("module.")}
    found = load(small_net(), {"model_ema": average}, tmp_path, use_ema=True)
    np.testing.assert_array_equal(found["0.bias"], STATE["0.bias"])


@pytest.mark.parametrize("name", ["module", "model", "backbone", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_part_of_the_net_may_be_called_as_a_prefix(name, prefix, tmp_path):
    net = nn.Sequential((name, small_net()))
    found = load(net, {"state_dict": prefixed(f"{prefix}{name}.")}, tmp_path)
    np.testing.assert_array_equal(found[f"{name}.0.bias"], STATE["0.bias"])
    net = nn.Sequential((name, small_net()), ("fc", nn.Linear(3, 1)))
    found = load(net, {"state_dict": prefixed(f"{name}.")}, tmp_path, strict=False)
    np.testing.assert_array_equal(found[f"{name}.0.bias"], STATE["0.bias"])


def test_a_prefix_of_some_names_alone_stays():
    weights = find_weights({"model.a": np.ones(2), "head.b": np.ones(2)})
    assert list(weights.arrays) == ["model.a", "head.b"] and weights.prefix == ""


def test_two_sets_of_weights_are_not_guessed_between(tmp_path):
    with pytest.raises(
        CheckpointError, match="it holds weights under 'state_dict' and 'net'; save the wanted ones alone"
    ):
        find_weights({"state_dict": STATE, "net": OTHER})
    assert find_weights({"state_dict": STATE, "net": STATE}).key == "state_dict"
    assert find_weights({"model": {"name": "resnet"}, "net": STATE}).key == "net"


CULPRITS = {
    "a number": ({"epoch": 5}, "it is no state dict of a net: 'epoch' is 5$"),
    "float8": (
        {"w": Inert("tensor of torch.float8_e4m3fn", ())},
        "it is no state dict of a net: 'w' is a tensor of torch.float8_e4m3fn$",
    ),
    "whole numbers": ({"w": np.ones(2, np.int64)}, "'w' is of type int64$"),
    "a key that is no name": ({(0, 1): np.ones(2)}, r"\(0, 1\) is of type float64$"),
    "many": ({f"e{i}": i for i in range(19)}, "'e0' is 0; 'e1' is 1; 'e2' is 2; 16 more$"),
}


@pytest.mark.parametrize("name", CULPRITS)
def test_the_culprit_is_named_and_not_the_good_names(name):
    odd, says = CULPRITS[name]
    good = {f"blocks.{i}.conv.weight": np.ones(2, np.float32) for i in range(20)}
    with pytest.raises(CheckpointError, match=says) as caught:
        find_weights({**good, **odd})
    assert "blocks" not in str(caught.value)
    with pytest.raises(CheckpointError, match=says.replace("it is no", "net is no")):
        find_weights({"net": {**good, **odd}})


def test_a_lenient_load_names_the_first_parts_alone(tmp_path, caplog):
    stranger = {f"layer.{i:03}": np.ones(2, np.float32) for i in range(300)}
    load(small_net(), {"state_dict": {**stranger, **STATE}}, tmp_path, strict=False)
    assert "keeps its own [] and leaves ['layer.000', 'layer.001'" in caplog.text and "290 more" in caplog.text


def test_messages_stay_short_and_name_prefix_key_and_net(tmp_path):
    stranger = {f"module.{'layer' * 30}.{i}.weight": np.ones((1,) * 30, np.float32) for i in range(500)}
    with pytest.raises(CheckpointError) as caught:
        load(small_net(), {"net": stranger}, tmp_path)
    said = str(caught.value).replace(str(tmp_path), "")
    assert len(said) < 400
    for text in ("a.pth: the weights under 'net'", "without their prefix 'module.'", "the model Sequential, 502 diff"):
        assert text in said
    with pytest.raises(CheckpointError) as caught:
        find_weights({f"{'k' * 99}{i}": Call(Name("a", "b")) for i in range(999)})
    assert len(str(caught.value)) < 400 and "and 994 more" in str(caught.value)
