"""Initial values of the layers of whole nets, as timm draws them."""

import math

from paddle import nn

from pimm.layers import normal_, trunc_normal_, zeros_

_FANS = {  # mode: how many values, of an output channel and an input channel, times the size of the kernel
    "fan_out": lambda outs, ins, groups: outs,
    "group_fan_out": lambda outs, ins, groups: outs // groups,
    "fan_in": lambda outs, ins, groups: ins,
}


def init_convolutions(model, mode="fan_out", zero_biases=False, linear_std=None):
    """Draw the weights of all convolutions of a net from N(0, sqrt(2 / fan)) (https://arxiv.org/abs/1502.01852).

    Args:
        model: the net.
        mode: ``fan_out`` counts the values that an input goes into, as if there were no groups; ``group_fan_out`` those
            of the input's group; ``fan_in`` counts those that an output is made of.
        zero_biases: whether biases of convolutions become 0.
        linear_std: standard deviation of the weights of linear layers, whose biases become 0; None leaves both alone.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            outs, ins, *kernel = layer.weight.shape
            fan = math.prod(kernel) * _FANS[mode](outs, ins, layer._groups)
            normal_(layer.weight, std=math.sqrt(2 / fan))
            if zero_biases:
                zeros_(layer.bias)
        elif isinstance(layer, nn.Linear) and linear_std is not None:
            normal_(layer.weight, std=linear_std)
            zeros_(layer.bias)


def zero_linear_biases(model):
    """Set the biases of all linear layers of a net to 0."""
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Linear):
            zeros_(layer.bias)


def init_truncated(model, layers=(nn.Linear,), std=0.02, head_scale=1.0, draw=trunc_normal_):
    """Draw weights from a normal distribution without its tails, and set biases to 0.

    Args:
        model: the net.
        layers: the classes of layers.
        std: standard deviation.
        head_scale: factor of the standard deviation in linear layers whose name begins with ``head.``.
        draw: `trunc_normal_` or `trunc_normal_tf_`.
    """
    for name, layer in model.named_sublayers():
        if isinstance(layer, layers):
            of_head = isinstance(layer, nn.Linear) and name.startswith("head.")
            draw(layer.weight, std=std * head_scale if of_head else std)
            zeros_(layer.bias)
