"""The table of operation costs that the authors of Single Path One-Shot released, ``op_flops_dict.pkl``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cream.flops import CostTable
from cream.shuffle.nets import CHANNELS, DEPTHS, STEM_SIZE, positions
from pimm.errors import CheckpointError, ConfigError
from pimm.utils.serialization import load_arrays

OpFlops = Mapping[str, Mapping["tuple[int, ...]", float]]

_NAMES = ("shufflenet_3x3", "shufflenet_5x5", "shufflenet_7x7", "xception_3x3")  # the table's names of OPERATIONS


def read_op_flops(path: str | Path) -> OpFlops:
    """Read a table ``{operation: {(channels, ..., height, width, stride): multiply-adds}}`` from a pickle.

    No code in the file is run.

    Raises:
        CheckpointError: the file cannot be read, or does not hold such a table.
    """
    table = load_arrays(path, any_protocol=True)
    if not isinstance(table, dict) or not all(isinstance(costs, dict) for costs in table.values()):
        raise CheckpointError(f"{path} is no table of operation costs: it does not hold a dict of dicts")
    try:
        return {str(name): {tuple(key): float(cost) for key, cost in costs.items()} for name, costs in table.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no table of operation costs: {error}") from None


def op_flops_table(op_flops: OpFlops, resolution: int = 224, last_channels: int = 1000) -> CostTable:
    """Build the cost table, in millions of multiply-adds, of the space that searches operations alone.

    Args:
        op_flops: the authors' table, as ``read_op_flops`` returns it.
        resolution: the side of an image, in pixels.
        last_channels: the output channels by which the table lists the cost of last convolution and classifier
            together. As in the authors' code this is the number of classes, and not the 1024 channels that there are.

    Raises:
        ConfigError: the table lacks the cost of an operation.
    """
    size = resolution // 2
    choices: list[list[list[float]]] = [[] for _ in DEPTHS]
    stages = (stage for stage, depth in zip(choices, DEPTHS) for _ in range(depth))
    for stage, (in_chs, out_chs, stride) in zip(stages, positions()):
        key = (in_chs, out_chs, out_chs // 2, size, size, stride)
        stage.append([_mflops(op_flops, f"{name}_stride_{stride}", key) for name in _NAMES])
        size //= stride
    first = _mflops(op_flops, "conv1", (3, STEM_SIZE, resolution, resolution, 2))
    last = _mflops(op_flops, "rest_operation", (CHANNELS[-1], last_channels, size, size, 1))
    return CostTable(choices, first + last)


def _mflops(op_flops: OpFlops, name: str, key: tuple[int, ...]) -> float:
    if name not in op_flops:
        known = ", ".join(f"{each:.40}" for each in sorted(op_flops)[:6])
        raise ConfigError(f"the table of costs has no operation {name}; it has {known}")
    if key not in op_flops[name]:
        known = ", ".join(f"{each!s:.40}" for each in sorted(op_flops[name])[:5])
        raise ConfigError(f"the table of costs has no {name} for {key}; it has {known}")
    return op_flops[name][key] / 1e6
