"""Setting a model's weights, strict about every name and shape."""

import numpy as np
import paddle

from pimm.errors import CheckpointError


def check_state(expected, given, source="the weights"):
    """Compare two ``{name: shape}``; raises `CheckpointError` that lists all that is missing, left over or differs."""
    faults = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in given]
    faults += [f"left over: {name} {list(shape)}" for name, shape in given.items() if name not in expected]
    faults += [
        f"shape differs: {name} {list(given[name])}, the model has {list(shape)}"
        for name, shape in expected.items()
        if name in given and tuple(given[name]) != tuple(shape)
    ]
    if faults:
        listed = "\n  ".join(faults)
        raise CheckpointError(f"{source}: does not fit the model, {len(faults)} differences:\n  {listed}")


def load_state_dict_strictly(model, arrays, source="the weights"):
    """Set parameters and running statistics of ``model`` from ``{name: array or tensor}``.

    Values take the model's types; uint16 means the bits of bfloat16, as in Paddle's files. Raises `CheckpointError`
    as in `check_state`, with ``source`` saying where the arrays are from; the model is then unchanged.
    """
    state = model.state_dict()
    check_state(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(np.shape(value)) for name, value in arrays.items()},
        source,
    )
    for name, tensor in state.items():
        tensor.set_value(paddle.to_tensor(arrays[name]).astype(tensor.dtype).reshape(tensor.shape))
