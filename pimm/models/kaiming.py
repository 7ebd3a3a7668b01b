"""Initial values of convolutions whose variance keeps that of activations (https://arxiv.org/abs/1502.01852)."""

import math

from paddle import nn

from pimm.layers import normal_, zeros_


def init_convolutions(model, mode="fan_out", slope=0.0, zero_biases=False):
    """Draw the weights of all convolutions of a net from N(0, sqrt(2 / (1 + slope ** 2) / fan)).

    Args:
        model: the net.
        mode: ``fan_out`` counts the values that an input goes into, as if there were no groups; ``fan_in`` counts those
            that an output is made of.
        slope: of the activation below 0.
        zero_biases: whether biases of convolutions become 0.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            outs, ins, *kernel = layer.weight.shape
            fan = math.prod(kernel) * (outs if mode == "fan_out" else ins)
            normal_(layer.weight, std=math.sqrt(2 / (1 + slope**2) / fan))
            if zero_biases and layer.bias is not None:
                zeros_(layer.bias)


def init_linear(model, std=None):
    """Set the biases of all linear layers of a net to 0, and draw their weights from N(0, std) if ``std`` is given."""
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Linear):
            if std is not None:
                normal_(layer.weight, std=std)
            if layer.bias is not None:
                zeros_(layer.bias)
