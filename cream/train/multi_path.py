"""The training of several paths on each batch, by one update or by an update of each."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.average import PathAverage
from cream.train.draws import Draw
from cream.train.estimate import AdditiveFit
from cream.train.steps import METRICS, SinglePathStep, path_metrics
from cream.train.teaching import Teaching
from pimm.engine import Update
from pimm.utils import all_reduce_mean


class MultiPathStep(SinglePathStep):
    """Trains several paths on each batch; the first may teach the others.

    The metrics are means over the paths and all processes.

    Args:
        net, loss_fn, update, rng, ema, fit: as for `SinglePathStep`.
        draw: draws the paths of a batch.
        teaches: whether the first path teaches the others with the logits that its own training computes anyway; it
            learns from the labels alone (in-place distillation, https://arxiv.org/abs/1903.05134).
        start_epoch: the last epoch without teaching, counted from 0; -1 teaches from the start.
        rho: the weight of the teacher.
        teaching: the loss of a taught path.
        each: whether each path makes an update of its own; otherwise their mean gradient makes one.
    """

    def __init__(
        self,
        net: SuperNet,
        loss_fn: nn.Layer,
        update: Update,
        draw: Draw,
        rng: np.random.Generator,
        *,
        teaches: bool = False,
        start_epoch: int = -1,
        rho: float = 0.5,
        teaching: Teaching | None = None,
        ema: PathAverage | None = None,
        fit: AdditiveFit | None = None,
        each: bool = False,
    ):
        super().__init__(net, loss_fn, update, None, rng, ema, fit)
        self.each = each
        self.draw, self.teaches, self.start_epoch, self.rho = draw, teaches, start_epoch, rho
        self.teaching = teaching or Teaching()
        self._archs: list[Arch] = []  # of the update that is under way

    def draw_paths(self) -> list[Arch]:
        """Return the paths of the next batch: drawn and counted anew once the last paths have been updated."""
        if self.update.complete:
            self._archs = self.draw(self.rng)
            for arch in self._archs:
                self.sampled.add(arch)
        return self._archs

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """Train the paths of one batch and return METRICS."""
        archs = self.draw_paths()
        parameters = {p.name: p for arch in archs for p in self.net.active_parameters(arch)}
        teacher, rows, losses, taught_loss_fn = None, [], [], self.teaching.label_loss(self.loss_fn)
        for number, arch in enumerate(archs):
            loss_fn = self.loss_fn if teacher is None else taught_loss_fn
            with self.update.autocast():
                logits = self.net(images, arch)
                loss, kd_loss = loss_fn(logits, labels), paddle.zeros([])
                if teacher is not None:
                    loss, kd_loss = self.teaching(self.rho, logits, loss, teacher, lambda x: taught_loss_fn(x, labels))
            if self.teaches and epoch > self.start_epoch and teacher is None:
                teacher = logits.detach()
            if self.each:
                self.move(loss, self.net.active_parameters(arch))
            elif number + 1 < len(archs):
                self.update.add(loss / len(archs))
            else:
                self.move(loss / len(archs), list(parameters.values()))
            rows.append(path_metrics(loss, kd_loss, logits, labels))
            if self.fit is not None:
                losses.append(F.cross_entropy(logits.detach().astype("float32"), labels))
        if self.fit is not None:
            self.fit.observe_together(archs, all_reduce_mean([paddle.stack(losses)])[0].tolist())
        values = all_reduce_mean([paddle.stack(rows).mean(axis=0)])[0]
        return dict(zip(METRICS, values.unbind()))
