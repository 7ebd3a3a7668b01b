"""Optimizers against the trajectories of the original ones, and their state."""

import types

import golden
import numpy as np
import paddle
import pytest
from optim_problem import Problem, parameter, train

from pimm.errors import CheckpointError, ConfigError
from pimm.optim import (
    OPTIMIZERS,
    Lookahead,
    create_optimizer,
    create_optimizer_v2,
    group_lrs,
    load_optimizer_state,
    optimizer_state,
    set_group_lrs,
)
from pimm.optim.base import RuleOptimizer
from pimm.scheduler import StepLRScheduler

SNAPSHOTS = (1, 2, 5, 10, 20)
RUNS = golden.facts("optim")["runs"]
KEYS = [key for key, run in RUNS.items() if "error" not in run]


def test_gradients_by_hand_are_those_of_the_graph():
    net = Problem("float64")
    loss = net()
    loss.backward()
    assert loss.item() == pytest.approx(net.loss(), rel=1e-14)
    for name, grad in net.gradients().items():
        np.testing.assert_allclose(grad, net.named[name].grad.numpy(), atol=1e-15)


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
    return create_optimizer_v2(net, name.replace("_ns32", ""), run["lr"], run["weight_decay"])


# Muon's iteration is theirs in bfloat16, except in the runs named ns32, and ours in float32.
BFLOAT16_MUON = {"muon": 2e-3, "nmuon": 2e-3, "adamuon": 2e-2}


def limits(key, exact):
    """What single values and the two sums of 1152 may differ by."""
    single = BFLOAT16_MUON.get(key.split("/")[1], exact)
    return single, max(single * 15, 2e-3)


@pytest.mark.parametrize("key", KEYS)
def test_trajectory_float32(key):
    net = Problem()
    optimizer = build(key, net)
    rows, losses = [], [net.loss()]
    for step in range(1, 21):
        if step == 11:
            optimizer.set_lr(RUNS[key]["lr"] / 2)
        train(net, optimizer, 1)
        losses.append(net.loss())
        if step in SNAPSHOTS:
            rows.append(net.row())
    expected = golden.arrays("optim")[f"{key}/f32"]
    single, sums = limits(key, 5e-6)
    np.testing.assert_allclose(np.array(rows)[:, :-2], expected[:, :-2], atol=single, rtol=2e-6)
    np.testing.assert_allclose(np.array(rows)[:, -2:], expected[:, -2:], atol=sums)
    np.testing.assert_allclose(losses, golden.arrays("optim")[f"{key}/loss"], rtol=max(1e-6, 2 * single))


@pytest.mark.parametrize("key", KEYS)
def test_trajectory_float64(key):
    net = Problem("float64")
    optimizer = build(key, net)
    train(net, optimizer, 10)
    optimizer.set_lr(RUNS[key]["lr"] / 2)
    train(net, optimizer, 10)
    expected = golden.arrays("optim")[f"{key}/f64_last"]
    # Paddle's kernels keep betas and eps in float32 whatever the parameters are; PyTorch, Muon's iteration, NovoGrad's
    # norms and one of LaProp's averages. All else is exact.
    of_float32 = not isinstance(optimizer, RuleOptimizer) or any(n in key for n in ("muon", "novograd", "laprop"))
    single, _ = limits(key, 2e-6 if of_float32 else 1e-12)
    np.testing.assert_allclose(net.row()[:-2], expected[:-2], rtol=5 * single, atol=single)
    np.testing.assert_allclose(net.row()[-2:], expected[-2:], atol=max(1152 * single / 2, 1e-9))


NAMES = [*OPTIMIZERS, "lookahead_sgd", "lookahead_rmsprop", "lookahead_adamw", "lookahead_lamb"]


