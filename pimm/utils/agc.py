"""Clip gradients adaptively, as NFNets do (arXiv 2102.06171)."""

from __future__ import annotations

import paddle
from paddle.linalg import vector_norm

from pimm.optim.layout import unit_axes


def unitwise_norm(tensor, norm_type=2.0, axes=None):
    """Return the norm over ``axes``, which stay as axes of length 1; of a vector, the norm of the whole.

    The default are all axes but the first.
    """
    if tensor.ndim <= 1:
        return vector_norm(tensor, norm_type)
    return vector_norm(tensor, norm_type, axis=axes or list(range(1, tensor.ndim)), keepdim=True)


@paddle.no_grad()
def adaptive_clip_grad(parameters, clip_factor=0.01, eps=1e-3, norm_type=2.0):
    """Scale gradients, output by output, to at most ``clip_factor`` times the norm of their weights, in place.

    Parameters without a gradient are passed over. The function does not wait for the device. Linear weights are known
    by their marks: see `pimm.optim.layout.mark_linear_weights`.

    Args:
        parameters: the parameters, or one of them.
        clip_factor: the largest norm of a gradient, as a share of the norm of its weight.
        eps: the least norm that a weight counts with.
        norm_type: which norm: 2 for the Euclidean one.
    """
    for param in [parameters] if isinstance(parameters, paddle.Tensor) else parameters:
        if param.grad is not None:
            axes = unit_axes(param)
            limit = unitwise_norm(param, norm_type, axes).clip(min=eps) * clip_factor
            size = unitwise_norm(param.grad, norm_type, axes)
            param.grad.multiply_((limit / size.clip(min=1e-6)).clip(max=1.0).astype(param.grad.dtype))
