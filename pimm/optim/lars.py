"""LARS and LARC: layer-wise rates by the ratio of norms (arXiv 1708.03888)."""

from __future__ import annotations

import paddle

from pimm.optim.sgdw import MomentumRule
from pimm.optim.update import norm, with_l2


class Lars(MomentumRule):
    """Momentum on gradients scaled to ``trust_coeff`` of their weight's norm; LARC's, at most one, with ``trust_clip``.

    Parameters without decay keep their gradients, unless ``always_adapt``.
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
    """The ratio where both norms are positive, else one."""
    return paddle.where((size > 0).logical_and(other > 0), ratio, paddle.ones_like(ratio))
