"""Translate a model's state between Paddle's and PyTorch's names, shapes and orientation.

Three things differ: Paddle's Linear holds the transposed weight, running statistics are called ``_mean`` and
``_variance``, and batch norm counts no batches (``num_batches_tracked``).
"""

import numpy as np
from paddle import nn

from pimm.utils.state import SHOWN, check_state, load_state_dict_strictly

_RUNNING_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
_COUNTER = "num_batches_tracked"
_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)


def _entries(layer, prefix=""):
    """Yield ``(torch_name, paddle_name, value, transposed)`` in the order of PyTorch's state dict.

    The value and the Paddle name of a batch counter are None.
    """
    is_norm = isinstance(layer, _NORMS)
    for name, value in [*layer._parameters.items(), *layer._buffers.items()]:
        if value is not None and name not in layer._non_persistable_buffer_names_set:
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
    """List ``(torch_name, torch_shape)`` of all in PyTorch's state dict of ``model``, in the order of that dict."""
    return [(name, _torch_shape(value, transposed)) for name, _, value, transposed in _entries(model)]


def is_batch_counter(name):
    """Tell whether a name is PyTorch's for a counter of batches."""
    return name.rpartition(".")[2] == _COUNTER


def from_torch_arrays(model, arrays, source="the weights", shown=SHOWN):
    """Return Paddle's state dict ``{name: array}`` made of PyTorch's ``{name: array}``; batch counters are dropped.

    Args:
        model: the net whose names are wanted.
        arrays: the arrays under PyTorch's names.
        source: what an error calls the arrays.
        shown: how many differences of each kind an error lists; None lists all.

    Raises:
        CheckpointError: as `check_state`.
    """
    entries = [entry for entry in _entries(model) if entry[1] is not None]
    expected = {name: _torch_shape(value, transposed) for name, _, value, transposed in entries}
    given = {name: value for name, value in arrays.items() if not is_batch_counter(name)}
    shapes = {name: tuple(np.shape(value)) for name, value in given.items()}
    check_state(expected, shapes, source, shown, model)
    return {
        paddle_name: np.transpose(given[name]) if transposed else given[name]
        for name, paddle_name, _, transposed in entries
    }


def load_torch_arrays(model, arrays):
    """Set the state of ``model`` from PyTorch's ``{name: array}``; errors as in `from_torch_arrays`."""
    load_state_dict_strictly(model, from_torch_arrays(model, arrays))


def to_torch_arrays(model, state):
    """Return PyTorch's ``{name: array}``, in PyTorch's order, made of Paddle's state dict of ``model``.

    Batch counters are 0. Raises `CheckpointError` as `check_state`, with every difference.
    """
    entries = list(_entries(model))
    expected = {name: tuple(value.shape) for _, name, value, _ in entries if name is not None}
    check_state(expected, {name: tuple(np.shape(value)) for name, value in state.items()}, shown=None)
    return {
        torch_name: np.zeros((), np.int64) if name is None else np.transpose(state[name]) if transposed else state[name]
        for torch_name, name, _, transposed in entries
    }


def transposed_names(model):
    """Return Paddle's names of the weights that PyTorch holds transposed."""
    return {name for _, name, _, transposed in _entries(model) if transposed}
