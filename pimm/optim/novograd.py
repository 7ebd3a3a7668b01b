"""NovoGrad, layer-wise normalised gradients with momentum (arXiv 1905.11286), in its two implementations."""

from __future__ import annotations

import math

from pimm.optim.base import OwnDecay, RuleOptimizer


class NvNovoGrad(OwnDecay, RuleOptimizer):
    """NovoGrad as Nvidia's reference code has it."""

    slots = {"exp_avg": None, "exp_avg_sq": [1]}

    def __init__(self, params, lr=1e-3, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False):
        self.betas, self.eps, self.grad_averaging = betas, eps, grad_averaging
        super().__init__(params, lr, weight_decay)

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq):
        beta1, beta2 = self.betas
        kept = 0.0 if step == 1 else beta2
        exp_avg_sq.scale_(kept).add_(grad.square().sum().reshape([1]).scale_(1.0 - kept))
        change = grad / (exp_avg_sq.sqrt() + self.eps)
        if group["weight_decay"]:
            change = change + param * group["weight_decay"]
        if self.grad_averaging:
            change = change * (1.0 - beta1)
        exp_avg.scale_(beta1).add_(change)
        param.subtract_(exp_avg * lr)


class NovoGrad(OwnDecay, RuleOptimizer):
    """NovoGrad as timm 0.1.20 has it: gradients normalised twice, both averages started by the first gradient."""

    slots = {"grad_ema": [1], "v": [1], "m": None}

    def __init__(self, params, grad_averaging=False, lr=0.1, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0):
        self.betas, self.eps, self.grad_averaging = betas, eps, grad_averaging
        super().__init__(params, lr, weight_decay)

    def update_param(self, param, grad, lr, step, group, grad_ema, v, m):
        beta1, beta2 = self.betas
        decay = param * group["weight_decay"] if group["weight_decay"] else 0.0
        kept = 0.0 if step == 1 else beta2
        square = grad.square().sum().reshape([1])
        if step == 1:
            v.add_(square)
            m.add_(grad / (v.sqrt() + self.eps) + decay)
        grad_ema.scale_(kept).add_(square * (1.0 - kept))
        scaled = grad / (grad_ema.sqrt() + self.eps)
        if self.grad_averaging:
            scaled = scaled * (1.0 - beta1)
        v.scale_(beta2).add_(scaled.square().sum().reshape([1]) * (1.0 - beta2))
        m.scale_(beta1).add_(scaled / (v.sqrt() + self.eps) + decay)
        param.subtract_(m * (lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)))
