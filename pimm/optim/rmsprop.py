"""RMSprop as PyTorch has it."""

from __future__ import annotations

from pimm.optim.base import RuleOptimizer


class RMSprop(RuleOptimizer):
    """RMSprop with eps outside the root and squares averaged from zero (Hinton's lecture 6); see also RMSpropTF."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
        self.alpha, self.eps, self.momentum = alpha, eps, momentum
        self.slots = {"square_avg": None, "momentum_buffer": None} if momentum else {"square_avg": None}
        super().__init__(params, lr, weight_decay)

    def update_param(self, param, grad, lr, step, group, square_avg, momentum_buffer=None):
        square_avg.scale_(self.alpha).add_(grad.square().scale_(1.0 - self.alpha))
        change = grad / (square_avg.sqrt() + self.eps)
        if momentum_buffer is not None:
            change = momentum_buffer.scale_(self.momentum).add_(change)
        param.subtract_(change * lr)
