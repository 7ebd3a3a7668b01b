"""Anneal the rate along a cosine."""

from __future__ import annotations

import math

from pimm.scheduler.cycles import CycleScheduler
from pimm.scheduler.scheduler import require_factor


class CosineLRScheduler(CycleScheduler):
    """Follow half a cosine wave from peak to floor in each cycle (SGDR, arXiv 1608.03983).

    Args:
        k_decay: power of the share of the cycle that has passed (arXiv 2004.05909).

    The other arguments are those of `CycleScheduler`.
    """

    def __init__(
        self,
        optimizer,
        t_initial,
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
        k_decay=1.0,
        initialize=True,
        *,
        t_mul=None,
        decay_rate=None,
    ):
        require_factor("k_decay", k_decay)
        self.k_decay = k_decay
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
        return 0.5 * (1.0 + math.cos(math.pi * share**self.k_decay))
