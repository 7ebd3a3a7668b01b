"""Search spaces of mobile nets: those that a YAML file describes, and Cream's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

from cream.counting import CONVENTIONS
from cream.fields import REQUIRED, Rule, at_least, between, key, one_of, read_fields, shown
from cream.mobile.blocks import ACTIVATIONS, BLOCKS
from cream.recipes import find_recipe
from cream.space import SKIP, Arch, SearchSpace
from cream.yaml_text import OneLine, compose, plain
from pimm.errors import ConfigError

WIDEST, DEEPEST, LONGEST = 10_000, 100, 1000  # channels of a layer, blocks of a stage, entries of a list
ODD = Rule("an odd one, at least 1 and at most 99", lambda value: 1 <= value <= 99 and value % 2 == 1)
ONE_OR_TWO = Rule("1 or 2", lambda value: value in (1, 2))
DEPTH = Rule(
    f"one number of blocks, at least 1, or [least, most], from 0 up, and at most {DEEPEST}",
    lambda value: (
        (len(value) == 1 and 1 <= value[0] <= DEEPEST) or (len(value) == 2 and 0 <= value[0] < value[1] <= DEEPEST)
    ),
)


@dataclass(frozen=True)
class Operation:
    """One operation that a position may offer; ``BLOCKS`` lists the fields that each type of block has."""

    block: str = key("ir", one_of(*BLOCKS))
    kernel: int = key(3, ODD)
    expansion: float = key(1.0, at_least(1, 100))  # inner channels / input channels; inner ones are multiples of 8
    se: float = key(0.0, between(0, 1))  # squeeze-and-excitation: channels of the gate / inner channels; 0: no gate
    dilation: int = key(1, at_least(1, 100))
    reduction: int = key(4, at_least(1, WIDEST))  # of a residual unit: output channels / inner channels


@dataclass(frozen=True)
class Stage:
    """Blocks with the same number of output channels, of which the first has the stride.

    ``depth`` is the number of blocks, or the least and the largest number. A stage without ``operations`` offers those
    of the space.
    """

    channels: int = key(REQUIRED, at_least(1, WIDEST))
    stride: int = key(1, ONE_OR_TWO)
    depth: tuple[int, ...] = key((1,), DEPTH)
    operations: tuple[Operation, ...] = key(())


@dataclass(frozen=True)
class SpaceSpec:
    """The description of a space: its stages, operations and activation, and the output channels of stem and head.

    ``head_type`` is ``pool_conv`` (pooling, a 1x1 convolution with bias, activation) or ``conv_pool`` (a 1x1
    convolution, batch norm, activation, pooling). ``counting`` names the convention by which FLOPs are counted.
    """

    stages: tuple[Stage, ...] = key(REQUIRED)
    operations: tuple[Operation, ...] = key(())
    stem: int = key(16, at_least(1, WIDEST))
    stem_stride: int = key(2, ONE_OR_TWO)
    head: int = key(1280, at_least(1, WIDEST))
    head_type: str = key("pool_conv", one_of("pool_conv", "conv_pool"))
    activation: str = key("swish", one_of(*ACTIVATIONS))
    counting: str = key("cream", one_of(*CONVENTIONS))


class Position(NamedTuple):
    """A position of a supernet: the operations that it offers, its channels in and out, and its stride."""

    operations: tuple[Operation, ...]
    in_chs: int
    out_chs: int
    stride: int


@dataclass(frozen=True, init=False)
class MobileSpace(SearchSpace):
    """The space that ``spec`` describes.

    With ``draws_skip``, the depth of a stage that has a range of depths is drawn, by skipping blocks.
    """

    spec: SpaceSpec

    def __init__(self, spec: SpaceSpec, draws_skip: bool = True):
        object.__setattr__(self, "spec", spec)
        super().__init__(
            choices=tuple(tuple(len(position.operations) for position in stage) for stage in self.positions),
            keeps_shape=tuple(
                tuple(len(stage.depth) == 2 and i >= stage.depth[0] for i in range(stage.depth[-1]))
                for stage in spec.stages
            ),
            draws_skip=draws_skip,
        )

    @property
    def positions(self) -> list[list[Position]]:
        """The positions of the supernet, [stage][position]."""
        positions, in_chs = [], self.spec.stem
        for stage in self.spec.stages:
            operations = stage.operations or self.spec.operations
            first = Position(operations, in_chs, stage.channels, stage.stride)
            further = Position(operations, stage.channels, stage.channels, 1)
            positions.append([first, *[further] * (stage.depth[-1] - 1)])
            in_chs = stage.channels
        return positions

    def depth(self, arch: Arch) -> int:
        """Return the number of blocks that a path runs, without identities, even those that change the shape."""
        return sum(position.operations[choice].block != "id" for _, position, choice in self._blocks(arch))

    def net_of(self, arch: Arch) -> Arch:
        """Return the choices of a path without skips and without the identities that keep the shape."""
        kept: list[list[int]] = [[] for _ in arch]
        for stage, position, choice in self._blocks(arch):
            if position.operations[choice].block != "id" or position.stride > 1 or position.in_chs != position.out_chs:
                kept[stage].append(choice)
        return tuple(map(tuple, kept))

    def _blocks(self, arch: Arch) -> Iterator[tuple[int, Position, int]]:
        """Yield the stage, the position and the choice of each block that a path does not skip."""
        for stage, (path, positions) in enumerate(zip(arch, self.positions)):
            yield from ((stage, position, choice) for choice, position in zip(path, positions) if choice != SKIP)


# Reading and writing


def load_space(path: str | Path) -> MobileSpace:
    """Read the space that a YAML file, or the recipe with this name, describes; errors as in ``load_spec``."""
    return MobileSpace(load_spec(path))


def load_spec(path: str | Path) -> SpaceSpec:
    """Read the description of a space from a YAML file, or from the recipe with this name.

    Raises:
        ConfigError: the file does not describe a space; the message names the file, the place and what is valid.
        OSError: the file cannot be read.
    """
    root = compose(find_recipe(path))
    try:
        raw = {} if root is None else plain(root)
    except (ConfigError, RecursionError) as error:
        reason = error if isinstance(error, ConfigError) else "a list or mapping contains itself"
        raise ConfigError(f"{path}: {reason}") from None
    return read_spec(raw, f"{path}: ")


def read_spec(raw: Any, place: str = "") -> SpaceSpec:
    """Read the description of a space from plain data.

    Args:
        raw: dictionaries, lists and texts, as YAML holds them.
        place: the file or setting that ``raw`` comes from; messages begin with it.

    Raises:
        ConfigError: ``raw`` does not describe a space.
    """
    spec = read_fields(
        SpaceSpec,
        raw,
        place,
        stages=lambda value, where: _read_list(_read_stage, value, where),
        operations=lambda value, where: _read_list(_read_operation, value, where),
    )
    in_chs = spec.stem
    for i, stage in enumerate(spec.stages):
        where = f"{place}stages[{i}]"
        if not (stage.operations or spec.operations):
            raise ConfigError(f"{where} has no operations; they must be given there, or for all stages beside `stages`")
        if stage.depth[0] == 0 and (stage.stride != 1 or stage.channels != in_chs):
            raise ConfigError(
                f"{where}.depth begins at 0, but its first block changes the shape (from {in_chs} to {stage.channels} "
                f"channels, stride {stage.stride}) and cannot be skipped; must begin at 1 or more"
            )
        in_chs = stage.channels
    return spec


def _read_list(read: Callable[[Any, str], Any], raw: Any, where: str) -> tuple:
    """Read each item of a list by ``read(item, place)``."""
    if not isinstance(raw, (list, tuple)) or not 0 < len(raw) <= LONGEST:
        raise ConfigError(f"{where} is {shown(raw)}; must be a list, not an empty one, of at most {LONGEST}")
    return tuple(read(item, f"{where}[{i}]") for i, item in enumerate(raw))


def _read_stage(raw: Any, where: str) -> Stage:
    """Read a stage, whose depth may be a single number in place of a list."""
    if isinstance(raw, Mapping) and "depth" in raw and not isinstance(raw["depth"], (list, tuple)):
        raw = {**raw, "depth": raw["depth"] if str(raw["depth"]).startswith("[") else [raw["depth"]]}
    return read_fields(
        Stage, raw, f"{where}.", operations=lambda value, inner: _read_list(_read_operation, value, inner)
    )


def _read_operation(raw: Any, where: str) -> Operation:
    """Read an operation, whose fields must be those of its type of block."""
    operation = read_fields(Operation, raw, f"{where}.")
    valid = ("block", *BLOCKS[operation.block].fields)
    invalid = [name for name in raw if name not in valid]
    if invalid:
        raise ConfigError(f"{where}.{invalid[0]} is no field of a block {operation.block}; it has {', '.join(valid)}")
    return operation


def describe(spec: SpaceSpec) -> dict[str, Any]:
    """Write a description as the plain data that ``read_spec`` reads, without the fields that have their defaults."""
    fields = _changed_fields(spec)
    if spec.operations:
        fields["operations"] = [_describe_operation(operation) for operation in spec.operations]
    fields["stages"] = [_describe_stage(stage) for stage in fields.pop("stages")]
    return fields


def _describe_stage(stage: Stage) -> OneLine:
    fields = OneLine(_changed_fields(stage))
    if len(stage.depth) == 1 and "depth" in fields:
        (fields["depth"],) = stage.depth
    if stage.operations:
        fields["operations"] = [_describe_operation(operation) for operation in stage.operations]
    return fields


def _describe_operation(operation: Operation) -> OneLine:
    kernel = {"kernel": operation.kernel} if "kernel" in BLOCKS[operation.block].fields else {}
    return OneLine({**kernel, **_changed_fields(operation)})


def _changed_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass whose values are not their defaults."""
    values = {field.name: (getattr(record, field.name), field.default) for field in dataclasses.fields(record)}
    return {name: value for name, (value, default) in values.items() if value != default}


