"""Base of the schedules that fall from the group's rate to a floor, once or in cycles."""

from __future__ import annotations

import math

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler


class CycleScheduler(WarmupScheduler):
    """Restarts (arXiv 1608.03983).

    A cycle lasts ``t_initial`` ticks and the next one ``cycle_mul`` times as long, from a peak ``cycle_decay`` times as
    high; after ``cycle_limit`` of them (0: never) the rate stays at the floor ``lr_min``. timm 0.1.20 spells these
    ``t_mul`` and ``decay_rate``; its ``decay_rate`` lowers the floor of each cycle along with the peak.

    A subclass defines ``remaining(share)``: how much of the way from floor to peak is left, from 1 to 0.
    """

    def __init__(
        self, optimizer, t_initial, lr_min, cycle_mul, cycle_decay, cycle_limit, t_mul=None, decay_rate=None, **options
    ):
        if t_initial <= 0 or lr_min < 0 or cycle_limit < 0:
            raise ConfigError(
                f"{type(self).__name__} needs t_initial > 0, lr_min >= 0 and cycle_limit >= 0, "
                f"got {t_initial}, {lr_min} and {cycle_limit}"
            )
        self.t_initial = t_initial
        self.lr_min = lr_min
        self.cycle_mul = cycle_mul if t_mul is None else t_mul
        self.cycle_decay = cycle_decay if decay_rate is None else decay_rate
        self.floor_decay = 1.0 if decay_rate is None else decay_rate
        self.cycle_limit = cycle_limit
        super().__init__(optimizer, **options)

    def remaining(self, share):
        raise NotImplementedError

    def last_value(self):
        """The rate after the last cycle."""
        return self.lr_min

    def scheduled(self, t):
        cycle, share = self._position(t)
        if self.cycle_limit and cycle >= self.cycle_limit:
            return [self.last_value()] * len(self.base_values)
        floor = self.lr_min * self.floor_decay**cycle
        peak = self.cycle_decay**cycle
        return [floor + (base * peak - floor) * self.remaining(share) for base in self.base_values]

    def _position(self, t):
        """The cycle that tick ``t`` lies in, and how much of it has passed."""
        if self.cycle_mul == 1:
            cycle = t // self.t_initial
            return cycle, (t - cycle * self.t_initial) / self.t_initial
        grown = 1 - t / self.t_initial * (1 - self.cycle_mul)
        cycle = math.floor(math.log(grown, self.cycle_mul))
        length = self.t_initial * self.cycle_mul**cycle
        start = self.t_initial * (1 - self.cycle_mul**cycle) / (1 - self.cycle_mul)
        return cycle, (t - start) / length

    def get_cycle_length(self, cycles=0):
        """Ticks that ``cycles`` cycles take (0: all of them), warm-up included where it comes before."""
        cycles = cycles or max(1, self.cycle_limit)
        if self.cycle_mul == 1:
            length = self.t_initial * cycles
        else:
            length = math.floor(self.t_initial * (self.cycle_mul**cycles - 1) / (self.cycle_mul - 1))
        return length + self.warmup_t if self.warmup_prefix else length
