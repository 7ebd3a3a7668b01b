"""Gradient clipping by norm, by value and output by output."""

import numpy as np
import paddle
import pytest
from optim_problem import Problem, parameter, train

from cream.train.steps import Update
from pimm.errors import ConfigError
from pimm.models import model_parameters
from pimm.optim import create_optimizer_v2
from pimm.utils import adaptive_clip_grad, dispatch_clip_grad
from pimm.utils.agc import unitwise_norm


def with_gradients(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    params = [parameter(rng.standard_normal(shape)) for shape in shapes]
    for param in params:
        param.grad = paddle.to_tensor(rng.standard_normal(param.shape))
    return params


SHAPES = ((4, 3), (5,), (2, 3, 2, 2))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_by_norm(norm_type):
    params = with_gradients(*SHAPES)
    params.insert(1, parameter(np.ones(3)))  # without a gradient
    grads = [param.grad.numpy() for param in params if param.grad is not None]
    size = np.linalg.norm(np.concatenate([grad.ravel() for grad in grads]), norm_type)
    dispatch_clip_grad(params, 0.5, norm_type=norm_type)
    assert params[1].grad is None
    for param, grad in zip([params[0], *params[2:]], grads):
        np.testing.assert_allclose(param.grad.numpy(), grad * 0.5 / size, rtol=1e-5)
    dispatch_clip_grad(iter(params), 100.0, mode="norm")
    np.testing.assert_allclose(params[0].grad.numpy(), grads[0] * 0.5 / size, rtol=1e-5)


def test_by_value():
    params = with_gradients(*SHAPES)
    grads = [param.grad.numpy() for param in params]
    dispatch_clip_grad(params, 0.7, mode="value")
    for param, grad in zip(params, grads):
        np.testing.assert_allclose(param.grad.numpy(), np.clip(grad, -0.7, 0.7))


def clipped(value, grad, factor, axes, order=2.0, eps=1e-3):
    """Equation 3 of arXiv 2102.06171."""
    sizes = [(np.abs(x) ** order).sum(axes, keepdims=True) ** (1 / order) for x in (value, grad)]
    limit = factor * np.maximum(sizes[0], eps)
    return np.where(sizes[1] > limit, grad * limit / sizes[1], grad)


@pytest.mark.parametrize("order", [2.0, 1.0])
@pytest.mark.parametrize("shape, axes", [((4, 3), (1,)), ((5,), (0,)), ((4, 3, 2, 2), (1, 2, 3))])
def test_adaptively(shape, axes, order):
    (param,) = with_gradients(shape)
    param.set_value(param.numpy() * np.arange(shape[0]).reshape([-1] + [1] * (len(shape) - 1)))  # one output is zero
    value, grad = param.numpy(), param.grad.numpy()
    dispatch_clip_grad([param], 0.9, mode="agc", norm_type=order)
    expected = clipped(value, grad, 0.9, axes, order)
    np.testing.assert_allclose(param.grad.numpy(), expected, rtol=1e-12)
    assert len(shape) == 1 or 0 < np.isclose(expected, grad).mean() < 1


def test_adaptively_at_its_defaults_and_of_one_tensor():
    (param,) = with_gradients((4, 3))
    value, grad = param.numpy(), param.grad.numpy()
    adaptive_clip_grad(param)
    np.testing.assert_allclose(param.grad.numpy(), clipped(value, grad, 0.01, (1,)), rtol=1e-12)
    np.testing.assert_allclose(unitwise_norm(param).numpy()[:, 0], np.linalg.norm(value, axis=1))
    np.testing.assert_allclose(unitwise_norm(param[0]).item(), np.linalg.norm(value[0]))


def test_adaptively_by_the_outputs_of_linear_layers_and_without_the_head():
    net = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.Linear(4, 2))
    (net(paddle.ones([5, 3])) ** 2 * 100).sum().backward()
    grads = {name: param.grad.numpy() for name, param in net.named_parameters()}
    dispatch_clip_grad(model_parameters(net, exclude_head=True), 0.01, mode="agc")
    expected = clipped(net[0].weight.numpy(), grads["0.weight"], 0.01, (0,))
    np.testing.assert_allclose(net[0].weight.grad.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(net[1].weight.grad.numpy(), grads["1.weight"])
    assert not np.allclose(expected, grads["0.weight"])


def test_nothing_to_clip_and_another_mode():
    dispatch_clip_grad([parameter(np.ones(3))], 1.0)
    with pytest.raises(ConfigError, match="by norm, value, agc, not by 'l2'"):
        dispatch_clip_grad([], 1.0, mode="l2")


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_clipping_never_waits_for_the_device(mode, monkeypatch):
    def read(*args, **kwargs):
        raise AssertionError("clipping reads a value of a tensor")

    params = with_gradients(*SHAPES)
    for name in ("numpy", "item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(paddle.Tensor, name, read)
    dispatch_clip_grad(params, 0.01, mode=mode)
    monkeypatch.undo()
    assert max(np.abs(param.grad.numpy()).max() for param in params) < 0.2


@pytest.mark.parametrize("opt", ["momentum", "sgdw", "adan", "muon"])
def test_an_update_of_clipped_gradients_is_one_of_small_gradients(opt):
    def moved(clip, scale):
        net = Problem()
        update = Update(create_optimizer_v2(net, opt, lr=0.1, weight_decay=0.1), clip_grad=clip)
        update(net(branches=False) * scale, list(net.named.values()))
        assert net.fc1.weight.grad is None
        return net

    net = Problem()
    size = np.sqrt(sum((grad**2).sum() for grad in net.gradients(branches=False).values()))
    clipped_net, small = moved(0.01, 1.0), moved(None, float(0.01 / size))
    for name, param in clipped_net.named.items():
        np.testing.assert_allclose(param.numpy(), small.named[name].numpy(), atol=2e-5)
    np.testing.assert_array_equal(clipped_net.conv.weight.numpy(), net.conv.weight.numpy())
    train(net, create_optimizer_v2(net, opt, lr=0.1, weight_decay=0.1), 1, branches=False)
    moved_by = np.abs(net.fc1.weight.numpy() - small.fc1.weight.numpy()).max()
    assert (moved_by > 1e-3) == (opt in ("momentum", "sgdw"))  # the others do not mind the scale


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
@pytest.mark.parametrize("limit", [-1.0, 0, float("nan"), "1"])
def test_a_limit_that_would_turn_the_gradients_round(mode, limit):
    params = with_gradients((4, 3))
    before = params[0].grad.numpy()
    with pytest.raises(ConfigError, match="the limit of the gradients must be a number above 0"):
        dispatch_clip_grad(params, limit, mode=mode)
    np.testing.assert_array_equal(params[0].grad.numpy(), before)
    with pytest.raises(ConfigError, match="above 0"):
        Update(paddle.optimizer.SGD(0.1, parameters=params), clip_grad=limit, clip_mode=mode)
