"""Adafactor: Adam with a factored second average (arXiv 1804.04235), in two implementations."""

from __future__ import annotations

import math

import paddle

from pimm.errors import ConfigError
from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.update import cautious, move_average, root_mean_square


class Adafactor(RuleOptimizer):
    """Keep the average of squared gradients as an average of rows and one of columns.

    Args:
        params, weight_decay: see `TimmOptimizer`.
        lr: learning rate. None computes a rate from the number of steps; the optimizer's rate is then 1 and multiplies
            the computed one.
        eps: added to squared gradients.
        eps_scale: least size of a weight that its rate is scaled to.
        clip_threshold: limit of the root mean square of an update.
        decay_rate: power of the step that the decay of the average follows.
        betas: adds an average of the updates whose decay is the first of them.
        scale_parameter: whether a computed rate is relative to the size of the weight.
        warmup_init: whether a computed rate rises from 0.
        min_dim_size_to_factor: axes must be longer than this to be factored.
        caution: whether to leave out updates whose sign is not that of the gradient.

    Raises:
        ConfigError: for ``warmup_init`` with a given rate.
    """

    def __init__(
        self,
        params,
        lr=None,
        eps=1e-30,
        eps_scale=1e-3,
        clip_threshold=1.0,
        decay_rate=-0.8,
        betas=None,
        weight_decay=0.0,
        scale_parameter=True,
        warmup_init=False,
        min_dim_size_to_factor=16,
        caution=False,
    ):
        self.relative_step = lr is None
        if warmup_init and not self.relative_step:
            raise ConfigError(f"warmup_init belongs to the relative rate, lr=None, and not to lr={lr}")
        super().__init__(
            params,
            1.0 if self.relative_step else lr,
            weight_decay,
            eps=eps,
            eps_scale=eps_scale,
            clip_threshold=clip_threshold,
            decay_rate=decay_rate,
            betas=betas,
            scale_parameter=scale_parameter,
            warmup_init=warmup_init,
            min_dim_size_to_factor=min_dim_size_to_factor,
            caution=caution,
        )

    def slots_of(self, param, group):
        slots = {"exp_avg": Slot()} if group["betas"] else {}
        axes = _factored_axes(param.shape, group["min_dim_size_to_factor"])
        if axes is None:
            return {**slots, "exp_avg_sq": Slot()}
        column, row = axes
        return {
            **slots,
            "exp_avg_sq_row": Slot([n for axis, n in enumerate(param.shape) if axis != row]),
            "exp_avg_sq_col": Slot([n for axis, n in enumerate(param.shape) if axis != column]),
        }

    def update_param(
        self, param, grad, lr, step, group, exp_avg=None, exp_avg_sq=None, exp_avg_sq_row=None, exp_avg_sq_col=None
    ):
        rate = lr * self._relative_rate(param, step, group) if self.relative_step else lr
        square, weight = grad.square().scale_(1.0, bias=group["eps"]), float(step) ** group["decay_rate"]
        if exp_avg_sq is not None:
            update = grad * move_average(exp_avg_sq, square, weight).rsqrt()
        else:
            column, row = _factored_axes(param.shape, group["min_dim_size_to_factor"])
            move_average(exp_avg_sq_row, square.mean(row), weight)
            move_average(exp_avg_sq_col, square.mean(column), weight)
            rows = (exp_avg_sq_row / exp_avg_sq_row.mean(column, keepdim=True)).rsqrt().unsqueeze(row)
            update = grad * (rows * exp_avg_sq_col.rsqrt().unsqueeze(column))
        update = update / (root_mean_square(update) / group["clip_threshold"]).clip(min=1.0) * rate
        if exp_avg is not None:
            update = move_average(exp_avg, update, 1.0 - group["betas"][0])
            update = cautious(update, grad) if group["caution"] else update
        if group["weight_decay"]:
            update = update + param * (rate * group["weight_decay"])
        param.subtract_(update)

    @staticmethod
    def _relative_rate(param, step, group):
        rate = min(1e-6 * step if group["warmup_init"] else 1e-2, 1.0 / math.sqrt(step))
        return root_mean_square(param).clip(min=group["eps_scale"]) * rate if group["scale_parameter"] else rate


def _factored_axes(shape, longer_than):
    """Return the axes of columns and rows, or None if one is too short.

    These are the channel axes of a convolution and the last two axes of other weights.
    """
    if len(shape) > 2 and min(shape[:2]) > longer_than:
        return 0, 1
    if len(shape) >= 2 and min(shape[-2:]) > longer_than:
        return len(shape) - 2, len(shape) - 1
    return None


