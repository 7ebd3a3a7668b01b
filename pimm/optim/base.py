"""Base classes of the optimizers: timm's arguments on Paddle's optimizers, and update rules in Python."""

from __future__ import annotations

import types
from typing import NamedTuple

import paddle

from pimm.errors import ConfigError
from pimm.optim.layout import output_axis
from pimm.optim.param_groups import as_param_groups, group_lrs


class TimmOptimizer:
    """Give a ``paddle.optimizer`` class timm's constructor and its treatment of gradients, as a mixin in front of it.

    Half-precision parameters get float32 copies, on which the updates act.

    Args:
        params: parameters or groups of them, as ``as_param_groups`` takes them.
        lr: learning rate of groups without their own.
        weight_decay: weight decay of groups without their own.
        options: hyperparameters of the optimizer; a group may have its own value of each.

    Raises:
        ConfigError: for unknown or impossible settings of a group, and if no parameter can be trained.
    """

    def __init__(self, params, lr, weight_decay=0.0, **options):
        # Paddle keeps the rate and the decay of a group on its parameters. Passing groups, always, overwrites what an
        # earlier optimizer left there.
        groups = as_param_groups(params, lr, weight_decay, options)
        if options.get("corrected_weight_decay") and not lr > 0:
            raise ConfigError(f"corrected weight decay is relative to the peak rate, which must be positive, got {lr}")
        self.max_lr = float(lr)
        decays = [group["weight_decay"] for group in groups]
        super().__init__(learning_rate=float(lr), parameters=groups, **self.paddle_options(options))
        self._multi_precision = True
        for group, decay in zip(self._param_groups, decays):
            if not (group["weight_decay"] and self.adds_l2(group)):
                for param in group["params"]:
                    param.regularizer = None  # Paddle would add the L2 term to the gradient, one of zero too
            group["weight_decay"] = decay  # Paddle's Momentum moves the value to another key

    def paddle_options(self, options):
        """Return the arguments of the Paddle class for timm's ``options``."""
        return {}

    def adds_l2(self, group):
        """Return whether Paddle adds the L2 term to a group's gradients; otherwise the update decays the weights."""
        return False

    def clear_grad(self, set_to_zero=False):
        """Drop all gradients; with zeros, Paddle's default, momentum and decay would move weights off the path."""
        super().clear_grad(set_to_zero)

    def zero_grad(self, set_to_none=True):
        """Call ``clear_grad`` under PyTorch's name."""
        self.clear_grad(set_to_zero=not set_to_none)

    def backward(self, loss, startup_program=None, parameters=None, no_grad_set=None, callbacks=None):
        """Return ``[(parameter, gradient)]`` of the parameters that ``loss.backward()`` gave gradients.

        The signature is that of Paddle, whose method does not take groups.

        Args:
            loss: unused, as in Paddle's dynamic mode: call ``loss.backward()`` before.
            startup_program, callbacks: unused, arguments of the static mode.
            parameters: parameters, or names of them, to choose from; by default those of the optimizer.
            no_grad_set: parameters, or names of them, to leave out.
        """
        chosen, left_out = _names(parameters), _names(no_grad_set)
        params = [param for group in self._param_groups for param in group["params"]]
        return [
            (param, param.grad)
            for param in params
            if param.grad is not None and (not chosen or param.name in chosen) and param.name not in left_out
        ]

    def apply_gradients(self, params_grads):
        """Update the parameters of ``[(parameter, gradient)]`` alone and return an empty list of operators."""
        given = {param.name: grad for param, grad in params_grads if grad is not None}
        params = [param for group in self._param_groups for param in group["params"]]
        others = [param for param in params if param.name not in given and not param.stop_gradient]
        for param in params:
            if param.name in given and param.grad is not given[param.name]:
                param.grad = given[param.name]
        for param in others:
            param.stop_gradient = True  # step() passes over these
        try:
            self.step()
        finally:
            for param in others:
                param.stop_gradient = False
        return []

    def minimize(self, loss, startup_program=None, parameters=None, no_grad_set=None):
        """Update the parameters by the gradients of ``loss.backward()``, as ``paddle.Model.fit`` does.

        The arguments are those of `backward`. Returns an empty list of operators and ``[(parameter, gradient)]``.
        """
        params_grads = self.backward(loss, startup_program, parameters, no_grad_set)
        return self.apply_gradients(params_grads), params_grads

    @property
    def param_groups(self):
        """Return read-only views of the groups with the present ``lr`` of each; ``set_lr`` and schedulers set rates."""
        pairs = zip(self._param_groups, group_lrs(self))
        return [types.MappingProxyType({**group, "lr": lr}) for group, lr in pairs]

    def kept_share(self, lr, group):
        """Return the share of a weight that decoupled decay (arXiv 1711.05101) keeps: ``1 - lr * weight_decay``.

        With the group's ``corrected_weight_decay`` it is ``1 - lr**2 / max_lr * weight_decay`` (arXiv 2506.02285).
        """
        rate = lr * lr / self.max_lr if group.get("corrected_weight_decay") else lr
        return 1.0 - rate * group["weight_decay"]

    def shrink(self, weight, lr, group):
        """Shrink a weight in place to its `kept_share`."""
        if group["weight_decay"]:
            weight.scale_(self.kept_share(lr, group))


def _names(parameters):
    return {param if isinstance(param, str) else param.name for param in parameters or ()}


class Slot(NamedTuple):
    """Describe an accumulator: its shape and type, where they differ from those of the parameter."""

    shape: list | None = None
    dtype: str | None = None


class RuleOptimizer(TimmOptimizer, paddle.optimizer.Optimizer):
    """Base of the optimizers whose update is written in Python, with operations that never wait for the device.

    A subclass names its accumulators in ``slots``, or overrides ``slots_of`` where they differ between parameters, and
    defines `update_param`. The arguments are those of `TimmOptimizer`.
    """

    slots: tuple = ()

    def __init__(self, params, lr, weight_decay=0.0, **options):
        self.param_steps = {}
        super().__init__(params, lr, weight_decay, **options)
        self._slots = {
            param.name: self.slots_of(param, group) for group in self._param_groups for param in group["params"]
        }

    def slots_of(self, param, group):
        """Return the accumulators of a parameter as ``{name: Slot}``."""
        return {name: Slot() for name in self.slots}

    def update_param(self, param, grad, lr, step, group, **accumulators):
        """Change a parameter and its accumulators in place, weight decay included.

        Args:
            param: the parameter, or its float32 copy.
            grad: its gradient.
            lr: the present rate of its group.
            step: number of its updates, this one included; steps without a gradient do not count.
            group: the hyperparameters of its group.
            accumulators: its accumulators by name.
        """
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
