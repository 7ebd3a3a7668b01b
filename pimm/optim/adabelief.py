"""AdaBelief: step sizes by the belief in the observed gradient (arXiv 2010.07468)."""

from __future__ import annotations

import math

import paddle

from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import average_square, move_average, with_l2


class AdaBelief(RuleOptimizer):
    """Average the square of the gradient's deviation from its average, in place of Adam's squared gradient.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas: decays of both averages.
        eps: added to the average of squares and to its root.
        amsgrad: whether to divide by the largest average of squares so far.
        decoupled_decay: whether weights decay apart from the gradient.
        fixed_decay: whether decoupled decay does not depend on the rate.
        rectify: whether to correct the variance of early steps as RAdam does.
        degenerated_to_sgd: whether steps that are too early for this correction use the average gradient; otherwise
            these steps change nothing.
    """

    slots = ("exp_avg", "exp_avg_var")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-16,
        weight_decay=0.0,
        amsgrad=False,
        decoupled_decay=True,
        fixed_decay=False,
        rectify=True,
        degenerated_to_sgd=True,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            amsgrad=amsgrad,
            decoupled_decay=decoupled_decay,
            fixed_decay=fixed_decay,
            rectify=rectify,
            degenerated_to_sgd=degenerated_to_sgd,
        )

    def slots_of(self, param, group):
        slots = super().slots_of(param, group)
        return {**slots, "max_exp_avg_var": Slot()} if group["amsgrad"] else slots

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_var, max_exp_avg_var=None):
        (beta1, beta2), eps = group["betas"], group["eps"]
        if group["decoupled_decay"]:
            self.shrink(param, 1.0 if group["fixed_decay"] else lr, group)
        else:
            grad = with_l2(grad, param, group["weight_decay"])
        move_average(exp_avg, grad, 1.0 - beta1)
        average_square(exp_avg_var, grad - exp_avg, beta2).scale_(1.0, bias=eps)
        variance = exp_avg_var
        if max_exp_avg_var is not None:
            variance = paddle.assign(paddle.maximum(max_exp_avg_var, exp_avg_var), output=max_exp_avg_var)
        rate = lr / (1.0 - beta1**step)
        if not group["rectify"]:
            scale = variance.sqrt().scale_((1.0 - beta2**step) ** -0.5, bias=eps)
            param.subtract_(exp_avg / scale * rate)
            return
        correction = _rectification(step, beta2)
        if correction:
            param.subtract_(exp_avg / exp_avg_var.sqrt().scale_(1.0, bias=eps) * (rate * correction))
        elif group["degenerated_to_sgd"]:
            param.subtract_(exp_avg * rate)


def _rectification(step, beta2):
    """Return RAdam's factor (arXiv 1908.03265) with the bias correction of the second average; 0 if it is too early."""
    power = beta2**step
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * power / (1.0 - power)
    if length < 5.0:
        return 0.0
    ratio = (length - 4.0) / (longest - 4.0) * (length - 2.0) / length * longest / (longest - 2.0)
    return math.sqrt((1.0 - power) * ratio)
