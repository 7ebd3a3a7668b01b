"""Time the CPU operators beside Paddle's own on the layers of Cream-287, for images of 224 and of 64 pixels.

OMP_NUM_THREADS=2 python benchmarks/ops.py [--only depthwise batch_norm_swish] [--repeats 7]
"""

import argparse
import math
import sys
import time
from pathlib import Path

import paddle
from paddle.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm import ops

CHOICES = ((3, 4), (3, 6), (5, 4), (5, 6), (7, 4), (7, 6))  # kernel, expansion
# Stages of Cream-287: kernel and expansion of each block, stride of the first block, output channels.
STAGES = (
    ([(3, 1)], 1, 16),
    ([(3, 4)], 2, 24),
    ([CHOICES[i] for i in (3, 3)], 2, 40),
    ([CHOICES[i] for i in (3, 1, 3)], 2, 80),
    ([CHOICES[i] for i in (3, 3, 3, 3)], 1, 96),
    ([CHOICES[i] for i in (3, 3, 3)], 2, 192),
)
INPUTS = ((8, 224), (32, 64))  # batch, pixels


def depthwise_layers(size, channels=16):
    """List (channels, size, kernel, stride) of the depthwise convolutions that follow a stem of this output size."""
    layers = []
    for blocks, stride, out_channels in STAGES:
        for i, (kernel, expansion) in enumerate(blocks):
            block_stride = stride if i == 0 else 1
            layers.append((channels * expansion, size, kernel, block_stride))
            size //= block_stride
            channels = out_channels
    return layers


def random_tensor(*shape):
    """Draw a tensor whose gradient is recorded."""
    tensor = paddle.randn(shape)
    tensor.stop_gradient = False
    return tensor


def depthwise_cases(batch, pixels):
    """Yield (label, Paddle's function, ours, inputs) for every depthwise convolution."""
    for channels, size, kernel, stride in depthwise_layers(pixels // 2):
        options = {"stride": stride, "padding": kernel // 2}
        inputs = random_tensor(batch, channels, size, size), random_tensor(channels, 1, kernel, kernel)
        yield (
            f"{list(inputs[0].shape)} {kernel}x{kernel}/{stride}",
            lambda x, weight, groups=channels, options=options: F.conv2d(x, weight, groups=groups, **options),
            lambda x, weight, options=options: ops.depthwise_conv2d(x, weight, **options),
            inputs,
        )


def maps(batch, pixels):
    """List the different shapes of the maps within blocks, the largest first."""
    layers = depthwise_layers(pixels // 2)
    shapes = {(batch, c, size, size) for c, size, _, _ in layers}
    shapes |= {(batch, c, size // stride, size // stride) for c, size, _, stride in layers}
    return sorted(shapes, key=math.prod, reverse=True)


def batch_norm_cases(batch, pixels):
    """Yield what `depthwise_cases` does, for batch norm in training."""
    for shape in maps(batch, pixels):
        mean, variance = paddle.zeros([shape[1]]), paddle.ones([shape[1]])
        yield (
            str(list(shape)),
            lambda *inputs, mean=mean, variance=variance: F.batch_norm(inputs[0], mean, variance, *inputs[1:], True),
            lambda *inputs: ops.batch_norm(*inputs)[0],
            (random_tensor(*shape), random_tensor(shape[1]), random_tensor(shape[1])),
        )


def batch_norm_swish_cases(batch, pixels):
    """Yield what `depthwise_cases` does, for batch norm in training and swish after it."""
    for label, theirs, _, inputs in batch_norm_cases(batch, pixels):
        yield (
            label,
            lambda *inputs, theirs=theirs: F.silu(theirs(*inputs)),
            lambda *inputs: ops.batch_norm(*inputs, then_swish=True)[0],
            inputs,
        )


def factors_cases(batch, pixels):
    """Yield what `depthwise_cases` does, for factors of channels."""
    for shape in maps(batch, pixels):
        inputs = random_tensor(*shape), random_tensor(*shape[:2], 1, 1)
        yield str(list(shape)), lambda x, factors: x * factors, ops.scale_channels, inputs


def swish_cases(batch, pixels):
    """Yield what `depthwise_cases` does, for swish."""
    for shape in maps(batch, pixels):
        yield str(list(shape)), F.silu, ops.swish, (random_tensor(*shape),)


def pointwise_cases(batch, pixels):
    """Yield what `depthwise_cases` does, for 1x1 convolutions that shrink the channels by four."""
    for shape in maps(batch, pixels):
        inputs = random_tensor(*shape), random_tensor(shape[1] // 4, shape[1], 1, 1)
        yield str(list(shape)), F.conv2d, ops.pointwise_conv2d, inputs


CASES = {
    "depthwise": depthwise_cases,
    "pointwise": pointwise_cases,
    "batch_norm": batch_norm_cases,
    "batch_norm_swish": batch_norm_swish_cases,
    "swish": swish_cases,
    "factors": factors_cases,
}


def least_times(functions, inputs, repeats):
    """Return the least milliseconds of forward and of backward for each function; the functions run in turns."""
    gradient = functions[0](*inputs).detach()
    times = [([], []) for _ in functions]
    for _ in range(repeats):
        for function, (forward, backward) in zip(functions, times):
            start = time.perf_counter()
            out = function(*inputs)
            middle = time.perf_counter()
            paddle.grad(out, inputs, gradient)
            backward.append(1000 * (time.perf_counter() - middle))
            forward.append(1000 * (middle - start))
    return [[min(column) for column in columns] for columns in times]  # other work of the machine only adds


def compare(cases, repeats):
    """Print the times of every case, and their sums."""
    total = [0.0] * 4
    for label, paddles, ours, inputs in cases:
        (theirs_forward, theirs_backward), (forward, backward) = least_times((paddles, ours), inputs, repeats)
        row = (theirs_forward, forward, theirs_backward, backward)
        total = [a + b for a, b in zip(total, row)]
        print(f"{label:26}{cells(row)}", flush=True)
    print(f"{'all':26}{cells(total)}", flush=True)


def cells(row):
    """Format times as columns: Paddle's, ours and the gain, for forward and for backward."""
    pairs = ((row[0], row[1]), (row[2], row[3]))
    return " |".join(f"{theirs:9.2f} {ours:8.2f} {theirs / ours:5.1f}x" for theirs, ours in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="operators to time")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, of which the fastest counts")
    args = parser.parse_args()
    ops.reuse_freed_memory()
    paddle.seed(0)
    print(f"backend {ops.cpu_backend()}; milliseconds and gain: forward (Paddle, ours) | backward (Paddle, ours)")
    for name in args.only:
        for batch, pixels in INPUTS:
            print(f"{name}, batch {batch}, {pixels} pixels")
            compare(CASES[name](batch, pixels), args.repeats)


if __name__ == "__main__":
    main()
