"""Base of the schedules that anneal the rate from its peak to a floor, once or in cycles."""

from __future__ import annotations

import math
from fractions import Fraction

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler, require_factor


class CycleScheduler(WarmupScheduler):
    """Anneal the rate in cycles with warm restarts (SGDR, arXiv 1608.03983).

    A subclass defines ``remaining(share)``: which part of the way from peak to floor is left when ``share`` of the
    cycle has passed, from 1 to 0.

    Args:
        optimizer: the optimizer whose rates are set.
        t_initial: ticks (epochs or updates) of the first cycle.
        lr_min: the floor.
        cycle_mul: length of each cycle relative to the cycle before it.
        cycle_decay: peak of each cycle relative to the cycle before it.
        cycle_limit: number of cycles, after which the rate stays at the floor; 0 for no limit.
        t_mul: timm 0.1.20's name of ``cycle_mul``.
        decay_rate: timm 0.1.20's ``cycle_decay``, which lowers the floor of each cycle along with its peak.
        options: arguments of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for a length or a factor that is not positive and for a negative floor or limit.
    """

    def __init__(
        self, optimizer, t_initial, lr_min, cycle_mul, cycle_decay, cycle_limit, t_mul=None, decay_rate=None, **options
    ):
        self.t_initial = t_initial
        self.lr_min = lr_min
        self.cycle_mul = cycle_mul if t_mul is None else t_mul
        self.cycle_decay = cycle_decay if decay_rate is None else decay_rate
        self.floor_decay = 1.0 if decay_rate is None else decay_rate
        self.cycle_limit = cycle_limit
        valid = 0 < t_initial < math.inf and 0 < self.cycle_mul < math.inf and lr_min >= 0 and cycle_limit >= 0
        if not valid:
            raise ConfigError(
                f"{type(self).__name__} needs t_initial > 0, lr_min >= 0, cycle_limit >= 0 and cycle_mul > 0, "
                f"got {t_initial}, {lr_min}, {cycle_limit} and {self.cycle_mul}"
            )
        require_factor("cycle_decay", self.cycle_decay)
        super().__init__(optimizer, **options)

    def remaining(self, share):
        """Return which part of the way from peak to floor is left when ``share`` of the cycle has passed."""
        raise NotImplementedError

    def last_value(self):
        """Return the rate after the last cycle."""
        return self.lr_min

    def scheduled(self, t):
        cycle, share = self._position(t)
        if cycle is None or (self.cycle_limit and cycle >= self.cycle_limit):
            return [self.last_value()] * len(self.base_values)
        floor = self.lr_min * self.floor_decay**cycle
        peak = self.cycle_decay**cycle
        return [floor + (base * peak - floor) * self.remaining(share) for base in self.base_values]

    def _position(self, t):
        """Return the cycle that tick ``t`` lies in and the share of the cycle that has passed.

        The cycle is None after all of infinitely many shrinking cycles.
        """
        t, first, growth = _exact(t), _exact(self.t_initial), _exact(self.cycle_mul)
        if growth == 1:
            cycle = t // first
        else:
            relative = t / first * (growth - 1)
            if relative <= -1:
                return None, 1.0
            cycle = math.floor(math.log1p(relative) / math.log1p(growth - 1))  # in doubles: may be one off
            while self._start(cycle) > t:
                cycle -= 1
            while self._start(cycle + 1) <= t:
                cycle += 1
        return cycle, float((t - self._start(cycle)) / (first * growth**cycle))

    def _start(self, cycle):
        """Return the first tick of a cycle, as a fraction."""
        first, growth = _exact(self.t_initial), _exact(self.cycle_mul)
        return first * cycle if growth == 1 else first * (growth**cycle - 1) / (growth - 1)

    def get_cycle_length(self, cycles=0):
        """Return how many ticks ``cycles`` cycles take (0: all), with the warm-up where it comes before them."""
        cycles = cycles or max(1, self.cycle_limit)
        length = self.t_initial * cycles if self.cycle_mul == 1 else math.floor(self._start(cycles))
        return length + self.warmup_t if self.warmup_prefix else length


def _exact(number):
    """Return a number as the fraction that its decimal digits spell: 1.1 becomes 11/10, not the nearest double.

    A restart falls on a tick or not: a rounded logarithm or power puts some on the wrong side.
    """
    return Fraction(str(number))
