"""Operators on images [N, H, W, C], for evaluation on a CPU: convolutions with all that follows them, and batch norm.

They compute float32 and float64, have no gradients, and need the operators' library: `cpu_backend()` must not be
"paddle". Activations are named by ACTS.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor

from .backend import cpu_backend, run_operator

ACTS = ("none", "relu", "relu6", "swish", "hard_swish", "hard_sigmoid")
PANEL = 16  # output channels whose weights lie side by side


def pack(weight: Tensor) -> Tensor:
    """Return the filters [O, C, kernel height, kernel width] of a plain convolution as `convolve` takes them.

    The result is [O / PANEL, kernel height * kernel width, C, PANEL], with O rounded up and zeros where it is.
    """
    outs, channels, height, width = weight.shape
    rest = paddle.zeros([-outs % PANEL, channels, height, width], weight.dtype)
    rows = paddle.concat([weight.detach(), rest]) if len(rest) else weight.detach()
    return rows.reshape([-1, PANEL, channels, height * width]).transpose([0, 3, 2, 1]).contiguous()


def pack_depthwise(weight: Tensor) -> Tensor:
    """Return the filters [C, 1, kernel height, kernel width] as `convolve_depthwise` takes them, with C last."""
    return weight.detach().reshape([weight.shape[0], -1]).t().contiguous()


def convolve(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    act: str = "none",
    gate: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> Tensor:
    """Return ``act(convolution(x * gate) * scale + shift + shortcut)``, computed in one pass.

    Args:
        x: images, [N, H, W, C].
        weight: filters, as `pack` returns them.
        scale: factor of each output channel, [O].
        shift: term of each output channel, [O].
        kernel, stride, dilation: pairs (height, width).
        padding: (top, bottom, left, right).
        act: one of ACTS.
        gate: factor of each channel of each image, [N, C]; for a kernel of one pixel without stride and padding alone.
        shortcut: added before the activation, of the shape of the result, [N, H', W', O].

    Raises:
        ValueError: shapes, types or options do not fit together.
    """
    geometry = [list(kernel), list(stride), list(padding), list(dilation)]
    tensors = (x, weight, scale, shift, gate, shortcut)
    return run_operator("pimm_channels_last_conv", tensors, scale.shape[0], *geometry, act, cpu_backend())[0]


def convolve_depthwise(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    act: str = "none",
) -> Tensor:
    """Return ``act(convolution(x) * scale + shift)`` of a filter for each channel, as `convolve` does.

    ``weight`` is as `pack_depthwise` returns it.
    """
    geometry = [list(kernel), list(stride), list(padding), list(dilation)]
    return run_operator("pimm_channels_last_depthwise", (x, weight, scale, shift), *geometry, act, cpu_backend())[0]


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "none", shortcut: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise every channel of images [N, H, W, C] by the batch, add ``shortcut``, and apply an activation.

    Returns:
        The result [N, H, W, C], the means [C] and the biased variances [C].
    """
    out, mean, variance = run_operator("pimm_channels_last_norm", (x, weight, bias, shortcut), eps, act, cpu_backend())
    return out, mean, variance


def mean_of_pixels(x: Tensor) -> Tensor:
    """Return the mean of each channel of each image: [N, H, W, C] becomes [N, C]."""
    return run_operator("pimm_channels_last_mean", (x,), cpu_backend())[0]


def to_channels_last(x: Tensor) -> Tensor:
    """Return images [N, C, H, W] as [N, H, W, C], whose channels lie side by side in memory."""
    return x.transpose([0, 2, 3, 1]).contiguous()


def to_channels_first(x: Tensor) -> Tensor:
    """Return images [N, H, W, C] as [N, C, H, W]."""
    return x.transpose([0, 3, 1, 2]).contiguous()
