"""Weights of models in and out: PyTorch's arrays, files, checkpoints, and resumed trainings."""

import logging

import golden
import numpy as np
import paddle
import pytest
from model_weights import assert_same_weights, weights
from tiny_net import tiny

import pimm
from pimm import layers, models
from pimm.errors import CheckpointError
from pimm.optim import create_optimizer_v2, optimizer_state
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE, write_checkpoint
from pimm.utils.serialization import save_arrays
from pimm.utils.state import check_state


def test_torch_names_of_square_linear_are_transposed():
    linear = layers.Linear(3, 3)
    value = np.arange(9, dtype=np.float32).reshape(3, 3)
    models.load_torch_arrays(linear, {"weight": value, "bias": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(linear.weight.numpy(), value.T)


def test_torch_arrays_are_checked():
    model = tiny()
    before = weights(model)
    arrays = golden.state(models.torch_names(model))
    arrays["stem.weight"] = arrays.pop("conv_stem.weight")
    arrays["bn1.bias"] = np.zeros(9, np.float32)
    arrays["classifier.weight"] = arrays["classifier.weight"].T
    with pytest.raises(CheckpointError) as error:
        models.load_torch_arrays(model, arrays)
    for text in (
        "4 differences",
        "missing: conv_stem.weight [8, 3, 3, 3]",
        "left over: stem.weight [8, 3, 3, 3]",
        "shape differs: bn1.bias [9], the model has [8]",
        "shape differs: classifier.weight [16, 5], the model has [5, 16]",
    ):
        assert text in str(error.value)
    assert_same_weights(weights(model), before)


def test_another_net_is_told_in_one_line_with_the_first_differences():
    with pytest.raises(CheckpointError) as error:
        check_state({f"a{i}": (i,) for i in range(500)}, {"b": (1,), "a7": (8,)}, "net.pdparams")
    assert str(error.value) == (
        "net.pdparams: does not fit the model, 501 differences: missing: a0 [0]; missing: a1 [1]; missing: a2 [2]; "
        "missing: 496 more; left over: b [1]; shape differs: a7 [8], the model has [7]"
    )


def test_torch_arrays_without_batch_counters():
    model = tiny()
    arrays = golden.state(models.torch_names(model), seed=1)
    counters = [name for name in arrays if name.endswith("num_batches_tracked")]
    assert len(counters) == len([layer for layer in model.sublayers() if isinstance(layer, layers.BatchNorm2d)])
    models.load_torch_arrays(model, {name: value for name, value in arrays.items() if name not in counters})
    assert_same_weights(weights(model), weights(tiny(seed=1)))


def test_weights_take_the_models_type():
    model, arrays = tiny(), weights(tiny(seed=1))
    halves = {name: (value.view(np.uint32) >> 16).astype(np.uint16) for name, value in arrays.items()}  # bfloat16
    models.load_state_dict_strictly(model, halves)
    truncated = {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in arrays.items()}
    assert_same_weights(weights(model), truncated)
    models.load_state_dict_strictly(model, {name: value.astype(np.float64) for name, value in arrays.items()})
    assert_same_weights(weights(model), arrays)


@pytest.mark.parametrize("dtype", ["complex64", "U8", "object", "uint32"])
def test_weights_of_no_usable_type_change_nothing(dtype):
    model, arrays = tiny(), weights(tiny(seed=1))
    before, last = weights(model), list(arrays)[-1]
    arrays[last] = arrays[last].astype(dtype)
    with pytest.raises(CheckpointError, match=f"the weights: {last} is of type .*must be one of .*float32"):
        models.load_state_dict_strictly(model, arrays)
    assert_same_weights(weights(model), before)


def trained_optimizer(model):
    optimizer = create_optimizer_v2(model, "momentum", lr=0.1)
    before = weights(model)
    model(paddle.to_tensor(golden.inputs((2, 3, 32, 32)))).square().sum().backward()
    optimizer.step()
    models.load_state_dict_strictly(model, before)
    return optimizer


@pytest.fixture
def saved(tmp_path):
    """Files and checkpoint folders: weights of seed 1, averaged ones of seed 2."""
    save_arrays(tmp_path / "net.pdparams", tiny(seed=1).state_dict())
    save_arrays(tmp_path / "net.pdema", tiny(seed=2).state_dict())
    net = tiny(seed=1)
    optimizer = trained_optimizer(net)
    contents = {
        MODEL: net.state_dict(),
        EMA: tiny(seed=2).state_dict(),
        OPTIMIZER: optimizer_state(optimizer, net),
        STATE: {"rng": [1, 2]},
    }
    write_checkpoint(tmp_path / "checkpoint-3", contents, {"epoch": 3})
    write_checkpoint(tmp_path / "recovery-4-10", contents, {"epoch": 4, "batch": 10})
    return tmp_path


@pytest.mark.parametrize("where", ["net.pdparams", "checkpoint-3"])
@pytest.mark.parametrize(("use_ema", "seed"), [(False, 1), (True, 2)])
def test_load_checkpoint(saved, where, use_ema, seed):
    model = tiny()
    models.load_checkpoint(model, str(saved / where), use_ema=use_ema)
    assert_same_weights(weights(model), weights(tiny(seed=seed)))
    assert_same_weights(models.load_state_dict(saved / where, use_ema), weights(model))


def test_create_model_with_checkpoint(tmp_path):
    source = pimm.create_model("mobilenetv3_small_075", num_classes=2)
    paddle.save(source.state_dict(), str(tmp_path / "net.pdparams"))
    model = pimm.create_model("mobilenetv3_small_075", num_classes=2, checkpoint_path=tmp_path / "net.pdparams")
    assert_same_weights(weights(model), weights(source))
    with pytest.raises(
        CheckpointError, match=r"net.pdparams: does not fit .*2 differences: .*classifier.weight \[1024, 2\]"
    ):
        pimm.create_model("mobilenetv3_small_075", checkpoint_path=tmp_path / "net.pdparams")
    other = pimm.create_model("mobilenetv3_small_075", num_classes=3, checkpoint_path=tmp_path / "net.pdparams")
    assert other.classifier.weight.shape == [1024, 3]  # it begins anew; all else is the file's
    np.testing.assert_array_equal(other.conv_stem.weight.numpy(), source.conv_stem.weight.numpy())


def test_load_checkpoint_leniently(saved, caplog):
    model = tiny()
    model.reset_classifier(3)
    before = weights(model)
    with caplog.at_level(logging.WARNING):
        models.load_checkpoint(model, saved / "net.pdparams", strict=False)
    expected = {**weights(tiny(seed=1)), **{name: before[name] for name in before if name.startswith("classifier")}}
    assert_same_weights(weights(model), expected)
    assert "classifier.weight" in caplog.text
    with pytest.raises(CheckpointError, match="not one of its"):
        models.load_checkpoint(layers.Linear(2, 2), saved / "net.pdparams", strict=False)


@pytest.mark.parametrize(
    ("where", "use_ema", "message"),
    [
        ("nowhere.pdparams", False, "nowhere.pdparams"),
        ("net.pth.tar", False, r"cannot read .*net\.pth\.tar"),
        ("alone.pdparams", True, "alone.pdema"),
        ("list.pdparams", False, "holds a list"),
        ("plain-1", True, f"has no {EMA}; it holds {MODEL}"),
    ],
)
def test_load_checkpoint_refuses(tmp_path, where, use_ema, message):
    save_arrays(tmp_path / "alone.pdparams", {})
    save_arrays(tmp_path / "list.pdparams", [])
    write_checkpoint(tmp_path / "plain-1", {MODEL: {}}, {"epoch": 1})
    with pytest.raises(CheckpointError, match=message):
        models.load_checkpoint(tiny(), tmp_path / where, use_ema=use_ema)


@pytest.mark.parametrize(("where", "epoch"), [("checkpoint-3", 4), ("recovery-4-10", 4)])
def test_resume_checkpoint(saved, where, epoch):
    model = tiny()
    optimizer = create_optimizer_v2(model, "momentum", lr=0.1)
    other_state, resume_epoch = models.resume_checkpoint(model, str(saved / where), optimizer)
    assert_same_weights(weights(model), weights(tiny(seed=1)))
    assert resume_epoch == epoch
    assert other_state["state"] == {"rng": [1, 2]}
    twin = tiny(seed=1)
    expected = optimizer_state(trained_optimizer(twin), twin)
    assert any(name.startswith("conv_stem.weight/") and value.any() for name, value in expected.items())
    assert_same_weights(other_state["optimizer"], expected)
    assert_same_weights(optimizer_state(optimizer, model), expected)


def test_resume_from_weights_alone(saved, caplog):
    model = tiny()
    optimizer = create_optimizer_v2(model, "momentum", lr=0.5)
    with caplog.at_level(logging.WARNING):
        assert models.resume_checkpoint(model, saved / "net.pdparams", optimizer) == ({}, None)
    assert "starts afresh" in caplog.text
    assert_same_weights(weights(model), weights(tiny(seed=1)))


def test_resume_wants_an_optimizers_state(tmp_path):
    write_checkpoint(tmp_path / "plain-1", {MODEL: tiny().state_dict()}, {"epoch": 1})
    with pytest.raises(CheckpointError, match=f"has no {OPTIMIZER}; it holds {MODEL}"):
        models.resume_checkpoint(tiny(), tmp_path / "plain-1")
