"""Scores of many paths, in which the beginnings that paths share are computed once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.evaluation import batch_norms
from pimm.data.loader import Loader
from pimm.engine.evaluation import train_mode
from pimm.errors import DataError

_logger = logging.getLogger(__name__)

Prefix = tuple[int, ...]  # the choices of the first positions; the empty one is the stem
Statistics = list[tuple[Tensor, Tensor]]  # mean and variance of each batch norm of a layer


def score_many(
    net: SuperNet, archs: Sequence[Arch], train: Loader, val: Iterable[tuple[Tensor, Tensor]], batches: int
) -> list[dict[str, float]]:
    """Return ``loss`` and ``prec1`` of each path after batch norm was recalibrated for each path.

    The values are those of ``cream.selection.candidates.score``. The paths are the branches of a tree; for each batch
    of images every branch is computed once, and has its own statistics of batch norm. Works in a single process.

    Args:
        net: the supernet, which is left as it was.
        archs: the paths, each of them once.
        train: training batches that recalibrate batch norm.
        val: batches of the images that paths are scored on.
        batches: number of recalibration batches.

    Raises:
        DataError: there are no images to score on.
    """
    branches = _Branches(net, archs)
    kept = [(layer, layer._mean.clone(), layer._variance.clone(), layer._momentum) for layer in batch_norms(net)]
    train.set_epoch(0)
    try:
        with paddle.no_grad():
            with train_mode(net, training=True):
                for i, (images, _) in enumerate(itertools.islice(train, batches)):
                    for layer, *_ in kept:
                        layer._momentum = i / (i + 1)  # in Paddle the weight of the old value
                    for _ in branches.logits(images):
                        pass
            with train_mode(net, training=False):
                return _evaluate(branches, val)
    finally:
        for layer, mean, variance, momentum in kept:
            paddle.assign(mean, layer._mean)
            paddle.assign(variance, layer._variance)
            layer._momentum = momentum


def _evaluate(branches: _Branches, val: Iterable[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    """Return the mean loss and the top-1 in percent of each path."""
    totals, images_seen = paddle.zeros([len(branches.archs), 2], "float64"), 0
    for images, labels in val:
        labels = labels.flatten()
        rows = {}
        for index, logits in branches.logits(images):
            logits = logits.astype("float32")
            loss = F.cross_entropy(logits, labels) * len(labels)
            correct = (logits.topk(1, axis=1)[1].flatten() == labels).sum()
            rows[index] = paddle.stack([loss.astype("float64"), correct.astype("float64")])
        totals += paddle.stack([rows[index] for index in range(len(rows))])
        images_seen += len(labels)
        _logger.info("scored %d paths on %d images", len(rows), images_seen)
    if not images_seen:
        raise DataError("there are no images to evaluate on")
    return [{"loss": loss / images_seen, "prec1": 100 * correct / images_seen} for loss, correct in totals.tolist()]


class _Branches:
    """The tree of paths; every branch keeps the statistics of its batch norms between two batches."""

    def __init__(self, net: SuperNet, archs: Sequence[Arch]):
        self.net, self.archs = net, archs
        self.rows = [tuple(choice for stage in arch for choice in stage) for arch in archs]
        self.positions = [position for stage in net.blocks for position in stage]
        self.shared = [layer for top in net.shared_layers() for layer in _norms_of(top)]
        self.statistics: dict[tuple, Statistics] = {}

    def logits(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number and the logits of each path, for one batch of images."""
        outputs = [self._run((), self.net.stem, images, self.shared)]  # of each prefix of the row before
        before: Prefix = ()
        for index in sorted(range(len(self.rows)), key=self.rows.__getitem__):
            row = self.rows[index]
            same = next((i for i, (a, b) in enumerate(zip(row, before)) if a != b), len(before))
            del outputs[same + 1 :]
            for end in range(same, len(row)):
                position, choice = self.positions[end], row[end]
                block = partial(position, choice=choice)
                norms = _norms_of(position.operation(choice)) if choice >= 0 else []
                outputs.append(self._run(row[: end + 1], block, outputs[-1], norms))
            before = row
            yield index, self._run((*row, "head"), self.net.head, outputs[-1], self.shared)

    def _run(self, branch: tuple, layer: Callable, x: Tensor, norms: Sequence[nn.Layer]) -> Tensor:
        """Run a layer with the statistics of a branch, and keep what they become in training mode."""
        for norm, (mean, variance) in zip(norms, self.statistics.get(branch, ())):
            paddle.assign(mean, norm._mean)
            paddle.assign(variance, norm._variance)
        y = layer(x)
        if self.net.training and norms:
            self.statistics[branch] = [(norm._mean.clone(), norm._variance.clone()) for norm in norms]
        return y


def _norms_of(layer: nn.Layer) -> list[nn.Layer]:
    return [each for each in layer.sublayers(include_self=True) if isinstance(each, nn.BatchNorm2D)]
