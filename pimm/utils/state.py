"""Set a model's weights, strict about every name, shape, type and value."""

import numpy as np
import paddle

from pimm.errors import CheckpointError
from pimm.utils.bfloat16 import widened

_FLOATS = {"uint16", *(f"float{n}" for n in (16, 32, 64))}  # uint16 holds the bits of bfloat16
LOADABLE = {"bool", "uint8", *(f"int{n}" for n in (8, 16, 32, 64)), *_FLOATS}
SHOWN = 3  # of each kind of difference: to another net there are hundreds
_MAX_LISTED = 260  # characters, so that with a path a message has fewer than 400


def check_state(expected, given, source="the weights", shown=SHOWN, model=None):
    """Compare two ``{name: shape}``, of a model and of an array for each name.

    Args:
        expected: what the model has.
        given: what there is.
        source: what an error calls the arrays.
        shown: the most differences of each kind that an error lists; None lists all, however long that is.
        model: the model, which an error then names by its class.

    Raises:
        CheckpointError: with the number of differences and the first ones.
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
        name = "the model" if model is None else f"the model {type(model).__name__}"
        listed = _list_differences(differences, shown)
        raise CheckpointError(f"{source}: does not fit {name}, {count} difference{'s' * (count > 1)}: {listed}")


def _list_differences(differences, shown):
    """Return the first ``shown`` differences of each kind as text, or fewer where the text would be too long."""
    text = "; ".join(part for kind, found in differences.items() for part in _first(kind, found, shown))
    if shown is None or len(text) <= _MAX_LISTED:
        return text
    return f"{text[:_MAX_LISTED]} ..." if shown == 1 else _list_differences(differences, shown - 1)


def _first(kind, found, shown):
    yield from (f"{kind}: {text}" for text in found[:shown])
    if shown is not None and len(found) > shown:
        yield f"{kind}: {len(found) - shown} more"


def load_state_dict_strictly(model, arrays, source="the weights"):
    """Set parameters and running statistics of ``model``; values take the model's types.

    Args:
        model: the net; an error leaves it unchanged.
        arrays: ``{name: array or tensor}``; uint16 stands for the bits of bfloat16, as in Paddle's files.
        source: where the arrays are from, for errors.

    Raises:
        CheckpointError: as `check_state`, and for arrays of another type: whole numbers take the place of none with a
            fraction; and for values that are not finite.
    """
    state = model.state_dict()
    check_state(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(np.shape(value)) for name, value in arrays.items()},
        source,
        model=model,
    )
    for name, tensor in state.items():
        _check_values(name, np.asarray(arrays[name]), _FLOATS if tensor.is_floating_point() else LOADABLE, source)
    for name, tensor in state.items():
        tensor.set_value(paddle.to_tensor(arrays[name]).astype(tensor.dtype).reshape(tensor.shape))


def _check_values(name, array, valid, source):
    """Raise `CheckpointError` for an array that is of none of the types ``valid``, and for NaN and infinity in it."""
    if array.dtype.name not in valid:
        listed = ", ".join(sorted({"bfloat16" if dtype == "uint16" else dtype for dtype in valid}))
        raise CheckpointError(f"{source}: {name} is of type {array.dtype}; must be one of {listed}")
    broken = np.count_nonzero(~np.isfinite(widened(array) if array.dtype.name == "uint16" else array))
    if broken:
        raise CheckpointError(
            f"{source}: {name} is not finite: {broken} of its {array.size} values are NaN or infinite"
        )
