"""Optimizers against the trajectories of the original ones, and their state."""

import types

import golden
import numpy as np
import paddle
import pytest

from pimm.errors import CheckpointError, ConfigError
from pimm.optim import (
    OPTIMIZERS,
    Lookahead,
    create_optimizer,
    create_optimizer_v2,
    group_lrs,
    load_optimizer_state,
    optimizer_state,
    param_groups_weight_decay,
    set_group_lrs,
)
from pimm.scheduler import StepLRScheduler

SHAPES = {
    "fc1.weight": (8, 5),
    "fc1.bias": (8,),
    "norm.weight": (8,),
    "fc2.weight": (3, 8),
    "fc2.bias": (3,),
    "conv.weight": (4, 3, 3, 3),
    "big.weight": (36, 32),
}
SNAPSHOTS = (1, 2, 5, 10, 20)
RUNS = golden.facts("optim")["runs"]


class Problem(paddle.nn.Layer):
    """The least-squares problem that the reference trajectories were made on."""

    def __init__(self, dtype="float32"):
        super().__init__()
        for name, shape in SHAPES.items():
            owner, leaf = name.split(".")
            if not hasattr(self, owner):
                self.add_sublayer(owner, paddle.nn.Layer())
            param = self.create_parameter(list(shape), dtype=dtype)
            param.set_value(golden.param(name, shape).astype(dtype))
            getattr(self, owner).add_parameter(leaf, param)

        def constant(shape, stream):
            return paddle.to_tensor(golden.inputs(shape, stream=stream).astype(dtype))

        self.data = [constant((16, 5), 12345), constant((16, 3), 12346)]
        self.curves = [0.5 + constant((4, 3, 3, 3), 12347).abs(), 0.5 + constant((36, 32), 12349).abs()]
        self.minima = [constant((4, 3, 3, 3), 12348), constant((36, 32), 12350)]

    def forward(self, branches=True):
        x, y = self.data
        hidden = paddle.tanh(x @ self.fc1.weight.t() + self.fc1.bias) * self.norm.weight
        loss = (hidden @ self.fc2.weight.t() + self.fc2.bias - y).square().sum() / 32
        if branches:
            loss += (self.curves[0] * (self.conv.weight - self.minima[0]).square()).sum() / 8
            loss += (self.curves[1] * (self.big.weight - self.minima[1]).square()).sum() / 72
        return loss

    def row(self):
        values = {name: param.numpy().ravel() for name, param in self.named_parameters()}
        big = values["big.weight"].astype(np.float64)
        head = [values[name] for name in SHAPES if name != "big.weight"]
        return np.concatenate([*head, big[:16], [big.sum(), np.abs(big).sum()]])


def train(net, optimizer, steps, branches=True):
    for _ in range(steps):
        net(branches).backward()
        optimizer.step()
        optimizer.clear_grad()


def args_of(run, opt):
    config = run["config"]
    return types.SimpleNamespace(
        opt=config.get("opt", opt),
        lr=run["lr"],
        weight_decay=run["weight_decay"],
        momentum=config.get("momentum"),
        opt_eps=config.get("opt_eps"),
    )


def build(key, net):
    version, name, _ = key.split("/")
    run = RUNS[key]
    if name.startswith("supernet_"):
        return create_optimizer_v2(net, run["config"]["opt"], run["lr"], run["weight_decay"])
    if version == "0.1.20":
        return create_optimizer(args_of(run, name), net)
    return create_optimizer_v2(net, name, run["lr"], run["weight_decay"])


KEYS = [
    key
    for key, run in RUNS.items()
    if "error" not in run and (key.startswith("0.1.20") or key.split("/")[1] in OPTIMIZERS)
]


@pytest.mark.parametrize("key", KEYS)
def test_trajectory_float32(key):
    net = Problem()
    optimizer = build(key, net)
    rows = []
    for step in range(1, 21):
        if step == 11:
            optimizer.set_lr(RUNS[key]["lr"] / 2)
        train(net, optimizer, 1)
        if step in SNAPSHOTS:
            rows.append(net.row())
    expected = golden.arrays("optim")[f"{key}/f32"]
    np.testing.assert_allclose(np.array(rows)[:, :-2], expected[:, :-2], atol=5e-6, rtol=2e-6)
    np.testing.assert_allclose(np.array(rows)[:, -2:], expected[:, -2:], atol=2e-3)  # sums of 1152 values


