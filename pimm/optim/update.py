"""Pieces that several updates share."""

from __future__ import annotations

import paddle


def with_l2(grad, param, weight_decay):
    """The gradient with the L2 term's."""
    return grad + param * weight_decay if weight_decay else grad


def cautious(update, grad):
    """The update where it agrees with the gradient in sign, scaled up for the rest (arXiv 2411.16085)."""
    mask = (update * grad > 0).astype(grad.dtype)
    return update * (mask / mask.mean().clip(min=1e-3))


def average_square(average, grad, beta):
    """Move a running average of squares by one gradient, in place."""
    return average.scale_(beta).add_(grad.square().scale_(1.0 - beta))


def root_mean_square(tensor):
    """Root of the mean of squares, 0-d."""
    return tensor.square().mean().sqrt()


def norm(tensor):
    """Euclidean norm of all elements, 0-d."""
    return tensor.square().sum().sqrt()


def adam_direction(
    grad, step, group, exp_avg, exp_avg_sq, nesterov=False, clipping_threshold=None, max_exp_avg_sq=None
):
    """Adam's step at rate one (arXiv 1412.6980), from averages that it moves.

    ``nesterov`` averages the gradient in once more (arXiv 1910.05446). ``clipping_threshold`` bounds the root mean
    square of the normalised gradient (StableAdamW, arXiv 2304.13013); ``max_exp_avg_sq`` makes it AMSGrad.
    """
    beta1, beta2 = group["betas"]
    exp_avg.lerp_(grad, 1.0 - beta1)
    average_square(exp_avg_sq, grad, beta2)
    if max_exp_avg_sq is not None:
        exp_avg_sq = paddle.assign(paddle.maximum(max_exp_avg_sq, exp_avg_sq), output=max_exp_avg_sq)
    scale = exp_avg_sq.sqrt().scale_((1.0 - beta2**step) ** -0.5, bias=group["eps"])
    if clipping_threshold is not None:
        scale = scale * (root_mean_square(grad / scale) / clipping_threshold).clip(min=1.0)
    momentum = exp_avg.lerp(grad, 1.0 - beta1) if nesterov else exp_avg
    if group.get("caution"):
        momentum = cautious(momentum, grad)
    return momentum.scale(1.0 / (1.0 - beta1**step)) / scale
