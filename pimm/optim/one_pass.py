"""Updates of all parameters of a group by one operator, where Paddle's optimizers call a kernel for each."""

from __future__ import annotations

import paddle
from paddle.regularizer import L2Decay

from pimm.ops.updates import updates_together


class OnePass:
    """Update the float32 parameters of a group on the CPU in one pass, as a mixin in front of a `KernelOptimizer`.

    Calls of a kernel for each parameter take most of the time of an update there. Paddle's kernels update all other
    parameters. A subclass defines `update_together`.
    """

    def __init__(self, *args, **kwargs):
        self._apart = set()  # names of the parameters of groups that `update_together` does not take
        super().__init__(*args, **kwargs)

    def takes_group(self, group):
        """Return whether `update_together` follows the rule of this group."""
        return True

    def update_together(self, params, grads, rate, l2, group):
        """Change parameters and their accumulators in place.

        Args:
            params: the parameters.
            grads: their gradients, without the term of L2 decay.
            rate: the learning rate.
            l2: the factor of L2 decay, 0 for none.
            group: the hyperparameters of the group.
        """
        raise NotImplementedError

    def accumulators(self, name, params):
        """Return the accumulators of that name, one for each parameter."""
        by_param = self._accumulators[name]
        return [by_param[param.name] for param in params]

    def _add_param_group(self, group):
        super()._add_param_group(group)
        if not self.takes_group(group):
            self._apart.update(param.name for param in group["params"])

    def _create_regularization_of_grad(self, param, grad, regularization=None):
        ours = isinstance(param.regularizer, L2Decay) and self._takes([(param, grad)])
        return grad if ours else super()._create_regularization_of_grad(param, grad, regularization)

    def _create_optimization_pass(self, parameters_and_grads, param_group_idx=0):
        group = parameters_and_grads
        ours, others = self._split(list(group["params"]))
        if ours:
            params, grads = (list(part) for part in zip(*ours))
            self._create_accumulators(paddle.static.default_main_program().global_block(), params)
            l2 = float(group["weight_decay"]) if self.adds_l2(group) else 0.0
            self.update_together(params, grads, self.get_lr() * group["learning_rate"], l2, group)
        if others:
            super()._create_optimization_pass({**group, "params": others}, param_group_idx)

    def _split(self, pairs):
        """Return the pairs (parameter, gradient) that one pass updates, and those that Paddle's kernels do."""
        if self._takes(pairs):
            return pairs, []
        ours, others = [], []
        for pair in pairs:
            (ours if self._takes([pair]) else others).append(pair)
        return ours, others

    def _takes(self, pairs):
        """Return whether one pass can update all these parameters."""
        overflow = self._get_auxiliary_var("found_inf")
        if overflow is not None and overflow is not False:  # of a loss scaler, for which Paddle skips steps
            return False
        # Ask the parameter's own gradient: a sparse one is dense once Paddle has added the term of L2 decay to it.
        if any(param.name in self._apart or not param.grad.is_dense() for param, _ in pairs):
            return False
        return updates_together([param for param, _ in pairs], [grad for _, grad in pairs])
