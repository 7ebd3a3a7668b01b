"""Batch normalisation that is fast on the CPU, where Paddle's own runs on one thread."""

from __future__ import annotations

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .backend import backend_for, run_operator
from .swish import swish


def batch_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, then_swish: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise every channel by its mean and variance over the batch (https://arxiv.org/abs/1502.03167).

    x is [N, C, H, W], weight and bias are [C] or one and zero. Returns the result, the means [C] and the biased
    variances [C]; gradients flow through the result alone. On the CPU, in float32 and float64, an operator of our own
    does it, which sums in float64; everything else goes to Paddle's. ``then_swish`` returns the swish of the result,
    which without gradients our operator makes in the same pass over the data.
    """
    weight = _constant(1.0, x) if weight is None else weight
    bias = _constant(0.0, x) if bias is None else bias
    backend = backend_for(x, weight, bias)
    fits = x.ndim == 4 and 0 not in x.shape and weight.shape == bias.shape == [x.shape[1]]
    ours = backend != "paddle" and fits
    fused = then_swish and ours and not paddle.is_grad_enabled()
    if ours:
        out, mean, variance = run_operator("pimm_batch_norm", (x, weight, bias), eps, fused, backend)
    else:
        out, mean, variance = _paddle_batch_norm(x, weight, bias, eps)
    if then_swish and not fused:
        out = swish(out)
    return out, mean.detach(), variance.detach()


def _constant(value, x):
    return paddle.full([x.shape[1]], value, "float64" if x.dtype == paddle.float64 else "float32")


def _paddle_batch_norm(x, weight, bias, eps):
    mean, variance = paddle.zeros_like(weight), paddle.zeros_like(weight)  # moved by all of the way to the batch's
    out = F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=0.0, epsilon=eps)
    if x.place.is_gpu_place():  # cuDNN's running variance is the unbiased one; Paddle's CPU and sync kernels' is biased
        values = x.size // x.shape[1]
        variance = variance * ((values - 1) / values)
    return out, mean, variance
