"""MADGRAD: momentum and dual averaging (arXiv 2101.11075)."""

from __future__ import annotations

import math

import paddle

from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import move_average, with_l2


class MADGRAD(RuleOptimizer):
    """Move weights towards their start minus the sum of gradients over the cube root of the sum of squares.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        momentum: share of the weight that a step keeps.
        eps: added to the rate and to the cube root.
        decoupled_decay: whether weights decay apart from the gradient.
    """

    slots = ("grad_sum_sq", "grad_sum")

    def __init__(self, params, lr=1e-2, momentum=0.9, weight_decay=0.0, eps=1e-6, decoupled_decay=False):
        super().__init__(params, lr, weight_decay, momentum=momentum, eps=eps, decoupled_decay=decoupled_decay)

    def slots_of(self, param, group):
        slots = super().slots_of(param, group)
        return {**slots, "start": Slot()} if group["momentum"] else slots

    def update_param(self, param, grad, lr, step, group, grad_sum_sq, grad_sum, start=None):
        momentum, eps = group["momentum"], group["eps"]
        if start is not None and step == 1:
            paddle.assign(param, output=start)
        if group["decoupled_decay"]:
            self.shrink(param, lr, group)
        else:
            grad = with_l2(grad, param, group["weight_decay"])
        if start is None:
            start = param + grad_sum / _cube_root(grad_sum_sq, eps)
        weight = (lr + eps) * math.sqrt(step)
        grad_sum_sq.add_(grad.square().scale_(weight))
        grad_sum.add_(grad * weight)
        target = start - grad_sum / _cube_root(grad_sum_sq, eps)
        paddle.assign(move_average(target, param, momentum) if momentum else target, output=param)


def _cube_root(tensor, eps):
    third = paddle.full([], 1.0 / 3.0, tensor.dtype)  # a Python number would be float32 whatever the type of the tensor
    return tensor.pow(third).scale_(1.0, bias=eps)
