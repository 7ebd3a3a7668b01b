"""Measure the jobs on a GPU, or on another device, in about three minutes, and print a table that can be sent to us.

    python benchmarks/gpu.py [--device gpu] [--seconds 5] [--json FILE]

For each job: images per second in float32 and in mixed precision, medians over turns, and the share of a turn in which
the host was kept inside the steps: a host that only launches kernels is free long before the device is, so that a
share near 1 means that the host is the bottleneck, or that it waits. Then: the largest difference of float32 logits
from the CPU's, and the losses of the same batches in float32 and in mixed precision. Needs no files and no network.
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
from pimm.engine import ClassifyStep, Update
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer_v2

TURNS, CLASSES, FLOPS = 5, 1000, (0, 600)
NETS = {"cream_14": 64, "cream_287": 224, "mobilenetv3_large_100": 224}  # and the side of their images
SEARCH_SIDE = 224
CURVE_STEPS = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="", help="as cpu, gpu, gpu:1, npu (default: what Paddle prefers)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of all turns of a job")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, too")
    return parser.parse_args()


def batch_of(count, side):
    paddle.seed(0)
    return paddle.randn([count, 3, side, side]), paddle.randint(0, CLASSES, [count])


def update_of(net, amp):
    return Update(create_optimizer_v2(net, "sgd", lr=0.01, momentum=0.9), amp)


def evaluation(name, amp, batch):
    """Return a job that evaluates a net."""
    net, images = pimm.create_model(name), batch_of(batch, NETS[name])[0]
    net.eval()

    @paddle.no_grad()
    def run():
        with paddle.amp.auto_cast(enable=amp, dtype="float16"):
            net(images)

    return run


def training(name, amp, batch):
    """Return a job that trains a net."""
    net, (images, labels) = pimm.create_model(name), batch_of(batch, NETS[name])
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


def measure(run, batch, seconds):
    """Return images per second, the median over turns, and the share of the time in which the host was in the steps."""
    for _ in range(2):
        run()
    device.synchronize()
    started = time.perf_counter()
    run()
    device.synchronize()
    steps = max(1, int(seconds / TURNS / (time.perf_counter() - started)))
    rates, shares = [], []
    for _ in range(TURNS):
        started = time.perf_counter()
        for _ in range(steps):
            run()
        launched = time.perf_counter()
        device.synchronize()
        ended = time.perf_counter()
        rates.append(steps * batch / (ended - started))
        shares.append((launched - started) / (ended - started))
    return statistics.median(rates), statistics.median(shares)


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


def main():
    args = arguments()
    on = device.choose(args.device, "--device")
    reuse_freed_memory()
    found = {"device": on.described(), "paddle": paddle.__version__, "cuda": paddle.version.cuda(), "jobs": {}}
    print(f"{found['device']}, Paddle {found['paddle']}, CUDA {found['cuda']}, batches of {args.batch}\n")
    print("| job | float32, images/s | host | mixed precision, images/s | host |\n|---|--:|--:|--:|--:|")
    for job, (make, what) in JOBS.items():
        rows = {}
        for amp in (False, True) if on.has_amp else (False,):
            rate, share = measure(make(what, amp, args.batch), args.batch, args.seconds)
            rows["mixed" if amp else "float32"] = {"images_per_second": rate, "host": share}
        found["jobs"][job] = rows
        cells = [f"{row['images_per_second']:,.0f} | {100 * row['host']:.0f}%" for row in rows.values()]
        print(f"| {job} | {' | '.join(cells + ['- | -'] * (2 - len(cells)))} |", flush=True)
    if not on.is_cpu:
        found["differences"] = differences(on)
        print("\nLogits in float32 differ from the CPU's, relative to the largest logit, by:")
        print(", ".join(f"{name} {value:.1e}" for name, value in found["differences"].items()))
    found["losses"] = {"float32": curve(False, args.batch)}
    if on.has_amp:
        found["losses"]["mixed"] = curve(True, args.batch)
    print("\nLosses at steps " + ", ".join(map(str, range(0, CURVE_STEPS, 10))) + f" and {CURVE_STEPS - 1}:")
    for kind, losses in found["losses"].items():
        print(f"{kind}: " + ", ".join(f"{loss:.3f}" for loss in [*losses[::10], losses[-1]]))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
