"""Variants of AdamW that Paddle has no kernel for: cautious, corrected, clipped, with Nesterov momentum."""

from __future__ import annotations

from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import adam_direction


class AdamWLegacy(RuleOptimizer):
    """Update by AdamW (arXiv 1711.05101) with options.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        betas, eps: see `Adam`.
        amsgrad: whether to divide by the largest average of squares so far.
        caution: whether to leave out updates whose sign is not that of the gradient.
        corrected_weight_decay: whether decay is relative to the peak rate.
        clipping_threshold: limit of the root mean square of the normalised gradient (StableAdamW); None for no limit.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        caution=False,
        corrected_weight_decay=False,
        clipping_threshold=None,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            amsgrad=amsgrad,
            caution=caution,
            corrected_weight_decay=corrected_weight_decay,
            clipping_threshold=clipping_threshold,
        )

    def slots_of(self, param, group):
        slots = super().slots_of(param, group)
        return {**slots, "max_exp_avg_sq": Slot()} if group["amsgrad"] else slots

    def update_param(self, param, grad, lr, step, group, **averages):
        self.shrink(param, lr, group)
        direction = adam_direction(grad, step, group, clipping_threshold=group["clipping_threshold"], **averages)
        param.subtract_(direction * lr)


class NAdamW(RuleOptimizer):
    """Update by AdamW with Nesterov momentum (table 1 of arXiv 1910.05446); for the arguments see `AdamWLegacy`."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        caution=False,
        corrected_weight_decay=False,
        clipping_threshold=None,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            betas=betas,
            eps=eps,
            caution=caution,
            corrected_weight_decay=corrected_weight_decay,
            clipping_threshold=clipping_threshold,
        )

    def update_param(self, param, grad, lr, step, group, **averages):
        self.shrink(param, lr, group)
        clip = group["clipping_threshold"]
        param.subtract_(adam_direction(grad, step, group, nesterov=True, clipping_threshold=clip, **averages) * lr)