# Cream's own space

SE = 0.25
FIRST_STAGE = Stage(16, operations=(Operation("ds", 3, se=SE),))
LAST_STAGE = Stage(320, operations=(Operation("cn", 1),))
WIDTHS_AND_STRIDES = ((24, 2), (40, 2), (80, 2), (96, 1), (192, 2))
OPERATIONS = tuple(Operation("ir", kernel, expansion, SE) for kernel in (3, 5, 7) for expansion in (4, 6))
DILATED_CONVOLUTIONS = tuple(Operation("ds", kernel, se=SE, dilation=2) for kernel in (3, 5))
RESIDUAL_UNIT = Operation("ru", 3)


def mobile_space(
    depths: Sequence[int], residual_unit: bool = False, dilated: bool = False, skip: bool = False
) -> MobileSpace:
    """Build Cream's space, whose positions offer six inverted residual blocks: kernels 3, 5, 7 with expansion 4 and 6.

    Args:
        depths: the largest number of blocks of each of the five searched stages.
        residual_unit: whether to offer a residual unit, after all other operations.
        dilated: whether to offer two dilated convolutions, after the six blocks.
        skip: whether skips are drawn.

    Raises:
        ConfigError: the depths are not five numbers of at least 1.
    """
    if len(depths) != len(WIDTHS_AND_STRIDES):
        raise ConfigError(
            f"there must be {len(WIDTHS_AND_STRIDES)} stages between the first and the last, not {len(depths)}, "
            "as in [[0], [3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]]"
        )
    if min(depths) < 1:
        raise ConfigError(f"a stage must have at least one block; the depths are {', '.join(map(str, depths))}")
    searched = [
        Stage(channels, stride, (1, depth) if depth > 1 else (1,))
        for (channels, stride), depth in zip(WIDTHS_AND_STRIDES, depths)
    ]
    operations = (*OPERATIONS, *DILATED_CONVOLUTIONS * dilated, *(RESIDUAL_UNIT,) * residual_unit)
    return MobileSpace(SpaceSpec((FIRST_STAGE, *searched, LAST_STAGE), operations), draws_skip=skip)
