"""What a path through a supernet is, and the set of all paths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pimm.errors import ConfigError

Arch = tuple[tuple[int, ...], ...]

SKIP = -1  # in place of a choice: leave the block out; only where a block keeps its input's shape


@dataclass(frozen=True)
class ChildSpec:
    """A net found by search and the image size, in pixels, that it was found for."""

    arch: Arch
    resolution: int


def parse_arch(value: str | Sequence[Sequence[int]]) -> Arch:
    """Reads an architecture from lists of lists or their text, ``[[0], [3, 1], [0]]``.

    Raises ConfigError when it is anything but lists of whole numbers from -1 up.
    """
    lists = value
    if isinstance(value, str):
        try:
            lists = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"architecture {value!r} is not a list of lists of numbers: {error}") from None
    well_formed = (
        isinstance(lists, (list, tuple))
        and len(lists) > 0
        and all(isinstance(stage, (list, tuple)) and len(stage) > 0 for stage in lists)
        and all(type(choice) is int and choice >= SKIP for stage in lists for choice in stage)
    )
    if not well_formed:
        raise ConfigError(
            f"architecture {json.dumps(lists, default=str)} must be a list of stages, each a list of choices "
            f"(whole numbers, {SKIP} skips a block), such as [[0], [3], [3, 1], [0]]"
        )
    return tuple(tuple(stage) for stage in lists)


def format_arch(arch: Arch) -> str:
    """The text that ``parse_arch`` reads."""
    return json.dumps([list(stage) for stage in arch])


@dataclass(frozen=True)
class SearchSpace:
    """All paths of a supernet: how many choices there are at each position of each stage.

    ``choices[stage][position]`` is the number of operations; ``keeps_shape[stage][position]`` says whether
    the block may be skipped. With ``draws_skip`` that is one of the choices there; without it a path may skip such a
    block, but none is drawn that does.
    """

    choices: tuple[tuple[int, ...], ...]
    keeps_shape: tuple[tuple[bool, ...], ...]
    draws_skip: bool = False

    @property
    def options(self) -> list[tuple[int, ...]]:
        """What may be drawn at each position in turn: its operations, then SKIP where that is a choice."""
        return [
            (*range(count), *([SKIP] if may_skip and self.draws_skip else []))
            for counts, skippable in zip(self.choices, self.keeps_shape)
            for count, may_skip in zip(counts, skippable)
        ]

    @property
    def num_operations(self) -> int:
        """Operations of the positions that offer most of them."""
        return max(_flat(self.choices))

    @property
    def num_choices(self) -> int:
        """Number of weights that a draw takes: one for each operation, and the last for SKIP where that is drawn."""
        return self.num_operations + any(SKIP in options for options in self.options)

    @property
    def weighed(self) -> np.ndarray:
        """At which positions weights act, [positions] bool: those that offer ``num_operations``."""
        return np.fromiter((count == self.num_operations for count in _flat(self.choices)), bool)

    @property
    def size(self) -> int:
        """Number of paths that may be drawn."""
        return math.prod(len(options) for options in self.options)

    def encode(self, arch: Arch) -> np.ndarray:
        """The path's choices in one row, [positions] int64."""
        return np.fromiter(_flat(arch), np.int64)

    def decode(self, row: Sequence[int]) -> Arch:
        """The path behind one row of choices, [positions]."""
        choices = iter(int(choice) for choice in row)
        return tuple(tuple(next(choices) for _ in stage) for stage in self.choices)

    def sample(self, rng: np.random.Generator, n: int = 1, probabilities: Sequence[float] | None = None) -> np.ndarray:
        """Draws n paths as rows, [n, positions] int64.

        ``probabilities`` as in ``distribution``; without it the draw is uniform.
        """
        pairs = zip(self.options, self.distribution(probabilities))
        return np.stack([rng.choice(options, n, p=weights) for options, weights in pairs], axis=1)

    def distribution(self, probabilities: Sequence[float] | None = None) -> list[np.ndarray]:
        """The probability of each of ``options``, position by position.

        ``probabilities``, ``num_choices`` of them, weigh the choices at positions that offer ``num_operations``;
        elsewhere, and without them, all are equally likely. Raises ConfigError where they leave no operation.
        """
        if probabilities is None:
            return [np.full(len(options), 1 / len(options)) for options in self.options]
        weights = np.asarray(probabilities, np.float64)
        if len(weights) != self.num_choices:
            raise ConfigError(f"there are {len(weights)} weights for the {self.num_choices} choices of this space")
        if not weights[: self.num_operations].any():
            raise ConfigError("the weights leave nothing to draw where no block may be skipped: all operations have 0")
        found = []
        for options, weighed in zip(self.options, self.weighed):
            own = weights[list(options)] if weighed else np.ones(len(options))
            found.append(own / own.sum())
        return found

    def mutate(self, arch: Arch, rng: np.random.Generator, probability: float) -> Arch:
        """Draws each choice of a path anew with ``probability``, as ``sample`` draws it.

        Raises ConfigError for a path of another space and for what is no probability.
        """
        if not 0 <= probability <= 1:
            raise ConfigError(f"the probability of a mutation is {probability}; it must lie between 0 and 1")
        row = self.encode(self.check(arch))
        return self.decode(np.where(rng.random(len(row)) < probability, self.sample(rng)[0], row))

    def crossover(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        """Takes each choice from one of two paths, by the toss of a coin; ConfigError for paths of another space."""
        first_row, second_row = (self.encode(self.check(arch)) for arch in (first, second))
        return self.decode(np.where(rng.random(len(first_row)) < 0.5, first_row, second_row))

    def to_nni_json(self, arch: Arch) -> str:
        """The path as NNI's ``architecture_final.json``: ``LayerChoice1``, ... with a one-hot list each.

        A skipped block has no true entry.
        """
        pairs = zip(_flat(self.check(arch)), _flat(self.choices))
        hot = [[index == choice for index in range(count)] for choice, count in pairs]
        lines = (f'  "LayerChoice{number}": {json.dumps(values)}' for number, values in enumerate(hot, start=1))
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def from_nni_json(self, text: str) -> Arch:
        """The path in the text of an ``architecture_final.json``, whose choices are one-hot lists or numbers.

        NNI has written both, under names that end in the position. Raises ConfigError that says what does not fit.
        """
        counts = list(_flat(self.choices))
        choices = _nni_choices(text, len(counts))
        return self.check(self.decode(_read_choice(*entry, count) for entry, count in zip(choices, counts)))

    def check(self, arch: Arch) -> Arch:
        """Returns the path if it lies in this space; raises ConfigError that says where it does not."""
        if len(arch) != len(self.choices):
            raise ConfigError(f"architecture {format_arch(arch)} has {len(arch)} stages, not {len(self.choices)}")
        for stage, (path, counts, skippable) in enumerate(zip(arch, self.choices, self.keeps_shape)):
            if len(path) != len(counts):
                raise ConfigError(
                    f"architecture {format_arch(arch)}: stage {stage} has {len(path)} blocks, not {len(counts)}"
                )
            for position, (choice, count, may_skip) in enumerate(zip(path, counts, skippable)):
                if choice == SKIP and not may_skip:
                    raise ConfigError(
                        f"architecture {format_arch(arch)}: block {position} of stage {stage} cannot be skipped: "
                        "it changes the shape, or belongs to the least depth of its stage"
                    )
                if not SKIP <= choice < count:
                    raise ConfigError(
                        f"architecture {format_arch(arch)}: block {position} of stage {stage} has choices "
                        f"0 to {count - 1}, not {choice}"
                    )
        return arch


def _flat(stages: Sequence[Sequence[int]]) -> Iterator[int]:
    return (value for stage in stages for value in stage)


def _nni_choices(text: str, positions: int) -> list[tuple[str, object]]:
    """Names and values of NNI's mutables, in the order of the numbers at the end of their names."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this architecture is not JSON: {error}") from None
    numbers = {name: re.search(r"(?<!\d)\d{1,6}$", name) for name in entries} if isinstance(entries, dict) else {}
    unnumbered = [name for name, number in numbers.items() if number is None]
    if not numbers or unnumbered:
        names = ", ".join(map(repr, unnumbered[:5])) or "no names at all"
        raise ConfigError(f"an architecture of NNI names its choices LayerChoice1, LayerChoice2, ...; this has {names}")
    ordered = sorted((int(number[0]), name) for name, number in numbers.items())
    first = ordered[0][0]  # of a second net in one process the numbers go on where those of the first end
    if [number for number, _ in ordered] != list(range(first, first + positions)):
        found = ", ".join(name for _, name in ordered[:30])
        raise ConfigError(f"this space has {positions} choices, each with a number of its own; there are {found}")
    return [(name, entries[name]) for _, name in ordered]


def _read_choice(name: str, value: object, count: int) -> int:
    """A choice from a one-hot list of ``count`` truth values, or from its number, as text or not."""
    if isinstance(value, list) and len(value) == count and all(isinstance(hot, bool) for hot in value):
        if value.count(True) < 2:
            return value.index(True) if True in value else SKIP
    elif isinstance(value, str) and re.fullmatch(r"\d{1,4}", value):
        return int(value)
    elif type(value) is int:
        return value
    raise ConfigError(
        f"{name} is {json.dumps(value):.80}; it must be a list of {count} truth values, at most one of them true, "
        "or the number of a choice"
    )
