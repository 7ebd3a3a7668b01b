"""1x1 convolution that is fast on the CPU, where Paddle's own multiplies image by image, however small the image."""

from __future__ import annotations

import paddle
from paddle import Tensor
from paddle.nn import functional as F

# Pixels of a map, measured: up to here one product for each image is faster than Paddle's convolution, ...
FEW_PIXELS = 24 * 24
# ... and below, a single product for all images, which costs two transpositions but reads the weights once.
FEWER_PIXELS = 4 * 4


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mix the channels of every pixel: `F.conv2d` with a kernel of one pixel, stride 1 and no padding.

    x is [N, C, H, W], weight [O, C, 1, 1], bias [O]; returns [N, O, H, W]. Small maps on the CPU go through matrix
    products, everything else to Paddle's convolution.
    """
    n, channels, height, width = x.shape
    pixels = height * width
    if not (paddle.in_dynamic_mode() and x.place.is_cpu_place() and 0 not in x.shape and pixels <= FEW_PIXELS):
        return F.conv2d(x, weight, bias)
    matrix = weight.reshape([-1, channels])
    if pixels == 1:
        return F.linear(x.reshape([n, channels]), matrix.t(), bias).reshape([n, -1, 1, 1])
    if pixels < FEWER_PIXELS:
        columns = x.transpose([1, 0, 2, 3]).reshape([channels, -1])
        out = paddle.matmul(matrix, columns).reshape([-1, n, height, width]).transpose([1, 0, 2, 3])
    else:
        out = paddle.matmul(matrix, x.reshape([n, channels, pixels])).reshape([n, -1, height, width])
    return out if bias is None else out + bias.reshape([1, -1, 1, 1])
