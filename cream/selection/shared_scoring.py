"""Scores of many paths, in which the beginnings that paths share are computed once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.selection.channels_last import Part, fast_net
from cream.space import SKIP, Arch
from cream.supernet import Choices, SuperNet
from cream.train.evaluation import Batches, batch_norms
from pimm.engine.evaluation import train_mode
from pimm.errors import DataError
from pimm.utils import world_size
from pimm.utils.labels import class_indices

_logger = logging.getLogger(__name__)

Prefix = tuple[int, ...]  # the choices of the first positions; the empty one is the stem

PATHS_AT_ONCE = 10  # where an interruption loses the paths that are being scored


def shares_work(net: SuperNet, engine: str) -> bool:
    """Return whether paths are scored together: in one process on a CPU, unless the engine is ``eager``."""
    return engine != "eager" and world_size() == 1 and net.parameters()[0].place.is_cpu_place()


def score_many(
    net: SuperNet, archs: Sequence[Arch], train: Batches, val: Batches, batches: int, engine: str = "auto"
) -> list[dict[str, float]]:
    """Return ``loss``, ``prec1`` and ``prec5`` of each path after batch norm was recalibrated for each path.

    The values are those of ``cream.selection.candidates.score``. The paths are the branches of a tree; for each batch
    of images every branch is computed once, and has its own statistics of batch norm. Works in a single process.

    Args:
        net: the supernet, which is left as it was.
        archs: the paths, each of them once.
        train: training batches that recalibrate batch norm.
        val: batches of the images that paths are scored on.
        batches: number of recalibration batches.
        engine: ``eager`` runs the net's own layers; otherwise operators for images with the channels last run the net
            on a CPU, where they can.

    Raises:
        DataError: there are no images to score on.
    """
    branches = _Branches(net, archs, engine)
    kept = [(layer, layer._mean.clone(), layer._variance.clone(), layer._momentum) for layer in batch_norms(net)]
    train.set_epoch(0)
    try:
        with paddle.no_grad():
            with train_mode(net, training=True):
                for i, (images, _) in enumerate(itertools.islice(train, batches)):
                    for layer, *_ in kept:
                        layer._momentum = i / (i + 1)  # in Paddle the weight of the old value
                    for _ in branches.logits(images):
                        pass  # each pass through the net moves its statistics; the logits are not asked for
            with train_mode(net, training=False):
                return _evaluate(branches, val)
    finally:
        for layer, mean, variance, momentum in kept:
            paddle.assign(mean, layer._mean)
            paddle.assign(variance, layer._variance)
            layer._momentum = momentum


def _evaluate(branches: _Branches, val: Batches) -> list[dict[str, float]]:
    """Return the mean loss, and the top-1 and top-5 in percent, of each path."""
    totals, images_seen = paddle.zeros([len(branches.archs), 3], "float64"), 0
    for images, labels in val:
        if not len(images):
            continue  # a mean over no images is not a number
        rows = {index: _totals(logits, labels) for index, logits in branches.logits(images)}
        totals += paddle.stack([rows[index] for index in range(len(rows))])
        images_seen += len(images)
        _logger.info("scored %d paths on %d images", len(rows), images_seen)
    if not images_seen:
        raise DataError("there are no images to evaluate on")
    return [
        {"loss": loss / images_seen, "prec1": 100 * first / images_seen, "prec5": 100 * first_five / images_seen}
        for loss, first, first_five in totals.tolist()
    ]


def _totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the losses, and how many images have the right class first and among the first five, [3]."""
    logits = logits.astype("float32")
    labels = class_indices(labels, logits)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    ranked = logits.topk(min(5, logits.shape[1]), axis=1)[1] == labels.unsqueeze(1)
    return paddle.stack([each.astype("float64") for each in (loss, ranked[:, 0].sum(), ranked.sum())])


