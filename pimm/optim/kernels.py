"""The optimizers that Paddle has a kernel for, with timm's names and arguments."""

from __future__ import annotations

import paddle

from pimm.ops.updates import momentum_step
from pimm.optim.base import TimmOptimizer
from pimm.optim.one_pass import OnePass

_PADDLE_NAMES = {"eps": "epsilon", "alpha": "rho", "nesterov": "use_nesterov", "schedule_decay": "momentum_decay"}
_DECOUPLED = ("decoupled_decay", "decoupled_weight_decay")
_NOT_PADDLES = (*_DECOUPLED, "corrected_weight_decay", "lr_in_momentum", "caution")


class KernelOptimizer(TimmOptimizer):
    """Pass timm's hyperparameters, also those of a group, to a ``paddle.optimizer`` class under Paddle's names."""

    def paddle_options(self, options):
        named = {key: value for key, value in options.items() if key not in (*_PADDLE_NAMES, *_NOT_PADDLES, "betas")}
        named.update({_PADDLE_NAMES[key]: options[key] for key in _PADDLE_NAMES if key in options})
        if "betas" in options:
            named["beta1"], named["beta2"] = options["betas"]
        return named

    def adds_l2(self, group):
        return not any(group.get(name) for name in _DECOUPLED)

    def weight_of(self, param):
        """Return what the update changes: the parameter, or its float32 copy if it has half precision."""
        return self._master_weights.get(param.name, param)

    def _update_param_group(self, parameters):
        return super()._update_param_group(self.paddle_options(parameters))

    def _append_optimize_op(self, block, group):
        if any(group.get(name) for name in _DECOUPLED):
            self.shrink(self.weight_of(group["params"][0]), self.get_lr() * group["learning_rate"], group)
        return super()._append_optimize_op(block, group)


class SGD(OnePass, KernelOptimizer, paddle.optimizer.Momentum):
    """Update by stochastic gradient descent with classical or Nesterov momentum."""

    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, weight_decay, momentum=momentum, nesterov=nesterov)

    def update_together(self, params, grads, rate, l2, group):
        velocities = self.accumulators(self._velocity_acc_str, params)
        momentum_step(params, grads, velocities, rate, l2, group["momentum"], group["nesterov"])


class _AdamLike(KernelOptimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)


class Adam(_AdamLike, paddle.optimizer.Adam):
    """Update by Adam or AMSGrad with L2 decay (Kingma and Ba, arXiv 1412.6980)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False):
        super().__init__(params, lr, betas, eps, weight_decay)
        self._amsgrad = amsgrad  # the same for all groups, because the kernel's accumulators depend on it


class AdamW(_AdamLike, paddle.optimizer.AdamW):
    """Update by Adam or AMSGrad with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False):
        super().__init__(params, lr, betas, eps, weight_decay)
        self._amsgrad = amsgrad

    def adds_l2(self, group):
        return False


class Adamax(_AdamLike, paddle.optimizer.Adamax):
    """Update by Adam with the infinity norm (arXiv 1412.6980)."""

    def __init__(self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, betas, eps, weight_decay)


class NAdam(KernelOptimizer, paddle.optimizer.NAdam):
    """Update by Adam with Nesterov momentum and its momentum schedule (Dozat, 2016)."""

    def __init__(self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, schedule_decay=4e-3):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps, schedule_decay=schedule_decay)


class RAdam(KernelOptimizer, paddle.optimizer.RAdam):
    """Update by rectified Adam (arXiv 1908.03265), with L2 decay unless ``decoupled_weight_decay``."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps, decoupled_weight_decay=decoupled_weight_decay)


class RAdamLegacy(RAdam):
    """Update by rectified Adam with decoupled weight decay, as timm 0.1.20's RAdam does."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)


class Adadelta(KernelOptimizer, paddle.optimizer.Adadelta):
    """Update by Adadelta (Zeiler, arXiv 1212.5701)."""

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, rho=rho, eps=eps)


class Adagrad(KernelOptimizer, paddle.optimizer.Adagrad):
    """Update by Adagrad (Duchi et al., 2011)."""

    def __init__(self, params, lr=1e-2, eps=1e-10, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, eps=eps)
