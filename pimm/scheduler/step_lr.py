"""Multiply the rate by a factor at equal intervals."""

from __future__ import annotations

import math

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler, require_factor


class StepLRScheduler(WarmupScheduler):
    """Multiply the rate by ``decay_rate`` after every ``decay_t`` ticks.

    Args:
        optimizer: the optimizer whose rates are set.
        decay_t: the interval in ticks, which may be a fraction.
        decay_rate: the factor.
        warmup_prefix: whether ticks are counted from the end of the warm-up, or from the start, as in timm 0.1.20.

    The other arguments are those of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for an interval that is not positive.
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
        if not 0 < decay_t < math.inf:
            raise ConfigError(f"StepLRScheduler needs decay_t > 0, got {decay_t}")
        self.decay_t = decay_t
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

    def scheduled(self, t):
        factor = self.decay_rate ** (t // self.decay_t)
        return [base * factor for base in self.base_values]
