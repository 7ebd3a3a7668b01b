"""Latency of every choice of a supernet, measured where the net will run; choices add up to the latency of a path."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor, nn

from cream import typed
from cream.flops import CostTable
from cream.space import Arch, format_arch
from cream.supernet import SuperNet
from cream.train.search_net import SearchNet
from pimm import device
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError
from pimm.utils import write_text

WARM_UP = 5

Run = tuple[Callable[[Tensor], Tensor], Tensor]  # a layer, and what it is run on


@dataclass(frozen=True)
class Latency:
    """Holds the milliseconds that each choice of a space takes for a batch, and the machine that measured them.

    ``choices[stage][position][operation]`` are the milliseconds of the operations and ``fixed`` those of the layers
    that all paths share. ``mflops``, in the order of ``choices``, distinguish the operations of one space from those of
    another. ``check`` lists whole nets, with the predicted sum of their choices and the measured milliseconds.
    """

    choices: list[list[list[float]]]
    mflops: list[list[list[float]]]
    fixed: float
    resolution: int
    batch_size: int
    device: str
    machine: str
    threads: int
    paddle: str
    repeats: int
    check: list[dict]

    @property
    def deviation(self) -> float:
        """Mean difference between the predicted and the measured latency of whole nets, as a share of the measured."""
        return float(np.mean([abs(net["predicted_ms"] / net["measured_ms"] - 1) for net in self.check]))

    def costs_for(self, searched: SearchNet) -> CostTable:
        """Return the latencies as a table of costs; raise ConfigError for another space or image size."""
        counts = tuple(tuple(len(costs) for costs in stage) for stage in self.choices)
        own, size = searched.space.choices, searched.resolution
        if counts != own or self.resolution != size or _rounded(self.mflops) != _rounded(searched.mflops.choices):
            raise ConfigError(
                f"SUPERNET.LATENCY_TABLE was measured at {self.resolution} pixels for {_described(self.mflops)}; "
                f"the search has {size} pixels and {_described(searched.mflops.choices)}: measure again "
                f"({typed.script('latency')})"
            )
        return CostTable(self.choices, self.fixed, searched.space)

    def __str__(self) -> str:
        return f"{self.batch_size} images on {self.device} of {self.machine} with {self.threads} threads"


def _rounded(costs: list[list[list[float]]]) -> list[list[list[float]]]:
    return [[[round(cost, 6) for cost in position] for position in stage] for stage in costs]


def _described(mflops: list[list[list[float]]]) -> str:
    total = sum(cost for stage in mflops for position in stage for cost in position)
    operations = sum(len(position) for stage in mflops for position in stage)
    return f"{[len(stage) for stage in mflops]} positions with {operations} operations of {total:.6g} MFLOPs together"


def read_latency(path: Path) -> Latency:
    """Read a latency table that ``write_latency`` wrote; raise ConfigError for any other file."""
    try:
        return Latency(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is no latency table as {typed.script('latency')} writes it: {error}") from None


def measure_latency(
    searched: SearchNet,
    child: Callable[[Arch], nn.Layer],
    batch_size: int,
    threads: int,
    repeats: int = 30,
    nets: int = 5,
) -> Latency:
    """Measure the choices of a supernet on this machine, and whole nets as a check.

    Args:
        searched: the supernet.
        child: builds the single net of a path.
        batch_size: number of images at a time.
        threads: number of threads that compute, which the result records.
        repeats: number of measurements whose median is taken.
        nets: number of whole nets to check the sums with.
    """
    batch = paddle.rand([batch_size, searched.net.in_chans, *[searched.resolution] * 2])
    archs = searched.sampler.spread(np.random.default_rng(0), nets)
    table, measured = choice_latency(searched.net, [child(arch) for arch in archs], batch, repeats)
    return Latency(
        choices=table.choices,
        mflops=searched.mflops.choices,
        fixed=table.fixed,
        resolution=searched.resolution,
        batch_size=batch_size,
        device=device.current().described(),
        machine=f"{platform.node()} {platform.machine()}",
        threads=threads,
        paddle=paddle.__version__,
        repeats=repeats,
        check=[
            {"arch": format_arch(arch), "predicted_ms": table(arch), "measured_ms": taken}
            for arch, taken in zip(archs, measured)
        ],
    )


def write_latency(path: Path, latency: Latency) -> None:
    """Write a latency table, which ``read_latency`` reads."""
    write_text(path, json.dumps(asdict(latency), indent=1) + "\n")


@paddle.no_grad()
def choice_latency(
    net: SuperNet, whole: Sequence[nn.Layer], batch: Tensor, repeats: int
) -> tuple[CostTable, list[float]]:
    """Return the milliseconds of each choice for the batch, with stem and head as the fixed part, and of whole nets.

    Positions of the same layers and input shape are measured once.
    """
    runs: list[Run] = [(net.stem, batch)]
    places: list[list[range]] = []  # for each position the indices of its runs
    known: dict[tuple, tuple[range, Tensor]] = {}  # by layers and input shape: the indices, and the position's output
    with train_mode(net, training=False):
        x = net.stem(batch)
        for stage, counts in zip(net.blocks, net.space.choices):
            places.append([])
            for position, count in zip(stage, counts):
                key = (repr(position), tuple(x.shape))
                if key not in known:
                    blocks = [position.standalone(choice) for choice in range(count)]
                    known[key] = range(len(runs), len(runs) + count), blocks[0](x)
                    runs += [(block, x) for block in blocks]
                place, x = known[key]
                places[-1].append(place)
        head = len(runs)
        runs += [(net.head, x), *((child, batch) for child in whole)]
        for layer, _ in runs:
            if isinstance(layer, nn.Layer):
                layer.eval()
        times = milliseconds(runs, repeats)
    choices = [[[times[i] for i in place] for place in stage] for stage in places]
    return CostTable(choices, times[0] + times[head]), times[head + 1 :]


def milliseconds(runs: Sequence[Run], repeats: int) -> list[float]:
    """Return the median time of each layer on its input, after a warm-up.

    The layers take turns: a busy moment of the machine falls on all of them, and each finds caches that the others have
    filled, as it will inside a net.
    """
    times = np.empty([WARM_UP + repeats, len(runs)])
    for turn in times:
        for i, (layer, x) in enumerate(runs):
            started = time.perf_counter()
            layer(x)
            device.synchronize()
            turn[i] = time.perf_counter() - started
    return (1e3 * np.median(times[WARM_UP:], axis=0)).tolist()
