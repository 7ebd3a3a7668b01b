"""LaProp: momentum separated from adaptivity (arXiv 2002.04839)."""

from __future__ import annotations

from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import average_square, cautious


class LaProp(RuleOptimizer):
    """Average gradients after normalising them and multiplying them by the rate; weights decay after the step.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas, eps: see `Adam`.
        caution: whether to leave out updates whose sign is not that of the gradient.
        corrected_weight_decay: whether decay is relative to the peak rate.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=4e-4,
        betas=(0.9, 0.999),
        eps=1e-15,
        weight_decay=0.0,
        caution=False,
        corrected_weight_decay=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            caution=caution,
            corrected_weight_decay=corrected_weight_decay,
        )

    def slots_of(self, param, group):
        return {**super().slots_of(param, group), "exp_avg_lr": Slot([1])}

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq, exp_avg_lr):
        beta1, beta2 = group["betas"]
        average_square(exp_avg_sq, grad, beta2)
        exp_avg_lr.scale_(beta1, bias=(1.0 - beta1) * lr)
        scale = exp_avg_sq.sqrt().scale_((1.0 - beta2**step) ** -0.5, bias=group["eps"])
        exp_avg.scale_(beta1).add_(grad / scale * (lr * (1.0 - beta1)))
        if lr:  # at rate 0 the average rate may be 0 too
            momentum = cautious(exp_avg, grad) if group["caution"] else exp_avg
            param.subtract_(momentum * (lr / exp_avg_lr.squeeze(0)))
        self.shrink(param, lr, group)
