"""A board that ranks paths by an estimate from all batches, not by the luck of the one batch that trained a path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cream.space import Arch, SearchSpace
from cream.train.board import Entry, PrioritizedBoard

RIDGE = 1.0  # batches' worth of belief that an operation makes no difference


class AdditiveFit:
    """Estimates the loss of a path as a sum of one number for each of its operations, fitted online to all batches.

    The fit is ridge regression with forgetting: a batch that is ``window`` batches old has 1/e of its weight, because
    the losses fall during the training.

    Args:
        space: the space of the paths.
        window: number of batches.
    """

    def __init__(self, space: SearchSpace, window: float):
        self.space, self.keep = space, np.exp(-1.0 / window)
        self.columns = [{choice: i for i, choice in enumerate(options)} for options in space.options]
        self.starts = np.cumsum([0, *map(len, self.columns)])
        size = int(self.starts[-1])
        self.moments, self.targets = np.zeros((size, size)), np.zeros(size)
        self.weight = self.total = 0.0
        self._effects: np.ndarray | None = None

    def features(self, arch: Arch) -> np.ndarray:
        """Return which operations a path has, [operations of all positions]; an operation that is not drawn is none."""
        row = np.zeros(len(self.targets))
        for start, column, choice in zip(self.starts, self.columns, self.space.encode(arch)):
            if int(choice) in column:
                row[start + column[int(choice)]] = 1.0
        return row

    def observe(self, arch: Arch, loss: float) -> None:
        """Take in the loss of a path on one batch, which is the first to have trained the path on its images."""
        row = self.features(arch)
        self.moments = self.keep * self.moments + np.outer(row, row)
        self.targets = self.keep * self.targets + row * loss
        self.weight, self.total = self.keep * self.weight + 1.0, self.keep * self.total + loss
        self._effects = None

    def __call__(self, arch: Arch) -> float:
        """Return the estimated loss of a path; 0 before the first batch."""
        if not self.weight:
            return 0.0
        mean = self.total / self.weight
        if self._effects is None:  # deviations from the mean, which no ridge pulls towards zero
            targets = self.targets - mean * np.diag(self.moments)
            self._effects = np.linalg.solve(self.moments + RIDGE * np.eye(len(targets)), targets)
        return float(mean + self.features(arch) @ self._effects)

    def state_dict(self) -> dict:
        """Return the moments of all batches."""
        return {
            "moments": self.moments.copy(),
            "targets": self.targets.copy(),
            "weight": self.weight,
            "total": self.total,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.moments, self.targets = np.array(state["moments"]), np.array(state["targets"])
        self.weight, self.total = float(state["weight"]), float(state["total"])
        self._effects = None


class EstimatedBoard(PrioritizedBoard):
    """Keeps the paths with the lowest estimated losses; the estimates of its entries move with every batch.

    Args:
        size: number of places.
        fit: estimates the loss of a path.
    """

    def __init__(self, size: int, fit: AdditiveFit):
        super().__init__(size)
        self.fit = fit

    def observe(self, arch: Arch, loss: Callable[[], float]) -> None:
        """Take in the loss of a path on its batch, and put the entries into the order of their new estimates."""
        self.fit.observe(arch, loss())
        self.arrange(self.entries)

    def rank(self, entry: Entry) -> tuple[float, float]:
        """Return the sort key of an entry: its estimated loss, and of equal ones the cost."""
        return self.fit(entry.arch), entry.mflops

    def accepts(self, prec1: float, mflops: float, arch: Arch | None = None) -> bool:
        """Return whether the board takes a path: it has room, or the estimate is not above that of the last entry."""
        return len(self) < self.size or (self.fit(arch), mflops) <= self.rank(self.entries[-1])

    def add(self, entry: Entry) -> None:
        """Put an entry in its place, and in the place of an older one of the same path, whose features are stale."""
        self.arrange([entry, *(other for other in self.entries if other.arch != entry.arch)])

    def state_dict(self) -> dict:
        """Return everything on the board, and the fit."""
        return {**super().state_dict(), "fit": self.fit.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.fit.load_state_dict(state["fit"])
