"""The history.jsonl of a search: what it records after each epoch beside the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cream.space import Arch, SearchSpace
from pimm.engine import RunLog
from pimm.utils import write_text

HISTORY = "history.jsonl"  # in a run's folder: a line of plain data for each epoch


def read_history(path: Path) -> list[dict]:
    """Read the lines of a history.jsonl, without a line that a kill cut short."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


class History:
    """Writes the history.jsonl of a run; the first process writes for all."""

    def __init__(self, run: RunLog):
        self.run = run

    def record(self, epoch: int, **state: object) -> None:
        """Append a line of plain data: ``epoch``, and the values of ``state`` under their names."""
        if self.run.writes:
            with open(self.run.folder / HISTORY, "a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, **state}) + "\n")

    def rewind(self, epoch: int) -> None:
        """Remove the lines of ``epoch`` and later epochs: a resumed search will write these lines again."""
        if not self.run.writes or not (self.run.folder / HISTORY).exists():
            return
        path = self.run.folder / HISTORY
        kept = [json.dumps(line) for line in read_history(path) if line["epoch"] < epoch]
        write_text(path, "".join(f"{line}\n" for line in kept))


class OperationCounts:
    """Counts how often paths chose each operation: ``counts[stage][position][choice]``.

    Where a block may be skipped, the last column counts how often paths skipped the block.
    """

    def __init__(self, space: SearchSpace):
        self.counts = [
            [[0] * (count + may_skip) for count, may_skip in zip(counts, skippable)]
            for counts, skippable in zip(space.choices, space.keeps_shape)
        ]

    def add(self, arch: Arch) -> None:
        """Count the choices of one path."""
        for stage, path in zip(self.counts, arch):
            for position, choice in zip(stage, path):
                position[choice] += 1  # SKIP is -1: the last column

    def state_dict(self) -> list[list[list[int]]]:
        """Return a copy of the counts."""
        return [[list(position) for position in stage] for stage in self.counts]

    def load_state_dict(self, state: Sequence[Sequence[Sequence[int]]]) -> None:
        """Restore what ``state_dict`` returned."""
        self.counts = [[list(position) for position in stage] for stage in state]
