"""Multiply the rate by a factor at chosen ticks."""

from __future__ import annotations

import bisect

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler, require_factor


class MultiStepLRScheduler(WarmupScheduler):
    """Multiply the rate by ``decay_rate`` at every milestone.

    A milestone of 10 acts at tick 9, as in timm and unlike in PyTorch.

    Args:
        optimizer: the optimizer whose rates are set.
        decay_t: the milestones, in ascending order.
        decay_rate: the factor.
        warmup_prefix: whether ticks are counted from the end of the warm-up, or from the start.

    The other arguments are those of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for milestones in another order.
    """

    def __init__(
        self,
        optimizer,
        decay_t,
        decay_rate=1.0,
        warmup_t=0,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=True,
        noise_range_t=None,
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=42,
        initialize=True,
    ):
        if list(decay_t) != sorted(decay_t):
            raise ConfigError(f"MultiStepLRScheduler needs milestones in ascending order, got {list(decay_t)}")
        self.decay_t = list(decay_t)
        self.decay_rate = decay_rate
        require_factor("decay_rate", decay_rate)
        super().__init__(
            optimizer,
            warmup_t=warmup_t,
            warmup_lr_init=warmup_lr_init,
            warmup_prefix=warmup_prefix,
            t_in_epochs=t_in_epochs,
            noise_range_t=noise_range_t,
            noise_pct=noise_pct,
            noise_std=noise_std,
            noise_seed=noise_seed,
            initialize=initialize,
        )

    def get_curr_decay_steps(self, t):
        """Return the number of milestones passed at tick ``t``."""
        return bisect.bisect_right(self.decay_t, t + 1)

    def scheduled(self, t):
        factor = self.decay_rate ** self.get_curr_decay_steps(t)
        return [base * factor for base in self.base_values]
