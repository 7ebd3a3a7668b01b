"""The loss scale: the optimizer sees the gradients as they are, and an overflow costs one step."""

import numpy as np
import paddle
import pytest

from pimm.errors import CheckpointError, ConfigError
from pimm.utils import NativeScaler


def training():
    weight = paddle.create_parameter([2], "float32")
    weight.set_value(np.float32([3.0, 4.0]))
    return weight, paddle.optimizer.SGD(0.5, parameters=[weight])


@pytest.mark.parametrize("options, moved", [({}, [1.5, 2.0]), ({"clip_grad": 1.0}, [0.3, 0.4])])
def test_steps_are_those_without_a_scale(gpu, options, moved):
    scaler, (weight, optimizer) = NativeScaler(), training()
    scaler((weight * weight).sum() / 2, optimizer, parameters=[weight], **options)
    np.testing.assert_allclose(weight.numpy(), np.float32([3.0, 4.0]) - moved, rtol=1e-5)
    assert scaler.state_dict()["scale"].item() == 2.0**16


def test_gradients_add_up_until_the_update(gpu):
    scaler, (weight, optimizer) = NativeScaler(), training()
    scaler(weight.sum(), optimizer, need_update=False)
    np.testing.assert_array_equal(weight.numpy(), [3.0, 4.0])
    scaler(weight.sum(), optimizer)
    np.testing.assert_allclose(weight.numpy(), [2.0, 3.0])


def test_an_overflow_halves_the_scale_and_moves_nothing(gpu):
    scaler, (weight, optimizer) = NativeScaler(), training()
    scaler((weight * float("inf")).sum(), optimizer)
    np.testing.assert_array_equal(weight.numpy(), [3.0, 4.0])
    state = scaler.state_dict()
    assert state["scale"].item() == 2.0**15
    resumed = NativeScaler()
    resumed.load_state_dict(state)
    assert resumed.state_dict()["scale"].item() == 2.0**15
    with pytest.raises(CheckpointError, match="without mixed precision"):
        resumed.load_state_dict({})


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_on_a_cpu_nothing_is_scaled(device):
    scaler, (weight, optimizer) = NativeScaler(device), training()
    scaler(weight.sum(), optimizer)
    np.testing.assert_allclose(weight.numpy(), [2.5, 3.5])
    assert (scaler.state_dict(), scaler.state_dict_key) == ({}, "amp_scaler")


@pytest.mark.parametrize("options", [{"clip_grad": 1.0}, {"create_graph": True}])
def test_what_cannot_be_done(options):
    weight, optimizer = training()
    with pytest.raises(ConfigError, match=r"parameters|graph"):
        NativeScaler()(weight.sum(), optimizer, **options)
