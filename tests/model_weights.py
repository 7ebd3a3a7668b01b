"""Draw the weights of any net from names and shapes, so that a test need not store them."""

import golden
import numpy as np

_TABLE_SCALE = np.float32(0.5)  # of position embeddings, tokens and tables of biases


def draw(name, shape, gain=1.0):
    """Draw the parameter or the running statistic of a name in PyTorch's state dict, float32.

    Args:
        name: PyTorch's name.
        shape: PyTorch's shape.
        gain: factor of the weights of layers.
    """
    if len(shape) > 1 and name.rpartition(".")[2] != "weight":
        return _TABLE_SCALE * golden.param(name, (np.prod(shape), 1)).reshape(shape)
    return golden.param(name, tuple(shape), gain=gain)
