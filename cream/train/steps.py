"""What one batch does: plain training of a net, of sampled paths, and of paths with teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.flops import CostTable
from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.board import Entry, PrioritizedBoard
from cream.train.history import OperationCounts
from cream.train.meta import PICK_METHODS, MetaBatch, Teacher, meta_gradients
from cream.train.runlog import log
from cream.train.sampler import Sampler
from pimm.layers import frozen_batch_norm_statistics
from pimm.loss import SoftTargetCrossEntropy
from pimm.optim import group_lrs
from pimm.utils import ModelEma, NativeScaler, accuracy, all_reduce_gradients, all_reduce_mean, broadcast_tensors

METRICS = ("loss", "kd_loss", "prec1", "prec5")


class Update:
    """Turns a loss into a move of the parameters: backward, average over processes, clip, optimizer step.

    With ``amp`` on a GPU, forward passes inside ``autocast()`` run in float16 where that is safe, and the loss is
    scaled. Parameters that took no part have no gradient and do not move.
    """

    def __init__(self, optimizer: paddle.optimizer.Optimizer, amp: bool = False, clip_grad: float | None = None):
        self.optimizer = optimizer
        self.clip_grad = clip_grad
        self.amp = amp and not paddle.get_device().startswith("cpu")  # a CPU has neither the kernels nor the gain
        self.scaler = NativeScaler("gpu" if self.amp else "cpu")

    def autocast(self):
        """The context of forward passes."""
        return paddle.amp.auto_cast(enable=self.amp)

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        self.scaler(loss, self.optimizer, need_update=False)
        all_reduce_gradients(parameters)
        self.scaler.step(self.optimizer, self.clip_grad, parameters=parameters)
        # Zeros would still move an off-path weight by momentum and decay: take the gradients away altogether.
        self.optimizer.clear_grad(set_to_zero=False)

    def state_dict(self) -> dict:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if state:  # empty where the scaler was off, as on a CPU
            self.scaler.load_state_dict(state)


class ClassifyStep:
    """Trains a fixed net on labelled images, ``ema`` following it.

    Labels are classes [N], or the probabilities [N, num_classes] that mixup makes of them. The metrics are 0-d
    tensors, of this process: nothing waits for the device until somebody reads them.
    """

    def __init__(self, net: nn.Layer, loss_fn: nn.Layer, update: Update, ema: ModelEma | None = None):
        self.net, self.loss_fn, self.update, self.ema = net, loss_fn, update, ema
        self.optimizer = update.optimizer
        self.parameters = [p for p in net.parameters() if not p.stop_gradient]

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, float | Tensor]:
        with self.update.autocast():
            logits = self.net(images)
            loss = self.loss_fn(logits, labels)
        self.update(loss, self.parameters)
        if self.ema is not None:
            self.ema.update(self.net)
        classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
        prec1, prec5 = accuracy(logits.detach(), classes, topk=(1, 5))
        return {"loss": loss.detach(), "prec1": prec1, "prec5": prec5}

    def state_dict(self) -> dict:
        return {"update": self.update.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.update.load_state_dict(state["update"])


class SinglePathStep:
    """Trains one sampled path a batch (SPOS, section 3.2).

    ``rng`` is in the same state on all processes, so that they draw the same path; metrics are means over them.
    ``sampled`` counts the operations of all paths drawn.
    """

    ema = None
    board: PrioritizedBoard | None = None

    def __init__(self, net: SuperNet, loss_fn: nn.Layer, update: Update, sampler: Sampler, rng: np.random.Generator):
        self.net, self.loss_fn, self.update = net, loss_fn, update
        self.optimizer = update.optimizer
        self.sampler, self.rng = sampler, rng
        self.sampled = OperationCounts(net.space)

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, float | Tensor]:
        values, _ = self.train_path(self.sample(), images, labels)
        return dict(zip(METRICS, values.unbind()))

    def sample(self) -> Arch:
        """The path of the next batch, counted."""
        arch = self.sampler(self.rng, self.board)
        self.sampled.add(arch)
        return arch

    def train_path(
        self, arch: Arch, images: Tensor, labels: Tensor, teacher: Teacher | None = None
    ) -> tuple[Tensor, Tensor]:
        """One update of one path; returns its METRICS over all processes and its logits."""
        with self.update.autocast():
            logits = self.net(images, arch)
            loss = self.loss_fn(logits, labels)
            kd_loss = paddle.zeros([])
            if teacher is not None:
                kd_loss = SoftTargetCrossEntropy()(logits, self.soft_labels(teacher, images))
                loss = (teacher.rho * kd_loss + (2 - teacher.rho) * loss) / 2
        self.update(loss, self.net.active_parameters(arch))
        prec1, prec5 = accuracy(logits.detach(), labels, topk=(1, 5))
        metrics = paddle.stack([value.detach().astype("float32") for value in (loss, kd_loss, prec1, prec5)])
        values = all_reduce_mean([metrics])[0]
        return values, logits.detach()

    @paddle.no_grad()
    def soft_labels(self, teacher: Teacher, images: Tensor) -> Tensor:
        """The teacher's class probabilities; its batch-norm statistics stay as they are."""
        with frozen_batch_norm_statistics():
            return F.softmax(self.net(images, teacher.arch), axis=1)

    def log_state(self) -> dict:
        """What a report of the search wants to know of the step after each epoch, as plain data."""
        return {"sampled": self.sampled.state_dict()}

    def state_dict(self) -> dict:
        return {
            "update": self.update.state_dict(),
            "rng": self.rng.bit_generator.state,
            "sampled": self.sampled.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.update.load_state_dict(state["update"])
        self.rng.bit_generator.state = state["rng"]
        if "sampled" in state:  # checkpoints of version 0.1 did not count
            self.sampled.load_state_dict(state["sampled"])


class CreamStep(SinglePathStep):
    """Trains one sampled path a batch, taught by the path on the board that it learns most from.

    Through epoch ``start_epoch`` paths train alone and the board stays empty. Every ``update_interval`` taught
    batches the matching network is updated on two slices of the batch, by ``matching_optimizer`` or, without one, by
    that of all other weights, which then holds the matching network's too. ``kept`` counts the operations of all paths
    that found a place on the board.
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
    ):
        super().__init__(net, loss_fn, update, sampler, rng)
        self.board, self.flops = board, flops
        self.pick_teacher: Callable[..., Teacher] = PICK_METHODS[pick_method]
        self.learns_to_match = pick_method == "meta" and update_interval > 0
        self.matching_optimizer = matching_optimizer or update.optimizer
        self.start_epoch, self.update_interval, self.slice_size = start_epoch, update_interval, slice_size
        self.batches_taught = self.meta_updates = 0
        self.kept = OperationCounts(net.space)

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, float | Tensor]:
        arch = self.sample()
        teacher = self.find_teacher(arch, images, labels) if len(self.board) else None
        values, logits = self.train_path(arch, images, labels, teacher)
        searching = epoch > self.start_epoch  # before, nothing waits for the device
        metrics = dict(zip(METRICS, values.tolist() if searching else values.unbind()))
        if searching:
            self.offer_to_board(arch, metrics["prec1"], images, logits)
        return {
            **metrics,
            "rho": teacher.rho if teacher else 0.0,
            "board_size": len(self.board),
            "board_best": self.board.entries[0].prec1 if len(self.board) else 0.0,
            "meta_updates": self.meta_updates,
        }

    def find_teacher(self, arch: Arch, images: Tensor, labels: Tensor) -> Teacher:
        """The teacher of one student, after an update of the matching network when one is due."""
        teacher = self.match(arch)
        self.batches_taught += 1
        if self.learns_to_match and self.batches_taught % self.update_interval == 0:
            self.update_matching(arch, teacher, images, labels)
            teacher = self.match(arch)
        return teacher

    def match(self, arch: Arch) -> Teacher:
        """What the board has for one student, which is asked in the precision that its features were made in."""
        with self.update.autocast():
            return self.pick_teacher(self.net, self.board, arch)

    def update_matching(self, arch: Arch, teacher: Teacher, images: Tensor, labels: Tensor) -> None:
        """One step of the matching network, on the first two slices of the batch."""
        n = self.slice_size
        batch = MetaBatch(images[:n], images[n : 2 * n], labels[n : 2 * n])
        layer = self.net.meta_layer
        gradients = meta_gradients(self.net, arch, teacher, batch, group_lrs(self.optimizer)[0], self.loss_fn)
        for parameter, gradient in zip((layer.weight, layer.bias), gradients):
            parameter.grad = gradient
        # Only the matching network has gradients now; an overflow of the scaled loss before is no business of its step.
        self.matching_optimizer._set_auxiliary_var("found_inf", False)
        self.matching_optimizer.step()
        self.matching_optimizer.clear_grad(set_to_zero=False)
        self.meta_updates += 1

    def offer_to_board(self, arch: Arch, prec1: float, images: Tensor, logits: Tensor) -> None:
        """Puts the path on the board if it is among the best, with the first process's images for all."""
        mflops = self.flops(arch)
        if self.board.accepts(prec1, mflops):
            n = self.slice_size
            features = F.softmax(logits[:n].astype("float32"), axis=1)
            entry = Entry(arch, prec1, mflops, *broadcast_tensors([images[:n].clone(), features]))
            if not len(self.board):
                log.info("the board has its first path: from now on paths teach each other")
            self.board.add(entry)
            if any(other is entry for other in self.board.entries):  # not where an earlier meeting was better
                self.kept.add(arch)

    def log_state(self) -> dict:
        entries = [{"arch": entry.arch, "prec1": entry.prec1, "mflops": entry.mflops} for entry in self.board.entries]
        return {**super().log_state(), "kept": self.kept.state_dict(), "board": entries}

    def state_dict(self) -> dict:
        return {
            **super().state_dict(),
            "board": self.board.state_dict(),
            "batches_taught": self.batches_taught,
            "meta_updates": self.meta_updates,
            "kept": self.kept.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.board.load_state_dict(state["board"])
        self.batches_taught, self.meta_updates = state["batches_taught"], state["meta_updates"]
        if "kept" in state:
            self.kept.load_state_dict(state["kept"])
