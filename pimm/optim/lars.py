"""LARS and LARC: layer-wise rates by the ratio of the norms of weight and gradient (arXiv 1708.03888)."""

from __future__ import annotations

import paddle

from pimm.optim.sgdw import MomentumRule
from pimm.optim.update import norm, with_l2


class Lars(MomentumRule):
    """Scale gradients to a share of the norm of their weight before momentum.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        momentum, dampening, nesterov: see `SGDW`.
        trust_coeff: the share.
        eps: added to the norm of the gradient.
        trust_clip: whether the scale is at most 1, relative to the rate (LARC).
        always_adapt: whether to scale the gradients of parameters without decay too.
    """

    def __init__(
        self,
        params,
        lr=1.0,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        trust_coeff=0.001,
        eps=1e-8,
        trust_clip=False,
        always_adapt=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            momentum,
            dampening,
            nesterov,
            trust_coeff=trust_coeff,
            eps=eps,
            trust_clip=trust_clip,
            always_adapt=always_adapt,
        )

    def update_param(self, param, grad, lr, step, group, momentum_buffer=None):
        decay = group["weight_decay"]
        if decay or group["always_adapt"]:
            size, grad_size = norm(param), norm(grad)
            ratio = size * group["trust_coeff"] / (grad_size + size * decay + group["eps"])
            ratio = trusted(ratio, size, grad_size)
            if group["trust_clip"] and lr:
                ratio = (ratio / lr).clip(max=1.0)
            grad = with_l2(grad, param, decay) * ratio
        param.subtract_(self.with_momentum(grad, step, group, momentum_buffer) * lr)


def trusted(ratio, size, other):
    """Return the ratio where both norms are positive, else 1."""
    return paddle.where((size > 0).logical_and(other > 0), ratio, paddle.ones_like(ratio))