@pytest.mark.parametrize("key", KEYS)
def test_trajectory_float64(key):
    net = Problem("float64")
    optimizer = build(key, net)
    train(net, optimizer, 10)
    optimizer.set_lr(RUNS[key]["lr"] / 2)
    train(net, optimizer, 10)
    expected = golden.arrays("optim")[f"{key}/f64_last"]
    # Paddle keeps betas and eps in float32 whatever the parameters are
    np.testing.assert_allclose(net.row(), expected, rtol=1e-5, atol=2e-6)


STATEFUL = [*OPTIMIZERS, "lookahead_sgd", "lookahead_rmsprop", "lookahead_adamw"]


@pytest.mark.parametrize("opt", STATEFUL)
def test_resume_is_bit_exact(opt):
    """The state goes into a net with other generated names, and meets weights that no step had visited."""

    def fresh():
        net = Problem()
        return net, create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.01)

    net, optimizer = fresh()
    train(net, optimizer, 7, branches=False)
    optimizer.set_lr(0.005)
    weights = {name: param.numpy() for name, param in net.named_parameters()}
    state = optimizer_state(optimizer, net)
    train(net, optimizer, 8)

    paddle.nn.Linear(3, 3)
    resumed, optimizer = fresh()
    for name, param in resumed.named_parameters():
        param.set_value(weights[name])
    train(Problem(), create_optimizer_v2(Problem(), opt, lr=0.01), 1)
    load_optimizer_state(optimizer, resumed, state)
    again = optimizer_state(optimizer, resumed)
    train(resumed, optimizer, 8)

    assert not any(name.startswith(("conv", "big")) for name in state)
    assert set(again) == set(state)
    assert all(np.array_equal(again[name], state[name]) for name in state)
    assert np.array_equal(resumed.row(), net.row())


def test_loading_replaces_what_the_optimizer_had():
    net = Problem()
    optimizer = create_optimizer_v2(net, "momentum", lr=0.01)
    state = optimizer_state(optimizer, net)
    train(net, optimizer, 2)
    assert "conv.weight/velocity" in optimizer_state(optimizer, net)
    load_optimizer_state(optimizer, net, state)
    assert optimizer_state(optimizer, net).keys() == state.keys()


def test_rates_of_groups_come_back_and_schedules_start_where_they_started():
    def fresh():
        params = [paddle.create_parameter([1], "float32") for _ in range(3)]
        net = paddle.nn.ParameterList(params)
        groups = [{"params": params[:1]}, {"params": params[1:2], "lr": 0.02}, {"params": params[2:], "lr_scale": 0.5}]
        return net, create_optimizer_v2(groups, "sgd", lr=0.1)

    net, optimizer = fresh()
    scheduler = StepLRScheduler(optimizer, decay_t=1, decay_rate=0.7)
    scheduler.step(3)
    state = optimizer_state(optimizer, net)
    again, resumed = fresh()
    load_optimizer_state(resumed, again, state)
    assert group_lrs(resumed) == group_lrs(optimizer)
    scheduler.step(4)
    StepLRScheduler(resumed, decay_t=1, decay_rate=0.7).step(4)
    assert group_lrs(resumed) == group_lrs(optimizer) == pytest.approx([0.1 * 0.7**4, 0.02 * 0.7**4, 0.05 * 0.7**4])


