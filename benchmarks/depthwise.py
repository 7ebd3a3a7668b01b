"""Time the CPU depthwise convolution beside Paddle's own on the layers of Cream-287.

OMP_NUM_THREADS=2 python benchmarks/depthwise.py
"""

import argparse
import statistics
import time

import paddle
from paddle.nn import functional as F

from pimm.ops import cpu_backend, depthwise_conv2d

CHOICES = ((3, 4), (3, 6), (5, 4), (5, 6), (7, 4), (7, 6))  # kernel, expansion
# Of the stages of Cream-287: kernel and expansion of each block, stride of the first, output channels.
STAGES = (
    ([(3, 1)], 1, 16),
    ([(3, 4)], 2, 24),
    ([CHOICES[i] for i in (3, 3)], 2, 40),
    ([CHOICES[i] for i in (3, 1, 3)], 2, 80),
    ([CHOICES[i] for i in (3, 3, 3, 3)], 1, 96),
    ([CHOICES[i] for i in (3, 3, 3)], 2, 192),
)


def depthwise_layers(size=112, channels=16):
    """List (channels, size, kernel, stride) of the depthwise convolutions behind the stem of a 224-pixel image."""
    layers = []
    for blocks, stride, out_channels in STAGES:
        for i, (kernel, expansion) in enumerate(blocks):
            block_stride = stride if i == 0 else 1
            layers.append((channels * expansion, size, kernel, block_stride))
            size //= block_stride
            channels = out_channels
    return layers


def median_times(conv, shape, kernel, stride, repeats):
    """Median milliseconds of the forward pass, and of forward and backward together."""
    paddle.seed(0)
    x, weight = paddle.randn(shape), paddle.randn([shape[1], 1, kernel, kernel])
    x.stop_gradient = weight.stop_gradient = False
    forward, both = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = conv(x, weight, stride=stride, padding=kernel // 2)
        forward.append(1000 * (time.perf_counter() - start))
        paddle.grad(out, [x, weight], out.detach())
        both.append(1000 * (time.perf_counter() - start))
    return statistics.median(forward[1:]), statistics.median(both[1:])  # the first one warms up


def paddle_conv(x, weight, stride, padding):
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


def compare(shape, kernel, stride, repeats):
    """Print the times of one layer, and return how many times faster ours is: forward, forward and backward."""
    theirs = median_times(paddle_conv, shape, kernel, stride, repeats)
    ours = median_times(depthwise_conv2d, shape, kernel, stride, repeats)
    gains = [a / b for a, b in zip(theirs, ours)]
    cells = [f"{a:9.2f} {b:7.2f} {gain:6.1f}x" for a, b, gain in zip(theirs, ours, gains)]
    print(f"{shape!s:20} {kernel}x{kernel}/{stride}" + " |".join(cells), flush=True)
    return gains


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="batch size of the Cream-287 layers")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the median counts")
    args = parser.parse_args()
    print(f"backend {cpu_backend()}; milliseconds and gain: forward (Paddle, ours) | forward and backward")
    compare([32, 576, 14, 14], 5, 1, args.repeats)
    layers = depthwise_layers()
    gains = [compare([args.batch, c, size, size], k, s, args.repeats) for c, size, k, s in layers]
    forward, both = (statistics.mean(column) for column in zip(*gains))
    print(f"mean gain over the {len(layers)} layers of Cream-287: forward {forward:.1f}x, with backward {both:.1f}x")


if __name__ == "__main__":
    main()
