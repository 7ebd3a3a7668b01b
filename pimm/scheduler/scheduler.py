"""Base classes of the learning-rate schedules: epochs or updates as the clock, noise, and warm-up."""

from __future__ import annotations

import math

from pimm.errors import CheckpointError, ConfigError
from pimm.optim.param_groups import group_list, initial_lrs, set_group_lrs
from pimm.scheduler.noise import NOISES


class Scheduler:
    """Set the rates of an optimizer as a function of the epoch or of the number of updates.

    The training loop keeps both clocks. It calls ``step(epoch)`` at the end of each epoch with the number of the next
    epoch, and ``step_update(num_updates)`` after each optimizer update with the number of updates done.

    A subclass defines ``_get_lr(t)``, which returns one rate for each group, computed from ``base_values``; or, as in
    timm 0.1.20, ``get_epoch_values`` and ``get_update_values``.

    Args:
        optimizer: the optimizer whose rates are set.
        param_group_field: ``lr``; timm has other fields.
        t_in_epochs: whether a tick of the schedule is an epoch, or an update.
        noise_range_t: tick at which relative noise begins, or ticks at which it begins and ends; None for no noise.
        noise_type: ``normal``, drawn again until its size is below ``noise_pct``, or ``uniform`` up to ``noise_pct``.
        noise_pct: limit of the noise, relative to the rate.
        noise_std: standard deviation of normal noise, relative to the rate.
        noise_seed: seed of the noise; 42 by default.
        initialize: whether the present rates of the optimizer are the base; False takes those with which the
            optimizer's first schedule began.

    Raises:
        ConfigError: for another field, an unknown or negative noise, and ``initialize=False`` without an earlier
            schedule.
    """

    def __init__(
        self,
        optimizer,
        param_group_field="lr",
        t_in_epochs=True,
        noise_range_t=None,
        noise_type="normal",
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=None,
        initialize=True,
    ):
        if param_group_field != "lr":
            raise ConfigError(f"schedules set the learning rate, 'lr', not {param_group_field!r:.80}")
        if noise_type not in NOISES:
            raise ConfigError(f"unknown noise {noise_type!r:.80}; valid are {', '.join(NOISES)}")
        require_factor("noise_pct", noise_pct)
        require_factor("noise_std", noise_std)
        if not initialize and not all("initial_lr" in group for group in group_list(optimizer)):
            raise ConfigError("initialize=False goes on from an earlier schedule, and this optimizer has had none")
        self.optimizer = optimizer
        self.t_in_epochs = t_in_epochs
        self.noise_range_t = noise_range_t
        self.noise_type = noise_type
        self.noise_pct = noise_pct
        self.noise_std = noise_std
        self.noise_seed = 42 if noise_seed is None else noise_seed
        self.base_values = initial_lrs(optimizer)
        self.update_groups(self.base_values)

    def _get_lr(self, t):
        """Return the rate of each group at tick ``t``, without noise."""
        raise NotImplementedError(f"{type(self).__name__} needs a method _get_lr(t)")

    def get_epoch_values(self, epoch):
        """Return the rate of each group in an epoch, or None if the rates change with updates."""
        return self._get_lr(epoch) if self.t_in_epochs else None

    def get_update_values(self, num_updates):
        """Return the rate of each group after ``num_updates`` updates, or None if the rates change with epochs."""
        return None if self.t_in_epochs else self._get_lr(num_updates)

    def step(self, epoch, metric=None):
        """Set the rates of an epoch; only the plateau schedule uses ``metric``."""
        self._set(self.get_epoch_values(epoch), epoch)

    def step_update(self, num_updates, metric=None):
        """Set the rates for the update after ``num_updates`` updates; ``metric`` is unused."""
        self._set(self.get_update_values(num_updates), num_updates)

    def _set(self, values, t):
        if values is not None:
            self.update_groups(self.with_noise(values, t))

    def with_noise(self, values, t):
        """Return ``values`` times one plus the noise of tick ``t`` if the tick lies in ``noise_range_t``."""
        limits = self.noise_range_t
        if limits is None:
            return values
        start, end = limits if isinstance(limits, (list, tuple)) else (limits, float("inf"))
        if not start <= t < end:
            return values
        noise = NOISES[self.noise_type](self.noise_seed + t, self.noise_std, self.noise_pct)
        return [value + value * noise for value in values]

    def update_groups(self, values):
        """Set one rate for all groups or a list with one for each; a group's ``lr_scale`` multiplies its rate."""
        self.values = list(values) if isinstance(values, (list, tuple)) else [values] * len(self.base_values)
        set_group_lrs(self.optimizer, self.values)

    def state_dict(self):
        """Return what the clock does not determine: the present rates."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict):
        """Restore the rates of a ``state_dict()``.

        Raises:
            CheckpointError: for the state of another kind of schedule or of another number of groups.
        """
        own = self.state_dict()
        if set(state_dict) != set(own) or len(state_dict["values"]) != len(own["values"]):
            raise CheckpointError(
                f"the saved state does not fit this {type(self).__name__}: it has {sorted(state_dict)} and "
                f"{len(state_dict.get('values', []))} parameter groups, expected {sorted(own)} and {len(own['values'])}"
            )
        self.update_groups(state_dict["values"])


def require_factor(name, value):
    """Raise ConfigError for a factor by which a rate would become negative or not finite."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be at least 0 and finite, got {value}")


class WarmupScheduler(Scheduler):
    """Raise the rates linearly before the schedule that a subclass defines as ``scheduled(t)``.

    Args:
        optimizer: the optimizer whose rates are set.
        warmup_t: ticks of the warm-up.
        warmup_lr_init: first rate of the warm-up.
        warmup_prefix: whether the clock of the schedule starts after the warm-up, or at its beginning.
        options: arguments of `Scheduler`.

    Raises:
        ConfigError: for a negative length or rate.
    """

    def __init__(self, optimizer, warmup_t=0, warmup_lr_init=0.0, warmup_prefix=False, **options):
        if warmup_t < 0 or warmup_lr_init < 0:
            raise ConfigError(f"warm-up needs a length and a rate >= 0, got {warmup_t} and {warmup_lr_init}")
        self.warmup_t = warmup_t
        self.warmup_lr_init = warmup_lr_init
        self.warmup_prefix = warmup_prefix
        super().__init__(optimizer, **options)
        if warmup_t:
            self.update_groups(warmup_lr_init)

    def scheduled(self, t):
        """Return the rate of each group at tick ``t`` of the schedule, without warm-up."""
        raise NotImplementedError

    def warmup_targets(self):
        """Return the rates that the warm-up ends at."""
        return self.base_values

    def _get_lr(self, t):
        if t < self.warmup_t:
            return self.warming(t)
        return self.scheduled(t - self.warmup_t if self.warmup_prefix else t)

    def warming(self, t):
        """Return the rate of each group at tick ``t`` of the warm-up."""
        start, share = self.warmup_lr_init, t / self.warmup_t
        return [start + share * (top - start) for top in self.warmup_targets()]
