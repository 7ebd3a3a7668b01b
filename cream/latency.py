"""Milliseconds of every choice in a supernet, measured where the found net shall run, so that a path's are a sum."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor, nn

from pimm.errors import ConfigError
from pimm.utils import alone, atomic_file

from .build import SearchNet, child_net, of_found_net, search_net, start_processes
from .config import Config
from .evaluate import mode
from .flops import CostTable
from .runlog import RunLog, log
from .space import Arch, SearchSpace, format_arch
from .supernet import SuperNet

WARM_UP = 5


@dataclass(frozen=True)
class Latency:
    """``choices[stage][position][operation]`` and ``fixed``, the shared part, in ms for a batch; and of what.

    ``check`` lists whole nets, with the sum and what was measured.
    """

    choices: list[list[list[float]]]
    fixed: float
    resolution: int
    batch_size: int
    device: str
    machine: str
    threads: int
    paddle: str
    repeats: int
    check: list[dict]

    def costs_for(self, space: SearchSpace, resolution: int) -> CostTable:
        """The table of a search; ConfigError if it was measured for another space or image size."""
        counts = tuple(tuple(len(costs) for costs in stage) for stage in self.choices)
        if counts != space.choices or resolution != self.resolution:
            raise ConfigError(
                f"SUPERNET.LATENCY_TABLE was measured at {self.resolution} pixels for a space of {_described(counts)}; "
                f"the search has {resolution} pixels and {_described(space.choices)}: measure again (tools/latency.py)"
            )
        return CostTable(self.choices, self.fixed)


def _described(choices: tuple[tuple[int, ...], ...]) -> str:
    return f"{[len(stage) for stage in choices]} positions with {sum(map(sum, choices))} operations"


def read_latency(path: Path) -> Latency:
    """What ``measure_latency`` wrote to ``path``; ConfigError for any other file."""
    try:
        return Latency(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no table of latencies, which tools/latency.py writes: {error}") from None


def measure_latency(cfg: Config, path: Path, threads: int, repeats: int = 30, nets: int = 5) -> Latency:
    """Measures the supernet that ``cfg`` describes on this machine, and whole nets as a check; writes ``path``.

    Images are ``DATASET.BATCH_SIZE`` at a time, at the search's size. Each number is the median of ``repeats``.
    """
    with alone():
        run = RunLog()
        start_processes(cfg)
        searched = search_net(cfg)
        batch = paddle.rand([cfg.DATASET.BATCH_SIZE, 3, searched.resolution, searched.resolution])
        table = choice_latency(searched.net, batch, repeats)
        latency = Latency(
            choices=table.choices,
            fixed=table.fixed,
            resolution=searched.resolution,
            batch_size=cfg.DATASET.BATCH_SIZE,
            device=device_name(),
            machine=f"{platform.node()} {platform.machine()}",
            threads=threads,
            paddle=paddle.__version__,
            repeats=repeats,
            check=[whole_net(cfg, searched, table, arch, batch, repeats) for arch in check_paths(searched, nets)],
        )
        with atomic_file(path) as file:
            file.write((json.dumps(asdict(latency), indent=1) + "\n").encode())
        run.close()
    return latency


@paddle.no_grad()
def choice_latency(net: SuperNet, x: Tensor, repeats: int) -> CostTable:
    """Milliseconds of each choice for the batch x; the fixed part is stem and head.

    Positions that are built alike and meet images of one size are measured once.
    """
    known: dict[tuple, tuple[list[float], Tensor]] = {}
    choices: list[list[list[float]]] = []
    with mode(net, training=False):
        stem, x = milliseconds(net.stem, x, repeats), net.stem(x)
        for stage, counts in zip(net.blocks, net.space.choices):
            choices.append([])
            for position, count in zip(stage, counts):
                key = (repr(position), tuple(x.shape))
                if key not in known:
                    blocks = [position.alone(choice) for choice in range(count)]
                    for block in blocks:
                        block.eval()
                    known[key] = [milliseconds(block, x, repeats) for block in blocks], blocks[0](x)
                costs, x = known[key]
                choices[-1].append(costs)
                log.info("%s: %s ms", key[1], ", ".join(f"{cost:.3f}" for cost in costs))
        return CostTable(choices, stem + milliseconds(net.head, x, repeats))


def whole_net(cfg: Config, searched: SearchNet, table: CostTable, arch: Arch, x: Tensor, repeats: int) -> dict:
    """What the table says of a path's net, and what the net takes."""
    _, net = child_net(of_found_net(cfg, cfg, arch, searched.resolution))
    net.eval()
    with paddle.no_grad():
        return {"arch": format_arch(arch), "predicted_ms": table(arch), "measured_ms": milliseconds(net, x, repeats)}


def check_paths(searched: SearchNet, n: int) -> list[Arch]:
    """Paths of different cost."""
    return searched.sampler.spread(np.random.default_rng(0), n)


def milliseconds(run: Callable[[Tensor], Tensor] | nn.Layer, x: Tensor, repeats: int) -> float:
    """Median time of ``run(x)``, after a warm-up; a GPU is waited for."""
    times = []
    for _ in range(WARM_UP + repeats):
        started = time.perf_counter()
        run(x)
        wait_for_device()
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times[WARM_UP:]))


def wait_for_device() -> None:
    """Until all that was launched has run; a CPU does not run ahead."""
    if paddle.get_device() != "cpu":
        paddle.device.synchronize()


def device_name() -> str:
    """The device in words."""
    device = paddle.get_device()
    return f"{device} {paddle.device.cuda.get_device_name()}" if device.startswith("gpu") else device
