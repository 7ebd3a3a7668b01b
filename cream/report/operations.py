"""The operations of a supernet in words and numbers, derived from its layers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import paddle
from paddle import nn

from cream.flops import CostTable
from cream.supernet import Choices, SuperNet
from pimm.engine.evaluation import train_mode
from pimm.layers import SqueezeExcite, frozen_batch_norm_statistics
from pimm.utils import write_text

OPERATIONS = "operations.json"
SHORT_NAMES = {
    "InvertedResidual": "MB",
    "DepthwiseSeparableConv": "DS",
    "EdgeResidual": "ER",
    "ConvBnAct": "conv",
    "ResidualUnit": "unit",
    "Identity": "identity",
    "ShuffleBlock": "shuffle",
}


@dataclass(frozen=True)
class Operation:
    """One operation of a position; its costs are in millions.

    ``kernel`` is its largest kernel, and ``expansion`` the input channels of that convolution divided by the input
    channels of the block.
    """

    name: str
    kernel: int
    expansion: float
    mflops: float
    mparams: float


@dataclass(frozen=True)
class Position:
    """A position of the supernet, whose output has ``channels`` maps of ``size`` by ``size`` pixels."""

    channels: int
    size: int
    may_skip: bool
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Anatomy:
    """All operations of a supernet, for images of ``resolution`` pixels.

    The output of the stem has ``stem_channels`` maps of ``stem_size`` by ``stem_size`` pixels. ``shared_mflops`` and
    ``shared_mparams`` are the costs, in millions, of the layers that all paths share.
    """

    resolution: int
    stem_channels: int
    stem_size: int
    shared_mflops: float
    shared_mparams: float
    stages: tuple[tuple[Position, ...], ...]


def anatomy(net: SuperNet, resolution: int, tables: tuple[CostTable, CostTable]) -> Anatomy:
    """Describe the operations of a supernet.

    Args:
        net: the supernet; its mode and batch-norm statistics stay as they are.
        resolution: the side of an image, in pixels.
        tables: the costs of its choices, multiply-adds and parameters, as ``cost_tables`` returns them.
    """
    mflops, mparams = tables
    stages = []
    with train_mode(net, training=False), paddle.no_grad(), frozen_batch_norm_statistics():
        stem = x = net.stem(paddle.zeros([1, net.in_chans, resolution, resolution]))
        for stage, skippable, *stage_costs in zip(net.blocks, net.space.keeps_shape, mflops.choices, mparams.choices):
            positions = []
            for choices, may_skip, *costs in zip(stage, skippable, *stage_costs):
                in_chs, x = x.shape[1], choices(x, 0)
                operations = _describe_operations(choices, in_chs, list(zip(*costs)))
                positions.append(Position(x.shape[1], x.shape[2], may_skip, operations))
            stages.append(tuple(positions))
    return Anatomy(resolution, stem.shape[1], stem.shape[2], mflops.fixed, mparams.fixed, tuple(stages))


def _describe_operations(choices: Choices, in_chs: int, costs: Sequence[tuple[float, float]]) -> tuple[Operation, ...]:
    """Describe the operations of a position with ``in_chs`` input channels; ``costs`` are those of each operation."""
    blocks = [choices.standalone(choice) for choice in range(len(costs))]
    names = _distinct([_name(block, in_chs) for block in blocks])
    return tuple(
        Operation(name, *_kernel_and_expansion(block, in_chs), *cost) for name, block, cost in zip(names, blocks, costs)
    )


def write_anatomy(folder: Path, described: Anatomy) -> None:
    """Write ``operations.json`` into the folder of a search."""
    write_text(folder / OPERATIONS, json.dumps(asdict(described), indent=1) + "\n")


def read_anatomy(folder: Path) -> Anatomy:
    """Read ``operations.json`` from the folder of a search."""
    raw = json.loads((folder / OPERATIONS).read_text(encoding="utf-8"))
    stages = tuple(
        tuple(
            Position(**{**position, "operations": tuple(Operation(**each) for each in position["operations"])})
            for position in stage
        )
        for stage in raw["stages"]
    )
    return Anatomy(**{**raw, "stages": stages})


def _convolutions(block: nn.Layer) -> list[nn.Layer]:
    return [layer for layer in block.sublayers(include_self=True) if isinstance(layer, nn.Conv2D)]


def _kernel_and_expansion(block: nn.Layer, in_chs: int) -> tuple[int, float]:
    """Return the side of a block's largest kernel, and the input channels of that convolution divided by ``in_chs``."""
    convolutions = _convolutions(block)
    kernel = max((layer.weight.shape[-1] for layer in convolutions), default=1)
    widths = [layer._in_channels for layer in convolutions if layer.weight.shape[-1] == kernel]
    return kernel, max(widths, default=in_chs) / in_chs


def _name(block: nn.Layer, in_chs: int) -> str:
    """Name a block, such as ``MB 5x5 e6 d2 SE``: type, kernel, expansion, dilation and squeeze-and-excitation.

    An expansion or dilation of 1 is left out.
    """
    kernel, expansion = _kernel_and_expansion(block, in_chs)
    dilation = max((max(_pair(layer._dilation)) for layer in _convolutions(block)), default=1)
    kind = type(block).__name__
    gated = any(isinstance(layer, SqueezeExcite) for layer in block.sublayers())
    parts = [
        SHORT_NAMES.get(kind, kind),
        f"{kernel}x{kernel}",
        f"e{expansion:.2g}" if expansion != 1 else "",
        f"d{dilation}" if dilation != 1 else "",
        "SE" if gated else "",
    ]
    return " ".join(part for part in parts if part)


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value


def _distinct(names: list[str]) -> list[str]:
    """Return the names, with the number of the choice after each name that occurs more than once."""
    counts = Counter(names)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]
