"""Updates of a group in one pass give what Paddle's kernels give, parameter by parameter, and take what they can."""

import numpy as np
import paddle
import pytest
from optim_problem import Problem

from pimm.optim import create_optimizer_v2, one_pass, optimizer_state

RULES = [  # optimizer, its settings
    ("sgd", {"momentum": 0.9, "weight_decay": 0.05}),
    ("momentum", {"momentum": 0.9, "weight_decay": 0.0}),
    ("rmsproptf", {"momentum": 0.9, "weight_decay": 0.05}),
    ("rmsproptf", {"momentum": 0.0, "eps": 1e-3, "centered": True}),
    ("rmsproptf", {"momentum": 0.9, "lr_in_momentum": False, "weight_decay": 0.05, "decoupled_decay": True}),
    ("rmsproptf", {"momentum": 0.9, "weight_decay": 0.05, "caution": True}),
]


def run(opt, settings, monkeypatch, change=lambda groups: None):
    """Return the weights and the optimizer's state after some steps, and how many parameters one pass updated."""
    counts = []
    together = one_pass.OnePass._create_optimization_pass

    def counted(self, group, param_group_idx=0):
        counts.append(sum(self._takes([pair]) for pair in group["params"]))
        return together(self, group, param_group_idx)

    monkeypatch.setattr(one_pass.OnePass, "_create_optimization_pass", counted)
    net = Problem()
    groups = [
        {"params": [net.named[name] for name in ("fc1.weight", "fc1.bias", "conv.weight")]},
        {"params": [net.named[name] for name in ("norm.weight", "fc2.weight", "fc2.bias", "big.weight")], "lr": 0.003},
    ]
    change(groups)
    optimizer = create_optimizer_v2(groups, opt, lr=0.01, **settings)
    for step in range(4):
        net(branches=step % 2 == 0).backward()  # the branches have no gradient in every other step
        optimizer.step()
        optimizer.clear_grad()
    monkeypatch.undo()
    weights = {name: param.numpy() for name, param in net.named.items()}
    return weights, optimizer_state(optimizer, net), sum(counts)


def assert_alike(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=5e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("opt", "settings"), RULES, ids=str)
def test_one_pass_gives_what_paddles_kernels_give(opt, settings, monkeypatch):
    weights, state, together = run(opt, settings, monkeypatch)
    assert together == (0 if settings.get("caution") else 2 * 7 + 2 * 5)
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    expected, expected_state, apart = run(opt, settings, monkeypatch)
    assert apart == 0
    assert_alike(weights, expected)
    assert_alike(state, expected_state)
    start = Problem().named
    assert all(np.abs(value - start[name].numpy()).max() > 1e-5 for name, value in weights.items())


@pytest.mark.parametrize("opt", ["sgd", "rmsproptf"])
def test_a_parameter_that_one_pass_does_not_take_is_updated_by_paddles_kernel(opt, monkeypatch):
    settings = {"momentum": 0.9, "weight_decay": 0.05}
    expected = run(opt, settings, monkeypatch)[0]
    with monkeypatch.context() as patch:
        takes = one_pass.updates_together

        def takes_matrices(params, grads):
            return all(param.ndim > 1 for param in params) and takes(params, grads)

        patch.setattr(one_pass, "updates_together", takes_matrices)
        weights, _, together = run(opt, settings, patch)
    assert 0 < together < 24
    assert_alike(weights, expected)


def test_a_group_with_another_rule_is_updated_apart(monkeypatch):
    def cautious(groups):
        groups[1]["caution"] = True
        fast(groups)

    def fast(groups):
        groups[1]["lr"] = 200.0  # the velocity soon has another sign than the gradient

    settings = {"momentum": 0.9, "weight_decay": 0.05}
    weights, _, together = run("rmsproptf", settings, monkeypatch, cautious)
    assert together == 2 * 3 + 2 * 2
    first, second = ({**settings, "caution": caution} for caution in (False, True))
    plain = run("rmsproptf", first, monkeypatch, fast)[0]
    careful = run("rmsproptf", second, monkeypatch, fast)[0]
    # The branches of `Problem` do not depend on the other weights.
    np.testing.assert_allclose(weights["conv.weight"], plain["conv.weight"], rtol=5e-6)
    np.testing.assert_allclose(weights["big.weight"], careful["big.weight"], rtol=5e-6)
    assert np.abs(careful["big.weight"] - plain["big.weight"]).max() > 1e-4


def test_float64_is_left_to_paddle():
    param = paddle.create_parameter([3], "float64")
    optimizer = create_optimizer_v2([param], "sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
    before = param.numpy()
    (param * paddle.to_tensor([1.0, 2.0, 3.0], "float64")).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(param.numpy(), before - [0.5, 1.0, 1.5], rtol=1e-6)


@pytest.mark.parametrize(("opt", "settings"), RULES[:4], ids=str)
def test_a_sparse_gradient_decays_the_weight_once(opt, settings):
    tables = []
    for sparse in (False, True):
        embedding = paddle.nn.Embedding(5, 3, sparse=sparse)
        embedding.weight.set_value(np.linspace(-1.0, 1.0, 15, dtype="float32").reshape(5, 3))
        optimizer = create_optimizer_v2([embedding.weight], opt, lr=0.1, **{"weight_decay": 0.5, **settings})
        for _ in range(3):
            embedding(paddle.to_tensor([0, 2, 2])).square().sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        tables.append(embedding.weight.numpy())
    np.testing.assert_allclose(tables[1], tables[0], rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("overflow", "together", "moves"),
    [(None, True, True), (False, True, True), (True, False, False), ([False], False, True), ([True], False, False)],
    ids=str,
)
def test_one_pass_takes_steps_that_no_gradient_overflow_may_skip(overflow, together, moves):
    param = paddle.create_parameter([3], "float32")
    optimizer = create_optimizer_v2([param], "sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
    before = param.numpy().copy()
    (2.0 * param).sum().backward()
    optimizer._set_auxiliary_var("found_inf", paddle.to_tensor(overflow) if isinstance(overflow, list) else overflow)
    assert optimizer._takes([(param, param.grad)]) is together
    optimizer.step()
    np.testing.assert_allclose(param.numpy(), before - moves, rtol=1e-6, atol=1e-6)
