"""ADOPT: a variant of Adam that converges with any second beta (arXiv 2411.02853)."""

from __future__ import annotations

from pimm.optim.base import RuleOptimizer
from pimm.optim.update import average_square, cautious, move_average, with_l2


class Adopt(RuleOptimizer):
    """Average gradients that are normalised by the squares of earlier gradients; the first gradient moves no weight.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas, eps: see `Adam`.
        clip_exp: normalised gradients are clipped to ``(step - 1) ** clip_exp``; None for no clipping.
        decoupled: whether weights decay apart from the gradient.
        corrected_weight_decay: whether decoupled decay is relative to the peak rate.
        caution: whether to leave out updates whose sign is not that of the gradient.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.9999),
        eps=1e-6,
        clip_exp=0.333,
        weight_decay=0.0,
        decoupled=False,
        corrected_weight_decay=False,
        caution=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            clip_exp=clip_exp,
            decoupled=decoupled,
            corrected_weight_decay=corrected_weight_decay,
            caution=caution,
        )

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq):
        beta1, beta2 = group["betas"]
        if not group["decoupled"]:
            grad = with_l2(grad, param, group["weight_decay"])
        if step == 1:
            exp_avg_sq.add_(grad.square())
            return
        if group["decoupled"]:
            self.shrink(param, lr, group)
        normalised = grad / exp_avg_sq.sqrt().clip_(min=group["eps"])
        if group["clip_exp"] is not None:
            bound = (step - 1) ** group["clip_exp"]
            normalised.clip_(min=-bound, max=bound)
        move_average(exp_avg, normalised, 1.0 - beta1)
        param.subtract_((cautious(exp_avg, grad) if group["caution"] else exp_avg) * lr)
        average_square(exp_avg_sq, grad, beta2)
