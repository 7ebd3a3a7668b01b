"""Momentum as in PyTorch, and stochastic gradient descent with decoupled weight decay (arXiv 1711.05101)."""

from __future__ import annotations

from pimm.errors import ConfigError
from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import cautious


class MomentumRule(RuleOptimizer):
    """Base of the optimizers with ``momentum``, ``dampening`` and ``nesterov``."""

    def __init__(self, params, lr, weight_decay, momentum, dampening, nesterov, **options):
        if nesterov and (momentum <= 0 or dampening):
            raise ConfigError(
                f"Nesterov's needs a momentum and no dampening, got momentum={momentum} and dampening={dampening}"
            )
        super().__init__(params, lr, weight_decay, momentum=momentum, dampening=dampening, nesterov=nesterov, **options)

    def slots_of(self, param, group):
        return {"momentum_buffer": Slot()} if group["momentum"] else {}

    def with_momentum(self, grad, step, group, momentum_buffer):
        """Return the direction for a gradient; the first gradient enters the buffer without dampening."""
        if momentum_buffer is None:
            return grad
        share = 1.0 if step == 1 else 1.0 - group["dampening"]
        momentum_buffer.scale_(group["momentum"]).add_(grad.scale(share))
        return grad + momentum_buffer * group["momentum"] if group["nesterov"] else momentum_buffer


class SGDW(MomentumRule):
    """Descend with momentum and decoupled weight decay.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        momentum: decay of the sum of gradients.
        dampening: share of a gradient that does not enter this sum.
        nesterov: whether to use Nesterov momentum.
        caution: whether to leave out updates whose sign is not that of the gradient.
        corrected_weight_decay: whether decay is relative to the peak rate.
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        caution=False,
        corrected_weight_decay=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            momentum,
            dampening,
            nesterov,
            caution=caution,
            corrected_weight_decay=corrected_weight_decay,
        )

    def update_param(self, param, grad, lr, step, group, momentum_buffer=None):
        self.shrink(param, lr, group)
        update = self.with_momentum(grad, step, group, momentum_buffer)
        if group["caution"] and momentum_buffer is not None:
            update = cautious(update, grad)
        param.subtract_(update * lr)
