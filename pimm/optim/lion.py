"""Lion: updates by the sign of a momentum, a rule found by program search (arXiv 2302.06675)."""

from __future__ import annotations

from pimm.optim.base import RuleOptimizer
from pimm.optim.update import cautious, move_average


class Lion(RuleOptimizer):
    """Move every weight by the rate, in the direction of the sign of an average.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas: decay of the average whose sign is taken, and decay of the average that is kept.
        caution: whether to leave out updates whose sign is not that of the gradient.
        corrected_weight_decay: whether decay is relative to the peak rate.
    """

    slots = ("exp_avg",)

    def __init__(
        self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, caution=False, corrected_weight_decay=False
    ):
        super().__init__(
            params, lr, weight_decay, betas=betas, caution=caution, corrected_weight_decay=corrected_weight_decay
        )

    def update_param(self, param, grad, lr, step, group, exp_avg):
        beta1, beta2 = group["betas"]
        self.shrink(param, lr, group)
        update = exp_avg.lerp(grad, 1.0 - beta1).sign()
        param.subtract_((cautious(update, grad) if group["caution"] else update) * lr)
        move_average(exp_avg, grad, 1.0 - beta2)
