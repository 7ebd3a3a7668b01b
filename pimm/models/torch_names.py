"""PyTorch's view of a model's state: names, shapes and orientation.

Three things differ: Paddle's Linear holds the transposed weight, running statistics are called ``_mean`` and
``_variance``, and batch norm counts no batches (``num_batches_tracked``).
"""

import numpy as np
from paddle import nn

from pimm.models.state import check_state, load_state_dict_strictly

_RUNNING_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
_COUNTER = "num_batches_tracked"
_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)


def _entries(layer, prefix=""):
    """Yield ``(torch_name, paddle_name, value, transposed)`` in the order of PyTorch's state dict.

    Value and Paddle name of a batch counter are None.
    """
    is_norm = isinstance(layer, _NORMS)
    for name, value in [*layer._parameters.items(), *layer._buffers.items()]:
        if value is not None:
            torch_name = _RUNNING_STATISTICS.get(name, name) if is_norm else name
            yield prefix + torch_name, prefix + name, value, name == "weight" and isinstance(layer, nn.Linear)
    if is_norm:
        yield prefix + _COUNTER, None, None, False
    for name, child in layer.named_children():
        yield from _entries(child, f"{prefix}{name}.")


def _torch_shape(value, transposed):
    shape = () if value is None else tuple(value.shape)
    return shape[::-1] if transposed else shape


def torch_names(model):
    """``[(torch_name, torch_shape)]`` of everything in PyTorch's state dict of ``model``, in its order."""
    return [(name, _torch_shape(value, transposed)) for name, _, value, transposed in _entries(model)]


def from_torch_arrays(model, arrays):
    """Paddle's state dict ``{name: array}`` from PyTorch's ``{name: array}``.

    Batch counters may be there or not and are dropped. Raises `CheckpointError` with the first of the
    names left over on either side and of the shapes that differ.
    """
    entries = [entry for entry in _entries(model) if entry[1] is not None]
    expected = {name: _torch_shape(value, transposed) for name, _, value, transposed in entries}
    given = {name: value for name, value in arrays.items() if name.rpartition(".")[2] != _COUNTER}
    check_state(expected, {name: tuple(np.shape(value)) for name, value in given.items()})
    return {
        paddle_name: np.transpose(given[name]) if transposed else given[name]
        for name, paddle_name, _, transposed in entries
    }


def load_torch_arrays(model, arrays):
    """Set the state of ``model`` from PyTorch's ``{name: array}``; errors as in `from_torch_arrays`."""
    load_state_dict_strictly(model, from_torch_arrays(model, arrays))
