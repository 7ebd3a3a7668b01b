"""Depthwise convolution that is fast on the CPU, where Paddle's own runs on one thread and without vectors."""

from __future__ import annotations

import functools
import os

import paddle
from paddle import Tensor, _C_ops
from paddle.nn import functional as F

from ..errors import ConfigError
from .build import load_library

INSTRUCTION_SETS = ("avx512", "avx2", "portable")  # fastest first
DTYPES = (paddle.float32, paddle.float64)


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
    operator of our own does it, if `depthwise_backend` can build it; everything else goes to Paddle's.
    """
    stride, dilation, padding = _pair(stride), _pair(dilation), _four_sides(padding)
    if _is_eager_cpu(x, weight) and _operator_can(x, weight, stride, padding, dilation):
        backend = depthwise_backend()
        if backend != "paddle":
            if not paddle.is_grad_enabled():  # of which Paddle takes no notice for an operator that is not its own
                x, weight = x.detach(), weight.detach()
            wanted = (not x.stop_gradient, not weight.stop_gradient)
            attributes = (stride[0], padding, dilation[0], backend, *wanted)
            (out,) = _C_ops._run_custom_op("pimm_depthwise_conv2d", x, weight, *attributes)
            return out if bias is None else out + bias.reshape([1, -1, 1, 1])
    return F.conv2d(x, weight, bias, list(stride), padding, list(dilation), groups=x.shape[1])


def depthwise_backend() -> str:
    """Name what computes on the CPU: one of INSTRUCTION_SETS for our operator, or "paddle".

    The first call builds or loads the operator. The environment variable PIMM_DEPTHWISE chooses among the names;
    ConfigError if it is none of them or not for this machine.
    """
    return _choose_backend(os.environ.get("PIMM_DEPTHWISE", ""))


@functools.cache
def _choose_backend(wanted: str) -> str:
    if wanted not in ("", "paddle", *INSTRUCTION_SETS):
        raise ConfigError(f"PIMM_DEPTHWISE is {wanted!r}; it can be paddle, {', '.join(INSTRUCTION_SETS)} or empty")
    library = None if wanted == "paddle" else load_library()
    if library is None:
        return "paddle"
    supported = [name for name in INSTRUCTION_SETS if library.pimm_depthwise_supports(name.encode())]
    if wanted and wanted not in supported:
        raise ConfigError(f"PIMM_DEPTHWISE is {wanted!r}, but this machine has only {', '.join(supported)}")
    return wanted or supported[0]


def _is_eager_cpu(x: Tensor, weight: Tensor) -> bool:
    # In a static graph F.conv2d it is: an exported model must run where our operator is not.
    return paddle.in_dynamic_mode() and all(tensor.place.is_cpu_place() for tensor in (x, weight))


def _operator_can(x, weight, stride, padding, dilation) -> bool:
    one_filter_a_channel = x.ndim == 4 and list(weight.shape[:2]) == [x.shape[1], 1]
    if 0 in x.shape or not one_filter_a_channel or x.dtype not in DTYPES or weight.dtype != x.dtype:
        return False
    sides = (padding[0] + padding[1], padding[2] + padding[3])
    spans = (
        size + pad - rate * (kernel - 1)
        for size, pad, rate, kernel in zip(x.shape[2:], sides, dilation, weight.shape[2:])
    )
    square = stride[0] == stride[1] and dilation[0] == dilation[1]
    return square and stride[0] in (1, 2) and dilation[0] > 0 and min(padding) >= 0 and min(spans) > 0


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _four_sides(padding) -> list[int]:
    padding = _pair(padding)
    return [padding[0], padding[0], padding[1], padding[1]] if len(padding) == 2 else list(padding)
