"""Tell the output axis of a weight: Paddle's linear weights are [in, out], all others [out, ...]."""

from __future__ import annotations

from paddle import nn


def mark_linear_weights(model):
    """Mark the weights of all linear layers of a net: their outputs are the last axis.

    AGC, AdamP, SGDP and Muon work on each output of a weight and get parameters without their layers. The optimizer
    factory and ``model_parameters`` call this function.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Linear):
            layer.weight.output_axis = 1


def output_axis(param):
    """Return the axis of the outputs: 0 unless the parameter is marked as the weight of a linear layer."""
    return getattr(param, "output_axis", 0)


def unit_axes(param):
    """Return all axes but that of the outputs."""
    return [axis for axis in range(param.ndim) if axis != output_axis(param)]
