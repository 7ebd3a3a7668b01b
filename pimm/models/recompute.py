"""Compute activations again in the backward pass instead of keeping them (https://arxiv.org/abs/1604.06174)."""

from __future__ import annotations

import contextlib

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from pimm.layers.norm import frozen_batch_norm_statistics


def checkpoint(function, x, *further):
    """Return ``function(x, *further)`` of a layer, and keep only its arguments for the backward pass, which repeats it.

    The second call draws the same random numbers and leaves running statistics alone, so that gradients and state are
    those of a layer that keeps its activations. `paddle.grad` with ``create_graph`` does not reach into the layer.

    Args:
        function: the layer.
        x: a tensor.
        further: other arguments of the layer, tensors among them.
    """
    if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled():
        return function(x, *further)
    if x.stop_gradient:
        if all(parameter.stop_gradient for parameter in function.parameters()):
            return function(x, *further)
        x = x.detach()  # Paddle's recomputation gives gradients to parameters only where an input asks for one
        x.stop_gradient = False
    return recompute(_compute_twice(function), x, *further)


def _compute_twice(layer):
    computed = False

    def compute(*inputs):
        nonlocal computed
        again, computed = computed, True
        with frozen_batch_norm_statistics() if again else contextlib.nullcontext():
            return layer(*inputs)

    return compute


def checkpoint_seq(functions, x):
    """Apply layers one after another, each by `checkpoint`.

    Args:
        functions: a `paddle.nn.Sequential`, whose layers are taken, or a single layer.
        x: a tensor.
    """
    for layer in functions if type(functions) is nn.Sequential else (functions,):
        x = checkpoint(layer, x)
    return x
