"""Learning-rate schedules against the original's rates, epoch by epoch and update by update."""

import inspect
import math
import types

import golden
import numpy as np
import paddle
import pytest

from pimm.errors import CheckpointError, ConfigError
from pimm.optim import SGD, group_lrs
from pimm.scheduler import (
    CosineLRScheduler,
    LinearLRScheduler,
    MultiStepLRScheduler,
    PlateauLRScheduler,
    PolyLRScheduler,
    Scheduler,
    StepLRScheduler,
    TanhLRScheduler,
    WSDLRScheduler,
    create_scheduler,
    create_scheduler_v2,
    scheduler_kwargs,
)
from pimm.scheduler.noise import normal_draws, truncated_normal, uniform
from pimm.scheduler.scheduler_factory import FIELDS

CLASSES = {cls.__name__: cls for cls in (CosineLRScheduler, TanhLRScheduler, StepLRScheduler, PlateauLRScheduler)}
# What timm's classes have changed since 0.1.20 for a call that does not say it.
MEANT = {
    "CosineLRScheduler": {},
    "TanhLRScheduler": {"lb": -6.0, "ub": 4.0},
    "StepLRScheduler": {"warmup_prefix": False},
    "PlateauLRScheduler": {},
}
V2 = inspect.signature(create_scheduler_v2).parameters
OLD = golden.facts("sched")["timm_0.1.20"]
FACTORY = [entry for entry in OLD if "create_scheduler(" in entry["api"]]
DIRECT = [entry for entry in OLD if "LRScheduler(" in entry["api"]]
SUPERNET = [entry for entry in OLD if "create_supernet_scheduler" in entry["api"]]
TODAY = golden.facts("sched")["timm_1.0.31"]


def make_optimizer(lrs, scales=None):
    params = [paddle.create_parameter([2], "float32") for _ in lrs]
    groups = [{"params": [param], "lr": lr} for param, lr in zip(params, lrs)]
    for group, scale in zip(groups, scales or []):
        group["lr_scale"] = scale
    return SGD(groups, lr=lrs[0], momentum=0.9)


def follow(optimizer, scheduler, entry):
    """The groups' rates in force at every epoch or update of a reference entry."""
    by_epoch = "lrs_by_epoch" in entry
    rates = [group_lrs(optimizer)]
    for tick in range(1, len(entry["lrs_by_epoch" if by_epoch else "lrs_by_update"])):
        if by_epoch:
            scheduler.step(tick, entry["metrics"][tick - 1] if entry.get("metrics") else None)
        else:
            scheduler.step_update(tick)
        rates.append(group_lrs(optimizer))
    return np.array(rates), np.array(entry["lrs_by_epoch" if by_epoch else "lrs_by_update"])


def test_every_reference_is_tested():
    assert len(FACTORY) + len(DIRECT) + len(SUPERNET) == len(OLD)
    assert all("create_scheduler_v2" in entry["api"] for entry in TODAY)


@pytest.mark.parametrize("entry", FACTORY, ids=lambda entry: entry["args"]["sched"])
def test_create_scheduler(entry):
    optimizer = make_optimizer(entry["group_base_lrs"])
    scheduler, epochs = create_scheduler(types.SimpleNamespace(**entry["args"]), optimizer)
    rates, expected = follow(optimizer, scheduler, entry)
    assert epochs == entry["num_epochs_returned"]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize("entry", DIRECT, ids=lambda entry: entry["api"].split()[2])
def test_scheduler_classes(entry):
    args = entry["args"]
    optimizer = make_optimizer(entry["group_base_lrs"])
    name = entry["api"].split()[2].split("(")[0]
    scheduler = CLASSES[name](optimizer, **{**MEANT[name], **args})
    rates, expected = follow(optimizer, scheduler, entry)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    if "get_cycle_length" in entry:  # 0.1.20 forgot the warm-up that comes before the cycles; today's timm counts it
        prefix = args["warmup_t"] if args.get("warmup_prefix") else 0
        assert scheduler.get_cycle_length() == entry["get_cycle_length"] + prefix


