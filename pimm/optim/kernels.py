"""The optimizers that Paddle has a kernel for, with timm's arguments and names."""

from __future__ import annotations

import paddle

from pimm.optim.base import DecoupledDecay, OwnDecay, TimmOptimizer


class SGD(TimmOptimizer, paddle.optimizer.Momentum):
    """Stochastic gradient descent with momentum, Nesterov's on request."""

    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, weight_decay, momentum=momentum, use_nesterov=nesterov)


class _AdamLike(TimmOptimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, beta1=betas[0], beta2=betas[1], epsilon=eps)


class Adam(_AdamLike, paddle.optimizer.Adam):
    """Adam with L2 decay (Kingma and Ba, arXiv 1412.6980)."""


class AdamW(OwnDecay, _AdamLike, paddle.optimizer.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""


class Adamax(_AdamLike, paddle.optimizer.Adamax):
    """Adam by the infinity norm (arXiv 1412.6980)."""


class Nadam(_AdamLike, paddle.optimizer.NAdam):
    """Adam with Nesterov momentum and its warming schedule (Dozat, 2016)."""


class RAdam(_AdamLike, paddle.optimizer.RAdam):
    """Rectified Adam with L2 decay (arXiv 1908.03265)."""


class RAdamW(DecoupledDecay, RAdam):
    """Rectified Adam with decoupled weight decay, timm 0.1.20's RAdam."""


class Adadelta(TimmOptimizer, paddle.optimizer.Adadelta):
    """Adadelta (Zeiler, arXiv 1212.5701)."""

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, rho=rho, epsilon=eps)


class Adagrad(TimmOptimizer, paddle.optimizer.Adagrad):
    """Adagrad (Duchi et al., 2011)."""

    def __init__(self, params, lr=1e-2, eps=1e-10, weight_decay=0.0):
        super().__init__(params, lr, weight_decay, epsilon=eps)


class RMSpropTF(TimmOptimizer, paddle.optimizer.RMSProp):
    """RMSprop as TensorFlow has it: eps inside the root, squares averaged from one, the rate inside the momentum."""

    def __init__(self, params, lr=1e-2, alpha=0.9, eps=1e-10, weight_decay=0.0, momentum=0.0, centered=False):
        super().__init__(params, lr, weight_decay, rho=alpha, epsilon=eps, momentum=momentum, centered=centered)

    def _add_accumulator(self, name, param, fill_value=0.0, **options):
        start = 1.0 if name == self._mean_square_acc_str else fill_value
        return super()._add_accumulator(name, param, fill_value=start, **options)
