"""Warm up, keep the rate stable, and lower it at the end."""

from __future__ import annotations

import math

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler

_STABLE = {
    "constant": lambda t, own: 1.0,
    "rsqrt": lambda t, own: (1.0 + t / own.stable_timescale) ** -0.5,
    "power": lambda t, own: (1.0 + t / own.stable_timescale) ** -own.stable_power,
}
_DECAY = {
    "linear": lambda share, own: 1.0 - share,
    "1-sqrt": lambda share, own: 1.0 - math.sqrt(share),
    "cosine": lambda share, own: 0.5 * (1.0 + math.cos(math.pi * share)),
    "power": lambda share, own: 1.0 - share**own.decay_power,
    "exp": lambda share, own: (own.decay_ratio**share - own.decay_ratio) / (1.0 - own.decay_ratio),
}


class WSDLRScheduler(WarmupScheduler):
    """Warm up, keep the rate stable, and lower it over the last ticks (WSD, arXiv 2404.06395).

    Args:
        optimizer: the optimizer whose rates are set.
        t_initial: ticks after the warm-up, those of the decay included.
        decay_t: ticks of the decay.
        lr_min: last rate.
        stable_fn: ``constant``, ``rsqrt`` or ``power`` of the ticks since the warm-up (arXiv 2106.04560).
        stable_timescale: ticks in which ``rsqrt`` and ``power`` begin to fall; by default the length of the warm-up.
        stable_power: the power of ``power``.
        decay_fn: ``linear``, ``1-sqrt``, ``cosine``, ``power``, ``exp`` (arXiv 2405.18392), or a function that maps the
            share of the decay that has passed, from 0 to 1, to a factor from 1 to 0.
        decay_power: the power of the decay ``power``.
        decay_ratio: last factor of the decay ``exp`` before it is shifted to 0.

    The other arguments are those of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for settings outside their ranges and for unknown functions.
    """

    def __init__(
        self,
        optimizer,
        t_initial,
        decay_t,
        lr_min=0.0,
        stable_fn="constant",
        stable_timescale=None,
        stable_power=0.5,
        decay_fn="1-sqrt",
        decay_power=0.5,
        decay_ratio=0.1,
        warmup_t=0,
        warmup_lr_init=0.0,
        t_in_epochs=True,
        noise_range_t=None,
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=42,
        initialize=True,
    ):
        self.t_initial = t_initial
        self.decay_t = decay_t
        self.lr_min = lr_min
        self.stable_fn = stable_fn
        self.stable_timescale = warmup_t if stable_timescale is None else stable_timescale
        self.stable_power = stable_power
        self.decay_fn = decay_fn
        self.decay_power = decay_power
        self.decay_ratio = decay_ratio
        self._check()
        super().__init__(
            optimizer,
            warmup_t=warmup_t,
            warmup_lr_init=warmup_lr_init,
            warmup_prefix=True,
            t_in_epochs=t_in_epochs,
            noise_range_t=noise_range_t,
            noise_pct=noise_pct,
            noise_std=noise_std,
            noise_seed=noise_seed,
            initialize=initialize,
        )

    def _check(self):
        needs = {
            f"0 < decay_t <= t_initial, got {self.decay_t} and {self.t_initial}": 0 < self.decay_t <= self.t_initial,
            f"lr_min >= 0, got {self.lr_min}": self.lr_min >= 0,
            f"stable_fn one of {', '.join(_STABLE)}, got {self.stable_fn!r:.80}": self.stable_fn in _STABLE,
            f"decay_fn one of {', '.join(_DECAY)}, or a function, got {self.decay_fn!r:.80}": self.decay_fn in _DECAY
            or callable(self.decay_fn),
            f"powers > 0, got {self.stable_power} and {self.decay_power}": min(self.stable_power, self.decay_power) > 0,
            f"0 < decay_ratio < 1, got {self.decay_ratio}": 0 < self.decay_ratio < 1,
            f"stable_timescale > 0 for stable_fn {self.stable_fn!r:.80} without a warm-up": self.stable_fn == "constant"
            or self.stable_timescale > 0,
        }
        for need, is_met in needs.items():
            if not is_met:
                raise ConfigError(f"WSDLRScheduler needs {need}")

    def scheduled(self, t):
        factor = _STABLE[self.stable_fn](t, self)
        stable = [max(base * factor, self.lr_min) for base in self.base_values]
        share = min((t - self.t_initial + self.decay_t) / self.decay_t, 1.0)
        if share <= 0:
            return stable
        left = self.decay_fn(share) if callable(self.decay_fn) else _DECAY[self.decay_fn](share, self)
        return [self.lr_min + (value - self.lr_min) * left for value in stable]

    def get_cycle_length(self, cycles=0):
        """Return the ticks of the schedule, the warm-up included; ``cycles`` is unused, because there is one cycle."""
        return self.warmup_t + self.t_initial
