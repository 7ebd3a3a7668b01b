"""A board whose entries are scored on held-out images, again before every epoch, so that they age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.board import Entry, PrioritizedBoard
from pimm.layers import frozen_batch_norm_statistics
from pimm.utils import broadcast_values

IMAGES = 256  # at most so many held-out images score a path


class HeldOutLoss:
    """Returns the loss of a path on a fixed batch of held-out images, with the batch norm of this batch.

    Args:
        net: the supernet.
        images: the held-out images, [N, 3, H, W].
        labels: their classes, [N].
    """

    def __init__(self, net: SuperNet, images: Tensor, labels: Tensor):
        self.net, self.images, self.labels = net, images, labels

    @paddle.no_grad()
    def __call__(self, arch: Arch) -> float:
        """Return the loss of the first process, in all processes."""
        with frozen_batch_norm_statistics():
            loss = F.cross_entropy(self.net(self.images, arch).astype("float32"), self.labels)
        return broadcast_values(loss.reshape([1]))[0]

    @paddle.no_grad()
    def probabilities(self, arch: Arch, images: Tensor) -> Tensor:
        """Return the class probabilities of a path for images, [N, num_classes]."""
        with frozen_batch_norm_statistics():
            return F.softmax(self.net(images, arch).astype("float32"), axis=1)


class HeldOutBoard(PrioritizedBoard):
    """Keeps the paths with the lowest loss on held-out images.

    A path gets a free place at once. Once the board is full, the paths with the best accuracies on their batches wait,
    as many as there are places; before the next epoch entries and waiting paths are all scored with the weights of that
    moment, and the best get the places. The stored probabilities of the entries are computed anew then.

    Args:
        size: number of places.
        loss_of: the loss of a path on held-out images; None: the board is read, not trained with.
    """

    def __init__(self, size: int, loss_of: HeldOutLoss | None):
        super().__init__(size)
        self.loss_of = loss_of
        self.losses: dict[Arch, float] = {}
        self.waiting: list[Entry] = []
        self.epoch: int | None = None  # that the entries were scored for

    def start_epoch(self, epoch: int) -> Sequence[Arch]:
        """Score all entries and waiting paths once an epoch, and return the waiting paths that got a place."""
        if epoch == self.epoch:
            return ()
        self.epoch, before = epoch, {entry.arch for entry in self.entries}
        latest = {entry.arch: entry for entry in [*self.waiting, *self.entries]}
        self.losses = {arch: self.loss_of(arch) for arch in latest}
        self.waiting = []
        self.arrange(latest.values())
        self.entries = [
            replace(entry, features=self.loss_of.probabilities(entry.arch, entry.images)) for entry in self.entries
        ]
        return [entry.arch for entry in self.entries if entry.arch not in before]

    def rank(self, entry: Entry) -> tuple[float, float]:
        """Return the sort key of an entry: its loss on held-out images, and of equal ones the cost."""
        return self.losses[entry.arch], entry.mflops

    def accepts(self, prec1: float, mflops: float, arch: Arch | None = None) -> bool:
        """Return whether the board takes a path that is not on it, to a free place or to those that wait."""
        if any(entry.arch == arch for entry in [*self.entries, *self.waiting]):
            return False
        full = len(self) >= self.size and len(self.waiting) >= self.size
        return not full or (-prec1, mflops) < self.waiting[-1].priority

    def add(self, entry: Entry) -> None:
        """Give an entry a free place, or else let it wait in place of the worst that waits."""
        if len(self) < self.size:
            self.losses[entry.arch] = self.loss_of(entry.arch)
            self.arrange([*self.entries, entry])
        else:
            self.waiting = sorted([*self.waiting, entry], key=lambda each: each.priority)[: self.size]

    def state_dict(self) -> dict:
        """Return everything on the board, the losses, and the paths that wait."""
        waiting = PrioritizedBoard(self.size)
        waiting.entries = self.waiting
        losses = [self.losses[entry.arch] for entry in self.entries]
        return {**super().state_dict(), "losses": losses, "waiting": waiting.state_dict(), "epoch": self.epoch}

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.losses = {entry.arch: loss for entry, loss in zip(self.entries, state["losses"])}
        waiting = PrioritizedBoard(self.size)
        waiting.load_state_dict(state["waiting"])
        self.waiting, self.epoch = waiting.entries, state["epoch"]
