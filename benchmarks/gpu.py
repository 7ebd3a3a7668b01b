"""Measure the jobs on a GPU, or on another device, in about three minutes, and print a table that can be sent to us.

    python benchmarks/gpu.py [--device gpu] [--minutes 3] [--json FILE]

For each job: images per second in float32 and in mixed precision, medians over turns, and two shares of the time of a
turn. ``host`` is the share in which the host was inside the steps: a host that only launches kernels is free long
before the device is, so that a share near 1 means that the host is the bottleneck, or waits. ``waits`` is the share in
which the host waited for a number of the device: inside ``numpy()``, ``item()``, ``bool()`` and their like. Then: the
largest difference of float32 logits from the CPU's, and the losses of the same batches in float32 and in mixed
precision. Needs no files and no network.
``--minutes`` bounds the whole: a job that has no time left is named and left out.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pimm  # before Paddle, which changes OMP_NUM_THREADS

# isort: split

import paddle

import cream  # noqa: F401  (registers models)
from cream.flops import cost_tables
from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.train.board import PrioritizedBoard
from cream.train.sampler import Sampler
from cream.train.steps import CreamStep, SinglePathStep
from pimm import device
from pimm.cli import use_cores
from pimm.engine import ClassifyStep, Update
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer_v2

TURNS, CLASSES, FLOPS = 5, 1000, (0, 600)
NETS = {"cream_14": 64, "cream_287": 224, "mobilenetv3_large_100": 224}  # and the side of their images
SEARCH_SIDE = 224
CURVE_STEPS, CURVE_BATCH = 60, 32
JOBS_SHARE = 0.75  # of the time; the rest is for the logits and the losses


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="", help="as cpu, gpu, gpu:1, npu (default: what Paddle prefers)")
    parser.add_argument("--minutes", type=float, default=3.0, help="that the whole may take")
    parser.add_argument("--batch", type=int, default=0, help="images of a step (default: 128; 4 on a CPU)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, too")
    return parser.parse_args()


def batch_of(count, side):
    paddle.seed(0)
    return paddle.randn([count, 3, side, side]), paddle.randint(0, CLASSES, [count])


def update_of(net, amp):
    return Update(create_optimizer_v2(net, "sgd", lr=0.01, momentum=0.9), amp)


def evaluation(name, amp, batch, side=None):
    """Return a job that evaluates a net, on images of another ``side`` than its own if one is given."""
    net, images = pimm.create_model(name), batch_of(batch, side or NETS[name])[0]
    net.eval()

    @paddle.no_grad()
    def run():
        with paddle.amp.auto_cast(enable=amp, dtype="float16"):
            net(images)

    return run


def training(name, amp, batch, side=None):
    """Return a job that trains a net, on images of another ``side`` than its own if one is given."""
    net, (images, labels) = pimm.create_model(name), batch_of(batch, side or NETS[name])
    step = ClassifyStep(net, LabelSmoothingCrossEntropy(0.1), update_of(net, amp))
    return lambda: step(images, labels, 0)


def search(method, amp, batch):
    """Return a job that trains paths of the supernet, with a full board of ten where ``method`` is cream."""
    net = MobileSuperNet(mobile_space(fit_to_flops(*FLOPS)[0]), num_classes=CLASSES)
    flops, _ = cost_tables(net, SEARCH_SIDE)
    common = (net, LabelSmoothingCrossEntropy(0.1), update_of(net, amp), Sampler(net.space, flops, *FLOPS))
    images, labels = batch_of(batch, SEARCH_SIDE)
    if method == "single path":
        step = SinglePathStep(*common, np.random.default_rng(0))
        return lambda: step(images, labels, 0)
    board = PrioritizedBoard(10)
    step = CreamStep(*common, np.random.default_rng(0), board=board, flops=flops, start_epoch=0, update_interval=10**9)
    while len(board) < board.size:
        step(images, labels, 1)
    return lambda: step(images, labels, 1)


JOBS = {
    **{f"evaluate {name}": (evaluation, name) for name in NETS},
    **{f"train {name}": (training, name) for name in NETS},
    "search, single path": (search, "single path"),
    "search, with teachers": (search, "cream"),
}


class Waits:
    """Adds up the seconds that the host spends on reads of tensors while it is entered."""

    READS = ("numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__")

    def __enter__(self):
        self.seconds, self.inside = 0.0, False
        self.plain = {name: getattr(paddle.Tensor, name) for name in self.READS if hasattr(paddle.Tensor, name)}
        for name, read in self.plain.items():
            setattr(paddle.Tensor, name, self.timed(read))
        return self

    def __exit__(self, *_):
        for name, read in self.plain.items():
            setattr(paddle.Tensor, name, read)

    def timed(self, read):
        def call(*args, **kwargs):
            if self.inside:  # one read calls another
                return read(*args, **kwargs)
            self.inside, started = True, time.perf_counter()
            try:
                return read(*args, **kwargs)
            finally:
                self.inside, self.seconds = False, self.seconds + time.perf_counter() - started

        return call


def measure(run, batch, seconds):
    """Return medians over turns: images per second, and the shares of the time in the steps and in waits.

    Args:
        run: one step.
        batch: images of the step.
        seconds: of all turns; the first two steps, which warm up, and one turn are made however long they take.
    """
    for _ in range(2):
        run()
    device.synchronize()
    started = time.perf_counter()
    run()
    device.synchronize()
    steps = max(1, int(seconds / TURNS / (time.perf_counter() - started)))
    turns, deadline = [], time.perf_counter() + seconds
    while len(turns) < TURNS and (not turns or time.perf_counter() < deadline):
        with Waits() as waits:
            started = time.perf_counter()
            for _ in range(steps):
                run()
            launched = time.perf_counter()
        device.synchronize()
        taken = time.perf_counter() - started
        turns.append((steps * batch / taken, (launched - started) / taken, waits.seconds / taken))
    return dict(zip(("images_per_second", "host", "waits"), map(statistics.median, zip(*turns))))


def differences(on):
    """Return how far the logits of each net differ from the CPU's in float32, relative to the largest."""
    found = {}
    for name, side in NETS.items():
        images = np.random.default_rng(0).standard_normal((4, 3, side, side)).astype("float32")
        paddle.set_device("cpu")
        net = pimm.create_model(name)
        state = {key: value.numpy() for key, value in net.state_dict().items()}
        expected = logits_of(net, images)
        paddle.set_device(str(on))
        net = pimm.create_model(name)
        net.set_state_dict(state)
        found[name] = float(np.abs(logits_of(net, images) - expected).max() / np.abs(expected).max())
    return found


