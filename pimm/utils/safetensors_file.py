"""Read and write safetensors files, in which tensors lie behind a header of JSON.

The package safetensors checks the header against the file. The arrays are then views of the mapped file: numpy has no
bfloat16, which the package therefore cannot return as an array.
"""

from __future__ import annotations

import json
import math
import os
import struct
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from pimm.errors import CheckpointError
from pimm.safe_pickle import Inert, Malformed, map_file
from pimm.safe_pickle.objects import printable
from pimm.utils.bfloat16 import BFLOAT16

ENDING = ".safetensors"

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ALIGNMENT = 8  # bytes, of the first array
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_MAX_HEADER = 8 << 20  # bytes; enough for 50,000 tensors, and takes little memory whatever it holds
_MAX_TENSORS = 50_000
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "C64": np.dtype("<c8"),
}
_FORMATS = {"pd": True, "paddle": True, "pt": False}  # what writers call their framework: whether it is Paddle
_STATISTICS = ("_mean", "_variance")  # Paddle's names, of which PyTorch has none


class SafeTensors(NamedTuple):
    """Holds ``{name: array}`` and the text that the writer noted; bfloat16 comes as its bits (`is_bfloat16`)."""

    arrays: dict
    metadata: dict

    @property
    def is_paddles(self):
        """Whether the names are Paddle's: the writer says so, or says nothing and the names tell."""
        of_paddle = _FORMATS.get(self.metadata.get("format"))
        return any(name.rpartition(".")[2] in _STATISTICS for name in self.arrays) if of_paddle is None else of_paddle


def is_safetensors(path):
    """Tell whether a file begins as safetensors files do, whatever it is called: a length, and a brace of JSON."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            start = file.read(_LENGTH.size + 1)
    except OSError:
        return False
    return start[_LENGTH.size :] == b"{" and _LENGTH.unpack_from(start)[0] <= _LONGEST_HEADER


def read_safetensors(path):
    """Return the `SafeTensors` of a file; its arrays are read-only views of the file.

    A tensor of a type that numpy does not have comes as `Inert`.

    Raises:
        CheckpointError: for damaged and hostile files; the message names the file.
    """
    try:
        data = map_file(path)
        header = _read_header(path, data)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (Malformed, SafetensorError) as error:
        raise CheckpointError(f"{path} is no safetensors file that can be read: {printable(str(error), 200)}") from None
    except Exception as error:  # a damaged header can raise anything
        raise CheckpointError(f"{path} is damaged: {type(error).__name__} {printable(str(error), 200)}") from error
    metadata = header.pop(_METADATA, None) or {}
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    try:
        arrays = {name: _view(data, start, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, MemoryError) as error:  # more dimensions than numpy has
        raise CheckpointError(f"{path} holds a tensor that numpy cannot: {error!s:.200}") from error
    return SafeTensors(arrays, metadata)


def _read_header(path, data):
    """Return the header, after the package has checked that the tensors cover the file and do not overlap."""
    if len(data) < _LENGTH.size:
        raise Malformed("it is cut short")
    (length,) = _LENGTH.unpack_from(data)
    if length > _MAX_HEADER:
        raise Malformed(f"its header of {length:,} bytes is longer than {_MAX_HEADER:,}")
    with safe_open(os.fspath(path), framework="np"):
        pass
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    if len(header) > _MAX_TENSORS:
        raise Malformed(f"it has more than {_MAX_TENSORS:,} tensors")
    return header


def _view(data, start, dtype, shape, data_offsets):
    if dtype not in _DTYPES:
        return Inert(f"tensor of {printable(dtype, 20)}", ())
    if not math.prod(shape):
        return np.empty(shape, _DTYPES[dtype])
    return np.ndarray(shape, _DTYPES[dtype], data, start + data_offsets[0])


def dump_safetensors(arrays, file, metadata):
    """Write ``{name: tensor or array}`` into an open binary file; equal content makes equal bytes.

    Args:
        arrays: what to write; uint16 stands for the bits of bfloat16, as in Paddle's files.
        file: the file.
        metadata: text by name; ``format`` says whose names these are, ``"pd"`` or ``"pt"``.

    Raises:
        CheckpointError: for anything but arrays by name, of types that the format has.
    """
    if not isinstance(arrays, dict) or _METADATA in arrays or not all(isinstance(name, str) for name in arrays):
        raise CheckpointError("a safetensors file holds arrays by name, and nothing else")
    arrays = {name: _as_array(name, value) for name, value in arrays.items()}
    in_file = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # so that each begins at a multiple of its size
    ends = dict(zip(in_file, np.cumsum([arrays[name].nbytes for name in in_file]).tolist()))
    header = {_METADATA: metadata}
    for name, array in arrays.items():
        offsets = [ends[name] - array.nbytes, ends[name]]
        header[name] = {"dtype": _code(array.dtype), "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(_LENGTH.pack(len(text)) + text)
    for name in in_file:
        file.write(arrays[name].reshape(-1).view(np.uint8).data)


def _as_array(name, value):
    """Return a value in C order, little-endian."""
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if _code(array.dtype) is None:
        raise CheckpointError(f"{printable(name, 60)} is of type {array.dtype}, which safetensors files do not hold")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _code(dtype):
    return next((code for code, known in _DTYPES.items() if known == dtype.newbyteorder("<")), None)
