"""Adan: adaptive Nesterov momentum (arXiv 2208.06677)."""

from __future__ import annotations

import paddle

from pimm.optim.base import RuleOptimizer
from pimm.optim.update import average_square, cautious, move_average


class Adan(RuleOptimizer):
    """Average the gradient, its change, and the square of their sum.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas: decays of the three averages.
        eps: added to the root of the average of squares.
        no_prox: whether weights decay before the step as AdamW's; by default they are divided after it (a proximal
            step).
        caution: whether to leave out updates whose sign is not that of the gradient.
    """

    slots = ("exp_avg", "exp_avg_sq", "exp_avg_diff", "previous_grad")

    def __init__(
        self, params, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False, caution=False
    ):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps, no_prox=no_prox, caution=caution)

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq, exp_avg_diff, previous_grad):
        beta1, beta2, beta3 = group["betas"]
        change = grad - (grad if step == 1 else previous_grad)
        move_average(exp_avg, grad, 1.0 - beta1)
        move_average(exp_avg_diff, change, 1.0 - beta2)
        average_square(exp_avg_sq, grad + change * beta2, beta3)
        scale = exp_avg_sq.sqrt().scale_((1.0 - beta3**step) ** -0.5, bias=group["eps"])
        momentum = cautious(exp_avg, grad) if group["caution"] else exp_avg
        momentum = momentum * (lr / (1.0 - beta1**step)) + exp_avg_diff * (lr * beta2 / (1.0 - beta2**step))
        if group["no_prox"]:
            self.shrink(param, lr, group)
        param.subtract_(momentum / scale)
        if not group["no_prox"] and group["weight_decay"]:
            param.scale_(1.0 / (1.0 + lr * group["weight_decay"]))
        paddle.assign(grad, output=previous_grad)
