"""Depthwise convolution that is fast on the CPU, where Paddle's own runs on one thread and without vectors."""

from __future__ import annotations

import functools

from paddle import Tensor, _C_ops
from paddle.nn import functional as F

from .backend import backend_for, recorded


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Convolve every channel with a filter of its own: `F.conv2d` with as many groups as channels.

    x is [N, C, H, W], weight [C, 1, kernel height, kernel width], bias [C]; padding is a number, a pair
    (height, width) or [top, bottom, left, right]. On the CPU, in float32 and float64 and with stride 1 or 2, an
    operator of our own does it, if `cpu_backend` can build it; everything else goes to Paddle's.
    """
    stride, dilation, padding = _pair(stride), _pair(dilation), _four_sides(padding)
    backend = backend_for(x, weight)
    if backend == "paddle" or not _operator_can(tuple(x.shape), tuple(weight.shape), stride, padding, dilation):
        return F.conv2d(x, weight, bias, list(stride), list(padding), list(dilation), groups=x.shape[1])
    x, weight = recorded(x, weight)
    wanted = (not x.stop_gradient, not weight.stop_gradient)
    attributes = (stride[0], list(padding), dilation[0], backend, *wanted)
    (out,) = _C_ops._run_custom_op("pimm_depthwise_conv2d", x, weight, *attributes)
    return out if bias is None else out + bias.reshape([1, -1, 1, 1])


@functools.lru_cache(maxsize=4096)
def _operator_can(x, weight, stride, padding, dilation) -> bool:
    """Whether it takes tensors of these shapes; remembered, since asking takes as long as a small convolution."""
    if len(x) != 4 or 0 in x or weight[:2] != (x[1], 1):
        return False
    sides = (padding[0] + padding[1], padding[2] + padding[3])
    spans = (size + pad - rate * (kernel - 1) for size, pad, rate, kernel in zip(x[2:], sides, dilation, weight[2:]))
    square = stride[0] == stride[1] and dilation[0] == dilation[1]
    return square and stride[0] in (1, 2) and dilation[0] > 0 and min(padding) >= 0 and min(spans) > 0


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _four_sides(padding) -> tuple[int, int, int, int]:
    padding = _pair(padding)
    return (padding[0], padding[0], padding[1], padding[1]) if len(padding) == 2 else padding