def modern_arguments(entry):
    """The fields of timm's command line that give the arguments of a reference entry."""
    fields = {keyword: field for keyword, (field, _) in FIELDS.items()}
    given = {**{name: parameter.default for name, parameter in V2.items()}, **entry["args"]}
    args = types.SimpleNamespace(**{fields[name]: value for name, value in given.items() if name in fields})
    args.eval_metric = {"max": "top1", "min": "loss"}[given["plateau_mode"]]
    args.sched_on_updates = not given["step_on_epochs"]
    return args, given["updates_per_epoch"]


@pytest.mark.parametrize("by_fields", [False, True], ids=["v2", "args"])
@pytest.mark.parametrize("entry", TODAY, ids=lambda entry: entry["args"]["sched"])
def test_create_scheduler_v2(entry, by_fields):
    optimizer = make_optimizer(entry["group_base_lrs"], [1.0, 0.3] if "lr_scale" in entry["api"] else None)
    if by_fields:
        args, updates_per_epoch = modern_arguments(entry)
        scheduler, epochs = create_scheduler(args, optimizer, updates_per_epoch)
    else:
        scheduler, epochs = create_scheduler_v2(optimizer, **entry["args"])
    rates, expected = follow(optimizer, scheduler, entry)
    assert epochs == entry["num_epochs_returned"]
    np.testing.assert_allclose(rates, expected, rtol=1e-11, atol=1e-16)
    if "lrs_by_update" in entry:
        in_force = group_lrs(optimizer)
        scheduler.step(1)
        assert group_lrs(optimizer) == in_force


def test_linear_is_the_official_supernet_schedule_at_rate_one():
    entry = next(entry for entry in SUPERNET if entry["args"]["LR"] == 1.0)
    optimizer = make_optimizer(entry["group_base_lrs"])
    scheduler = LinearLRScheduler(optimizer, int(entry["iters"]))
    rates, expected = follow(optimizer, scheduler, entry)
    np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-12)


def test_linear_reaches_zero_at_other_rates():
    args = types.SimpleNamespace(sched="linear", epochs=2, min_lr=0.0, warmup_lr=0.0, warmup_epochs=0)
    optimizer = make_optimizer([0.5, 0.1])
    scheduler, epochs = create_scheduler(args, optimizer, updates_per_epoch=5)
    seen = []
    for update in range(1, 13):
        scheduler.step_update(update)
        scheduler.step(update)
        seen.append(group_lrs(optimizer))
    left = np.maximum(0.0, 1.0 - np.arange(1, 13) / 10)
    np.testing.assert_allclose(seen, np.outer(left, [0.5, 0.1]), atol=1e-15)
    assert epochs == 2


