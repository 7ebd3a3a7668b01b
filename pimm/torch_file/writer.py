"""Write ``.pth.tar`` files that ``torch.load(weights_only=True)`` accepts, without PyTorch."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from pimm.errors import CheckpointError
from pimm.torch_file.tensors import DTYPES, RAW
from pimm.utils.bfloat16 import is_bfloat16
from pimm.utils.serialization import atomic_file

_ALIGNMENT = 64  # bytes, for those who map the file
_LOCAL_SIZE = 30
_PADDING = 0x4246  # the extra field that PyTorch pads with


def save_torch(path, content):
    """Write ``content`` to ``path`` in PyTorch's zip format, atomically.

    Equal content makes equal files.

    Args:
        path: the file to write.
        content: a dict, list or tuple of arrays, text, numbers, bools and None, nested at will; bfloat16 arrays are
            those that `is_bfloat16` knows.

    Raises:
        CheckpointError: for other content, and if the file cannot be written.
    """
    arrays = []
    pickled = b"".join([pickle.PROTO, b"\2", *_pickle(content, arrays), pickle.STOP])
    folder = Path(path).name.partition(".")[0] or "archive"
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        _write(archive, f"{folder}/data.pkl", pickled)
        _write(archive, f"{folder}/byteorder", b"little")
        for key, array in enumerate(arrays):
            _write(archive, f"{folder}/data/{key}", _bytes(array))
        _write(archive, f"{folder}/version", b"3\n")


def _write(archive, name, data):
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    used = archive.fp.tell() + _LOCAL_SIZE + len(name.encode()) + 4
    padding = -used % _ALIGNMENT
    entry.extra = struct.pack("<2H", _PADDING, padding) + b"Z" * padding
    archive.writestr(entry, data)


def _bytes(array):
    """Return the bytes of the elements in C order, little-endian."""
    ordered = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return ordered.reshape(-1).view(np.uint8).data


def _pickle(value, arrays):
    """Yield the pickle operations of ``value``, all of them known to PyTorch's own restricted reader."""
    if value is None:
        yield pickle.NONE
    elif isinstance(value, (bool, np.bool_)):
        yield pickle.NEWTRUE if value else pickle.NEWFALSE
    elif isinstance(value, (int, np.integer)):
        yield _integer(int(value))
    elif isinstance(value, (float, np.floating)):
        yield pickle.BINFLOAT + struct.pack(">d", value)
    elif isinstance(value, str):
        yield _text(value)
    elif isinstance(value, np.ndarray):
        yield from _tensor(value, arrays)
    elif isinstance(value, dict):
        yield pickle.EMPTY_DICT + pickle.MARK
        for key, item in value.items():
            yield from _pickle(key, arrays)
            yield from _pickle(item, arrays)
        yield pickle.SETITEMS
    elif isinstance(value, (list, tuple)):
        yield pickle.EMPTY_LIST + pickle.MARK if isinstance(value, list) else pickle.MARK
        for item in value:
            yield from _pickle(item, arrays)
        yield pickle.APPENDS if isinstance(value, list) else pickle.TUPLE
    else:
        raise CheckpointError(f"a {type(value).__name__} cannot be written for PyTorch: {str(value)[:60]!r}")


def _integer(value):
    if -(2**31) <= value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(data)]) + data


def _text(text):
    data = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _global(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tensor(array, arrays):
    name, storage = _torch_type(array)
    numel = array.size if storage else array.nbytes
    key = str(len(arrays))
    arrays.append(array)
    yield _global("torch._utils", "_rebuild_tensor_v2" if storage else "_rebuild_tensor_v3")
    yield pickle.MARK
    yield pickle.MARK + _text("storage")
    yield _global("torch", storage) if storage else _global("torch.storage", RAW)
    yield _text(key) + _text("cpu") + _integer(numel) + pickle.TUPLE + pickle.BINPERSID
    yield _integer(0)
    yield from _pickle(array.shape, arrays)
    yield from _pickle(_contiguous_strides(array.shape), arrays)
    yield pickle.NEWFALSE  # requires_grad
    yield _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE  # hooks
    if not storage:
        yield _global("torch", name)
    yield pickle.TUPLE + pickle.REDUCE


def _torch_type(array):
    """Return PyTorch's name of an array's type, and the class of storage for this type."""
    for name, (dtype, storage) in DTYPES.items():
        if array.dtype.newbyteorder("<") == dtype and is_bfloat16(array) == (name == "bfloat16"):
            return name, storage
    raise CheckpointError(f"arrays of type {array.dtype} cannot be written for PyTorch; it has {', '.join(DTYPES)}")


def _contiguous_strides(shape):
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return tuple(strides)
