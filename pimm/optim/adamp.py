"""AdamP and SGDP: momentum that does not increase the norms of scale-invariant weights (arXiv 2006.08217)."""

from __future__ import annotations

import math

import paddle

from pimm.optim.base import RuleOptimizer
from pimm.optim.layout import unit_axes
from pimm.optim.update import adam_direction, cautious


class AdamP(RuleOptimizer):
    """Remove the radial part of Adam's step for weights that appear scale-invariant.

    A weight appears scale-invariant if its gradient is nearly orthogonal to it, for each output or as a whole.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas, eps: see `Adam`.
        delta: limit of the cosine between gradient and weight, times the root of the weight's size.
        wd_ratio: share of the weight decay that scale-invariant weights keep.
        nesterov: whether to use Nesterov momentum.
        caution: whether to leave out updates whose sign is not that of the gradient.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        delta=0.1,
        wd_ratio=0.1,
        nesterov=False,
        caution=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            delta=delta,
            wd_ratio=wd_ratio,
            nesterov=nesterov,
            caution=caution,
        )

    def update_param(self, param, grad, lr, step, group, exp_avg, exp_avg_sq):
        plain = {**group, "caution": False}
        update = adam_direction(grad, step, plain, exp_avg, exp_avg_sq, nesterov=group["nesterov"])
        update, decay = _projected(param, grad, update, group)
        if group["weight_decay"]:
            param.multiply_(1.0 - decay * (lr * group["weight_decay"]))
        param.subtract_(update * lr)


class SGDP(RuleOptimizer):
    """Remove the radial part of the step of momentum, as `AdamP` does, with the same arguments."""

    slots = ("momentum",)

    def __init__(
        self,
        params,
        lr,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        eps=1e-8,
        delta=0.1,
        wd_ratio=0.1,
        caution=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            eps=eps,
            delta=delta,
            wd_ratio=wd_ratio,
            caution=caution,
        )

    def update_param(self, param, grad, lr, step, group, momentum):
        momentum.scale_(group["momentum"]).add_(grad.scale(1.0 - group["dampening"]))
        update = grad + momentum * group["momentum"] if group["nesterov"] else momentum
        update, decay = _projected(param, grad, update, group)
        if group["weight_decay"]:
            param.multiply_(1.0 - decay * (lr * group["weight_decay"] / (1.0 - group["momentum"])))
        param.subtract_(update * lr)


def _projected(param, grad, update, group):
    """Return the update and the share of the decay, a 0-d tensor.

    The update loses its radial part where the weight appears scale-invariant.
    """
    share = paddle.ones([], param.dtype)
    result = cautious(update, grad) if group["caution"] else update
    if param.ndim < 2:
        return result, share
    for axes in (
        list(range(param.ndim)),
        unit_axes(param),
    ):  # the result for each output comes last and takes precedence
        radius = _norms(param, axes)
        floor = group["eps"]
        cosine = _dots(grad, param, axes).abs() / (radius.clip(min=floor) * _norms(grad, axes).clip(min=floor))
        size = math.prod(param.shape[axis] for axis in axes)
        invariant = cosine.max() < group["delta"] / math.sqrt(size)
        tangent = _tangent(grad, update, param / (radius + floor), axes, group["caution"])
        result = paddle.where(invariant, tangent, result)
        share = paddle.where(invariant, paddle.full_like(share, group["wd_ratio"]), share)
    return result, share


def _tangent(grad, update, direction, axes, caution):
    def orthogonal(tensor):
        return tensor - direction * _dots(direction, tensor, axes)

    if caution:  # compare tangents, and remove the radial part that the mask brings back
        return orthogonal(cautious(orthogonal(update), orthogonal(grad)))
    return orthogonal(update)


def _dots(left, right, axes):
    return (left * right).sum(axes, keepdim=True)


def _norms(tensor, axes):
    return _dots(tensor, tensor, axes).sqrt()
