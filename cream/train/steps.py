"""The training of a supernet on one batch: a sampled path by itself, or with a teacher."""

from __future__ import annotations

import logging
from functools import partial
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.flops import CostTable
from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.average import PathAverage
from cream.train.board import Entry, PrioritizedBoard
from cream.train.draws import extreme_path
from cream.train.estimate import AdditiveFit
from cream.train.history import OperationCounts
from cream.train.meta import PICK_METHODS, MetaBatch, Teacher, meta_gradients, random_teacher
from cream.train.sampler import Sampler
from cream.train.teaching import Teaching
from pimm.engine import Update
from pimm.layers import frozen_batch_norm_statistics
from pimm.optim import group_lrs
from pimm.utils import accuracy, all_reduce_mean, broadcast_tensors

_logger = logging.getLogger(__name__)

METRICS = ("loss", "kd_loss", "prec1", "prec5")


def path_metrics(loss: Tensor, kd_loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the METRICS of one path on this process's images, [4]."""
    prec1, prec5 = accuracy(logits.detach(), labels, topk=(1, 5))
    return paddle.stack([value.detach().astype("float32") for value in (loss, kd_loss, prec1, prec5)])


def mean_loss(logits: Tensor, labels: Tensor) -> float:
    """Return the cross-entropy of a path on the images of all processes."""
    return all_reduce_mean([F.cross_entropy(logits.astype("float32"), labels)])[0].item()


class SinglePathStep:
    """Trains one sampled path a batch (SPOS, section 3.2).

    If an update takes the mean gradient of several batches, these batches train the same path. The metrics are means
    over all processes. ``sampled`` counts the operations of all paths drawn.

    Args:
        net: the supernet.
        loss_fn: maps logits and labels to the batch's mean loss.
        update: moves the parameters of the sampled path.
        sampler: draws the path of a batch.
        rng: generator of the draws; its state is the same in all processes, so that they draw the same path.
        ema: the moving average of the weights, by which paths are scored in the end; None: they are scored by the last
            weights.
        fit: takes in the loss of each batch, to estimate the losses of all paths.
    """

    board: PrioritizedBoard | None = None
    teaching = Teaching()

    def __init__(
        self,
        net: SuperNet,
        loss_fn: nn.Layer,
        update: Update,
        sampler: Sampler,
        rng: np.random.Generator,
        ema: PathAverage | None = None,
        fit: AdditiveFit | None = None,
    ):
        self.net, self.loss_fn, self.update, self.ema, self.fit = net, loss_fn, update, ema, fit
        self.nets = [net]  # the average has no running statistics of its own
        self.sampler, self.rng = sampler, rng
        self.sampled = OperationCounts(net.space)
        self._arch: Arch | None = None  # of the update that is under way

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """Train one path on one batch and return METRICS without ``kd_loss``."""
        arch = self.sample()
        values, logits = self.train_path(arch, images, labels)
        if self.fit is not None:
            self.fit.observe(arch, mean_loss(logits, labels))
        metrics = dict(zip(METRICS, values.unbind()))
        del metrics["kd_loss"]
        return metrics

    def sample(self) -> Arch:
        """Return the path of the next batch: drawn and counted anew once the last path has been updated."""
        if self.update.complete:
            self._arch = self.sampler(self.rng, self.board)
            self.sampled.add(self._arch)
        return self._arch

    def train_path(
        self, arch: Arch, images: Tensor, labels: Tensor, teacher: Teacher | None = None
    ) -> tuple[Tensor, Tensor]:
        """Update one path, and return its METRICS [4], as means over all processes, and its logits before the update.

        With a teacher the loss is that of ``teaching``: in the paper ``(rho * KD + (2 - rho) * loss_fn) / 2``, where KD
        is the cross-entropy against the teacher's probabilities.
        """
        loss_fn = self.loss_fn if teacher is None else self.teaching.label_loss(self.loss_fn)
        with self.update.autocast():
            logits = self.net(images, arch)
            loss = loss_fn(logits, labels)
            kd_loss = paddle.zeros([])
            if teacher is not None:
                teacher_logits = self.teacher_logits(teacher, images[: self.teaching.images(len(images))])
                loss, kd_loss = self.teaching(
                    teacher.rho, logits, loss, teacher_logits, lambda x: loss_fn(x, labels[: len(x)])
                )
        self.move(loss, self.net.active_parameters(arch))
        values = all_reduce_mean([path_metrics(loss, kd_loss, logits, labels)])[0]
        return values, logits.detach()

    def move(self, loss: Tensor, parameters: list[Tensor]) -> None:
        """Move the parameters by the gradients of a loss, and their averages after them."""
        self.update(loss, parameters)
        if self.ema is not None and self.update.complete:
            self.ema.update(parameters)

    @paddle.no_grad()
    def teacher_logits(self, teacher: Teacher, images: Tensor) -> Tensor:
        """Return the teacher's logits; the batch-norm statistics stay as they are."""
        with frozen_batch_norm_statistics():
            return self.net(images, teacher.arch)

    def score_by_average(self) -> None:
        """Give the net, once it is trained, the averages of its weights; without averages it stays as it is."""
        if self.ema is not None:
            self.ema.copy_to(self.net)

    def log_state(self) -> dict:
        """Return what the history of a search records of the step after each epoch, as plain data."""
        return {"sampled": self.sampled.state_dict()}

    def state_dict(self) -> dict:
        """Return everything that the next batch depends on beside the weights."""
        return {
            "update": self.update.state_dict(),
            "rng": self.rng.bit_generator.state,
            "sampled": self.sampled.state_dict(),
            **({} if self.fit is None else {"fit": self.fit.state_dict()}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.update.load_state_dict(state["update"])
        self.rng.bit_generator.state = state["rng"]
        if "sampled" in state:  # checkpoints of version 0.1 did not count
            self.sampled.load_state_dict(state["sampled"])
        if self.fit is not None:
            self.fit.load_state_dict(state["fit"])


class CreamStep(SinglePathStep):
    """Trains one sampled path a batch, taught by the path on the board that it learns most from (Cream, algorithm 1).

    Until ``start_epoch`` is over, no path has a teacher and the board stays empty. Afterwards each batch waits for the
    device twice: once for the index and rho of the teacher, and once for the path's accuracy, which decides whether
    the path gets a place on the board: with several batches an update, the mean accuracy over these batches. ``kept``
    counts the operations of all paths that got a place.

    Args:
        net, loss_fn, update, sampler, rng, ema, fit: as for `SinglePathStep`.
        board: the prioritized board.
        flops: millions of multiply-adds of a path.
        pick_method: ``meta`` lets the matching network pick the teacher, ``top1`` takes the board's best path, and
            ``random`` any of its paths; ``largest`` takes the most expensive path of all.
        start_epoch: the last epoch without teachers, counted from 0.
        update_interval: number of taught updates between two updates of the matching network.
        slice_size: number of images by which the matching network compares a student and a teacher.
        matching_optimizer: updates the matching network; by default ``update``'s optimizer, which then holds it.
        rho: the weight of a teacher that the matching network did not pick.
        teaching: the loss of a taught path.
    """

    def __init__(
        self,
        net: SuperNet,
        loss_fn: nn.Layer,
        update: Update,
        sampler: Sampler,
        rng: np.random.Generator,
        *,
        board: PrioritizedBoard,
        flops: CostTable,
        pick_method: str = "meta",
        start_epoch: int = 20,
        update_interval: int = 200,
        slice_size: int = 4,
        matching_optimizer: paddle.optimizer.Optimizer | None = None,
        rho: float = 0.5,
        teaching: Teaching | None = None,
        ema: PathAverage | None = None,
        fit: AdditiveFit | None = None,
    ):
        super().__init__(net, loss_fn, update, sampler, rng, ema, fit)
        self.board, self.flops = board, flops
        self.teaching = teaching or Teaching()
        self.pick_teacher = self._picker(pick_method, rho)
        self.learns_to_match = pick_method == "meta" and update_interval > 0
        self.matching_optimizer = matching_optimizer or update.optimizer
        self.start_epoch, self.update_interval, self.slice_size = start_epoch, update_interval, slice_size
        self.batches_taught = self.meta_updates = 0
        self.kept = OperationCounts(net.space)
        self._teacher: Teacher | None = None  # of the update that is under way
        self._prec1: list[float] = []  # the accuracies of its batches

    def _picker(self, pick_method: str, rho: float) -> Callable[..., Teacher]:
        """Return the function that maps net, board and student to a teacher."""
        if pick_method == "largest":
            teacher = Teacher(extreme_path(self.sampler, largest=True), rho)
            return lambda net, board, student: teacher
        pickers = {**PICK_METHODS, "random": partial(random_teacher, rng=self.rng)}
        return pickers[pick_method] if pick_method == "meta" else partial(pickers[pick_method], rho=rho)

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """Train one path on one batch, with a teacher once there is one; return METRICS and the state of the board."""
        for arch in self.board.start_epoch(epoch):
            self.kept.add(arch)
        first = self.update.complete
        arch = self.sample()
        if first:
            self._teacher = self.find_teacher(arch, images, labels) if len(self.board) else None
            self._prec1 = []
        teacher = self._teacher
        values, logits = self.train_path(arch, images, labels, teacher)
        metrics = dict(zip(METRICS, values.unbind()))
        self.board.observe(arch, lambda: mean_loss(logits, labels))
        if self.fit is not None and self.fit is not getattr(self.board, "fit", None):
            self.fit.observe(arch, mean_loss(logits, labels))
        if epoch > self.start_epoch:
            self._prec1.append(metrics["prec1"].item())
            if self.update.complete:
                self.offer_to_board(arch, sum(self._prec1) / len(self._prec1), images, logits)
        return {**metrics, **self.board_metrics(teacher)}

    def board_metrics(self, teacher: Teacher | None) -> dict[str, Tensor]:
        """Return the teacher's rho, the size and best accuracy of the board, and the matching network's updates."""
        best = self.board.entries[0].prec1 if len(self.board) else 0.0
        rho = teacher.rho if teacher else 0.0
        values = {"rho": rho, "board_size": len(self.board), "board_best": best, "meta_updates": self.meta_updates}
        # Filled on the device: a copy from the host would wait until the device has run all that was launched.
        return {name: paddle.full([], value, "float32") for name, value in values.items()}

    def find_teacher(self, arch: Arch, images: Tensor, labels: Tensor) -> Teacher:
        """Return the teacher of one student, picked again after an update of the matching network if one is due."""
        teacher = self.match(arch)
        self.batches_taught += 1
        if self.learns_to_match and self.batches_taught % self.update_interval == 0:
            self.update_matching(arch, teacher, images, labels)
            teacher = self.match(arch)
        return teacher

    def match(self, arch: Arch) -> Teacher:
        """Pick a teacher for one student, which runs in the precision that the board's features were computed in."""
        with self.update.autocast():
            return self.pick_teacher(self.net, self.board, arch)

    def update_matching(self, arch: Arch, teacher: Teacher, images: Tensor, labels: Tensor) -> None:
        """Update the matching network by a student taught on the batch's first slice and tested on the second."""
        n = self.slice_size
        batch = MetaBatch(images[:n], images[n : 2 * n], labels[n : 2 * n])
        layer = self.net.meta_layer
        gradients = meta_gradients(self.net, arch, teacher, batch, group_lrs(self.update.optimizer)[0], self.loss_fn)
        for parameter, gradient in zip((layer.weight, layer.bias), gradients):
            parameter.grad = gradient
        # Only the matching network has gradients now: a gradient overflow of the last path must not skip its update.
        self.matching_optimizer._set_auxiliary_var("found_inf", False)
        self.matching_optimizer.step()
        self.matching_optimizer.clear_grad(set_to_zero=False)
        self.meta_updates += 1

    def offer_to_board(self, arch: Arch, prec1: float, images: Tensor, logits: Tensor) -> None:
        """Put the path on the board if it is among the best, with the first process's images in all processes."""
        mflops = self.flops(arch)
        if self.board.accepts(prec1, mflops, arch):
            n = self.slice_size
            features = F.softmax(logits[:n].astype("float32"), axis=1)
            entry = Entry(arch, prec1, mflops, *broadcast_tensors([images[:n].clone(), features]))
            if not len(self.board):
                _logger.info("the board has its first path: from now on paths teach each other")
            self.board.add(entry)
            if any(other is entry for other in self.board.entries):  # otherwise this path already has a better entry
                self.kept.add(arch)

    def log_state(self) -> dict:
        """Return what the history of a search records of the step after each epoch, as plain data."""
        entries = [{"arch": entry.arch, "prec1": entry.prec1, "mflops": entry.mflops} for entry in self.board.entries]
        return {**super().log_state(), "kept": self.kept.state_dict(), "board": entries}

    def state_dict(self) -> dict:
        """Return everything that the next batch depends on beside the weights, the board included."""
        return {
            **super().state_dict(),
            "board": self.board.state_dict(),
            "batches_taught": self.batches_taught,
            "meta_updates": self.meta_updates,
            "kept": self.kept.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.board.load_state_dict(state["board"])
        self.batches_taught, self.meta_updates = state["batches_taught"], state["meta_updates"]
        if "kept" in state:
            self.kept.load_state_dict(state["kept"])
