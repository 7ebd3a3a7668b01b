"""Lower the rate along a straight line."""

from __future__ import annotations

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler


class LinearLRScheduler(WarmupScheduler):
    """Lower the rate in equal steps to ``lr_min`` over ``t_initial`` ticks, as Cream trains its supernet.

    After the last tick the rate stays at ``lr_min``.

    Args:
        optimizer: the optimizer whose rates are set.
        t_initial: number of ticks.
        lr_min: last rate.
        t_in_epochs: whether a tick is an epoch; by default it is an optimizer update.
        options: arguments of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for a length that is not positive and for a negative last rate.
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
