"""Architectures, which are paths through a supernet, and the search space, which is the set of all of them."""

from __future__ import annotations

import json
import math
import numbers
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cream.fields import shown
from pimm.errors import ConfigError, check_whole

Arch = tuple[tuple[int, ...], ...]

SKIP = -1  # the choice that leaves a block out; valid only where the block keeps the shape of its input


@dataclass(frozen=True)
class ChildSpec:
    """The architecture of a child net, and the side of the images, in pixels, that the net was searched for."""

    arch: Arch
    resolution: int


def parse_arch(value: str | Sequence[Sequence[int]]) -> Arch:
    """Read an architecture from a list of lists, or from the text of one, such as ``[[0], [3, 1], [0]]``.

    Raises:
        ConfigError: ``value`` is not a list of lists of whole numbers of at least -1.
    """
    lists = value
    if isinstance(value, str):
        try:
            lists = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"architecture {value!r:.100} is not a list of lists of numbers: {error}") from None
    well_formed = (
        isinstance(lists, (list, tuple))
        and len(lists) > 0
        and all(isinstance(stage, (list, tuple)) and len(stage) > 0 for stage in lists)
        and all(type(choice) is int and choice >= SKIP for stage in lists for choice in stage)
    )
    if not well_formed:
        raise ConfigError(
            f"architecture {json.dumps(lists, default=str):.100} must be a list of stages, each a list of choices "
            f"(whole numbers, {SKIP} skips a block), such as [[0], [3], [3, 1], [0]]"
        )
    return tuple(tuple(stage) for stage in lists)


def format_arch(arch: Arch) -> str:
    """Write an architecture as the text that ``parse_arch`` reads."""
    return json.dumps([list(stage) for stage in arch])


