"""Draw the weights of any net from names and shapes, so that a test need not store them; copy and compare weights."""

import hashlib
from pathlib import Path

import golden
import numpy as np

DATA = Path(__file__).parent / "data" / "models"
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


def state_digest(shapes):
    """Return a digest of ``{name: shape}`` under PyTorch's names."""
    listed = sorted((name, *map(int, shape)) for name, shape in shapes.items())
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def drawn_state(net, names_shapes, gain=1.0):
    """Draw the weights of a net here under PyTorch's names; tables that the net computes itself stay as they are.

    Args:
        net: the net.
        names_shapes: pairs of PyTorch's name and shape, as `pimm.models.torch_names` returns them.
        gain: as in `draw`.
    """
    computed = {name: value.numpy() for name, value in net.named_buffers() if not name.endswith(("_mean", "_variance"))}
    return {name: computed[name] if name in computed else draw(name, shape, gain) for name, shape in names_shapes}


def weights(net):
    """Copy the parameters and statistics of a net as ``{name: array}``."""
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def assert_same_weights(found, expected):
    """Check that arrays by name are the same, bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
