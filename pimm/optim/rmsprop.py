"""RMSprop (Hinton's lecture 6) as in PyTorch and as in TensorFlow."""

from __future__ import annotations

import paddle

from pimm.ops.updates import rmsprop_step
from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.kernels import KernelOptimizer
from pimm.optim.one_pass import OnePass
from pimm.optim.update import average_square, cautious, move_average, with_l2


class RMSprop(RuleOptimizer):
    """Update as PyTorch's RMSprop: eps is added to the root, and the average of squares starts at 0."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
        super().__init__(params, lr, weight_decay, alpha=alpha, eps=eps, momentum=momentum)

    def slots_of(self, param, group):
        slots = {"square_avg": Slot()}
        return {**slots, "momentum_buffer": Slot()} if group["momentum"] else slots

    def update_param(self, param, grad, lr, step, group, square_avg, momentum_buffer=None):
        grad = with_l2(grad, param, group["weight_decay"])
        average_square(square_avg, grad, group["alpha"])
        change = grad / (square_avg.sqrt() + group["eps"])
        if momentum_buffer is not None:
            change = momentum_buffer.scale_(group["momentum"]).add_(change)
        param.subtract_(change * lr)


class RMSpropTF(OnePass, KernelOptimizer, paddle.optimizer.RMSProp):
    """Update as TensorFlow's RMSprop: eps is inside the root, and the average of squares starts at 1.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`.
        alpha: decay of the average of squares.
        eps: added to the average of squares.
        momentum: decay of the average of updates.
        centered: whether to subtract the squared average gradient from the average of squares.
        decoupled_decay: whether weights decay apart from the gradient.
        corrected_weight_decay: whether decoupled decay is relative to the peak rate.
        lr_in_momentum: whether the average of updates contains the rate. Paddle's kernel does this; False takes a few
            more operations for each parameter.
        caution: whether to leave out updates whose sign is not that of the gradient, without Paddle's kernel too.
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        alpha=0.9,
        eps=1e-10,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        decoupled_decay=False,
        corrected_weight_decay=False,
        lr_in_momentum=True,
        caution=False,
    ):
        super().__init__(
            params,
            lr,
            weight_decay,
            alpha=alpha,
            eps=eps,
            momentum=momentum,
            centered=centered,
            decoupled_decay=decoupled_decay,
            corrected_weight_decay=corrected_weight_decay,
            lr_in_momentum=lr_in_momentum,
            caution=caution,
        )

    def _add_accumulator(self, name, param, fill_value=0.0, **options):
        start = 1.0 if name == self._mean_square_acc_str else fill_value
        return super()._add_accumulator(name, param, fill_value=start, **options)

    def takes_group(self, group):
        return not group["caution"]

    def update_together(self, params, grads, rate, l2, group):
        names = (self._mean_square_acc_str, self._momentum_acc_str, self._mean_grad_acc_str)
        averages = (self.accumulators(name, params) for name in names)
        keep = self.kept_share(rate, group) if group["decoupled_decay"] else 1.0
        constants = (group["lr_in_momentum"], group["alpha"], group["eps"], group["momentum"], group["centered"])
        rmsprop_step(params, grads, *averages, rate, l2, keep, *constants)

    def _append_optimize_op(self, block, group):
        if group["lr_in_momentum"] and not group["caution"]:
            return super()._append_optimize_op(block, group)
        param, grad = group["params"]
        weight, lr = self.weight_of(param), self.get_lr() * group["learning_rate"]
        if group["decoupled_decay"]:
            self.shrink(weight, lr, group)
        names = (self._mean_square_acc_str, self._mean_grad_acc_str, self._momentum_acc_str)
        averages = (self._get_accumulator_master(name, param) for name in names)
        self._update(weight, grad.astype(weight.dtype), lr, group, *averages)
        if weight is not param:
            paddle.assign(weight.astype(param.dtype), output=param)

    def _update(self, weight, grad, lr, group, mean_square, mean_grad, momentum):
        variance = average_square(mean_square, grad, group["alpha"])
        if group["centered"]:
            variance = variance - move_average(mean_grad, grad, 1.0 - group["alpha"]).square()
        change = grad / (variance + group["eps"]).sqrt()
        inside, outside = (lr, 1.0) if group["lr_in_momentum"] else (1.0, lr)
        if group["momentum"]:
            change = momentum.scale_(group["momentum"]).add_(change * inside)
            weight.subtract_((cautious(change, grad) if group["caution"] else change) * outside)
        else:
            weight.subtract_(change * lr)
