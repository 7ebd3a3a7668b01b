"""A rate that falls along a straight line."""

from __future__ import annotations

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler


class LinearLRScheduler(WarmupScheduler):
    """A straight line from the group's rate to ``lr_min`` over ``t_initial`` ticks, by default optimizer updates.

    The schedule of the supernet; after the last tick the rate stays at ``lr_min``. ``options`` are
    `WarmupScheduler`'s and `Scheduler`'s.
    """

    def __init__(self, optimizer, t_initial, lr_min=0.0, t_in_epochs=False, **options):
        if t_initial <= 0 or lr_min < 0:
            raise ConfigError(f"LinearLRScheduler needs t_initial > 0 and lr_min >= 0, got {t_initial} and {lr_min}")
        self.t_initial = t_initial
        self.lr_min = lr_min
        super().__init__(optimizer, t_in_epochs=t_in_epochs, **options)

    def scheduled(self, t):
        left = max(0.0, 1.0 - t / self.t_initial)
        return [self.lr_min + (base - self.lr_min) * left for base in self.base_values]