def corrupt(state, change):
    state = dict(state)
    change(state)
    return state


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("fc1.bias/exp_avg"), "missing fc1.bias/exp_avg"),
        (lambda state: state.pop("fc1.bias/step"), "missing fc1.bias/step"),
        (lambda state: state.pop("lookahead_step"), "missing lookahead_step"),
        (lambda state: state.update({"lr_multipliers": np.ones(3)}), r"float64\[3\] instead of float64\[2\]"),
        (lambda state: state.update({"fc1.bias/velocity": np.zeros(8, "float32")}), "unknown fc1.bias/velocity"),
        (lambda state: state.update({"fc9.bias/exp_avg": np.zeros(8, "float32")}), "unknown fc9.bias/exp_avg"),
        (lambda state: state.update({"fc1.bias/exp_avg": np.zeros(9, "float32")}), r"float32\[9\] instead of"),
        (lambda state: state.update({"fc1.bias/exp_avg": np.zeros(8, "float64")}), r"float64\[8\] instead of float32"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    net = Problem()
    optimizer = create_optimizer_v2(net, "lookahead_nvnovograd", lr=0.01, weight_decay=0.1)
    train(net, optimizer, 6)
    state = optimizer_state(optimizer, net)
    other = create_optimizer_v2(net, "lookahead_nvnovograd", lr=0.02, weight_decay=0.1)
    before = optimizer_state(other, net)
    with pytest.raises(CheckpointError, match=message):
        load_optimizer_state(other, net, corrupt(state, change))
    after = optimizer_state(other, net)
    assert list(after) == list(before)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_half_precision_weights_are_kept_with_their_float32_copies():
    def fresh():
        net = paddle.nn.Linear(3, 2)
        net.bfloat16()
        optimizer = create_optimizer_v2(net, "sgd", lr=0.1)
        optimizer._multi_precision = True  # as paddle.amp.decorate does at level O2
        return net, optimizer

    net, optimizer = fresh()
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(block, net.parameters())
    for master in optimizer._master_weights.values():
        master.set_value(master.numpy() + 1e-4)
    state = optimizer_state(optimizer, net)
    assert {name: value.dtype.name for name, value in state.items() if "/" in name} == {
        f"{name}/{slot}": "float32" for name in ("weight", "bias") for slot in ("velocity", "master_weight")
    }
    net, optimizer = fresh()
    load_optimizer_state(optimizer, net, state)
    again = optimizer_state(optimizer, net)
    assert all(np.array_equal(again[name], state[name]) for name in state)


def test_an_optimizer_of_another_net_has_no_state_here():
    optimizer = create_optimizer_v2(Problem(), "sgd", lr=0.01)
    with pytest.raises(CheckpointError, match="7 of the optimizer's 7 parameters"):
        optimizer_state(optimizer, Problem())


@pytest.mark.parametrize("opt", STATEFUL)
def test_weights_without_gradient_do_not_move(opt):
    net = Problem()
    optimizer = create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.1)
    train(net, optimizer, 1)
    conv, fc = net.conv.weight.numpy(), net.fc1.weight.numpy()
    train(net, optimizer, 7, branches=False)
    assert np.array_equal(net.conv.weight.numpy(), conv)
    assert not np.array_equal(net.fc1.weight.numpy(), fc)


def test_zero_grad_drops_gradients_unless_told_otherwise():
    net = Problem()
    optimizer = create_optimizer_v2(net, "sgd", lr=0.01)
    net().backward()
    optimizer.zero_grad(set_to_none=False)
    assert (net.fc1.weight.grad.numpy() == 0).all()
    net().backward()
    optimizer.zero_grad()
    assert all(param.grad is None for param in net.parameters())


def test_groups_of_a_net():
    net = Problem()
    net.fc2.weight.stop_gradient = True
    groups = param_groups_weight_decay(net, 0.1, no_weight_decay_list=("big.weight",))
    names = {param.name: name for name, param in net.named_parameters()}
    named = [({names[param.name] for param in group["params"]}, group["weight_decay"]) for group in groups]
    assert named == [
        ({"fc1.bias", "norm.weight", "fc2.bias", "big.weight"}, 0.0),
        ({"fc1.weight", "conv.weight"}, 0.1),
    ]


