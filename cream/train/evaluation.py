"""Accuracy of a net over a data set, exact over any number of processes, and batch-norm recalibration."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Callable

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from pimm.engine.evaluation import evaluate as classify
from pimm.engine.evaluation import train_mode
from pimm.utils import barrier, distribute_bn

Batches = Iterable["tuple[Tensor, Tensor]"]


def evaluate(
    predict: Callable[[Tensor], Tensor], loader: Batches, loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
) -> dict[str, float]:
    """The mean of ``loss_fn`` and the percentages of images whose class is first, and among the first five.

    Otherwise as `pimm.utils.evaluate`: exact over all processes.
    """
    found = classify(predict, loader, loss_fn=loss_fn)
    return {"loss": found["loss"], "prec1": found["top1"], "prec5": found["top5"]}


def batch_norms(net: nn.Layer) -> list[nn.Layer]:
    """All batch-norm layers of a net."""
    return [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]


@contextmanager
def recalibrated_bn(
    net: nn.Layer, predict: Callable[[Tensor], Tensor], loader: Batches, batches: int
) -> Iterator[None]:
    """Inside, batch-norm statistics are plain averages over that many training batches of ``predict``.

    A path of a supernet shares its statistics with all others; they say little of its own. Afterwards they are put
    back. All processes average theirs.
    """
    layers = batch_norms(net)
    before = [(layer, layer._mean.clone(), layer._variance.clone(), layer._momentum) for layer in layers]
    try:
        with paddle.no_grad(), train_mode(net, training=True):
            for i, (images, _) in enumerate(itertools.islice(loader, batches)):
                for layer in layers:
                    layer._momentum = i / (i + 1)  # Paddle's: the weight of the old value
                predict(images)
        barrier()
        distribute_bn(net, reduce=True)
        yield
    finally:
        for layer, mean, variance, momentum in before:
            paddle.assign(mean, layer._mean)
            paddle.assign(variance, layer._variance)
            layer._momentum = momentum
