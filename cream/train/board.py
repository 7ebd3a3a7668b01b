"""The prioritized board: the best paths that the training has seen, which teach the other paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from cream.space import SKIP, Arch, SearchSpace, parse_arch


@dataclass(frozen=True)
class Entry:
    """One path on the board.

    ``prec1`` is the path's accuracy in percent on the batch that it was trained on; ``images`` [slice, 3, H, W] are the
    first images of that batch and ``features`` [slice, num_classes] the path's own class probabilities for them.
    """

    arch: Arch
    prec1: float
    mflops: float
    images: Tensor
    features: Tensor

    @property
    def priority(self) -> tuple[float, float]:
        """Sort key: the more accurate path comes first, and of equally accurate paths the cheaper one."""
        return (-self.prec1, self.mflops)


class PrioritizedBoard:
    """Keeps at most ``size`` distinct paths, the best first (Cream, section 3.1).

    A full board takes a path that is more accurate than its last entry, or equally accurate and cheaper. With
    ``acc_gap`` the official code's rule holds: the path must be more accurate and cheaper, or more accurate by more
    than ``acc_gap`` points.
    """

    def __init__(self, size: int, acc_gap: float | None = None):
        self.size, self.acc_gap = size, acc_gap
        self.entries: list[Entry] = []
        self._batch: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def start_epoch(self, epoch: int) -> Sequence[Arch]:
        """Prepare for the batches of an epoch and return the paths that thereby got a place: none here."""
        return ()

    def observe(self, arch: Arch, loss: Callable[[], float]) -> None:
        """Take note of the loss of any path on its batch: without effect here."""

    def rank(self, entry: Entry) -> tuple[float, float]:
        """Return the sort key of an entry."""
        return entry.priority

    def accepts(self, prec1: float, mflops: float, arch: Arch | None = None) -> bool:
        """Return whether the board takes a path of this accuracy and cost; ``arch`` does not matter here."""
        if len(self) < self.size:
            return True
        last = self.entries[-1]
        if self.acc_gap is None:
            return (-prec1, mflops) < last.priority
        return prec1 > last.prec1 + (0 if mflops < last.mflops else self.acc_gap)

    def add(self, entry: Entry) -> None:
        """Put an entry in its place; a path that is on the board already keeps the better of its two entries."""
        self.arrange([*self.entries, entry])

    def arrange(self, entries: Sequence[Entry]) -> None:
        """Keep the best entry of each path, as many as there are places."""
        best_of_each: dict[Arch, Entry] = {}
        for candidate in sorted(entries, key=self.rank):
            best_of_each.setdefault(candidate.arch, candidate)
        self.entries = list(best_of_each.values())[: self.size]
        self._batch = None

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return all images [entries * slice, 3, H, W] and features [entries, slice, num_classes], the best first."""
        if self._batch is None:
            images = paddle.concat([entry.images for entry in self.entries])
            self._batch = images, paddle.stack([entry.features for entry in self.entries])
        return self._batch

    def choice_frequency(self, space: SearchSpace) -> np.ndarray | None:
        """Return the share of each choice among the searched blocks of a full board [num_choices]; None before.

        Positions with fewer choices, such as those of a fixed stage, do not count, and skipped blocks count only
        where the space samples skips.
        """
        if len(self) < self.size:
            return None
        kept = space.weighed
        choices = np.concatenate([space.encode(entry.arch)[kept] for entry in self.entries])
        skips = [] if space.num_choices == space.num_operations else [np.sum(choices == SKIP)]
        counts = np.append(np.bincount(choices[choices != SKIP], minlength=space.num_operations), skips)
        return counts / counts.sum() if counts[: space.num_operations].any() else None

    def state_dict(self) -> dict:
        """Return everything on the board, as numpy arrays and plain values."""
        return {
            "entries": [
                {
                    "arch": [list(stage) for stage in entry.arch],
                    "prec1": entry.prec1,
                    "mflops": entry.mflops,
                    "images": entry.images.numpy(),
                    "features": entry.features.numpy(),
                }
                for entry in self.entries
            ]
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self._batch = None
        self.entries = [
            Entry(
                parse_arch(entry["arch"]),
                entry["prec1"],
                entry["mflops"],
                paddle.to_tensor(entry["images"]),
                paddle.to_tensor(entry["features"]),
            )
            for entry in state["entries"]
        ]
