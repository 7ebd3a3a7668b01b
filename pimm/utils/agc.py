"""Adaptive gradient clipping of NFNets (arXiv 2102.06171)."""

from __future__ import annotations

import paddle
from paddle.linalg import vector_norm

from pimm.optim.layout import unit_axes


def unitwise_norm(tensor, norm_type=2.0, axes=None):
    """Norm over ``axes``, kept as ones; all but the first are the default. Of a vector, the norm of the whole."""
    if tensor.ndim <= 1:
        return vector_norm(tensor, norm_type)
    return vector_norm(tensor, norm_type, axis=axes or list(range(1, tensor.ndim)), keepdim=True)


@paddle.no_grad()
def adaptive_clip_grad(parameters, clip_factor=0.01, eps=1e-3, norm_type=2.0):
    """Scale gradients, output by output, to at most ``clip_factor`` times the norm of their weights, in place.

    ``eps`` is the least norm that a weight counts with. Parameters without a gradient are passed over. Nothing waits
    for the device. Linear weights are known by their marks: see `pimm.optim.layout.mark_linear_weights`.
    """
    for param in [parameters] if isinstance(parameters, paddle.Tensor) else parameters:
        if param.grad is not None:
            axes = unit_axes(param)
            limit = unitwise_norm(param, norm_type, axes).clip(min=eps) * clip_factor
            size = unitwise_norm(param.grad, norm_type, axes)
            param.grad.multiply_((limit / size.clip(min=1e-6)).clip(max=1.0).astype(param.grad.dtype))