class _Branches:
    """The tree of paths; every branch keeps the statistics of its batch norms between two batches."""

    def __init__(self, net: SuperNet, archs: Sequence[Arch], engine: str):
        self.net, self.archs = net, archs
        self.rows = [tuple(choice for stage in arch for choice in stage) for arch in archs]
        self.positions = [position for stage in net.blocks for position in stage]
        used = {pair for row in self.rows for pair in zip(self.positions, row)}
        self.parts = (None if engine == "eager" else fast_net(net, used)) or EagerNet(net)
        self.statistics: dict[tuple, object] = {}

    def logits(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number and the logits of each path, for one batch of images."""
        outputs = [self._run((), self.parts.stem, images)]  # of each prefix of the row before
        before: Prefix = ()
        for index in sorted(range(len(self.rows)), key=self.rows.__getitem__):
            row = self.rows[index]
            same = next((i for i, (a, b) in enumerate(zip(row, before)) if a != b), len(before))
            del outputs[same + 1 :]
            for end in range(same, len(row)):
                block = self.parts.block(self.positions[end], row[end])
                outputs.append(self._run(row[: end + 1], block, outputs[-1]))
            before = row
            yield index, self._run((*row, "head"), self.parts.head, outputs[-1])

    def _run(self, branch: tuple, part: Part, x: Tensor) -> Tensor:
        """Run a part of the net with the statistics of a branch."""
        if branch not in self.statistics:
            self.statistics[branch] = self.parts.new_statistics()
        return part(x, self.statistics[branch])


class EagerNet:
    """A supernet's stem, blocks and head as parts that run its own layers.

    The statistics of a branch are a dictionary: mean and variance of each batch norm.
    """

    def __init__(self, net: SuperNet):
        self.net = net
        shared = [norm for layer in net.shared_layers() for norm in _norms_of(layer)]
        self.stem, self.head = partial(self._run, net.stem, shared), partial(self._run, net.head, shared)

    def new_statistics(self) -> dict[nn.Layer, tuple[Tensor, Tensor]]:
        """Return empty statistics of a branch."""
        return {}

    def block(self, position: Choices, choice: int) -> Part:
        """Return a choice of a position as a part."""
        norms = [] if choice == SKIP else _norms_of(position.operation(choice))
        return partial(self._run, partial(position, choice=choice), norms)

    def _run(self, layer: Callable, norms: Sequence[nn.Layer], x: Tensor, statistics: dict) -> Tensor:
        """Run a layer with the statistics of a branch, and keep what they become in training mode."""
        for norm, (mean, variance) in statistics.items():
            paddle.assign(mean, norm._mean)
            paddle.assign(variance, norm._variance)
        y = layer(x)
        if self.net.training:
            statistics.update({norm: (norm._mean.clone(), norm._variance.clone()) for norm in norms})
        return y


def _norms_of(layer: nn.Layer) -> list[nn.Layer]:
    return [each for each in layer.sublayers(include_self=True) if isinstance(each, nn.BatchNorm2D)]


class KeptBatches:
    """The batches of a loader, which are kept while they are small enough, so that images are decoded once.

    Args:
        loader: the loader; if ``first`` is given, ``set_epoch(0)`` makes it give the same batches in every pass.
        first: number of the batches of a training set; None for all batches of an evaluation.
        most: bytes of images that may be kept.
    """

    def __init__(self, loader: Batches, first: int | None = None, most: int = 2**30):
        self.loader, self.first, self.most = loader, first, most
        self.kept: list[tuple[Tensor, Tensor]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: every pass gives the same batches."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.kept is not None:
            yield from self.kept
            return
        if self.first is not None:
            self.loader.set_epoch(0)
        read, room = [], self.most
        for images, labels in itertools.islice(self.loader, self.first):
            room -= images.size * images.element_size()
            read = [*read, (images, labels)] if room >= 0 else []
            yield images, labels
        self.kept = read if room >= 0 else None
