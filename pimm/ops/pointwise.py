"""1x1 convolution that is fast on the CPU, where Paddle's own gains little from several threads, above all backward."""

from __future__ import annotations

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .backend import backend_for, run_operator
from .geometry import check_bias

# Below this number of pixels of a map, as measured, one product for all images is faster than one for each: it reads
# the weights only once, at the price of two transpositions.
FEW_PIXELS = 4 * 4


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mix the channels of every pixel: `F.conv2d` with a kernel of one pixel, stride 1 and no padding.

    Matrix products compute the images on the CPU, and Paddle's convolution everything else.

    Args:
        x: images, [N, C, H, W].
        weight: filters, [O, C, 1, 1].
        bias: [O], or None.

    Returns:
        Images, [N, O, H, W].

    Raises:
        ConfigError: if the bias is of another length.
        ValueError: from Paddle, for other shapes and types than these.
    """
    check_bias(weight, bias)
    if not paddle.in_dynamic_mode() or not x.place.is_cpu_place() or x.ndim != 4 or 0 in x.shape:
        return F.conv2d(x, weight, bias)
    n, channels, height, width = x.shape
    pixels = height * width
    if list(weight.shape[1:]) != [channels, 1, 1]:
        return F.conv2d(x, weight, bias)
    if pixels == 1 and bias is not None and backend_for(x, weight, bias) != "paddle":
        (out,) = run_operator("pimm_dense", (x, weight, bias))
        return out
    if pixels == 1:  # F.linear would need a transposed copy of the weights
        out = paddle.matmul(x.reshape([n, channels]), weight.reshape([-1, channels]), transpose_y=True)
        return (out if bias is None else out + bias).reshape([n, -1, 1, 1])
    if pixels < FEW_PIXELS:
        columns = x.transpose([1, 0, 2, 3]).reshape([channels, -1])
        out = paddle.matmul(weight.reshape([-1, channels]), columns)
        out = out.reshape([-1, n, height, width]).transpose([1, 0, 2, 3])
    elif backend_for(x, weight) == "paddle":
        return F.conv2d(x, weight, bias)
    else:
        wanted = not x.stop_gradient, not weight.stop_gradient
        (out,) = run_operator("pimm_pointwise_conv2d", (x, weight), *wanted)
    return out if bias is None else out + bias.reshape([1, -1, 1, 1])
