"""A board that ranks paths by an estimate from all batches, not by the luck of the one batch that trained a path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cream.space import Arch, SearchSpace
from cream.train.board import Entry, PrioritizedBoard

RIDGE = 1.0  # batches' worth of belief that an operation makes no difference
SPAN = 40  # batches before and after a batch whose mean loss says what loss was to be expected at that time


class AdditiveFit:
    """Estimates the loss of a path as a sum of one number for each of its operations, fitted online to all batches.

    The fit is ridge regression with forgetting: a batch that is ``window`` batches old has 1/e of its weight. In the
    training the losses fall by more than paths differ. Therefore what is fitted is by how much a loss exceeds the mean
    of its neighbours: up to SPAN batches before and after it, or the other paths on the same images.

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
        self.level = 0.0  # the mean loss of the latest batches
        self.recent: list[tuple[np.ndarray, float]] = []  # batches that are neighbours of batches to come
        self.fitted = 0  # so many of them are in the moments
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
        self.recent.append((self.features(arch), loss))
        if len(self.recent) > self.fitted + SPAN:  # the first that is not fitted has all its neighbours
            row, excess = self._excess(self.fitted)
            self._add(row[None], np.array([excess]))
            self.fitted += 1
        if self.fitted > SPAN:
            del self.recent[0]
            self.fitted -= 1
        self.level = float(np.mean([each for _, each in self.recent]))
        self._effects = None

    def observe_together(self, archs: Sequence[Arch], losses: Sequence[float]) -> None:
        """Take in the losses of several paths on the same images, which are compared with each other alone."""
        rows, losses = np.array([self.features(arch) for arch in archs]), np.asarray(losses)
        self.level = float(losses.mean())
        self._add(rows - rows.mean(axis=0), losses - self.level)
        self._effects = None

    def _excess(self, number: int) -> tuple[np.ndarray, float]:
        """Return the features of a recent batch, and by how much its loss exceeds the mean of its neighbours."""
        row, loss = self.recent[number]
        neighbours = self.recent[max(number - SPAN, 0) : number + SPAN + 1]
        return row, loss - float(np.mean([each for _, each in neighbours]))

    def _add(self, rows: np.ndarray, excesses: np.ndarray) -> None:
        self.moments = self.keep * self.moments + rows.T @ rows
        self.targets = self.keep * self.targets + rows.T @ excesses

    def __call__(self, arch: Arch) -> float:
        """Return the estimated loss of a path; 0 before the first batch."""
        if self._effects is None:  # batches without all their neighbours are compared with those that they have
            moments, targets = self.moments + RIDGE * np.eye(len(self.targets)), self.targets.copy()
            for number in range(self.fitted, len(self.recent)):
                row, excess = self._excess(number)
                moments += np.outer(row, row)
                targets += row * excess
            self._effects = np.linalg.solve(moments, targets)
        return float(self.level + self.features(arch) @ self._effects)

    def state_dict(self) -> dict:
        """Return the moments of all batches, and the recent batches."""
        return {
            "moments": self.moments.copy(),
            "targets": self.targets.copy(),
            "level": self.level,
            "recent": [(row.copy(), loss) for row, loss in self.recent],
            "fitted": self.fitted,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.moments, self.targets = np.array(state["moments"]), np.array(state["targets"])
        self.level, self.fitted = float(state["level"]), int(state["fitted"])
        self.recent = [(np.array(row), float(loss)) for row, loss in state["recent"]]
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
