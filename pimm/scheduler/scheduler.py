"""Bases of the learning-rate schedules: the two clocks, noise, and warm-up."""

from __future__ import annotations

from pimm.errors import CheckpointError, ConfigError
from pimm.optim.param_groups import group_list, initial_lrs, set_group_lrs
from pimm.scheduler.noise import NOISES


class Scheduler:
    """A schedule is a function of the epoch or of the update count, both kept by the training loop.

    Call ``step(epoch)`` at the end of each epoch with the number of the next one, ``step_update(num_updates)`` after
    each optimizer step with the number done; ``t_in_epochs`` says which of the two acts. ``noise_range_t`` (a start, or
    start and end) adds relative noise of type ``normal``, redrawn until it is inside ``noise_pct``, or ``uniform``
    inside it. ``initialize=False`` goes on from the rates that an earlier schedule of the same optimizer began with.

    A subclass defines ``_get_lr(t)``, one rate a group, made of ``base_values``; or as in timm 0.1.20
    ``get_epoch_values`` and ``get_update_values``. ConfigError for noise of another type, and for any
    ``param_group_field`` but the rate.
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
            raise ConfigError(f"schedules set the learning rate, 'lr', not {param_group_field!r}")
        if noise_type not in NOISES:
            raise ConfigError(f"unknown noise {noise_type!r}; valid are {', '.join(NOISES)}")
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
        """The groups' rates at tick ``t``, without noise."""
        raise NotImplementedError(f"{type(self).__name__} needs a method _get_lr(t)")

    def get_epoch_values(self, epoch):
        """The groups' rates in epoch ``epoch``; None if they change with updates."""
        return self._get_lr(epoch) if self.t_in_epochs else None

    def get_update_values(self, num_updates):
        """The groups' rates after ``num_updates`` updates; None if they change with epochs."""
        return None if self.t_in_epochs else self._get_lr(num_updates)

    def step(self, epoch, metric=None):
        """Set the rates of epoch ``epoch``; ``metric`` matters to the plateau schedule alone."""
        self._set(self.get_epoch_values(epoch), epoch)

    def step_update(self, num_updates, metric=None):
        """Set the rates of the update that follows ``num_updates`` others."""
        self._set(self.get_update_values(num_updates), num_updates)

    def _set(self, values, t):
        if values is not None:
            self.update_groups(self.with_noise(values, t))

    def with_noise(self, values, t):
        """``values`` times one plus the noise of tick ``t``, inside ``noise_range_t``."""
        limits = self.noise_range_t
        if limits is None:
            return values
        start, end = limits if isinstance(limits, (list, tuple)) else (limits, float("inf"))
        if not start <= t < end:
            return values
        noise = NOISES[self.noise_type](self.noise_seed + t, self.noise_std, self.noise_pct)
        return [value + value * noise for value in values]

    def update_groups(self, values):
        """Set the groups' rates, or one rate of all; an ``lr_scale`` of a group multiplies its own."""
        self.values = list(values) if isinstance(values, (list, tuple)) else [values] * len(self.base_values)
        set_group_lrs(self.optimizer, self.values)

    def state_dict(self):
        """What cannot be computed from the clock: the rates in force."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict):
        """Put the rates of ``state_dict`` back in force; CheckpointError if it is another schedule's."""
        own = self.state_dict()
        if set(state_dict) != set(own) or len(state_dict["values"]) != len(own["values"]):
            raise CheckpointError(
                f"the saved state is not that of this {type(self).__name__}: it has {sorted(state_dict)} and "
                f"{len(state_dict.get('values', []))} parameter groups, expected {sorted(own)} and {len(own['values'])}"
            )
        self.update_groups(state_dict["values"])


class WarmupScheduler(Scheduler):
    """Base of this package's schedules: a rise before what ``scheduled`` says.

    The first ``warmup_t`` ticks rise linearly from ``warmup_lr_init`` to the group's rate; ``warmup_prefix`` starts the
    schedule's own clock after them. A subclass defines ``scheduled(t)``, one rate a group.
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
        """The groups' rates at tick ``t`` of the schedule's own clock, warm-up aside."""
        raise NotImplementedError

    def warmup_targets(self):
        """The groups' rates that warm-up rises to."""
        return self.base_values

    def _get_lr(self, t):
        if t < self.warmup_t:
            return self.warming(t)
        return self.scheduled(t - self.warmup_t if self.warmup_prefix else t)

    def warming(self, t):
        """The groups' rates at tick ``t`` of the warm-up."""
        start, share = self.warmup_lr_init, t / self.warmup_t
        return [start + share * (top - start) for top in self.warmup_targets()]
