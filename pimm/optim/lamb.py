"""LAMB: Adam with layer-wise rates (arXiv 1904.00962), as in Nvidia's FusedLAMB."""

from __future__ import annotations

import paddle

from pimm.optim.base import RuleOptimizer
from pimm.optim.lars import trusted
from pimm.optim.update import average_square, cautious, norm


class Lamb(RuleOptimizer):
    """Scale Adam's step, weight decay included, to the norm of the weight.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        bias_correction: whether to correct the bias of the averages.
        betas, eps: see `Adam`.
        grad_averaging: whether the first average weighs a gradient by one minus beta.
        max_grad_norm: limit of the norm of all gradients together; None for no limit.
        trust_clip: whether the scale is at most 1.
        always_adapt: whether to scale the steps of parameters without decay too.
        caution: whether to leave out updates whose sign is not that of the gradient.
        decoupled_decay: whether weights decay apart from the step.
        corrected_weight_decay: whether decoupled decay is relative to the peak rate.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=0.01,
        grad_averaging=True,
        max_grad_norm=1.0,
        trust_clip=False,
        always_adapt=False,
        caution=False,
        decoupled_decay=False,
        corrected_weight_decay=False,
    ):
        self.max_grad_norm, self.grad_divisor = max_grad_norm, None
        super().__init__(
            params,
            lr,
            weight_decay,
            bias_correction=bias_correction,
            betas=betas,
            eps=eps,
            grad_averaging=grad_averaging,
            trust_clip=trust_clip,
            always_adapt=always_adapt,
            caution=caution,
            decoupled_decay=decoupled_decay,
            corrected_weight_decay=corrected_weight_decay,
        )

    @paddle.no_grad()
    def step(self):
        """Update all parameters, with the norm of all gradients together clipped."""
        grads = [param.grad for group in self._param_groups for param in group["params"] if param.grad is not None]
        if self.max_grad_norm and grads:
            norms = [norm(grad.astype("float64" if grad.dtype == paddle.float64 else "float32")) for grad in grads]
            self.grad_divisor = (norm(paddle.stack(norms)) / self.max_grad_norm).clip(min=1.0)
        super().step()

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq):
        beta1, beta2 = group["betas"]
        if self.grad_divisor is not None:
            grad = grad / self.grad_divisor
        exp_avg.scale_(beta1).add_(grad.scale(1.0 - beta1 if group["grad_averaging"] else 1.0))
        average_square(exp_avg_sq, grad, beta2)
        corrections = (1.0 - beta1**step, 1.0 - beta2**step) if group["bias_correction"] else (1.0, 1.0)
        scale = exp_avg_sq.sqrt().scale_(corrections[1] ** -0.5, bias=group["eps"])
        update = exp_avg.scale(1.0 / corrections[0]) / scale
        if group["caution"]:
            update = cautious(update, grad)
        if group["decoupled_decay"]:
            self.shrink(param, lr, group)
        elif group["weight_decay"]:
            update = update + param * group["weight_decay"]
        if group["weight_decay"] or group["always_adapt"]:
            update = update * _trust_ratio(param, update, group["trust_clip"])
        param.subtract_(update * lr)


def _trust_ratio(param, update, clip):
    size, update_size = norm(param), norm(update)
    ratio = trusted(size / update_size, size, update_size)
    return ratio.clip(max=1.0) if clip else ratio
