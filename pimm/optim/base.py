"""What every optimizer here adds to Paddle's: timm's arguments, gradients that are dropped, rules written in Python."""

from __future__ import annotations

import types
from typing import NamedTuple

import paddle

from pimm.errors import ConfigError
from pimm.optim.layout import output_axis
from pimm.optim.param_groups import as_param_groups, group_lrs


class TimmOptimizer:
    """Mixin in front of a ``paddle.optimizer`` class: timm's constructor and its way with gradients.

    ``params`` is an iterable of parameters or of groups, as ``as_param_groups`` takes them; ``options`` are the
    hyperparameters, each of which a group may have its own value of. Paddle keeps the rate and the decay of a group on
    its parameters, so there is always at least one group: it overwrites what an earlier optimizer left there.
    Half-precision parameters are kept with float32 copies, which the updates act on.
    """

    def __init__(self, params, lr, weight_decay=0.0, **options):
        groups = as_param_groups(params, lr, weight_decay, options)
        if options.get("corrected_weight_decay") and not lr > 0:
            raise ConfigError(f"corrected weight decay is relative to the peak rate, which must be positive, not {lr}")
        self.max_lr = float(lr)
        super().__init__(learning_rate=float(lr), parameters=groups, **self.paddle_options(options))
        self._multi_precision = True
        for group in self._param_groups:
            if not (group["weight_decay"] and self.adds_l2(group)):
                for param in group["params"]:
                    param.regularizer = None  # Paddle would add the L2 term to the gradient, one of zero too

    def paddle_options(self, options):
        """Arguments of the Paddle class for timm's ``options``."""
        return {}

    def adds_l2(self, group):
        """Whether Paddle is to add the L2 term to a group's gradients; else the update decays weights, if at all."""
        return False

    def clear_grad(self, set_to_zero=False):
        """Forget all gradients; Paddle's default of zeros would let momentum and decay move weights off the path."""
        super().clear_grad(set_to_zero)

    def zero_grad(self, set_to_none=True):
        """``clear_grad`` under timm's name."""
        self.clear_grad(set_to_zero=not set_to_none)

    @property
    def param_groups(self):
        """Read-only view of the groups, each with its present ``lr``; ``set_lr`` and the schedulers set rates."""
        pairs = zip(self._param_groups, group_lrs(self))
        return [types.MappingProxyType({**group, "lr": lr}) for group, lr in pairs]

    def shrink(self, weight, lr, group):
        """Decoupled decay (arXiv 1711.05101), by ``lr * weight_decay``.

        With the group's ``corrected_weight_decay`` by ``lr**2 / max_lr * weight_decay`` (arXiv 2506.02285).
        """
        if group["weight_decay"]:
            rate = lr * lr / self.max_lr if group.get("corrected_weight_decay") else lr
            weight.scale_(1.0 - rate * group["weight_decay"])


class Slot(NamedTuple):
    """An accumulator: its shape and type, where they are not the parameter's."""

    shape: list | None = None
    dtype: str | None = None


class RuleOptimizer(TimmOptimizer, paddle.optimizer.Optimizer):
    """Base of the optimizers whose update is written in Python, in operations that never wait for the device.

    A subclass names its accumulators in ``slots``, or by ``slots_of`` where they differ from parameter to parameter,
    and defines ``update_param(param, grad, lr, step, group, **accumulators)``, which changes the parameter and the
    accumulators in place, decay included. ``step`` counts the updates of that parameter, from one: those without a
    gradient are not counted. ``group`` has the hyperparameters.
    """

    slots: tuple = ()

    def __init__(self, params, lr, weight_decay=0.0, **options):
        self.param_steps = {}
        super().__init__(params, lr, weight_decay, **options)
        self._slots = {
            param.name: self.slots_of(param, group) for group in self._param_groups for param in group["params"]
        }

    def slots_of(self, param, group):
        """The accumulators of a parameter, ``{name: Slot}``."""
        return {name: Slot() for name in self.slots}

    def update_param(self, param, grad, lr, step, group, **accumulators):
        raise NotImplementedError

    def _create_accumulators(self, block, parameters):
        params = parameters["params"] if isinstance(parameters, dict) else parameters
        for param in params:
            if param.name not in self._already_create_accumulator:
                self._already_create_accumulator.add(param.name)
                weight = param
                if self._is_dtype_fp16_or_bf16(param.dtype):
                    weight = self._create_master_weight(param)
                    weight.output_axis = output_axis(param)
                for name, slot in self._slots[param.name].items():
                    self._add_accumulator(name, param, dtype=slot.dtype or weight.dtype, shape=slot.shape)

    def _append_optimize_op(self, block, group):
        param, grad = group["params"]
        step = self.param_steps[param.name] = self.param_steps.get(param.name, 0) + 1
        accumulators = {name: self._get_accumulator(name, param) for name in self._slots[param.name]}
        weight = self._master_weights.get(param.name, param)
        lr = self.get_lr() * group["learning_rate"]
        self.update_param(weight, grad.astype(weight.dtype), lr, step, group, **accumulators)
        if weight is not param:
            paddle.assign(weight.astype(param.dtype), output=param)