@pytest.mark.parametrize("opt", NAMES)
def test_a_parameter_without_dimensions_moves_as_one_of_one_element(opt):
    params = [parameter(np.full(shape, 2.0, "float32")) for shape in ([], [1])]
    optimizer = create_optimizer_v2(params, opt, lr=0.1, weight_decay=0.05)
    for _ in range(13):  # Lookahead moves its slow copies in every sixth step, but for the first time
        sum(param.square().sum() for param in params).backward()
        optimizer.step()
        optimizer.clear_grad()
    scalar, single = params
    assert scalar.shape == [] and abs(scalar.item() - 2.0) > 1e-3
    np.testing.assert_allclose(scalar.numpy(), single[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opt", NAMES)
def test_resume_is_bit_exact(opt):
    """The state goes into a net with other generated names, and meets weights that no step had visited."""

    def fresh():
        net = Problem()
        return net, create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.01)

    before, after = (7, 8) if opt.startswith("lookahead") else (2, 2)
    net, optimizer = fresh()
    train(net, optimizer, before, branches=False)
    optimizer.set_lr(0.005)
    weights = {name: param.numpy() for name, param in net.named.items()}
    state = optimizer_state(optimizer, net)
    train(net, optimizer, after)

    paddle.nn.Linear(3, 3)
    resumed, optimizer = fresh()
    for name, param in resumed.named.items():
        param.set_value(weights[name])
    load_optimizer_state(optimizer, resumed, state)
    again = optimizer_state(optimizer, resumed)
    train(resumed, optimizer, after)

    assert not any(name.startswith(("conv", "big")) for name in state)
    assert set(again) == set(state)
    assert all(np.array_equal(again[name], state[name]) for name in state)
    assert np.array_equal(resumed.row(), net.row())


@pytest.mark.parametrize("opt", NAMES)
def test_weights_without_gradient_do_not_move(opt):
    """Neither by momentum, once they have one, nor by decay; nor does what the optimizer keeps of them."""
    net = Problem()
    optimizer = create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.1)
    steps = 7 if opt.startswith("lookahead") else 1
    train(net, optimizer, 2)
    off_path = {"conv.weight": net.conv.weight.numpy(), "big.weight": net.big.weight.numpy()}
    kept = {name: value for name, value in optimizer_state(optimizer, net).items() if name.startswith(tuple(off_path))}
    fc = net.fc1.weight.numpy()
    train(net, optimizer, steps, branches=False)
    state = optimizer_state(optimizer, net)
    assert all(np.array_equal(net.named[name].numpy(), value) for name, value in off_path.items())
    assert all(np.array_equal(state[name], value) for name, value in kept.items())
    assert not np.array_equal(net.fc1.weight.numpy(), fc)


@pytest.fixture
def no_reading(monkeypatch):
    """Reading a value of a tensor, which would wait for the device, is an error."""

    def read(*args, **kwargs):
        raise AssertionError("a step reads a value of a tensor")

    names = ("numpy", "item", "tolist", "__array__", "__bool__", "__float__", "__int__", "__index__")
    return lambda: [monkeypatch.setattr(paddle.Tensor, name, read) for name in names]


@pytest.mark.parametrize("opt", [*OPTIMIZERS, "lookahead_lion"])
def test_a_step_never_waits_for_the_device(opt, no_reading):
    net = Problem()
    optimizer = create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.1)
    for name, grad in net.gradients().items():
        net.named[name].grad = paddle.to_tensor(grad)
    no_reading()
    for _ in range(6 if opt.startswith("lookahead") else 2):
        optimizer.step()


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


RULES = [name for name, info in OPTIMIZERS.items() if issubclass(info.opt_class, RuleOptimizer)]


@pytest.mark.parametrize("opt", [*RULES, "lookahead_lion"])
def test_half_precision_weights_learn_as_their_float32_copies(opt):
    """Weights and gradients in bfloat16, everything between in float32; saved and restored on the way."""

    def fresh(dtype):
        net = paddle.nn.Linear(8, 6)
        net.to(dtype=dtype)
        return net, create_optimizer_v2(net, opt, lr=0.01, weight_decay=0.1)

    def learn(net, optimizer, flow):
        for grad in flow:
            net.weight.grad = paddle.to_tensor(grad).astype("bfloat16").astype(net.weight.dtype)
            optimizer.step()

    flow = np.random.default_rng(0).standard_normal((7, 8, 6)).astype("float32")
    net, optimizer = fresh("bfloat16")
    exact, exact_optimizer = fresh("float32")
    exact.weight.set_value(net.weight.astype("float32"))
    learn(exact, exact_optimizer, flow)
    learn(net, optimizer, flow[:6])
    resumed, optimizer_resumed = fresh("bfloat16")
    load_optimizer_state(optimizer_resumed, resumed, optimizer_state(optimizer, net))
    learn(resumed, optimizer_resumed, flow[6:])
    assert np.array_equal(optimizer_state(optimizer_resumed, resumed)["weight/master_weight"], exact.weight.numpy())
    assert np.array_equal(resumed.weight.numpy(), exact.weight.astype("bfloat16").numpy())


def test_half_precision_weights_of_kernels_are_kept_with_their_float32_copies():
    def fresh():
        net = paddle.nn.Linear(3, 2)
        net.to(dtype="bfloat16")  # Layer.bfloat16 does nothing on processors without such instructions
        return net, create_optimizer_v2(net, "sgd", lr=0.1)

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


def test_zero_grad_drops_gradients_unless_told_otherwise():
    net = Problem()
    optimizer = create_optimizer_v2(net, "sgd", lr=0.01)
    net().backward()
    optimizer.zero_grad(set_to_none=False)
    assert (net.fc1.weight.grad.numpy() == 0).all()
    net().backward()
    optimizer.zero_grad()
    assert all(param.grad is None for param in net.parameters())


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
        (lambda net: create_optimizer_v2([net.norm.weight] * 2, "sgd", lr=0.1), r"of shape \[8\] twice; give it once"),
        (lambda net: create_optimizer_v2([{"params": [net.norm.weight]}] * 2, "sgd", lr=0.1), "twice; give it once"),
        (lambda net: Lookahead(create_optimizer_v2(net, "sgd", lr=0.1), k=0), "k >= 1"),
    ],
)
def test_mistakes(build, message):
    with pytest.raises(ConfigError, match=message):
        build(Problem())
