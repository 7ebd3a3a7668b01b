"""Lookahead: k steps of an optimizer, then one step back (arXiv 1907.08610)."""

from __future__ import annotations

import paddle

from pimm.errors import ConfigError
from pimm.optim.base import TimmOptimizer
from pimm.optim.update import move_average


class Lookahead(TimmOptimizer, paddle.optimizer.Optimizer):
    """Wrap an optimizer and move the weights back towards slow copies of them after every ``k`` steps.

    As in timm, a slow copy is made at its first synchronisation, which therefore changes nothing.

    Args:
        base_optimizer: the optimizer.
        alpha: share of the way from the slow copy to the weight at which both meet.
        k: steps between synchronisations.

    Raises:
        ConfigError: for settings outside their ranges.
    """

    SLOW = "slow"

    def __init__(self, base_optimizer, alpha=0.5, k=6):
        if not 0.0 <= alpha <= 1.0 or k < 1:
            raise ConfigError(f"Lookahead needs 0 <= alpha <= 1 and k >= 1, got alpha={alpha} and k={k}")
        # Both objects share their attributes: rates, groups and accumulators are those of the wrapped optimizer.
        self.__dict__ = base_optimizer.__dict__
        self.base_optimizer = base_optimizer
        self.alpha, self.k, self.lookahead_step = alpha, k, 0

    @paddle.no_grad()
    def step(self):
        """Take one step of the wrapped optimizer and, after every ``k``-th step, one step back."""
        self.base_optimizer.step()
        if self._get_auxiliary_var("found_inf"):
            return  # the loss scaler skipped this step
        self.lookahead_step += 1
        if self.lookahead_step % self.k == 0:
            for group in self._param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self._synchronise(param)

    def add_slow(self, param):
        """Return the accumulator of a parameter's slow copy, and create it if there is none."""
        weight = self._master_weights.get(param.name, param)
        return self._add_accumulator(self.SLOW, param, dtype=weight.dtype)

    def _create_accumulators(self, block, parameters):
        self.base_optimizer._create_accumulators(block, parameters)

    def _synchronise(self, param):
        weight = self._master_weights.get(param.name, param)
        if param.name in self._accumulators[self.SLOW]:
            slow = self._accumulators[self.SLOW][param.name]
            move_average(slow, weight, self.alpha)
            paddle.assign(slow, output=weight)
            if weight is not param:
                paddle.assign(slow.astype(param.dtype), output=param)
        else:
            paddle.assign(weight, output=self.add_slow(param))
