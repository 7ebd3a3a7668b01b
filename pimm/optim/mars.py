"""MARS: variance reduction for adaptive methods (arXiv 2411.10438)."""

from __future__ import annotations

import paddle

from pimm.errors import ConfigError
from pimm.optim.base import RuleOptimizer
from pimm.optim.update import adam_direction, average_square, cautious, move_average, norm

_TYPES = ("adamw", "lion")


class Mars(RuleOptimizer):
    """Apply AdamW or Lion to gradients that are corrected by their last change and clipped to norm 1.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas, eps: see `Adam`.
        gamma: factor of the correction.
        mars_type: ``adamw``, or ``lion`` for the sign of the first average.
        optimize_1d: whether parameters of one dimension are treated like the others; by default they get plain AdamW.
        lr_1d_factor: factor of the rate of parameters that get plain AdamW.
        betas_1d: betas of plain AdamW; by default ``betas``.
        caution: whether to leave out updates whose sign is not that of the gradient.

    Raises:
        ConfigError: for another ``mars_type``.
    """

    slots = ("exp_avg", "exp_avg_sq", "last_grad")

    def __init__(
        self,
        params,
        lr=3e-3,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.0,
        gamma=0.025,
        mars_type="adamw",
        optimize_1d=False,
        lr_1d_factor=1.0,
        betas_1d=None,
        caution=False,
    ):
        if mars_type not in _TYPES:
            raise ConfigError(f"mars_type is one of {', '.join(_TYPES)}, not {mars_type!r:.80}")
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            gamma=gamma,
            mars_type=mars_type,
            optimize_1d=optimize_1d,
            lr_1d_factor=lr_1d_factor,
            betas_1d=betas_1d or betas,
            caution=caution,
        )

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq, last_grad):
        if group["optimize_1d"] or grad.ndim >= 2:
            direction = _variance_reduced(grad, step, group, exp_avg, exp_avg_sq, last_grad)
        else:
            lr *= group["lr_1d_factor"]
            direction = adam_direction(grad, step, {**group, "betas": group["betas_1d"]}, exp_avg, exp_avg_sq)
        self.shrink(param, lr, group)
        param.subtract_(direction * lr)
        paddle.assign(grad, output=last_grad)


def _variance_reduced(grad, step, group, exp_avg, exp_avg_sq, last_grad):
    beta1, beta2 = group["betas"]
    corrected = grad
    if step > 1:
        corrected = grad + (grad - last_grad) * (group["gamma"] * beta1 / (1.0 - beta1))
    corrected = corrected / norm(corrected).clip(min=1.0)
    move_average(exp_avg, corrected, 1.0 - beta1)
    momentum = cautious(exp_avg, grad) if group["caution"] else exp_avg
    if group["mars_type"] == "lion":
        return momentum.sign()
    average_square(exp_avg_sq, corrected, beta2)
    scale = exp_avg_sq.sqrt().scale_((1.0 - beta2**step) ** -0.5, bias=group["eps"])
    return momentum.scale(1.0 / (1.0 - beta1**step)) / scale
