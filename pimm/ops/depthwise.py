"""Depthwise convolution that is fast on the CPU, where Paddle's own runs on one thread and without vectors."""

from __future__ import annotations

import functools

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ..errors import ConfigError
from .backend import backend_for, run_operator
from .geometry import check_bias, check_geometry, four_sides, to_pair

MOST_PIXELS = 2**26  # of a padded image: beyond, the operator's copies of whole channels cost too much memory


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Convolve every channel with a filter of its own: `F.conv2d` with as many groups as channels.

    An operator of ours computes float32 and float64 on the CPU, for equal strides of 1 or 2 and equal dilations.
    Paddle's operator computes everything else.

    Args:
        x: images, [N, C, H, W].
        weight: filters, [C, 1, kernel height, kernel width].
        bias: [C], or None.
        stride: a number or (height, width).
        padding: a number, (height, width) or (top, bottom, left, right).
        dilation: a number or (height, width).

    Raises:
        ConfigError: if tensors have not these dimensions, the bias is of another length, or these sizes give no output.
        ValueError: from Paddle, for other shapes and types than these.
    """
    stride, padding, dilation = to_pair(stride), four_sides(padding), to_pair(dilation)
    x_shape, weight_shape = tuple(x.shape), tuple(weight.shape)
    if len(x_shape) != 4 or len(weight_shape) != 4:
        shapes = f"{list(x_shape)} and {list(weight_shape)}"
        raise ConfigError(f"a depthwise convolution takes [N, C, H, W] and [C, 1, height, width], not {shapes}")
    if paddle.in_dynamic_mode():
        check_geometry(x_shape[2:], weight_shape[2:], stride, padding, dilation)
    check_bias(weight, bias)
    backend = backend_for(x, weight)
    if backend == "paddle" or not _operator_can(x_shape, weight_shape, stride, padding, dilation):
        return F.conv2d(x, weight, bias, list(stride), list(padding), list(dilation), groups=x_shape[1])
    wanted = not x.stop_gradient, not weight.stop_gradient
    attributes = (stride[0], list(padding), dilation[0], backend, *wanted)
    (out,) = run_operator("pimm_depthwise_conv2d", (x, weight), *attributes)
    return out if bias is None else out + bias.reshape([1, -1, 1, 1])


@functools.lru_cache(maxsize=4096)
def _operator_can(x, weight, stride, padding, dilation) -> bool:
    """Return whether the operator takes tensors of these shapes; cached, as the answer is slow to compute."""
    if 0 in x or weight[:2] != (x[1], 1):
        return False
    pixels = (x[2] + padding[0] + padding[1]) * (x[3] + padding[2] + padding[3])
    return stride in ((1, 1), (2, 2)) and dilation[0] == dilation[1] and pixels <= MOST_PIXELS
