"""Accuracy of nets and paths over a data set, exact over any number of processes, and batch-norm recalibration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Callable

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.board import PrioritizedBoard
from pimm.engine.evaluation import evaluate as classify
from pimm.engine.evaluation import train_mode
from pimm.utils import barrier, distribute_bn

Batches = Iterable["tuple[Tensor, Tensor]"]


def evaluate(
    predict: Callable[[Tensor], Tensor], loader: Batches, loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
) -> dict[str, float]:
    """Return the mean of ``loss_fn``, and the top-1 and top-5 accuracy in percent, as ``loss``, ``prec1``, ``prec5``.

    The means are exact over all processes, as those of `pimm.engine.evaluate` are.
    """
    found = classify(predict, loader, loss_fn=loss_fn)
    return {"loss": found["loss"], "prec1": found["top1"], "prec5": found["top5"]}


class NetEvaluator:
    """Evaluates one net on the validation images; ``suffix`` ends the names of its metrics."""

    def __init__(self, net: nn.Layer, loader: Batches, suffix: str = ""):
        self.net, self.loader, self.suffix = net, loader, suffix

    def __call__(self) -> dict[str, float]:
        """Return the net's metrics."""
        with train_mode(self.net, training=False):
            found = evaluate(self.net, self.loader)
        return {f"{name}{self.suffix}": value for name, value in found.items()}


class ProbeEvaluator:
    """Evaluates the probes, which are fixed paths so that epochs are comparable, and the best path of the board.

    ``by_path`` holds the metrics of each fixed path after a call.

    Args:
        net: the supernet.
        paths: the fixed paths.
        loader: the validation images.
        board: its best path is evaluated too, once there is one.
    """

    def __init__(self, net: SuperNet, paths: Sequence[Arch], loader: Batches, board: PrioritizedBoard | None = None):
        self.net, self.paths, self.loader, self.board = net, paths, loader, board
        self.by_path: list[dict] = []

    def __call__(self) -> dict[str, float]:
        """Return the means over the fixed paths, and ``board_prec1`` of the board's best path, NaN if it has none."""
        with train_mode(self.net, training=False):
            found = [evaluate(partial(self.net, arch=arch), self.loader) for arch in self.paths]
            board_prec1 = math.nan
            if self.board:
                best = self.board.entries[0].arch
                board_prec1 = evaluate(partial(self.net, arch=best), self.loader)["prec1"]
        self.by_path = [{"arch": arch, **metrics} for arch, metrics in zip(self.paths, found)]
        means = {name: sum(metrics[name] for metrics in found) / len(found) for name in found[0]}
        return {**means, "board_prec1": board_prec1}


def batch_norms(net: nn.Layer) -> list[nn.Layer]:
    """Return all batch-norm layers of a net."""
    return [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]


@contextmanager
def recalibrated_bn(
    net: nn.Layer, predict: Callable[[Tensor], Tensor], loader: Batches, batches: int
) -> Iterator[None]:
    """Recalibrate batch norm inside the context: its statistics are plain averages over some training batches.

    A path of a supernet shares its statistics with all other paths, and shared statistics describe one path badly. The
    statistics of all processes are averaged. The statistics from before are restored at the end.

    Args:
        net: the net whose batch norms are recalibrated.
        predict: the forward pass that the statistics are taken from.
        loader: training batches.
        batches: number of batches that are used.
    """
    layers = batch_norms(net)
    before = [(layer, layer._mean.clone(), layer._variance.clone(), layer._momentum) for layer in layers]
    try:
        with paddle.no_grad(), train_mode(net, training=True):
            for i, (images, _) in enumerate(itertools.islice(loader, batches)):
                for layer in layers:
                    layer._momentum = i / (i + 1)  # in Paddle the weight of the old value
                predict(images)
        barrier()
        distribute_bn(net, reduce=True)
        yield
    finally:
        for layer, mean, variance, momentum in before:
            paddle.assign(mean, layer._mean)
            paddle.assign(variance, layer._variance)
            layer._momentum = momentum
