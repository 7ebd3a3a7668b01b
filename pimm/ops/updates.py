"""Updates in place of many tensors by one operator on the CPU, where one call for each tensor takes longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import paddle
from paddle import Tensor

from .backend import cpu_backend, run_operator


def updates_together(changed: Iterable[Tensor], read: Iterable[Tensor]) -> bool:
    """Return whether the operators of this file can change and read these tensors: dense float32 ones on the CPU.

    What is changed must also lie in one piece, since Paddle hands an operator copies of other tensors.
    """
    if not paddle.in_dynamic_mode() or cpu_backend() == "paddle":
        return False
    return all(_takes(tensor) and tensor.is_contiguous() for tensor in changed) and all(map(_takes, read))


def _takes(tensor):
    return tensor.dtype == paddle.float32 and tensor.place.is_cpu_place() and tensor.is_dense()


def move_averages(
    averages: Sequence[Tensor], values: Sequence[Tensor], keeps: Sequence[float], shares: Sequence[float]
):
    """Set each average to ``average * keep + value * share``, in place: by one operator where that is possible.

    Args:
        averages: tensors, none of them twice: threads change them at the same time.
        values: tensors of the same shapes and types.
        keeps, shares: a number of each for every average.

    Raises:
        ValueError: if shapes or lists do not fit together.
    """
    if updates_together(averages, values):
        lists = list(averages), list(values)
        run_operator("pimm_move_averages", lists, list(keeps), list(shares), cpu_backend())
        return
    if not len(averages) == len(values) == len(keeps) == len(shares):
        counts = f"{len(averages)} averages, {len(values)} values, {len(keeps)} keeps and {len(shares)} shares"
        raise ValueError(f"each average needs a value, a keep and a share, got {counts}")
    for average, value, keep, share in zip(averages, values, keeps, shares):
        if value.shape != average.shape:
            raise ValueError(f"a value has shape {list(value.shape)} and must have {list(average.shape)}")
        average.scale_(keep).add_(value * share)


def momentum_step(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor],
    rate: float,
    l2: float,
    momentum: float,
    nesterov: bool,
):
    """Update parameters by gradient descent with momentum, as `paddle.optimizer.Momentum` does, in place.

    Args:
        params: tensors that `updates_together` allows, as are the other tensors.
        grads: their gradients.
        velocities: their moving sums of gradients, which change too.
        rate: the learning rate.
        l2: the factor of a parameter in its gradient.
        momentum: what remains of a velocity.
        nesterov: whether to follow Nesterov's rule.

    Raises:
        ValueError: if the lists do not fit together.
    """
    run_operator("pimm_momentum", (params, grads, velocities), rate, l2, momentum, nesterov, cpu_backend())


def rmsprop_step(
    params: list[Tensor],
    grads: list[Tensor],
    squares: list[Tensor],
    velocities: list[Tensor],
    means: list[Tensor],
    rate: float,
    l2: float,
    keep: float,
    rate_inside: bool,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool,
):
    """Update parameters by TensorFlow's RMSprop with momentum, as `paddle.optimizer.RMSProp` does, in place.

    Args:
        params, grads, rate, l2: as of `momentum_step`.
        squares: moving averages of the squared gradients, which change too.
        velocities: moving sums of the updates, which change too.
        means: moving averages of the gradients, which change where ``centered``.
        keep: the share of a parameter that remains before the update.
        rate_inside: whether the velocities contain the learning rate.
        alpha: the share of the averages that remains.
        eps: added to the variance.
        momentum: what remains of a velocity.
        centered: whether the variance is about the mean of gradients.

    Raises:
        ValueError: if the lists do not fit together.
    """
    tensors = (params, grads, squares, velocities, means)
    run_operator("pimm_rmsprop", tensors, rate, l2, keep, rate_inside, alpha, eps, momentum, centered, cpu_backend())
