"""Anneal the rate along the hyperbolic tangent."""

from __future__ import annotations

import math

from pimm.errors import ConfigError
from pimm.scheduler.cycles import CycleScheduler


class TanhLRScheduler(CycleScheduler):
    """Follow the hyperbolic tangent from ``lb`` to ``ub`` in each cycle (arXiv 1806.01593).

    Args:
        lb: where the tangent begins (-6 in timm 0.1.20).
        ub: where the tangent ends (4 in timm 0.1.20).

    The other arguments are those of `CycleScheduler`.

    Raises:
        ConfigError: if ``lb`` is not below ``ub``.
    """

    def __init__(
        self,
        optimizer,
        t_initial,
        lb=-7.0,
        ub=3.0,
        lr_min=0.0,
        cycle_mul=1.0,
        cycle_decay=1.0,
        cycle_limit=1,
        warmup_t=0,
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=True,
        noise_range_t=None,
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=42,
        initialize=True,
        *,
        t_mul=None,
        decay_rate=None,
    ):
        if not lb < ub:
            raise ConfigError(f"TanhLRScheduler needs lb < ub, got {lb} and {ub}")
        self.lb, self.ub = lb, ub
        super().__init__(
            optimizer,
            t_initial,
            lr_min,
            cycle_mul,
            cycle_decay,
            cycle_limit,
            t_mul,
            decay_rate,
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

    def remaining(self, share):
        return 0.5 * (1.0 - math.tanh(self.lb * (1.0 - share) + self.ub * share))

    def warmup_targets(self):
        return self.base_values if self.warmup_prefix else self.scheduled(self.warmup_t)

    def last_value(self):
        return self.lr_min * self.floor_decay**self.cycle_limit
