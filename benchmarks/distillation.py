"""What a teacher costs: images per second of a plain supernet step and of one with a full board of ten.

    python benchmarks/distillation.py [--batch 32 128] [--steps 20] [--threads 2]

Both steps train the same sampled paths of Cream's largest space (0 to 600 MFLOPs) on 64-pixel images with ten classes,
in turns, so that whatever else the machine does meets both alike. The matching network is not updated: that happens
once in hundreds of steps.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import paddle

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.flops import cost_tables
from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.train.board import PrioritizedBoard
from cream.train.sampler import Sampler
from cream.train.steps import CreamStep, Update
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer_v2

KINDS = ("plain", "distillation")
SIDE, CLASSES = 64, 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128], help="images a step")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads")
    return parser.parse_args()


def make_step(flops_range):
    paddle.seed(0)
    net = MobileSuperNet(mobile_space(fit_to_flops(*flops_range)[0]), num_classes=CLASSES)
    flops, _ = cost_tables(net, SIDE)
    return CreamStep(
        net,
        LabelSmoothingCrossEntropy(0.1),
        Update(create_optimizer_v2(net, "sgd", lr=0.01)),
        Sampler(net.space, flops, *flops_range),
        np.random.default_rng(0),
        board=PrioritizedBoard(10),
        flops=flops,
        start_epoch=0,
        update_interval=10**9,
    )


def full_board(step, batch):
    """Fill the board, and return a batch of images and labels."""
    images = paddle.randn([batch, 3, SIDE, SIDE])
    labels = paddle.randint(0, CLASSES, [batch])
    while len(step.board) < step.board.size:
        step(images, labels, epoch=1)
    return images, labels


def train(step, arch, images, labels, kind):
    """Train a path for a step, taught by a path of the board if ``kind`` is ``distillation``."""
    teacher = step.find_teacher(arch, images, labels) if kind == "distillation" else None
    step.train_path(arch, images, labels, teacher)


def measure(step, batch, steps):
    """Mean seconds of a plain and of a distillation step, over the same paths."""
    images, labels = full_board(step, batch)
    seconds = dict.fromkeys(KINDS, 0.0)
    for i in range(-3, steps):  # the first ones warm up
        arch = step.sampler(step.rng)
        for kind in seconds:
            start = time.perf_counter()
            train(step, arch, images, labels, kind)
            if i >= 0:
                seconds[kind] += (time.perf_counter() - start) / steps
    return seconds


def main(args):
    step = make_step((0, 600))
    for batch in args.batch:
        seconds = measure(step, batch, args.steps)
        rates = ", ".join(f"{kind} {batch / value:.1f} images/s" for kind, value in seconds.items())
        print(f"batch {batch}: {rates}, ratio {seconds['distillation'] / seconds['plain']:.2f}", flush=True)


if __name__ == "__main__":
    options = arguments()
    paddle.base.core.set_num_threads(options.threads)
    reuse_freed_memory()
    main(options)
