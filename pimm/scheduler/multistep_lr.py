"""A rate that falls by the same factor at chosen moments."""

from __future__ import annotations

import bisect

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler


class MultiStepLRScheduler(WarmupScheduler):
    """``decay_rate`` times the rate at every milestone of ``decay_t``, an ascending list.

    As in timm, and other than in PyTorch, a milestone of 10 acts at tick 9; ticks are counted from the end of the
    warm-up, or with ``warmup_prefix=False`` from the start.
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
        """The number of milestones passed at tick ``t``."""
        return bisect.bisect_right(self.decay_t, t + 1)

    def scheduled(self, t):
        factor = self.decay_rate ** self.get_curr_decay_steps(t)
        return [base * factor for base in self.base_values]
