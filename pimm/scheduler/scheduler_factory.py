"""Create schedules by timm's names.

Arguments of `create_scheduler_v2`:
    optimizer: the optimizer whose rates are set.
    sched: ``cosine``, ``tanh``, ``poly``, ``step``, ``multistep``, ``plateau``, ``wsd``, ``rsqrt``, ``constant``,
        ``linear``, or ``none``.
    num_epochs: epochs of the schedule, or of its first cycle.
    decay_epochs: interval of ``step`` (None: 90); or length of the decay of ``wsd`` and ``rsqrt``, below 1 as a
        share of all epochs (None: 0.2).
    decay_milestones: epochs at which ``multistep`` lowers the rate.
    cooldown_epochs: epochs at the last rate after a cyclic schedule.
    patience_epochs: epochs without an improvement that ``plateau`` accepts.
    decay_rate: factor of ``step``, ``multistep`` and ``plateau``; power of ``poly``.
    min_lr: last rate.
    warmup_lr: first rate of the warm-up.
    warmup_epochs: epochs of the warm-up.
    warmup_prefix: whether the warm-up comes before the schedule's epochs.
    noise: share of all epochs at which noise begins, or shares at which it begins and ends.
    noise_pct, noise_std, noise_seed: see `Scheduler`.
    cycle_mul, cycle_decay, cycle_limit: see `CycleScheduler`.
    k_decay: see `CosineLRScheduler` and `PolyLRScheduler`.
    decay_fn: decay of ``wsd`` and ``rsqrt``, see `WSDLRScheduler`.
    stable_timescale: the same, in epochs.
    plateau_mode: ``max`` if a higher metric is better, else ``min``.
    step_on_epochs: whether the rate changes with epochs, or with updates.
    updates_per_epoch: optimizer updates of an epoch.
    options: further arguments of the schedule's class, which override those that are derived from the others.
"""

from __future__ import annotations

from types import SimpleNamespace

from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.scheduler.cosine_lr import CosineLRScheduler
from pimm.scheduler.linear_lr import LinearLRScheduler
from pimm.scheduler.multistep_lr import MultiStepLRScheduler
from pimm.scheduler.plateau_lr import PlateauLRScheduler
from pimm.scheduler.poly_lr import PolyLRScheduler
from pimm.scheduler.step_lr import StepLRScheduler
from pimm.scheduler.tanh_lr import TanhLRScheduler
from pimm.scheduler.wsd_lr import WSDLRScheduler

# Names of a constant rate. timm 0.1.20 creates no schedule for a name that it does not know, and Cream's files say
# "sgd".
UNSCHEDULED = ("none", "sgd")

# Keyword of `create_scheduler_v2`: the field of timm's arguments that holds it, and the value where that is missing.
FIELDS = {
    "sched": ("sched", "cosine"),
    "num_epochs": ("epochs", 100),
    "decay_epochs": ("decay_epochs", 30),
    "decay_milestones": ("decay_milestones", [30, 60]),
    "warmup_epochs": ("warmup_epochs", 5),
    "cooldown_epochs": ("cooldown_epochs", 0),
    "patience_epochs": ("patience_epochs", 10),
    "decay_rate": ("decay_rate", 0.1),
    "min_lr": ("min_lr", 0.0),
    "warmup_lr": ("warmup_lr", 1e-5),
    "warmup_prefix": ("warmup_prefix", False),
    "noise": ("lr_noise", None),
    "noise_pct": ("lr_noise_pct", 0.67),
    "noise_std": ("lr_noise_std", 1.0),
    "noise_seed": ("seed", 42),
    "cycle_mul": ("lr_cycle_mul", 1.0),
    "cycle_decay": ("lr_cycle_decay", 0.1),
    "cycle_limit": ("lr_cycle_limit", 1),
    "k_decay": ("lr_k_decay", 1.0),
    "decay_fn": ("lr_decay_fn", None),
    "stable_timescale": ("lr_stable_timescale", None),
}
# Fields that timm 0.1.20 did not have: arguments with one of them are those of a newer timm.
_NEWER = (
    *("sched_on_updates", "warmup_prefix", "decay_milestones", "lr_cycle_mul", "lr_cycle_decay", "lr_cycle_limit"),
    *("lr_k_decay", "lr_decay_fn", "lr_stable_timescale"),
)