def test_linear_with_warmup():
    optimizer = make_optimizer([1.0])
    scheduler = LinearLRScheduler(optimizer, 10, lr_min=0.2, warmup_t=4, warmup_lr_init=0.0, warmup_prefix=True)
    seen = [optimizer.get_lr()]
    for update in (2, 4, 9, 14, 99):
        scheduler.step_update(update)
        seen.append(optimizer.get_lr())
    np.testing.assert_allclose(seen, [0.0, 0.5, 1.0, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("seed, values", golden.facts("sched")["torch_randn1"])
def test_noise_draws(seed, values):
    draws = normal_draws(seed)
    assert [next(draws) for _ in values] == values


@pytest.mark.parametrize("mode, metrics", [("min", [3.0, 2.0, 2.0, 2.0]), ("max", [3.0, 4.0, 4.0, 4.0])])
def test_plateau_modes(mode, metrics):
    optimizer = make_optimizer([0.1])
    scheduler = PlateauLRScheduler(optimizer, decay_rate=0.1, patience_t=1, mode=mode)
    seen = []
    for epoch, metric in enumerate(metrics, 1):
        scheduler.step(epoch, metric)
        seen.append(optimizer.get_lr())
    np.testing.assert_allclose(seen, [0.1, 0.1, 0.1, 0.01])


def test_plateau_mode_reaches_the_factory():
    args = types.SimpleNamespace(**{**FACTORY[-1]["args"], "sched": "plateau", "plateau_mode": "max"})
    scheduler, _ = create_scheduler(args, make_optimizer([0.1]))
    assert scheduler.mode == "max"


def test_plateau_state_goes_on_as_if_unbroken():
    metrics = [1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, 0.7, 0.8, 0.9]

    def fresh():
        optimizer = make_optimizer([0.1, 0.02])
        options = {"noise_range_t": 2, "noise_pct": 0.3, "mode": "min"}
        return optimizer, PlateauLRScheduler(optimizer, 0.5, patience_t=1, cooldown_t=1, lr_min=0.01, **options)

    optimizer, scheduler = fresh()
    unbroken = []
    for epoch, metric in enumerate(metrics, 1):
        scheduler.step(epoch, metric)
        unbroken.append(group_lrs(optimizer))
        if epoch == 4:
            saved = scheduler.state_dict()
    optimizer, scheduler = fresh()
    scheduler.load_state_dict(saved)
    assert group_lrs(optimizer) == unbroken[3]
    resumed = []
    for epoch, metric in enumerate(metrics[4:], 5):
        scheduler.step(epoch, metric)
        resumed.append(group_lrs(optimizer))
    assert resumed == unbroken[4:]
    assert unbroken[-1][0] < 0.1 * 1.3 * 0.5


def test_another_schedules_state_is_refused():
    scheduler = CosineLRScheduler(make_optimizer([0.1]), 10)
    with pytest.raises(CheckpointError, match="PlateauLRScheduler"):
        PlateauLRScheduler(make_optimizer([0.1])).load_state_dict(scheduler.state_dict())


@pytest.mark.parametrize("name", ["sgd", "none"])
def test_names_of_the_constant_rate(name):
    optimizer = make_optimizer([0.3])
    assert create_scheduler(types.SimpleNamespace(sched=name, epochs=7), optimizer) == (None, 7)
    assert optimizer.get_lr() == 0.3


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"did you mean cosine\?"):
        create_scheduler(types.SimpleNamespace(sched="cosin", epochs=7), make_optimizer([0.3]))


@pytest.mark.parametrize(
    "build, says",
    [
        (
            lambda optimizer: CosineLRScheduler(optimizer, 0),
            "t_initial > 0, lr_min >= 0, cycle_limit >= 0 and cycle_mul > 0, got 0, 0.0, 1 and 1.0",
        ),
        (lambda optimizer: CosineLRScheduler(optimizer, 5, lr_min=-1.0), "cycle_mul > 0, got 5, -1.0, 1 and 1.0"),
        (
            lambda optimizer: CosineLRScheduler(optimizer, 5, warmup_t=-1),
            "warm-up needs a length and a rate >= 0, got -1 and 0.0",
        ),
        (lambda optimizer: TanhLRScheduler(optimizer, 5, lb=3.0, ub=1.0), "lb < ub, got 3.0 and 1.0"),
        (lambda optimizer: StepLRScheduler(optimizer, 0), "StepLRScheduler needs decay_t > 0, got 0"),
        (
            lambda optimizer: LinearLRScheduler(optimizer, 0),
            "LinearLRScheduler needs t_initial > 0 and lr_min >= 0, got 0 and 0.0",
        ),
        (lambda optimizer: PlateauLRScheduler(optimizer, mode="best"), "mode is 'min' or 'max', got 'best'"),
        (
            lambda optimizer: CosineLRScheduler(optimizer, 5, initialize=False),
            "an earlier schedule, and this optimizer has had none",
        ),
        (lambda optimizer: MultiStepLRScheduler(optimizer, [8, 4]), "milestones in ascending order, got [8, 4]"),
        (
            lambda optimizer: PolyLRScheduler(optimizer, -1),
            "cycle_mul > 0, got -1, 0.0, 1 and 1.0",
        ),
        (lambda optimizer: WSDLRScheduler(optimizer, 5, 6), "0 < decay_t <= t_initial, got 6 and 5"),
        (
            lambda optimizer: WSDLRScheduler(optimizer, 5, 2, stable_fn="rsqrt"),
            "stable_timescale > 0 for stable_fn 'rsqrt'",
        ),
        (
            lambda optimizer: WSDLRScheduler(optimizer, 5, 2, decay_fn="sqrt"),
            "decay_fn one of linear, 1-sqrt, cosine, power, exp, or a function, got 'sqrt'",
        ),
        (
            lambda optimizer: WSDLRScheduler(optimizer, 5, 2, decay_fn="power", decay_power=0.0),
            "powers > 0, got 0.5 and 0.0",
        ),
        (lambda optimizer: PlateauLRScheduler(optimizer, noise_type="pink"), "'pink'; valid are normal, uniform"),
        (lambda optimizer: Scheduler(optimizer, "momentum"), "'lr', not 'momentum'"),
        (lambda optimizer: Scheduler(optimizer, noise_pct=-1), "noise_pct must be at least 0 and finite, got -1"),
        (lambda optimizer: Scheduler(optimizer, noise_std=math.nan), "noise_std must be at least 0"),
        (lambda optimizer: StepLRScheduler(optimizer, 2, decay_rate=-0.1), "decay_rate must be at least 0"),
        (lambda optimizer: MultiStepLRScheduler(optimizer, [2], math.nan), "decay_rate must be at least 0"),
        (lambda optimizer: PlateauLRScheduler(optimizer, decay_rate=-1), "decay_rate must be at least 0"),
        (lambda optimizer: CosineLRScheduler(optimizer, 2, cycle_decay=math.nan), "cycle_decay must be"),
        (lambda optimizer: CosineLRScheduler(optimizer, 2, k_decay=-1), "k_decay must be at least 0"),
        (lambda optimizer: PolyLRScheduler(optimizer, 2, power=-1), "power must be at least 0"),
        (
            lambda optimizer: create_scheduler_v2(optimizer, "plateau", step_on_epochs=False, updates_per_epoch=3),
            "plateau schedule changes with epochs alone",
        ),
        (
            lambda optimizer: create_scheduler_v2(optimizer, "cosine", step_on_epochs=False),
            "updates_per_epoch, their number in an epoch",
        ),
    ],
)
def test_impossible_settings(build, says):
    with pytest.raises(ConfigError) as error:
        build(make_optimizer([0.1]))
    assert says in str(error.value)


def test_any_paddle_optimizer_can_be_scheduled():
    optimizer = paddle.optimizer.Adam(0.2, parameters=[paddle.create_parameter([2], "float32")])
    scheduler = StepLRScheduler(optimizer, decay_t=2, decay_rate=0.5)
    scheduler.step(4)
    assert optimizer.get_lr() == 0.05


def test_the_rate_reaches_the_weights():
    optimizer = make_optimizer([0.1, 0.1])
    params = [group["params"][0] for group in optimizer.param_groups]
    before = [param.numpy() for param in params]
    scheduler = CosineLRScheduler(optimizer, 10, lr_min=0.0)
    scheduler.base_values = [0.1, 0.05]
    scheduler.step(5)
    sum(param.sum() for param in params).backward()
    optimizer.step()
    moved = [(old - param.numpy())[0] for old, param in zip(before, params)]
    np.testing.assert_allclose(moved, [0.05, 0.025], rtol=1e-5)


class HalfLRScheduler(Scheduler):
    """A schedule as scripts write their own on timm's base."""

    def __init__(self, optimizer, **options):
        super().__init__(optimizer, param_group_field="lr", **options)
        super().update_groups(0.5)

    def _get_lr(self, t):
        return [value * 0.5**t for value in self.base_values]


class OldHalfLRScheduler(Scheduler):
    """The same as written for timm 0.1.20."""

    def get_epoch_values(self, epoch):
        return [value * 0.5**epoch for value in self.base_values]


@pytest.mark.parametrize("schedule, first", [(HalfLRScheduler, [0.5, 0.5]), (OldHalfLRScheduler, [0.8, 0.4])])
def test_schedules_of_ones_own(schedule, first):
    optimizer = make_optimizer([0.8, 0.4])
    scheduler = schedule(optimizer)
    assert group_lrs(optimizer) == first
    scheduler.step_update(5)
    assert group_lrs(optimizer) == first
    scheduler.step(2)
    np.testing.assert_allclose(group_lrs(optimizer), [0.2, 0.1])


def test_uniform_noise():
    draw = 0.4962565898895264  # torch.rand(1) after torch.manual_seed(0)
    assert uniform(0, 1.0, 0.5) == pytest.approx(2 * (draw - 0.5) * 0.5, rel=1e-6)
    optimizer = make_optimizer([0.2])
    scheduler = PlateauLRScheduler(optimizer, noise_range_t=1, noise_type="uniform", noise_pct=0.5, noise_seed=-1)
    scheduler.step(1)
    assert optimizer.get_lr() == pytest.approx(0.2 * (1 + uniform(0, 1.0, 0.5)))


@pytest.mark.parametrize("limit", [0.0, 1e-12, 1e-4])
def test_noise_far_narrower_than_its_deviation_ends_at_once(limit):
    drawn = np.array([truncated_normal(seed, 1.0, limit) for seed in range(200)])
    assert (np.abs(drawn) <= limit).all()
    assert np.std(drawn) == pytest.approx(limit / math.sqrt(3), rel=0.1)  # that of a uniform distribution


def test_noise_without_a_seed_is_that_of_seed_42():
    def rates(seed):
        optimizer = make_optimizer([0.2])
        scheduler = PlateauLRScheduler(optimizer, noise_range_t=0, noise_seed=seed)
        return [scheduler.step(epoch) or optimizer.get_lr() for epoch in range(1, 5)]

    assert rates(None) == rates(42) != rates(41)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"decay_fn": "linear"}, [0.5, 0.5, 0.5, 0.5, 0.3, 0.1]),
        ({"decay_fn": "power", "decay_power": 2.0}, [0.5, 0.5, 0.5, 0.5, 0.4, 0.1]),
        ({"decay_fn": "exp", "decay_ratio": 0.25}, [0.5, 0.5, 0.5, 0.5, 0.1 + 0.4 / 3, 0.1]),
        ({"decay_fn": lambda share: (1 - share) ** 3}, [0.5, 0.5, 0.5, 0.5, 0.15, 0.1]),
        (
            {"stable_fn": "power", "stable_power": 1.0, "stable_timescale": 2, "decay_fn": "linear"},
            [0.5, 1 / 3, 0.25, 0.2, 0.1 + (1 / 6 - 0.1) / 2, 0.1],
        ),
    ],
)
def test_warmup_stable_decay_in_closed_form(options, expected):
    optimizer = make_optimizer([0.5])
    scheduler = WSDLRScheduler(optimizer, 5, 2, lr_min=0.1, **options)
    seen = [scheduler.get_epoch_values(epoch)[0] for epoch in range(6)]
    np.testing.assert_allclose(seen, expected)
    assert scheduler.get_cycle_length() == 5


def test_fields_of_a_command_line():
    kwargs = scheduler_kwargs(types.SimpleNamespace(sched="step", epochs=9, lr_noise=[0.5], eval_metric="loss"))
    assert kwargs["plateau_mode"] == "min" and kwargs["step_on_epochs"]
    assert (kwargs["num_epochs"], kwargs["noise"], kwargs["warmup_epochs"]) == (9, [0.5], 5)
    assert set(kwargs) | {"updates_per_epoch", "optimizer", "options"} == set(V2)
    assert scheduler_kwargs(types.SimpleNamespace(sched="step"), decreasing_metric=False)["plateau_mode"] == "max"


def test_a_newer_field_makes_arguments_todays():
    fields = {"sched": "tanh", "epochs": 20, "lr_noise": None, "cooldown_epochs": 0}
    schedulers = [
        create_scheduler(types.SimpleNamespace(**fields, **more), make_optimizer([0.1]))[0]
        for more in ({}, {"lr_k_decay": 1.0})
    ]
    assert [(scheduler.lb, scheduler.ub) for scheduler in schedulers] == [(-6.0, 4.0), (-7.0, 3.0)]
