"""Freezing parts of a net, and numbers from inside it."""

import copy

import golden
import numpy as np
import paddle
import pytest
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, BatchNormAct2d
from pimm.utils import ModelEma, ModelEmaV2, ModelEmaV3, freeze, get_state_dict, unfreeze, unwrap_model
from pimm.utils.model import (
    ActivationStatsHook,
    FrozenBatchNorm2d,
    avg_ch_var,
    avg_sq_ch_mean,
    extract_spp_stats,
    freeze_batch_norm_2d,
    unfreeze_batch_norm_2d,
)


class Net(nn.Layer):
    def __init__(self, norm=BatchNorm2d):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 4, 3), norm(4))
        self.head = nn.Sequential(nn.Conv2D(4, 2, 1), norm(2))

    def forward(self, x):
        return self.head(self.stem(x))


def learning(net):
    return {name for name, parameter in net.named_parameters() if not parameter.stop_gradient}


def train_step(net):
    net.train()
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    optimizer = paddle.optimizer.SGD(0.1, parameters=[p for p in net.parameters() if not p.stop_gradient])
    net(paddle.to_tensor(golden.inputs((4, 3, 6, 6)))).square().sum().backward()
    optimizer.step()
    optimizer.clear_grad()
    return {name for name, value in net.state_dict().items() if not np.array_equal(value.numpy(), before[name])}


HEAD = {f"head.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1._mean", "1._variance")}


@pytest.mark.parametrize("norm", [BatchNorm2d, nn.BatchNorm2D])
@pytest.mark.parametrize("parts", ["stem", ["stem.0", "stem.1"]])
def test_what_is_frozen_does_not_move(norm, parts):
    paddle.seed(0)  # a weight may happen not to move
    net = Net(norm)
    names = list(net.state_dict())
    all_learning = learning(net)
    freeze(net, parts)
    assert learning(net) == all_learning & HEAD
    assert train_step(net) == HEAD
    assert sorted(net.state_dict()) == sorted(names)
    unfreeze(net, parts)
    assert learning(net) == all_learning
    assert type(net.stem[1]) is norm and net.stem[1].training
    assert train_step(net) == set(names)


def test_statistics_may_go_on():
    net = Net()
    freeze(net, "stem", include_bn_running_stats=False)
    assert train_step(net) == HEAD | {"stem.1._mean", "stem.1._variance"}
    assert type(net.stem[1]) is BatchNorm2d


def test_a_frozen_norm_is_the_norm_in_evaluation():
    norm = BatchNorm2d(3)
    norm._mean.set_value(np.float32([1, 2, 3]))
    norm._variance.set_value(np.float32([4, 1, 0.25]))
    norm.weight.set_value(np.float32([2, 1, 1]))
    frozen = freeze_batch_norm_2d(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    frozen.train()
    result = frozen(paddle.full([1, 3, 2, 2], 3.0)).numpy()[0, :, 0, 0]
    np.testing.assert_allclose(result, [2.0, 1.0, 0.0], rtol=1e-4, atol=1e-6)
    assert unfreeze_batch_norm_2d(frozen) is norm


def test_a_frozen_norm_keeps_its_activation():
    norm = BatchNormAct2d(2, eps=0.0, act_layer="prelu")
    norm._mean.set_value(np.float32([1, 5]))
    norm._variance.set_value(np.float32([4, 1]))
    names = list(norm.state_dict())
    frozen = freeze_batch_norm_2d(norm)
    frozen.train()
    result = frozen(paddle.full([1, 2, 2, 2], 3.0)).numpy()[0, :, 0, 0]
    np.testing.assert_allclose(result, [1.0, -0.5], rtol=1e-6)  # the slope of PReLU begins at 0.25
    assert list(frozen.state_dict()) == names


def test_all_of_a_net_and_its_copy():
    net = Net()
    freeze(net)
    assert learning(net) == set()
    duplicate = copy.deepcopy(net)
    x = paddle.to_tensor(golden.inputs((2, 3, 6, 6)))
    np.testing.assert_array_equal(duplicate(x).numpy(), net(x).numpy())
    unfreeze(duplicate)
    assert learning(duplicate) and learning(net) == set()


@pytest.mark.parametrize(
    "root, parts, message",
    [(Net(), ["sten"], "no part 'sten'; did you mean stem"), (BatchNorm2d(2), [], "cannot be replaced in place")],
)
def test_what_cannot_be_frozen(root, parts, message):
    with pytest.raises(ConfigError, match=message):
        freeze(root, parts)


def test_own_unwrapping():
    net = Net()
    assert set(get_state_dict(net, lambda model: model.head)) == {name[5:] for name in HEAD}


def test_activation_statistics_in_closed_form():
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    hook = ActivationStatsHook(net, ["0", "0"], [avg_sq_ch_mean, avg_ch_var])
    x = golden.inputs((2, 3, 4, 4))
    net(paddle.to_tensor(x))
    channels = x.transpose(1, 0, 2, 3).reshape(3, -1)
    assert hook.stats["avg_sq_ch_mean"] == [pytest.approx((channels.mean(axis=1) ** 2).mean(), rel=1e-4)]
    assert hook.stats["avg_ch_var"] == [pytest.approx(channels.var(axis=1, ddof=1).mean(), rel=1e-4)]


def test_signal_propagation():
    paddle.seed(3)
    stats = extract_spp_stats(Net(), ["stem.*", "head.1"], [avg_ch_var, avg_sq_ch_mean], [4, 3, 8, 8])
    assert len(stats["avg_ch_var"]) == 2 and stats["avg_ch_var"][1] == pytest.approx(1.0, abs=0.05)
    assert stats["avg_sq_ch_mean"] == [pytest.approx(0.0, abs=1e-6)]


@pytest.mark.parametrize("patterns, message", [(["a", "b"], "2 patterns"), (["blocks.*"], "name like 'blocks")])
def test_hooks_that_would_collect_nothing(patterns, message):
    with pytest.raises(ConfigError, match=message):
        ActivationStatsHook(Net(), patterns, [avg_ch_var])


class Wrapping(nn.Layer):
    """A net that has a part called as wrappers call their net, and more."""

    def __init__(self, name):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.add_sublayer(name, nn.Linear(2, 2))

    def forward(self, x):
        return next(reversed(list(self.children())))(self.first(x))


class FromOutside:
    """An average of somebody's own, which is no layer."""

    def __init__(self, net):
        self.module = net


@pytest.mark.parametrize("name", ["module", "ema", "_layers", "wrapped_as"])
def test_a_part_called_as_in_a_wrapper_is_not_the_net(name):
    net = Wrapping(name)
    average = ModelEma(net, decay=0.5)
    wrapped = (net, average, ModelEmaV2(net), ModelEmaV3(net), ModelEmaV2(ModelEmaV2(net)), FromOutside(net))
    for model in wrapped:
        assert type(unwrap_model(model)) is Wrapping
        assert list(get_state_dict(model)) == list(net.state_dict())
    before = net.first.weight.numpy()
    with paddle.no_grad():
        net.first.weight.set_value(before + 1.0)
    average.update(net)
    np.testing.assert_allclose(average.ema.first.weight.numpy(), before + 0.5, rtol=1e-6)


def test_paddles_wrapper_is_unwrapped():
    net = Wrapping("module")
    parallel = paddle.DataParallel.__new__(paddle.DataParallel)
    nn.Layer.__init__(parallel)
    parallel._layers = net
    assert unwrap_model(parallel) is net