class AdafactorBigVision(RuleOptimizer):
    """Follow the Adafactor of Scaling Vision Transformers (arXiv 2106.04560), with momentum in half precision.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        min_dim_size_to_factor: least length of the two longest axes, which are factored.
        decay_rate: power of the step that the decay of the average follows.
        decay_offset: number of steps by which this decay starts later.
        beta2_cap: highest decay.
        momentum: decay of the average of the updates; None for no average.
        momentum_dtype: type of this average.
        eps: added to squared gradients.
        clipping_threshold: limit of the root mean square of an update; None for no limit.
        unscaled_wd: whether weights decay by ``weight_decay`` whatever the rate.
        caution: whether to leave out updates whose sign is not that of the gradient.
        corrected_weight_decay: whether decay is relative to the peak rate.
    """

    def __init__(
        self,
        params,
        lr=1.0,
        min_dim_size_to_factor=16,
        decay_rate=0.8,
        decay_offset=0,
        beta2_cap=0.999,
        momentum=0.9,
        momentum_dtype="bfloat16",
        eps=1e-30,
        weight_decay=0.0,
        clipping_threshold=None,
        unscaled_wd=False,
        caution=False,
        corrected_weight_decay=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            min_dim_size_to_factor=min_dim_size_to_factor,
            decay_rate=decay_rate,
            decay_offset=decay_offset,
            beta2_cap=beta2_cap,
            momentum=momentum,
            momentum_dtype=momentum_dtype,
            eps=eps,
            clipping_threshold=clipping_threshold,
            unscaled_wd=unscaled_wd,
            caution=caution,
            corrected_weight_decay=corrected_weight_decay,
        )

    def slots_of(self, param, group):
        slots = {} if group["momentum"] is None else {"exp_avg": Slot(dtype=group["momentum_dtype"])}
        axes = _longest_axes(param.shape, group["min_dim_size_to_factor"])
        if axes is None:
            return {**slots, "exp_avg_sq": Slot()}
        column, row = axes
        return {
            **slots,
            "exp_avg_sq_r": Slot([1 if axis == row else n for axis, n in enumerate(param.shape)]),
            "exp_avg_sq_c": Slot([1 if axis == column else n for axis, n in enumerate(param.shape)]),
        }

    def update_param(
        self, param, grad, lr, step, group, exp_avg=None, exp_avg_sq=None, exp_avg_sq_r=None, exp_avg_sq_c=None
    ):
        beta2 = min(group["beta2_cap"], 1.0 - max(step - group["decay_offset"], 1) ** -group["decay_rate"])
        square = grad.square().scale_(1.0, bias=group["eps"])
        if exp_avg_sq is not None:
            update = grad * move_average(exp_avg_sq, square, 1.0 - beta2).rsqrt()
        else:
            column, row = _longest_axes(param.shape, group["min_dim_size_to_factor"])
            move_average(exp_avg_sq_r, square.mean(row, keepdim=True), 1.0 - beta2)
            move_average(exp_avg_sq_c, square.mean(column, keepdim=True), 1.0 - beta2)
            rows = (exp_avg_sq_r / exp_avg_sq_r.mean(column, keepdim=True)).rsqrt()
            update = grad * rows * exp_avg_sq_c.rsqrt()
        if group["clipping_threshold"] is not None:
            update = update / (root_mean_square(update) / group["clipping_threshold"]).clip(min=1.0)
        if exp_avg is not None:
            update = _half_precision_average(exp_avg, update, group["momentum"])
            update = cautious(update, grad) if group["caution"] else update
        if group["unscaled_wd"] and group["weight_decay"]:
            share = lr / self.max_lr if group["corrected_weight_decay"] else 1.0
            param.scale_(1.0 - share * group["weight_decay"])
        else:
            self.shrink(param, lr, group)
        param.subtract_(update * lr)


def _longest_axes(shape, at_least):
    """Return the second longest and the longest axis, or None if they are too short to factor."""
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    if len(shape) < 2 or shape[order[-2]] < at_least:
        return None
    return order[-2], order[-1]


def _half_precision_average(average, update, momentum):
    """Move an average by an update rounded to the average's type; return the average in the update's type."""
    dtype = update.dtype
    moved = average.astype(dtype).lerp(update.astype(average.dtype).astype(dtype), 1.0 - momentum)
    paddle.assign(moved.astype(average.dtype), output=average)
    return average.astype(dtype)
