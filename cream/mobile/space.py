"""Search spaces of mobile nets: described by a user, and Cream's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cream.fields import REQUIRED, Rule, at_least, between, key, one_of, read_fields
from cream.mobile.blocks import ACTIVATIONS, BLOCKS
from cream.space import SearchSpace
from cream.yaml_text import OneLine, compose, plain
from pimm.errors import ConfigError

ODD = Rule("an odd one, at least 1", lambda value: value >= 1 and value % 2 == 1)
ONE_OR_TWO = Rule("1 or 2", lambda value: value in (1, 2))
DEPTH = Rule(
    "one number of blocks, at least 1, or [least, most], from 0 up",
    lambda value: (len(value) == 1 and value[0] >= 1) or (len(value) == 2 and 0 <= value[0] < value[1]),
)


@dataclass(frozen=True)
class Operation:
    """What one block may be, wherever it stands; ``BLOCKS`` says which of these a block type knows."""

    block: str = key("ir", one_of(*BLOCKS))
    kernel: int = key(3, ODD)
    expansion: float = key(1.0, at_least(1))  # inner channels by the block's input's, rounded to multiples of 8
    se: float = key(0.0, between(0, 1))  # squeeze-and-excitation: gate's channels by the inner ones; 0 is none
    dilation: int = key(1, at_least(1))
    reduction: int = key(4, at_least(1))  # of a residual unit: its output's channels by the inner ones


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first has the stride. ``depth`` is their number, or the least and the most.

    Without ``operations`` of its own each block is one of the space's.
    """

    channels: int = key(REQUIRED, at_least(1))
    stride: int = key(1, ONE_OR_TWO)
    depth: tuple[int, ...] = key((1,), DEPTH)
    operations: tuple[Operation, ...] = key(())


@dataclass(frozen=True)
class SpaceSpec:
    """All that makes a space: stem, stages, head (channels before the classifier), activation, operations."""

    stages: tuple[Stage, ...] = key(REQUIRED)
    operations: tuple[Operation, ...] = key(())
    stem: int = key(16, at_least(1))
    stem_stride: int = key(2, ONE_OR_TWO)
    head: int = key(1280, at_least(1))
    activation: str = key("swish", one_of(*ACTIVATIONS))


class Position(NamedTuple):
    """A place for a block, and what it may be there."""

    operations: tuple[Operation, ...]
    in_chs: int
    out_chs: int
    stride: int


@dataclass(frozen=True, init=False)
class MobileSpace(SearchSpace):
    """The paths through the nets that ``spec`` describes; with ``draws_skip`` depth ranges are drawn, by skips."""

    spec: SpaceSpec

    def __init__(self, spec: SpaceSpec, draws_skip: bool = True):
        object.__setattr__(self, "spec", spec)
        super().__init__(
            choices=tuple(tuple(len(place.operations) for place in stage) for stage in self.positions),
            keeps_shape=tuple(
                tuple(len(stage.depth) == 2 and i >= stage.depth[0] for i in range(stage.depth[-1]))
                for stage in spec.stages
            ),
            draws_skip=draws_skip,
        )

    @property
    def positions(self) -> list[list[Position]]:
        """The places for blocks, [stage][position]."""
        found, in_chs = [], self.spec.stem
        for stage in self.spec.stages:
            operations = stage.operations or self.spec.operations
            first = Position(operations, in_chs, stage.channels, stage.stride)
            further = Position(operations, stage.channels, stage.channels, 1)
            found.append([first, *[further] * (stage.depth[-1] - 1)])
            in_chs = stage.channels
        return found


# Reading and writing


def load_space(path: str | Path) -> MobileSpace:
    """The space that a YAML file describes; raises ConfigError that says where it does not, and what is valid."""
    return MobileSpace(load_spec(path))


def load_spec(path: str | Path) -> SpaceSpec:
    """The description in a YAML file; errors as in ``load_space``, and OSError if it cannot be read."""
    root = compose(path)
    try:
        raw = {} if root is None else plain(root)
    except (ConfigError, RecursionError) as error:
        reason = error if isinstance(error, ConfigError) else "it holds itself"
        raise ConfigError(f"{path}: {reason}") from None
    return read_spec(raw, f"{path}: ")


def read_spec(raw: Any, place: str = "") -> SpaceSpec:
    """The description that plain data stands for; messages of its ConfigErrors begin with ``place``."""
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


def _read_list(read, raw: Any, where: str) -> tuple:
    if not isinstance(raw, (list, tuple)) or not raw:
        raise ConfigError(f"{where} is {raw!r}; must be a list, not an empty one")
    return tuple(read(item, f"{where}[{i}]") for i, item in enumerate(raw))


def _read_stage(raw: Any, where: str) -> Stage:
    if isinstance(raw, Mapping) and "depth" in raw and not isinstance(raw["depth"], (list, tuple)):
        raw = {**raw, "depth": raw["depth"] if str(raw["depth"]).startswith("[") else [raw["depth"]]}
    return read_fields(
        Stage, raw, f"{where}.", operations=lambda value, inner: _read_list(_read_operation, value, inner)
    )


def _read_operation(raw: Any, where: str) -> Operation:
    operation = read_fields(Operation, raw, f"{where}.")
    known = ("block", *BLOCKS[operation.block].fields)
    unknown = [name for name in raw if name not in known]
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} says nothing of a block {operation.block}; it has {', '.join(known)}")
    return operation


def describe(spec: SpaceSpec) -> dict[str, Any]:
    """The plain data that ``read_spec`` reads: all that differs from the defaults."""
    found = _changed(spec)
    if spec.operations:
        found["operations"] = [_describe_operation(operation) for operation in spec.operations]
    found["stages"] = [_describe_stage(stage) for stage in found.pop("stages")]
    return found


def _describe_stage(stage: Stage) -> OneLine:
    found = OneLine(_changed(stage))
    if len(stage.depth) == 1 and "depth" in found:
        (found["depth"],) = stage.depth
    if stage.operations:
        found["operations"] = [_describe_operation(operation) for operation in stage.operations]
    return found


def _describe_operation(operation: Operation) -> OneLine:
    return OneLine({"kernel": operation.kernel, **_changed(operation)})


def _changed(record: Any) -> dict[str, Any]:
    """What of a record is not as by default."""
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
    """Cream's space with so many blocks in its five searched stages.

    The six inverted residuals are always there; two dilated convolutions, a residual unit and skips come after them
    on request, in this order. Raises ConfigError for another number of stages.
    """
    if len(depths) != len(WIDTHS_AND_STRIDES):
        raise ConfigError(
            f"there must be {len(WIDTHS_AND_STRIDES)} stages between the first and the last, not {len(depths)}, "
            "as in [[0], [3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]]"
        )
    if min(depths) < 1:
        raise ConfigError(f"a stage must have a block at least; the depths are {', '.join(map(str, depths))}")
    searched = [
        Stage(channels, stride, (1, depth) if depth > 1 else (1,))
        for (channels, stride), depth in zip(WIDTHS_AND_STRIDES, depths)
    ]
    operations = (*OPERATIONS, *DILATED_CONVOLUTIONS * dilated, *(RESIDUAL_UNIT,) * residual_unit)
    return MobileSpace(SpaceSpec((FIRST_STAGE, *searched, LAST_STAGE), operations), draws_skip=skip)