@paddle.no_grad()
def logits_of(net, images):
    net.eval()
    return net(paddle.to_tensor(images)).numpy()


def curve(amp, batch):
    """Return the losses of a small net on the same few batches, with the same first weights."""
    paddle.seed(0)
    net = pimm.create_model("cream_14", num_classes=10)
    draw = np.random.default_rng(0)
    state = {key: draw.standard_normal(value.shape).astype("float32") * 0.1 for key, value in net.state_dict().items()}
    net.set_state_dict({key: np.abs(value) + 0.5 if "_variance" in key else value for key, value in state.items()})
    centers = draw.standard_normal((10, 3, 64, 64)).astype("float32")
    step = ClassifyStep(net, LabelSmoothingCrossEntropy(0.1), update_of(net, amp))
    losses = []
    for _ in range(CURVE_STEPS):
        classes = draw.integers(0, 10, batch)
        images = centers[classes] + draw.standard_normal((batch, 3, 64, 64)).astype("float32")
        losses.append(step(paddle.to_tensor(images), paddle.to_tensor(classes), 0)["loss"])
    return [float(loss) for loss in losses]


def measure_jobs(on, batch, deadline):
    """Print a row for each job, and return all rows; the jobs share the time up to the deadline."""
    print("| job | float32, images/s | host | waits | mixed precision, images/s | host | waits |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    found, precisions = {}, {"float32": False, **({"mixed": True} if on.has_amp else {})}
    for number, (job, (make, what)) in enumerate(JOBS.items()):
        seconds = (deadline - time.perf_counter()) / (len(JOBS) - number) / len(precisions)
        if seconds <= 0:
            print(f"| {job} | no time left | | | | | |", flush=True)
            continue
        # A part of the time is for the net and the first steps.
        rows = {kind: measure(make(what, amp, batch), batch, seconds / 2) for kind, amp in precisions.items()}
        found[job] = rows
        cells = [f"{row['images_per_second']:,.3g} | {row['host']:.0%} | {row['waits']:.1%}" for row in rows.values()]
        print(f"| {job} | {' | '.join(cells + ['no AMP here | - | -'] * (2 - len(cells)))} |", flush=True)
    return found


def print_differences(found):
    print("\nLogits in float32 differ from the CPU's, relative to the largest logit, by:")
    print(", ".join(f"{name} {value:.1e}" for name, value in found.items()))


def print_curves(found):
    steps = [*range(0, CURVE_STEPS, 10), CURVE_STEPS - 1]
    print(f"\nLosses at steps {', '.join(map(str, steps))}:")
    for kind, losses in found.items():
        print(f"{kind}: " + ", ".join(f"{losses[step]:.3f}" for step in steps))
    if "mixed" in found:
        largest = max(abs(a - b) for a, b in zip(*found.values()))
        print(f"largest difference between the two: {largest:.3f}")
    else:
        print("mixed: no AMP here")


def main():
    args = arguments()
    started = time.perf_counter()
    use_cores()
    on = device.choose(args.device, "--device")
    reuse_freed_memory()
    batch = args.batch or (4 if on.is_cpu else 128)
    found = {"device": on.described(), "paddle": paddle.__version__, "cuda": paddle.version.cuda(), "batch": batch}
    print(f"{found['device']}, Paddle {found['paddle']}, CUDA {found['cuda']}, batches of {batch}\n")
    found["jobs"] = measure_jobs(on, batch, started + 60 * args.minutes * JOBS_SHARE)
    if on.is_cpu:
        print("\nLogits in float32 are those of the CPU: this is the CPU")
    else:
        found["differences"] = differences(on)
        print_differences(found["differences"])
    found["losses"] = {"float32": curve(False, CURVE_BATCH)}
    if on.has_amp:
        found["losses"]["mixed"] = curve(True, CURVE_BATCH)
    print_curves(found["losses"])
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
