"""Convolution as a product of matrices that hold the patches of images, for the first layer of nets on a CPU."""

from __future__ import annotations

import math

import paddle
from paddle import Tensor

from .backend import backend_for, run_operator
from .pointwise import pointwise_conv2d

MOST_NUMBERS = 32  # in a patch; the backward pass needs the matrix, which has so many numbers for each output pixel


def takes_patches(x: Tensor, weight: Tensor) -> bool:
    """Return whether `patches_conv2d` should convolve: on the CPU, for small patches of images without a gradient."""
    if not paddle.in_dynamic_mode() or x.ndim != 4 or 0 in x.shape or not x.stop_gradient:
        return False
    few = math.prod(weight.shape[1:]) <= MOST_NUMBERS and x.shape[1] == weight.shape[1]
    return few and backend_for(x, weight) != "paddle"


def patches_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """Convolve images that need no gradient, with all threads, of which Paddle's convolution leaves some idle.

    Args:
        x: images, [N, C, H, W].
        weight: filters, [O, C, kernel height, kernel width].
        bias: [O], or None.
        stride: (height, width).
        padding: (top, bottom, left, right).
        dilation: (height, width).

    Returns:
        Images, [N, O, H, W].
    """
    sizes = (list(values) for values in (weight.shape[2:], stride, padding, dilation))
    (patches,) = run_operator("pimm_patches", (x,), *sizes)
    return pointwise_conv2d(patches, weight.reshape([weight.shape[0], -1, 1, 1]), bias)
