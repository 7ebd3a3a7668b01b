"""What a search remembers of its course beside the weights."""

from __future__ import annotations

from collections.abc import Sequence

from .space import Arch, SearchSpace


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
