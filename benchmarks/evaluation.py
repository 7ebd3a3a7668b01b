"""Measure the evaluation of Cream's nets in each engine, alone and from JPEG to top-1, beside PyTorch.

A job of benchmarks/run.py. From JPEG, photographs are repeated to 1,000, each side has as many worker processes as the
machine has cores, and PyTorch runs in its best mode of those above, with timm's loader, where timm is installed.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import paddle
from loader import repeat_photographs
from measuring import figures_of, images_per_second, in_turns
from run_jobs import NETS, TORCH_MODES, torch_net, torch_runners

import pimm
from pimm.cli import use_cores
from pimm.data import Dataset, create_loader
from pimm.engine import evaluate, open_engine
from pimm.engine.program import has_bf16

BATCH, PHOTOGRAPHS = 32, 1000


def measure(options):
    """Yield the images per second of each net, engine and rival."""
    use_cores()  # as the commands do, and PyTorch
    nets = dict(list(NETS.items())[:1]) if options.small else NETS
    seconds = options.seconds / len(nets) / (2 if options.photographs else 1)
    for name, (side, _) in nets.items():
        net = pimm.create_model(name)
        net.eval()
        engines = open_engines(net, side)
        with tempfile.TemporaryDirectory() as folder:
            rival = torch_net(options.rival_python, net, side, Path(folder))
            turns = in_turns(net_alone(engines, rival, side, options.small), seconds)
            yield from figures_of(f"evaluate {name} at {side}, batch {BATCH}", turns)
            if options.photographs:
                count = 64 if options.small else PHOTOGRAPHS
                target = Path(folder, "photographs")
                target.mkdir()
                repeat_photographs(options.photographs, target, count)
                turns = in_turns(from_jpeg(engines, rival, best_mode(turns), side, target), seconds)
                yield from by_precision(f"from JPEG to top-1, {name} at {side}, batch {BATCH}", turns)
            if rival:
                rival.close()


def by_precision(what, turns):
    """Yield the figures of fp32, and those of bf16 as a comparison of their own."""
    for figure in figures_of(what, turns):
        is_bf16 = "bf16" in figure.by
        yield figure._replace(what=f"{what}, bf16" if is_bf16 else what, by=figure.by.removesuffix(" bf16"))


def open_engines(net, side):
    """Return what computes logits: Paddle's layers one by one, and the engine in each precision."""
    engines = {"here, eager": net, "here, inference": open_engine(net, (3, side, side), "inference")}
    if has_bf16():
        engines["here, inference bf16"] = open_engine(net, (3, side, side), "inference", "bf16")
    return engines


def net_alone(engines, rival, side, small):
    """Return the runners of the nets on one batch of drawn images."""
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((BATCH, 3, side, side)).astype("float32"))

    def step(engine):
        @paddle.no_grad()
        def run():
            engine(images).numpy()

        return run

    runners = {name: images_per_second(step(engine), BATCH) for name, engine in engines.items()}
    if rival:
        runners.update(torch_runners(rival, torch_modes(small), work="evaluate", batch=BATCH, side=side))
    return runners


def torch_modes(small):
    """Return the modes of PyTorch; those in bf16, where the CPU lacks it, would take most of the time for nothing."""
    modes = TORCH_MODES["evaluate"][:1] if small else TORCH_MODES["evaluate"]
    return [mode for mode in modes if has_bf16() or "bf16" not in mode]


def best_mode(turns):
    """Return PyTorch's fastest mode in fp32, or None."""
    medians = {name: statistics.median(values) for name, values in turns.items()}
    modes = {name: rate for name, rate in medians.items() if name.startswith("PyTorch") and "bf16" not in name}
    return max(modes, key=modes.get).partition(" ")[2] if modes else None


def from_jpeg(engines, rival, mode, side, folder):
    """Return the runners of whole evaluations of the photographs in a folder; ``mode`` is PyTorch's."""
    workers = len(os.sched_getaffinity(0))
    case = {"folder": str(folder), "batch": BATCH, "side": side, "mode": mode, "workers": workers}
    loader = create_loader(Dataset(str(folder)), (3, side, side), BATCH, num_workers=workers)
    runners = {name: one_pass(engine, loader) for name, engine in engines.items()}
    if mode:
        try:
            rival.ask(**case)
            runners[f"PyTorch {mode}"] = lambda seconds: rival.ask(**case)
        except RuntimeError as error:
            print(f"timm's loader: {error}", file=sys.stderr)
    return runners


def one_pass(engine, loader):
    """Return a runner for ``in_turns`` that evaluates all images of a loader once, however long that takes."""
    run = images_per_second(lambda: evaluate(engine, loader), len(loader.dataset))
    return lambda seconds: run(0)
