"""What a search remembers of its course beside the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cream.space import Arch, SearchSpace

HISTORY = "history.jsonl"  # in a run's folder: a line of plain data for each epoch


def read_history(path: Path) -> list[dict]:
    """The lines of a history.jsonl, but for one that a kill cut short."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


class OperationCounts:
    """How often paths chose each operation: ``counts[stage][position][choice]``.

    Where a block may be left out, the last column counts how often it was.
    """

    def __init__(self, space: SearchSpace):
        self.counts = [
            [[0] * (count + may_skip) for count, may_skip in zip(counts, skippable)]
            for counts, skippable in zip(space.choices, space.keeps_shape)
        ]

    def add(self, arch: Arch) -> None:
        for stage, path in zip(self.counts, arch):
            for position, choice in zip(stage, path):
                position[choice] += 1  # SKIP is -1: the last column

    def state_dict(self) -> list[list[list[int]]]:
        """A copy of the counts."""
        return [[list(position) for position in stage] for stage in self.counts]

    def load_state_dict(self, state: Sequence[Sequence[Sequence[int]]]) -> None:
        """Restores what ``state_dict`` gave."""
        self.counts = [[list(position) for position in stage] for stage in state]