def scheduler_kwargs(cfg, decreasing_metric=None):
    """Return the keywords for `create_scheduler_v2` from the fields of timm's command line.

    Args:
        cfg: an object with the fields; timm's defaults stand in for missing ones.
        decreasing_metric: whether a lower metric is better; by default whether ``cfg.eval_metric`` is a loss.
    """
    kwargs = {keyword: getattr(cfg, field, default) for keyword, (field, default) in FIELDS.items()}
    if decreasing_metric is None:
        decreasing_metric = "loss" in getattr(cfg, "eval_metric", "top1")
    kwargs["plateau_mode"] = "min" if decreasing_metric else "max"
    kwargs["step_on_epochs"] = not getattr(cfg, "sched_on_updates", False)
    return kwargs


def create_scheduler(args, optimizer, updates_per_epoch=0):
    """Return the schedule that ``args.sched`` names, None for a constant rate, and the number of epochs to train.

    Arguments of timm 0.1.20 (``lr_noise`` and no newer field) keep the meaning that they had there: tanh runs from -6
    to 4, ``lr_noise_std`` has no effect, and plateau lowers the rate for a metric that no longer falls
    (``args.plateau_mode`` may be ``max``), without noise and with ``cooldown_epochs``. ``linear``, which timm does not
    have, changes the rate with every update where ``updates_per_epoch`` is given.

    Args:
        args: an object with the fields of timm's command line.
        optimizer: the optimizer whose rates are set.
        updates_per_epoch: optimizer updates of an epoch, for schedules that change with updates.

    Raises:
        ConfigError: for an unknown name or impossible settings.
    """
    kwargs = scheduler_kwargs(args)
    if kwargs["sched"] == "linear":
        kwargs["step_on_epochs"] = not updates_per_epoch
    if hasattr(args, "lr_noise") and not any(hasattr(args, field) for field in _NEWER):
        kwargs["noise_std"] = 1.0
        kwargs.update(_meant_in_0_1_20(args))
    return create_scheduler_v2(optimizer, **kwargs, updates_per_epoch=updates_per_epoch)


def _meant_in_0_1_20(args):
    """Return the settings of the schedule ``args.sched`` that were different in timm 0.1.20."""
    mode = getattr(args, "plateau_mode", "min")
    return {
        "tanh": {"lb": -6.0, "ub": 4.0},
        "plateau": {"plateau_mode": mode, "cooldown_t": args.cooldown_epochs, "noise": None},
    }.get(args.sched, {})


def create_scheduler_v2(
    optimizer,
    sched="cosine",
    num_epochs=300,
    decay_epochs=None,
    decay_milestones=(90, 180, 270),
    cooldown_epochs=0,
    patience_epochs=10,
    decay_rate=0.1,
    min_lr=0.0,
    warmup_lr=1e-5,
    warmup_epochs=0,
    warmup_prefix=False,
    noise=None,
    noise_pct=0.67,
    noise_std=1.0,
    noise_seed=42,
    cycle_mul=1.0,
    cycle_decay=0.1,
    cycle_limit=1,
    k_decay=1.0,
    decay_fn=None,
    stable_timescale=None,
    plateau_mode="max",
    step_on_epochs=True,
    updates_per_epoch=0,
    **options,
):
    """Return a schedule, or None for a constant rate, and the number of epochs to train.

    The text at the top of this module explains each argument.

    Raises:
        ConfigError: for an unknown name or impossible settings.
    """
    given = SimpleNamespace(**locals())
    if sched in UNSCHEDULED:
        return None, num_epochs
    if sched not in _SCHEDULES:
        raise ConfigError(_unknown(sched))
    if not step_on_epochs and updates_per_epoch <= 0:
        raise ConfigError("a schedule that changes with every update needs updates_per_epoch, their number in an epoch")
    given.ticks = 1 if step_on_epochs else updates_per_epoch
    schedule, arguments = _SCHEDULES[sched]
    scheduler = schedule(optimizer, **{**arguments(given), **options})
    if hasattr(scheduler, "get_cycle_length"):
        ticks = scheduler.get_cycle_length() + cooldown_epochs * given.ticks
        return scheduler, ticks if step_on_epochs else ticks // updates_per_epoch
    return scheduler, num_epochs + (warmup_epochs if warmup_prefix else 0)


