"""Lower the rate when the metric no longer improves."""

from __future__ import annotations

import logging
import math

from pimm.errors import ConfigError
from pimm.scheduler.scheduler import WarmupScheduler, require_factor

_logger = logging.getLogger(__name__)


class PlateauLRScheduler(WarmupScheduler):
    """Multiply the rate by ``decay_rate`` when the metric has not improved for more than ``patience_t`` epochs.

    Epochs without a metric change nothing, and neither does ``step_update``.

    Args:
        optimizer: the optimizer whose rates are set.
        decay_rate: the factor.
        patience_t: epochs without an improvement that are accepted.
        threshold: the least improvement that counts, as a share of the best metric.
        cooldown_t: epochs after a decay that are not counted.
        lr_min: the lowest rate.
        mode: ``max`` if a higher metric is better (an accuracy), ``min`` if a lower one is (a loss; the default of
            timm 0.1.20).
        verbose: whether to log every decay.

    The other arguments are those of `WarmupScheduler` and `Scheduler`.

    Raises:
        ConfigError: for another mode.
    """

    _BETTER = {
        "min": lambda metric, best, threshold: metric < best * (1.0 - threshold),
        "max": lambda metric, best, threshold: metric > best * (1.0 + threshold),
    }
    _WORST = {"min": math.inf, "max": -math.inf}
    _SMALLEST_CHANGE = 1e-8  # smaller changes are left out, as in PyTorch

    def __init__(
        self,
        optimizer,
        decay_rate=0.1,
        patience_t=10,
        threshold=1e-4,
        cooldown_t=0,
        warmup_t=0,
        warmup_lr_init=0.0,
        lr_min=0.0,
        mode="max",
        noise_range_t=None,
        noise_type="normal",
        noise_pct=0.67,
        noise_std=1.0,
        noise_seed=None,
        initialize=True,
        *,
        verbose=True,
    ):
        if mode not in self._BETTER:
            raise ConfigError(f"PlateauLRScheduler's mode is 'min' or 'max', got {mode!r:.80}")
        require_factor("decay_rate", decay_rate)
        super().__init__(
            optimizer,
            warmup_t=warmup_t,
            warmup_lr_init=warmup_lr_init,
            noise_range_t=noise_range_t,
            noise_type=noise_type,
            noise_pct=noise_pct,
            noise_std=noise_std,
            noise_seed=noise_seed,
            initialize=initialize,
        )
        self.decay_rate = decay_rate
        self.patience_t = patience_t
        self.verbose = verbose
        self.threshold = threshold
        self.cooldown_t = cooldown_t
        self.lr_min = lr_min
        self.mode = mode
        self.best = self._WORST[mode]
        self.bad_epochs = 0
        self.cooldown_left = 0
        self.plateau_values = list(self.base_values)  # the groups' rates without noise

    def step(self, epoch, metric=None):
        if epoch <= self.warmup_t:
            self.plateau_values = self.warming(epoch) if self.warmup_t else list(self.base_values)
            self.update_groups(self.plateau_values)
            return
        if metric is not None:
            self._observe(float(metric))
        self.update_groups(self.with_noise(self.plateau_values, epoch))

    def _observe(self, metric):
        if self._BETTER[self.mode](metric, self.best, self.threshold):
            self.best, self.bad_epochs = metric, 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience_t:
            self.cooldown_left, self.bad_epochs = self.cooldown_t, 0
            lowered = [max(value * self.decay_rate, self.lr_min) for value in self.plateau_values]
            self.plateau_values = [
                new if old - new > self._SMALLEST_CHANGE else old for old, new in zip(self.plateau_values, lowered)
            ]
            if self.verbose:
                _logger.info(
                    "the metric has not improved on %g: learning rate lowered to %g", self.best, self.plateau_values[0]
                )

    def state_dict(self):
        state = {name: getattr(self, name) for name in ("best", "bad_epochs", "cooldown_left")}
        return {**super().state_dict(), **state, "plateau_values": list(self.plateau_values)}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for name in ("best", "bad_epochs", "cooldown_left"):
            setattr(self, name, state_dict[name])
        self.plateau_values = list(state_dict["plateau_values"])
