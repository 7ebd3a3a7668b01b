"""What it saves to reduce the gradients of the sampled path alone, instead of the whole supernet's.

    python -m paddle.distributed.launch --nproc_per_node 2 benchmarks/reduction.py [--batch 32] [--steps 20]

Each process trains the same sampled paths of Cream's largest space (0 to 600 MFLOPs) on 64-pixel images with ten
classes, in turns with one flat message for the path and with one for all parameters, zeros off the path: what a wrapper
around the whole net sends. Prints the bytes that a process hands over at each step, and the seconds of a step.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm.cli import use_cores  # before Paddle, which changes OMP_NUM_THREADS

# isort: split

import paddle

from cream.flops import cost_tables
from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.train.sampler import Sampler
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer_v2
from pimm.utils import all_reduce_gradients, barrier, broadcast_parameters, init_distributed, rank, world_size

FLOPS_RANGE = (0, 600)


def train_path(net, arch, optimizer, batch, reduced):
    """One step; returns the bytes of the gradients that were reduced."""
    images, labels = batch
    LabelSmoothingCrossEntropy(0.1)(net(images, arch), labels).backward()
    absent = [parameter for parameter in reduced if parameter.grad is None]
    for parameter in absent:
        parameter.grad = paddle.zeros_like(parameter)
    all_reduce_gradients(reduced)
    for parameter in absent:  # neither way may move what lies off the path
        parameter.clear_gradient(False)
    optimizer.step()
    optimizer.clear_grad(set_to_zero=False)
    return sum(4 * parameter.size for parameter in reduced)


def main(args):
    use_cores()
    init_distributed()
    reuse_freed_memory()
    paddle.seed(0)
    net = MobileSuperNet(mobile_space(fit_to_flops(*FLOPS_RANGE)[0]), num_classes=10)
    broadcast_parameters(net)
    sampler = Sampler(net.space, cost_tables(net, 64)[0], *FLOPS_RANGE)
    optimizer = create_optimizer_v2(net, "sgd", lr=0.01)
    batch = paddle.randn([args.batch, 3, 64, 64]), paddle.randint(0, 10, [args.batch])
    everything = [parameter for parameter in net.parameters() if not parameter.stop_gradient]
    rng = np.random.default_rng(0)
    kinds = {"path": net.active_parameters, "all": lambda arch: everything}
    seconds, sent = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0)
    for step in range(-3, args.steps):  # the first ones warm up
        arch = sampler(rng)
        for kind, chosen in kinds.items():
            barrier()
            start = time.perf_counter()
            size = train_path(net, arch, optimizer, batch, chosen(arch))
            if step >= 0:
                seconds[kind] += (time.perf_counter() - start) / args.steps
                sent[kind] += size / args.steps
    if rank() == 0:
        for kind in kinds:
            print(f"{kind}: {sent[kind] / 1e6:.1f} MB a step, {seconds[kind]:.3f} s, {world_size()} processes")
        saved, faster = 1 - sent["path"] / sent["all"], seconds["all"] / seconds["path"]
        print(f"the path alone saves {saved:.0%} of the bytes; steps are {faster:.2f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="images a step and process")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each kind")
    main(parser.parse_args())