def _unknown(sched):
    hint = did_you_mean(sched, [*_SCHEDULES, *UNSCHEDULED]) or "."
    names, constant = ", ".join(_SCHEDULES), " or ".join(UNSCHEDULED)
    return f"unknown scheduler {sched!r:.80}{hint} Valid are {names}, and {constant} for a constant rate"


def _warmup_and_noise(given):
    shares = given.noise if isinstance(given.noise, (list, tuple)) else [given.noise]
    if len(shares) not in (1, 2):
        raise ConfigError(f"noise begins at a share of the training, and may end at another; got {shares}")
    limits = None if given.noise is None else [share * given.num_epochs * given.ticks for share in shares]
    return {
        "warmup_t": given.warmup_epochs * given.ticks,
        "warmup_lr_init": given.warmup_lr,
        "noise_range_t": limits[0] if limits and len(limits) == 1 else limits,
        "noise_pct": given.noise_pct,
        "noise_std": given.noise_std,
        "noise_seed": given.noise_seed,
    }


def _common(given):
    clock = {"t_in_epochs": given.step_on_epochs, "warmup_prefix": given.warmup_prefix}
    return {**_warmup_and_noise(given), **clock}


def _line(given):
    return {**_common(given), "t_initial": given.num_epochs * given.ticks, "lr_min": given.min_lr}


def _cycles(given):
    cycles = {name: getattr(given, name) for name in ("cycle_mul", "cycle_decay", "cycle_limit")}
    return {**_line(given), **cycles}


def _cosine(given):
    return {**_cycles(given), "k_decay": given.k_decay}


def _poly(given):
    return {**_cosine(given), "power": given.decay_rate}


def _step(given):
    interval = 90 if given.decay_epochs is None else given.decay_epochs
    return {**_common(given), "decay_t": interval * given.ticks, "decay_rate": given.decay_rate}


def _multistep(given):
    milestones = [epoch * given.ticks for epoch in given.decay_milestones]
    return {**_common(given), "decay_t": milestones, "decay_rate": given.decay_rate}


def _constant(given):
    return {**_common(given), "decay_t": 1}


def _plateau(given):
    if not given.step_on_epochs:
        raise ConfigError("the plateau schedule changes with epochs alone")
    settings = {"decay_rate": given.decay_rate, "patience_t": given.patience_epochs, "mode": given.plateau_mode}
    return {**_warmup_and_noise(given), **settings, "lr_min": given.min_lr}


def _wsd(given):
    """Return the arguments of a schedule whose warm-up is part of the given epochs, unless it is to come before."""
    epochs = given.num_epochs if given.warmup_prefix else given.num_epochs - given.warmup_epochs
    fall = 0.2 if given.decay_epochs is None else given.decay_epochs
    timescale = given.stable_timescale
    return {
        **_warmup_and_noise(given),
        "t_in_epochs": given.step_on_epochs,
        "t_initial": epochs * given.ticks,
        "decay_t": round((fall * epochs if 0 < fall < 1 else fall) * given.ticks),
        "lr_min": given.min_lr,
        "stable_timescale": None if timescale is None else timescale * given.ticks,
        "decay_fn": given.decay_fn or "1-sqrt",
    }


def _rsqrt(given):
    return {**_wsd(given), "stable_fn": "rsqrt", "decay_fn": given.decay_fn or "linear"}


_SCHEDULES = {
    "cosine": (CosineLRScheduler, _cosine),
    "tanh": (TanhLRScheduler, _cycles),
    "poly": (PolyLRScheduler, _poly),
    "step": (StepLRScheduler, _step),
    "multistep": (MultiStepLRScheduler, _multistep),
    "plateau": (PlateauLRScheduler, _plateau),
    "wsd": (WSDLRScheduler, _wsd),
    "rsqrt": (WSDLRScheduler, _rsqrt),
    "constant": (StepLRScheduler, _constant),
    "linear": (LinearLRScheduler, _line),
}
