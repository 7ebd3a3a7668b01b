"""NovoGrad: momentum of layer-wise normalised gradients (arXiv 1905.11286), in two implementations."""

from __future__ import annotations

import math

import paddle

from pimm.optim.base import RuleOptimizer, Slot


class NvNovoGrad(RuleOptimizer):
    """Update as Nvidia's reference code of NovoGrad does.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas: decays of the average of gradients and of the average of their squared norm.
        eps: added to the norm.
        grad_averaging: whether the first average weighs a gradient by one minus beta.
        amsgrad: whether to divide by the largest average norm so far.
        decoupled_decay: whether weights decay apart from the momentum.
        corrected_weight_decay: whether decoupled decay is relative to the peak rate.
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.95, 0.98),
        eps=1e-8,
        weight_decay=0.0,
        grad_averaging=False,
        amsgrad=False,
        decoupled_decay=False,
        corrected_weight_decay=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            grad_averaging=grad_averaging,
            amsgrad=amsgrad,
            decoupled_decay=decoupled_decay,
            corrected_weight_decay=corrected_weight_decay,
        )

    def slots_of(self, param, group):
        slots = {"exp_avg": Slot(), "exp_avg_sq": Slot([1])}
        return {**slots, "max_exp_avg_sq": Slot([1])} if group["amsgrad"] else slots

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq, max_exp_avg_sq=None):
        beta1, beta2 = group["betas"]
        kept = 0.0 if step == 1 else beta2
        exp_avg_sq.scale_(kept).add_(grad.square().sum().reshape([1]).scale_(1.0 - kept))
        if max_exp_avg_sq is not None:
            exp_avg_sq = paddle.assign(paddle.maximum(max_exp_avg_sq, exp_avg_sq), output=max_exp_avg_sq)
        change = grad / (exp_avg_sq.squeeze(0).sqrt() + group["eps"])
        if group["decoupled_decay"]:
            self.shrink(param, lr, group)
        elif group["weight_decay"]:
            change = change + param * group["weight_decay"]
        if group["grad_averaging"]:
            change = change * (1.0 - beta1)
        exp_avg.scale_(beta1).add_(change)
        param.subtract_(exp_avg * lr)


class NovoGrad(RuleOptimizer):
    """Update as timm 0.1.20 does: gradients are normalised twice, and the first gradient starts both averages."""

    def __init__(self, params, grad_averaging=False, lr=0.1, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, grad_averaging=grad_averaging, betas=betas, eps=eps)

    def slots_of(self, param, group):
        return {"grad_ema": Slot([1]), "v": Slot([1]), "m": Slot()}

    def update_param(self, param, grad, lr, step, group, grad_ema, v, m):
        (beta1, beta2), eps = group["betas"], group["eps"]
        decay = param * group["weight_decay"] if group["weight_decay"] else 0.0
        kept = 0.0 if step == 1 else beta2
        square = grad.square().sum().reshape([1])
        if step == 1:
            v.add_(square)
            m.add_(grad / (v.squeeze(0).sqrt() + eps) + decay)
        grad_ema.scale_(kept).add_(square * (1.0 - kept))
        scaled = grad / (grad_ema.squeeze(0).sqrt() + eps)
        if group["grad_averaging"]:
            scaled = scaled * (1.0 - beta1)
        v.scale_(beta2).add_(scaled.square().sum().reshape([1]) * (1.0 - beta2))
        m.scale_(beta1).add_(scaled / (v.squeeze(0).sqrt() + eps) + decay)
        param.subtract_(m * (lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)))
