"""Setting a model's weights, strict about every name and shape."""

import numpy as np
import paddle

from pimm.errors import CheckpointError

LOADABLE = {"bool", "uint8", "uint16", *(f"int{n}" for n in (8, 16, 32, 64)), *(f"float{n}" for n in (16, 32, 64))}
SHOWN = 3  # of each kind of difference: to another net there are hundreds


def check_state(expected, given, source="the weights", shown=SHOWN):
    """Compare two ``{name: shape}``.

    Raises `CheckpointError` with the number of differences and the first ``shown`` of each kind; None shows them all.
    """
    differences = {
        "missing": [f"{name} {list(shape)}" for name, shape in expected.items() if name not in given],
        "left over": [f"{name} {list(shape)}" for name, shape in given.items() if name not in expected],
        "shape differs": [
            f"{name} {list(given[name])}, the model has {list(shape)}"
            for name, shape in expected.items()
            if name in given and tuple(given[name]) != tuple(shape)
        ],
    }
    count = sum(map(len, differences.values()))
    if count:
        listed = "; ".join(text for kind, found in differences.items() for text in _first(kind, found, shown))
        raise CheckpointError(f"{source}: does not fit the model, {count} difference{'s' * (count > 1)}: {listed}")


def _first(kind, found, shown):
    yield from (f"{kind}: {text}" for text in found[:shown])
    if shown is not None and len(found) > shown:
        yield f"{kind}: {len(found) - shown} more"


def load_state_dict_strictly(model, arrays, source="the weights"):
    """Set parameters and running statistics of ``model`` from ``{name: array or tensor}``.

    Values take the model's types; uint16 means the bits of bfloat16, as in Paddle's files. Raises `CheckpointError`
    as in `check_state`, and for arrays that hold no such numbers, with ``source`` saying where the arrays are from; the
    model is then unchanged.
    """
    state = model.state_dict()
    check_state(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(np.shape(value)) for name, value in arrays.items()},
        source,
    )
    for name in state:
        dtype = np.asarray(arrays[name]).dtype
        if dtype.name not in LOADABLE:
            raise CheckpointError(f"{source}: {name} is of type {dtype}; must be one of {', '.join(sorted(LOADABLE))}")
    for name, tensor in state.items():
        tensor.set_value(paddle.to_tensor(arrays[name]).astype(tensor.dtype).reshape(tensor.shape))
