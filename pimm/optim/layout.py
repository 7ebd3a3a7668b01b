"""Which axis of a weight counts its outputs: Paddle's linear weights are [in, out], all others [out, ...]."""

from __future__ import annotations

from paddle import nn


def mark_linear_weights(model):
    """Note on the weights of the linear layers inside ``model`` that their outputs are the last axis.

    What looks at one output at a time (AGC, AdamP, SGDP, Muon) needs it, and gets parameters without their layers. The
    factory, and ``model_parameters``, call this.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Linear):
            layer.weight.output_axis = 1


def output_axis(param):
    """The axis of the outputs: 0 unless the parameter was marked as a linear layer's."""
    return getattr(param, "output_axis", 0)


def unit_axes(param):
    """All axes but that of the outputs."""
    return [axis for axis in range(param.ndim) if axis != output_axis(param)]
