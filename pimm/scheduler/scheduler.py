"""Base of the learning-rate schedules: warm-up, noise, and the two clocks."""

from __future__ import annotations

from pimm.errors import CheckpointError, ConfigError
from pimm.optim.param_groups import group_list, initial_lrs, set_group_lrs
from pimm.scheduler.noise import truncated_normal


class Scheduler:
    """A schedule is a function of the epoch or of the update count, both kept by the training loop.

    Call ``step(epoch)`` at the end of each epoch with the number of the next one, ``step_update(num_updates)`` after
    each optimizer step with the number done; ``t_in_epochs`` says which of the two acts. The first ``warmup_t`` ticks
    rise linearly from ``warmup_lr_init`` to the group's rate; ``warmup_prefix`` starts the schedule's own clock after
    them. ``noise_range_t`` (a start, or start and end) adds relative normal noise, resampled inside ``noise_pct``.

    A subclass defines ``scheduled(t)``, one rate a group.
    """

    def __init__(
        self,
        optimizer,
        t_in_epochs=True,
        warmup_t=0,
        warmup_lr_init=0.0,
        warmup_prefix=False,
        noise_range_t=None,
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=42,
        initialize=True,
    ):
        if warmup_t < 0 or warmup_lr_init < 0:
            raise ConfigError(f"warm-up needs a length and a rate >= 0, got {warmup_t} and {warmup_lr_init}")
        self.optimizer = optimizer
        self.t_in_epochs = t_in_epochs
        self.warmup_t = warmup_t
        self.warmup_lr_init = warmup_lr_init
        self.warmup_prefix = warmup_prefix
        self.noise_range_t = noise_range_t
        self.noise_pct = noise_pct
        self.noise_std = noise_std
        self.noise_seed = 42 if noise_seed is None else noise_seed
        if not initialize and not all("initial_lr" in group for group in group_list(optimizer)):
            raise ConfigError("initialize=False goes on from an earlier schedule, and this optimizer has had none")
        self.base_values = initial_lrs(optimizer)
        self.update_groups([warmup_lr_init] * len(self.base_values) if warmup_t else self.base_values)

    def scheduled(self, t):
        """The groups' rates at tick ``t`` of the schedule's own clock, warm-up aside."""
        raise NotImplementedError

    def warmup_targets(self):
        """The groups' rates that warm-up rises to."""
        return self.base_values

    def values_at(self, t):
        """The groups' rates at tick ``t``, warm-up and noise included."""
        if t < self.warmup_t:
            share = t / self.warmup_t
            values = [self.warmup_lr_init + share * (top - self.warmup_lr_init) for top in self.warmup_targets()]
        else:
            values = self.scheduled(t - self.warmup_t if self.warmup_prefix else t)
        return self.with_noise(values, t)

    def with_noise(self, values, t):
        """``values`` times one plus the noise of tick ``t``, inside ``noise_range_t``."""
        limits = self.noise_range_t
        if limits is None:
            return values
        start, end = limits if isinstance(limits, (list, tuple)) else (limits, float("inf"))
        if not start <= t < end:
            return values
        noise = truncated_normal(self.noise_seed + t, self.noise_std, self.noise_pct)
        return [value + value * noise for value in values]

    def step(self, epoch, metric=None):
        """Set the rates of epoch ``epoch``; ``metric`` matters to the plateau schedule alone."""
        if self.t_in_epochs:
            self.update_groups(self.values_at(epoch))

    def step_update(self, num_updates, metric=None):
        """Set the rates of the update that follows ``num_updates`` others."""
        if not self.t_in_epochs:
            self.update_groups(self.values_at(num_updates))

    def update_groups(self, values):
        """Set the groups' rates; an ``lr_scale`` of a group multiplies its own."""
        self.values = list(values)
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
