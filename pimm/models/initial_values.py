"""Initial values of convolutional nets, as timm draws them."""

import math

from paddle import nn


def init_fan_out(model):
    """Draw the values of a net's layers.

    Convolutions: N(0, sqrt(2 / fan_out)), with fan_out of one group. Linear layers: N(0, 0.01). Biases: 0.
    Batch norm: the identity.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.initializer.Normal(0.0, math.sqrt(2.0 / fan_out))(layer.weight)
        elif isinstance(layer, nn.Linear):
            nn.initializer.Normal(0.0, 0.01)(layer.weight)
        elif isinstance(layer, nn.BatchNorm2D):
            set_constant(layer.weight, 1.0)
        else:
            continue
        set_constant(layer.bias, 0.0)


def set_constant(parameter, value):
    """Set all of a parameter's values to one number; None stays None."""
    if parameter is not None:
        nn.initializer.Constant(value)(parameter)
