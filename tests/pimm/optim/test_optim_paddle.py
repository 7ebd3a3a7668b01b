"""The optimizers in Paddle's own loops, and the fields of their groups that timm's users read."""

import numpy as np
import paddle
import pytest
from optim_problem import Problem

from pimm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from pimm.scheduler import CosineLRScheduler, PlateauLRScheduler, ScheduleCallback

NAMES = list_optimizers()
STEPS = 3


def weights(net):
    return {name: param.numpy() for name, param in net.named.items()}


def trained(name, update):
    """Return the weights after some updates, made by ``update(optimizer, loss)``."""
    net = Problem()
    optimizer = create_optimizer_v2(net, name, lr=0.01, weight_decay=0.05)
    for _ in range(STEPS):
        loss = net()
        loss.backward()
        update(optimizer, loss)
        optimizer.clear_grad()
    return weights(net)


@pytest.mark.parametrize("name", [*NAMES, "lookahead_sgd"])
def test_minimize_is_a_step(name):
    start = weights(Problem())
    stepped = trained(name, lambda optimizer, loss: optimizer.step())
    minimized = trained(name, lambda optimizer, loss: optimizer.minimize(loss))
    for key, value in stepped.items():
        np.testing.assert_array_equal(minimized[key], value, err_msg=key)
    assert any(np.abs(stepped[key] - start[key]).max() > 1e-5 for key in start)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lookahead_adam"])
@pytest.mark.parametrize("by_name", [False, True])
def test_minimize_of_chosen_parameters(name, by_name):
    net = Problem()
    optimizer = create_optimizer_v2(net, name, lr=0.01, weight_decay=0.05)
    before = weights(net)
    chosen = [net.fc1.weight, net.conv.weight, net.fc2.bias]
    chosen, left_out = ([param.name if by_name else param for param in params] for params in (chosen, chosen[2:]))
    loss = net()
    loss.backward()
    operators, pairs = optimizer.minimize(loss, parameters=chosen, no_grad_set=left_out)
    assert operators == []
    assert {param.name for param, _ in pairs} == {net.fc1.weight.name, net.conv.weight.name}
    assert all(np.array_equal(grad.numpy(), param.grad.numpy()) for param, grad in pairs)
    moved = {key for key, value in weights(net).items() if not np.array_equal(value, before[key])}
    assert moved == {"fc1.weight", "conv.weight"}
    assert not any(param.stop_gradient for param in net.parameters())


def test_apply_gradients_takes_other_gradients():
    net = Problem()
    optimizer = create_optimizer_v2(net, "sgd", lr=0.5, momentum=0.0)
    before = weights(net)
    net().backward()
    optimizer.apply_gradients([(param, 2.0 * paddle.ones_like(grad)) for param, grad in optimizer.backward(None)])
    for key, value in weights(net).items():
        np.testing.assert_allclose(value, before[key] - 1.0, rtol=1e-6, atol=1e-6)


class Clusters(paddle.io.Dataset):
    """Points around two centres, which a linear layer tells apart."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        label = index % 2
        return (rng.normal(size=4) + 3 * label).astype(np.float32), np.array([label])


def fit(optimizer_name, schedule, epochs=3, metric=None, **options):
    paddle.seed(0)
    net = paddle.nn.Linear(4, 2)
    optimizer = create_optimizer_v2(net, optimizer_name, lr=0.05, weight_decay=0.01)
    model = paddle.Model(net)
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    scheduler = schedule(optimizer, **options)
    callback = ScheduleCallback(scheduler, metric)
    if epochs:
        model.fit(Clusters(), batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback])
    return model.evaluate(Clusters(), batch_size=16, verbose=0), optimizer, callback


@pytest.mark.parametrize("name", ["sgd", "rmsproptf", "adamw", "lamb", "lion", "lookahead_adam"])
def test_paddles_fit_learns(name):
    before, *_ = fit(name, CosineLRScheduler, epochs=0, t_initial=3)
    after, optimizer, callback = fit(name, CosineLRScheduler, epochs=30, t_initial=30)
    assert after["acc"] > 0.95 and after["loss"][0] < 0.5 * before["loss"][0]
    assert callback.num_updates == 30 * 4
    assert optimizer.get_lr() == pytest.approx(0.0, abs=1e-12)


def test_fit_steps_by_updates_and_by_metric():
    *_, optimizer, _ = fit("sgd", CosineLRScheduler, epochs=2, t_initial=16, t_in_epochs=False)
    assert optimizer.get_lr() == pytest.approx(0.05 * 0.5)
    *_, optimizer, _ = fit("sgd", PlateauLRScheduler, epochs=5, metric="acc", patience_t=0, threshold=10.0)
    assert optimizer.get_lr() == pytest.approx(0.05 * 0.1**4)  # the first metric is an improvement


READ = ("betas", "momentum", "eps", "alpha", "nesterov")  # beside rates and decay


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_groups(name):
    net = Problem()
    optimizer = create_optimizer_v2(net, name, lr=0.03, weight_decay=0.05)
    info = get_optimizer_info(name)
    settings = {**info.arguments, **info.defaults, **({"momentum": 0.9} if info.has_momentum else {})}
    for moment in ("fresh", "scheduled", "stepped"):
        if moment == "scheduled":
            CosineLRScheduler(optimizer, 10)
        if moment == "stepped":
            net().backward()
            optimizer.step()
        plain, decayed = optimizer.param_groups
        assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
        assert plain["lr"] == decayed["lr"] == 0.03
        assert ("initial_lr" in plain) is (moment != "fresh")
        if moment != "fresh":
            assert plain["initial_lr"] == decayed["initial_lr"] == 0.03
        for field in READ:
            if field in settings:
                assert plain[field] == decayed[field] == settings[field], field