@pytest.mark.parametrize("opt", ["momentum", "rmsprop", "radamw"])
def test_groups_have_their_own_rate_and_decay(opt):
    """A decayed weight without a gradient of its own, at two rates and two decays."""

    def moved(group):
        param = paddle.create_parameter([1], "float64", default_initializer=paddle.nn.initializer.Constant(2.0))
        optimizer = create_optimizer_v2([{"params": [param], **group}], opt, lr=0.1, weight_decay=0.5, momentum=0.0)
        (param * 3.0).sum().backward()
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(group_lrs(optimizer)[0])
        return 2.0 - param.item()

    change = {
        "momentum": lambda lr, decay: lr * (3.0 + 2.0 * decay),
        "rmsprop": lambda lr, decay: lr / np.sqrt(0.1),
        "radamw": lambda lr, decay: lr * (2.0 * decay + 3.0),
    }[opt]
    assert moved({}) == pytest.approx(change(0.1, 0.5), rel=1e-6)
    assert moved({"lr": 0.02}) == pytest.approx(change(0.02, 0.5), rel=1e-6)
    assert moved({"lr_scale": 0.5, "weight_decay": 0.0}) == pytest.approx(change(0.05, 0.0), rel=1e-6)
    assert moved({"learning_rate": 0.5, "lr": 0.2}) == pytest.approx(change(0.1, 0.5), rel=1e-6)


def test_rates_out_of_proportion_and_back():
    params = [paddle.create_parameter([1], "float32") for _ in range(3)]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.02}, {"params": [params[2]], "lr_scale": 0.5}]
    optimizer = create_optimizer_v2(groups, "sgd", lr=0.1)
    assert group_lrs(optimizer) == pytest.approx([0.1, 0.02, 0.05])
    for lrs in ([0.0, 0.0, 0.0], [0.01, 0.03, 0.01], [0.1, 0.02, 0.1]):
        set_group_lrs(optimizer, lrs)
        assert group_lrs(optimizer) == pytest.approx([lrs[0], lrs[1], lrs[2] / 2])
    with pytest.raises(TypeError):
        optimizer.param_groups[0]["lr"] = 1.0


def test_an_earlier_optimizer_leaves_no_decay_behind():
    def end(*opts):
        net = Problem()
        for opt, decay in opts:
            optimizer = create_optimizer_v2(net, opt, lr=0.01, weight_decay=decay)
        train(net, optimizer, 3)
        return net.row()

    for opt in ("adam", "adamw", "rmsprop"):
        assert np.array_equal(end(("adam", 0.9), (opt, 0.0)), end((opt, 0.0)))
        assert np.array_equal(end(("adam", 0.9), (opt, 0.3)), end((opt, 0.3)))


@pytest.mark.parametrize("opt", ["sgd", "rmsprop", "lookahead_adam"])
def test_a_loss_scaler_skips_steps_that_overflow(opt):
    net = Problem()
    optimizer = create_optimizer_v2(net, opt, lr=0.01)
    optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([True]))
    before = net.row()
    train(net, optimizer, 1)
    assert np.array_equal(net.row(), before)
    assert set(optimizer_state(optimizer, net)) & {"fc1.weight/step"} == set()
    optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([False]))
    train(net, optimizer, 1)
    assert not np.array_equal(net.row(), before)


def test_betas_and_eps_from_arguments():
    net = Problem()
    args = types.SimpleNamespace(opt="adam", lr=0.1, weight_decay=0, momentum=0.9, opt_eps=1e-2, opt_betas=(0.5, 0.8))
    optimizer = create_optimizer(args, net)
    assert (optimizer._epsilon, optimizer._beta1, optimizer._beta2) == (1e-2, 0.5, 0.8)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda net: create_optimizer_v2(net, "adma", lr=0.1), "did you mean adam"),
        (lambda net: create_optimizer_v2(net, "lookforward_adam", lr=0.1), "only 'lookahead_'"),
        (lambda net: create_optimizer_v2(net, "sgd", lr=0.1, betas=(0.9, 0.9)), "takes no 'betas'; it takes lr"),
        (lambda net: create_optimizer_v2([], "sgd", lr=0.1), "no trainable parameter"),
        (lambda net: Lookahead(create_optimizer_v2(net, "sgd", lr=0.1), k=0), "k >= 1"),
    ],
)
def test_mistakes(build, message):
    with pytest.raises(ConfigError, match=message):
        build(Problem())
