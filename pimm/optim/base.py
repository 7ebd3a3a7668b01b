"""What every optimizer here adds to Paddle's: timm's arguments, gradients that are dropped, rules written in Python."""

from __future__ import annotations

import types

import paddle

from pimm.optim.param_groups import as_param_groups, group_lrs


class TimmOptimizer:
    """Mixin in front of a ``paddle.optimizer`` class: timm's constructor and its way with gradients.

    ``params`` is an iterable of parameters or of groups, as ``as_param_groups`` takes them. Paddle keeps the rate and
    the decay of a group on its parameters, so there is always at least one group: it overwrites what an earlier
    optimizer left there.
    """

    def __init__(self, params, lr, weight_decay=0.0, **options):
        groups = as_param_groups(params, lr, weight_decay)
        super().__init__(learning_rate=float(lr), parameters=groups, **options)
        for group in self._param_groups:
            if not group["weight_decay"]:
                for param in group["params"]:
                    param.regularizer = None  # a decay of zero would cost two operations a parameter

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


class OwnDecay:
    """Mixin that keeps Paddle from adding the L2 term to the gradient: the update decays weights itself, if at all."""

    def _create_regularization_of_grad(self, param, grad, regularization=None):
        return grad


class DecoupledDecay(OwnDecay):
    """Mixin that shrinks a weight by ``lr * weight_decay`` before its update (Loshchilov and Hutter, 2019)."""

    def _append_optimize_op(self, block, group):
        param = group["params"][0]
        if group["weight_decay"]:
            param.scale_(1.0 - self.get_lr() * group["learning_rate"] * group["weight_decay"])
        return super()._append_optimize_op(block, group)


class RuleOptimizer(TimmOptimizer, paddle.optimizer.Optimizer):
    """Base of the optimizers whose update is written in Python.

    A subclass names its accumulators in ``slots`` (``None``: shaped like the parameter, else a shape) and defines
    ``update_param(param, grad, lr, step, group, **accumulators)``, which changes the parameter and the accumulators in
    place. ``step`` counts the updates of that parameter, from one: those without a gradient are not counted.
    """

    slots: dict = {}

    def __init__(self, params, lr, weight_decay=0.0):
        self.param_steps = {}
        super().__init__(params, lr, weight_decay)

    def update_param(self, param, grad, lr, step, group, **accumulators):
        raise NotImplementedError

    def _create_accumulators(self, block, parameters):
        params = parameters["params"] if isinstance(parameters, dict) else parameters
        for param in params:
            if param.name not in self._already_create_accumulator:
                self._already_create_accumulator.add(param.name)
                for slot, shape in self.slots.items():
                    self._add_accumulator(slot, param, shape=shape)

    def _append_optimize_op(self, block, group):
        param, grad = group["params"]
        step = self.param_steps[param.name] = self.param_steps.get(param.name, 0) + 1
        accumulators = {slot: self._get_accumulator(slot, param) for slot in self.slots}
        self.update_param(param, grad, self.get_lr() * group["learning_rate"], step, group, **accumulators)
