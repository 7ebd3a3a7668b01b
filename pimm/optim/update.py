"""Parts of update rules that several optimizers share."""

from __future__ import annotations

import paddle


def with_l2(grad, param, weight_decay):
    """Return the gradient plus that of the L2 term."""
    return grad + param * weight_decay if weight_decay else grad


def cautious(update, grad):
    """Return the update where it has the sign of the gradient, scaled up for the rest (arXiv 2411.16085)."""
    mask = (update * grad > 0).astype(grad.dtype)
    return update * (mask / mask.mean().clip(min=1e-3))


def move_average(average, value, share):
    """Move a running average by a share towards a value in place, and return it."""
    if average.ndim:
        return average.lerp_(value, share)
    return paddle.assign(average.lerp(value, share), output=average)  # lerp_ makes one dimension of none


def average_square(average, grad, beta):
    """Move a running average of squares by one gradient in place, and return it."""
    return average.scale_(beta).add_(grad.square().scale_(1.0 - beta))


def root_mean_square(tensor):
    """Return the root of the mean of squares, 0-d."""
    return tensor.square().mean().sqrt()


def norm(tensor):
    """Return the Euclidean norm of all elements, 0-d."""
    return tensor.square().sum().sqrt()


def adam_direction(
    grad, step, group, exp_avg, exp_avg_sq, nesterov=False, clipping_threshold=None, max_exp_avg_sq=None
):
    """Move Adam's averages by one gradient and return the step at rate 1 (arXiv 1412.6980).

    Args:
        grad: the gradient.
        step: number of the update, from 1.
        group: hyperparameters: ``betas``, ``eps`` and ``caution``.
        exp_avg: average of gradients.
        exp_avg_sq: average of squares.
        nesterov: whether to average the gradient in once more (arXiv 1910.05446).
        clipping_threshold: limit of the root mean square of the normalised gradient (StableAdamW, arXiv 2304.13013).
        max_exp_avg_sq: largest average of squares so far, for AMSGrad.
    """
    beta1, beta2 = group["betas"]
    move_average(exp_avg, grad, 1.0 - beta1)
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
