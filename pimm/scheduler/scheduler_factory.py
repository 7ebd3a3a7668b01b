"""Schedules by timm's names."""

from __future__ import annotations

import difflib

from pimm.errors import ConfigError
from pimm.scheduler.cycles import CosineLRScheduler, TanhLRScheduler
from pimm.scheduler.decays import LinearLRScheduler, PlateauLRScheduler, StepLRScheduler

# Names for a constant rate: timm makes no schedule for a name that it does not know, and Cream's files have "sgd".
CONSTANT = ("sgd", "none")


def create_scheduler(args, optimizer, updates_per_epoch=0):
    """The schedule that ``args.sched`` names, or None for a constant rate, and the number of epochs to train.

    ``args`` has timm 0.1.20's fields: ``epochs, min_lr, warmup_lr, warmup_epochs, cooldown_epochs, decay_epochs,
    decay_rate, patience_epochs, lr_noise, lr_noise_pct, seed``; ``plateau_mode`` may be ``max``, for an accuracy.
    ``linear`` falls to ``min_lr`` with every update where ``updates_per_epoch`` is given, else with every epoch.
    The epochs include the cool-down of cosine and tanh. ConfigError for an unknown name.
    """
    if args.sched in CONSTANT:
        return None, args.epochs
    if args.sched not in _MAKERS:
        near = difflib.get_close_matches(str(args.sched), [*_MAKERS, *CONSTANT], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(
            f"unknown scheduler {args.sched!r}{hint} Valid are {', '.join(_MAKERS)}, "
            f"and {' or '.join(CONSTANT)} for a constant rate"
        )
    warmup = {"warmup_t": args.warmup_epochs, "warmup_lr_init": args.warmup_lr}
    scheduler = _MAKERS[args.sched](args, optimizer, warmup, updates_per_epoch)
    if isinstance(scheduler, (CosineLRScheduler, TanhLRScheduler)):
        return scheduler, scheduler.get_cycle_length() + args.cooldown_epochs
    return scheduler, args.epochs


def _noise(args):
    """Noise arguments: ``lr_noise`` is one or two shares of the epochs. ``lr_noise_std`` has no effect in 0.1.20."""
    if args.lr_noise is None:
        return {}
    shares = args.lr_noise if isinstance(args.lr_noise, (list, tuple)) else [args.lr_noise]
    limits = [share * args.epochs for share in shares]
    return {
        "noise_range_t": limits if len(limits) > 1 else limits[0],
        "noise_pct": args.lr_noise_pct,
        "noise_seed": args.seed,
    }


def _cosine(args, optimizer, warmup, updates_per_epoch):
    return CosineLRScheduler(optimizer, args.epochs, args.min_lr, **warmup, **_noise(args))


def _tanh(args, optimizer, warmup, updates_per_epoch):
    return TanhLRScheduler(optimizer, args.epochs, lr_min=args.min_lr, **warmup, **_noise(args))


def _step(args, optimizer, warmup, updates_per_epoch):
    return StepLRScheduler(optimizer, args.decay_epochs, args.decay_rate, **warmup, **_noise(args))


def _plateau(args, optimizer, warmup, updates_per_epoch):
    return PlateauLRScheduler(
        optimizer,
        decay_rate=args.decay_rate,
        patience_t=args.patience_epochs,
        cooldown_t=args.cooldown_epochs,
        lr_min=args.min_lr,
        mode=getattr(args, "plateau_mode", "min"),
        **warmup,
    )


def _linear(args, optimizer, warmup, updates_per_epoch):
    ticks = updates_per_epoch or 1
    warmup = {**warmup, "warmup_t": warmup["warmup_t"] * ticks}
    return LinearLRScheduler(optimizer, args.epochs * ticks, args.min_lr, t_in_epochs=not updates_per_epoch, **warmup)


_MAKERS = {"cosine": _cosine, "tanh": _tanh, "step": _step, "plateau": _plateau, "linear": _linear}