@dataclass(frozen=True)
class SearchSpace:
    """The set of all paths through a supernet.

    Args:
        choices: ``choices[stage][position]`` is the number of operations at that position.
        keeps_shape: ``keeps_shape[stage][position]`` says whether a path may skip the block there.
        draws_skip: whether ``sample`` and ``mutate`` draw SKIP, as one choice more, at the positions that a path may
            skip. If not, such a path is valid but never drawn.

    Raises:
        ConfigError: there are no positions, a position has no operation, or ``keeps_shape`` has other positions.
    """

    choices: tuple[tuple[int, ...], ...]
    keeps_shape: tuple[tuple[bool, ...], ...]
    draws_skip: bool = False

    def __post_init__(self):
        for name in ("choices", "keeps_shape"):  # lists cannot be compared with tuples, nor be hashed
            object.__setattr__(self, name, tuple(tuple(stage) for stage in getattr(self, name)))
        depths, others = ([len(stage) for stage in stages] for stages in (self.choices, self.keeps_shape))
        if depths != others or 0 in depths or not depths:
            raise ConfigError(f"a space needs positions, and keeps_shape for each of them, not {others} for {depths}")
        for count in _flat(self.choices):
            check_whole("the number of operations at a position", count, least=1)

    @property
    def options(self) -> list[tuple[int, ...]]:
        """The choices that may be drawn at each position: its operations, then SKIP where that may be drawn."""
        return [
            (*range(count), *([SKIP] if may_skip and self.draws_skip else []))
            for counts, skippable in zip(self.choices, self.keeps_shape)
            for count, may_skip in zip(counts, skippable)
        ]

    @property
    def num_operations(self) -> int:
        """The largest number of operations at any position."""
        return max(_flat(self.choices))

    @property
    def num_choices(self) -> int:
        """The number of weights that ``distribution`` takes: one per operation, and a last one if SKIP may be drawn."""
        return self.num_operations + any(SKIP in options for options in self.options)

    @property
    def weighed(self) -> np.ndarray:
        """Whether weights apply at each position, [positions] bool: only where it offers ``num_operations``."""
        return np.fromiter((count == self.num_operations for count in _flat(self.choices)), bool)

    @property
    def size(self) -> int:
        """The number of different paths that may be drawn."""
        return math.prod(len(options) for options in self.options)

    def encode(self, arch: Arch) -> np.ndarray:
        """Write the choices of a path into one row, [positions] int64."""
        return np.fromiter(_flat(arch), np.int64)

    def decode(self, row: Sequence[int]) -> Arch:
        """Split one row of choices, [positions], into the stages of a path.

        Raises:
            ConfigError: the row has another length.
        """
        row = [operator.index(choice) for choice in row]
        positions = sum(len(stage) for stage in self.choices)
        if len(row) != positions:
            raise ConfigError(f"the row has {len(row)} choices; a path of this space has {positions}")
        choices = iter(row)
        return tuple(tuple(next(choices) for _ in stage) for stage in self.choices)

    def sample(self, rng: np.random.Generator, n: int = 1, probabilities: Sequence[float] | None = None) -> np.ndarray:
        """Draw ``n`` paths as rows, [n, positions] int64.

        Args:
            rng: the generator that is drawn from.
            n: how many paths to draw.
            probabilities: weights of the choices, as ``distribution`` takes them; None draws uniformly.
        """
        pairs = zip(self.options, self.distribution(probabilities))
        return np.stack([rng.choice(options, n, p=weights) for options, weights in pairs], axis=1)

    def distribution(self, probabilities: Sequence[float] | None = None) -> list[np.ndarray]:
        """Return the probability of each of ``options``, position by position.

        Args:
            probabilities: ``num_choices`` weights. They apply at the positions that offer ``num_operations``. At the
                other positions, and everywhere if this is None, all options are equally likely.

        Raises:
            ConfigError: the number of weights is wrong, or no operation has a weight above 0.
        """
        if probabilities is None:
            return [np.full(len(options), 1 / len(options)) for options in self.options]
        weights = np.asarray(probabilities, np.float64)
        if len(weights) != self.num_choices:
            raise ConfigError(f"there are {len(weights)} weights for the {self.num_choices} choices of this space")
        if not weights[: self.num_operations].any():
            raise ConfigError("the weights leave nothing to draw where no block may be skipped: all operations have 0")
        distributions = []
        for options, weighed in zip(self.options, self.weighed):
            option_weights = weights[list(options)] if weighed else np.ones(len(options))
            distributions.append(option_weights / option_weights.sum())
        return distributions

    def depth(self, arch: Arch) -> int:
        """Return the number of blocks that a path runs."""
        return sum(choice != SKIP for choice in _flat(arch))

    def net_of(self, arch: Arch) -> Arch:
        """Return what names the single net of a path: it is equal for paths that are the same net."""
        return tuple(tuple(choice for choice in stage if choice != SKIP) for stage in arch)

    def mutate(self, arch: Arch, rng: np.random.Generator, probability: float) -> Arch:
        """Draw each choice of a path again with ``probability``, uniformly as ``sample`` does, and keep the others.

        Raises:
            ConfigError: ``arch`` is not a path of this space, or ``probability`` does not lie between 0 and 1.
        """
        if not 0 <= probability <= 1:
            raise ConfigError(f"the probability of a mutation is {probability}; it must lie between 0 and 1")
        row = self.encode(self.check(arch))
        return self.decode(np.where(rng.random(len(row)) < probability, self.sample(rng)[0], row))

    def crossover(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        """Take each choice from one of two paths, either with probability 1/2.

        Raises:
            ConfigError: one of them is not a path of this space.
        """
        first_row, second_row = (self.encode(self.check(arch)) for arch in (first, second))
        return self.decode(np.where(rng.random(len(first_row)) < 0.5, first_row, second_row))

    def to_nni_json(self, arch: Arch) -> str:
        """Write a path as NNI's ``architecture_final.json``: one one-hot list for each of ``LayerChoice1``, ...

        The list of a skipped block has no true entry.
        """
        pairs = zip(_flat(self.check(arch)), _flat(self.choices))
        one_hot = [[index == choice for index in range(count)] for choice, count in pairs]
        lines = (f'  "LayerChoice{number}": {json.dumps(values)}' for number, values in enumerate(one_hot, start=1))
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def from_nni_json(self, text: str) -> Arch:
        """Read a path from the text of NNI's ``architecture_final.json``.

        NNI has written choices as one-hot lists and as numbers, under names that end in the number of the position.

        Raises:
            ConfigError: the text is not such a file, or its choices do not fit this space; the message says where.
        """
        counts = list(_flat(self.choices))
        choices = _nni_choices(text, len(counts))
        return self.check(self.decode(_read_choice(*entry, count) for entry, count in zip(choices, counts)))

    def check(self, arch: Arch) -> Arch:
        """Return ``arch`` if it is a path of this space.

        Raises:
            ConfigError: it is not; the message names the stage and the block.
        """
        if len(arch) != len(self.choices):
            raise ConfigError(f"architecture {format_arch(arch):.100} has {len(arch)} stages, not {len(self.choices)}")
        for stage, (path, counts, skippable) in enumerate(zip(arch, self.choices, self.keeps_shape)):
            if len(path) != len(counts):
                raise ConfigError(f"{_place(arch, stage)} has {len(path)} blocks, not {len(counts)}")
            for position, (choice, count, may_skip) in enumerate(zip(path, counts, skippable)):
                if choice == SKIP and not may_skip:
                    raise ConfigError(
                        f"{_place(arch, stage, position)} cannot be skipped: "
                        "it changes the shape, or belongs to the least depth of its stage"
                    )
                if type(choice) is bool or not isinstance(choice, numbers.Integral) or not SKIP <= choice < count:
                    raise ConfigError(
                        f"{_place(arch, stage, position)} has choices 0 to {count - 1}, not {shown(choice, 20)}"
                    )
        return arch


def _place(arch: Arch, stage: int, position: int | None = None) -> str:
    """Name a stage, or a block of it, for a message."""
    block = "" if position is None else f"block {position} of "
    return f"architecture {format_arch(arch):.150}: {block}stage {stage}"


def _flat(stages: Sequence[Sequence[int]]) -> Iterator[int]:
    return (value for stage in stages for value in stage)


def _nni_choices(text: str, positions: int) -> list[tuple[str, object]]:
    """Return the names and values of NNI's choices, ordered by the numbers at the ends of the names."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this architecture is not JSON: {error}") from None
    numbers = {name: re.search(r"(?<!\d)\d{1,6}$", name) for name in entries} if isinstance(entries, dict) else {}
    unnumbered = [name for name, number in numbers.items() if number is None]
    if not numbers or unnumbered:
        names = ", ".join(f"{name!r:.50}" for name in unnumbered[:5]) or "no names at all"
        raise ConfigError(f"an architecture of NNI names its choices LayerChoice1, LayerChoice2, ...; this has {names}")
    ordered = sorted((int(number[0]), name) for name, number in numbers.items())
    first = ordered[0][0]  # NNI counts on from net to net, so the numbers of a process's second net do not start at 1
    if [number for number, _ in ordered] != list(range(first, first + positions)):
        names = ", ".join(f"{name:.50}" for _, name in ordered[:5])
        more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
        raise ConfigError(f"this space has {positions} choices, each with a number of its own; there are {names}{more}")
    return [(name, entries[name]) for _, name in ordered]


def _read_choice(name: str, value: object, count: int) -> int:
    """Read one choice from a one-hot list of ``count`` truth values, from a number, or from the text of a number."""
    if isinstance(value, list) and len(value) == count and all(isinstance(hot, bool) for hot in value):
        if value.count(True) < 2:
            return value.index(True) if True in value else SKIP
    elif isinstance(value, str) and re.fullmatch(r"\d{1,4}", value):
        return int(value)
    elif type(value) is int:
        return value
    raise ConfigError(
        f"{name:.50} is {json.dumps(value):.80}; it must be a list of {count} truth values, at most one of them true, "
        "or the number of a choice"
    )
