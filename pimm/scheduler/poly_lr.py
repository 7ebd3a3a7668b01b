"""Annealing along a polynomial."""

from __future__ import annotations

from pimm.scheduler.cycles import CycleScheduler


class PolyLRScheduler(CycleScheduler):
    """What is left of the cycle, to the power ``power``; ``k_decay`` bends the clock (arXiv 2004.05909).

    The other arguments are `CycleScheduler`'s.
    """

    def __init__(
        self,
        optimizer,
        t_initial,
        power=0.5,
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
    ):
        self.power = power
        self.k_decay = k_decay
        super().__init__(
            optimizer,
            t_initial,
            lr_min,
            cycle_mul,
            cycle_decay,
            cycle_limit,
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
        return (1.0 - share**self.k_decay) ** self.power
