"""Files of arrays that Paddle reads too, written whole or not at all, and read without running what is in them.

The format is Paddle's own for state dicts, a pickle of ``{name: numpy array}``: ``.pdparams``, ``.pdopt``, ``.pdema``.
Values may also be plain data (numbers, strings, None, lists, tuples, sets, dicts) with arrays inside. bfloat16 tensors
are stored as their bits, uint16, as Paddle does.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle

from pimm.errors import CheckpointError

_BLOCK = 1 << 20  # bytes read at a time
_PROTOCOL = 4  # the newest that paddle.save has
_NAME_TABLE = "StructuredToParameterName@@"  # paddle.save's key for the names of parameters in the process that saved


class DigestingFile:
    """A file being written, and what has gone into it: ``size`` in bytes and the state of ``digest``."""

    def __init__(self, file, digest):
        self.file, self.digest, self.size = file, digest, 0

    def write(self, data):
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        return self.file.write(data)


def sync_folder(folder):
    """Make sure that new names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path):
    """A binary file that appears under ``path`` when the block ends well, and leaves what was there when it does not.

    CheckpointError if it cannot be written, as when the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):  # it has its name by now, or could not be made
            os.unlink(temporary)


def write_text(path, text):
    """The file holds the text, in UTF-8, or what it held before; CheckpointError as `atomic_file`."""
    with atomic_file(path) as file:
        file.write(text.encode())


def file_sha256(path):
    """The SHA-256 of a file's bytes, in hexadecimal digits; of any size, as it is read in parts."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def save_arrays(path, arrays):
    """Write ``{name: tensor or array}``, or other data of the kinds named above, to ``path``: atomically.

    CheckpointError for data of other kinds and if the disk is full.
    """
    with atomic_file(path) as file:
        dump_arrays(arrays, file)


def dump_arrays(arrays, file):
    """``save_arrays`` into an open binary file; tensors are copied from the device one at a time."""
    pickler = _ArrayPickler(file, _PROTOCOL)
    pickler.fast = True  # no memo: it would keep every array's bytes in memory until the end
    try:
        pickler.dump(arrays)
    except (pickle.PicklingError, RecursionError) as error:
        raise CheckpointError(f"cannot be stored in a checkpoint: {error}") from error


class _ArrayPickler(pickle.Pickler):
    _GLOBALS = (np.ndarray, np.dtype, np.array(0).__reduce__()[0], OrderedDict)  # what arrays and states refer to

    def reducer_override(self, value):
        if isinstance(value, paddle.Tensor):
            return value.numpy().__reduce_ex__(_PROTOCOL)
        if isinstance(value, np.generic):
            return np.asarray(value).__reduce_ex__(_PROTOCOL)
        is_array = isinstance(value, np.ndarray) and not value.dtype.hasobject
        if is_array or isinstance(value, (np.dtype, OrderedDict)) or any(value is known for known in self._GLOBALS):
            return NotImplemented  # the usual way
        raise pickle.PicklingError(f"{type(value).__name__} {str(value)[:60]!r}")


def load_arrays(path):
    """What ``save_arrays`` or ``paddle.save`` wrote to ``path``, with numpy arrays for tensors.

    Nothing in the file is run: a pickle that asks for anything but arrays and plain data is refused. CheckpointError,
    naming the file, for those and for missing, damaged and truncated ones.
    """
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file).load()
        content = _Converter()(content)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = error if isinstance(error, pickle.UnpicklingError) else repr(error)
        raise CheckpointError(f"{path} is damaged or not a file of arrays: {reason}") from error
    if isinstance(content, dict):
        content.pop(_NAME_TABLE, None)
    return content


class _DType:
    """Stands in for ``numpy.dtype`` while a file is read."""

    _KINDS = "biufcSU"

    def __init__(self, code, align=False, copy=False):
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in self._KINDS:
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not allowed")

    def __setstate__(self, state):
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("arrays of structured types are not allowed")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for an array while a file is read."""

    def __init__(self, subtype=None, shape=None, code=None):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        if isinstance(data, str):
            data = data.encode("latin1")  # of Python 2
        fits = all(type(n) is int and n >= 0 for n in shape)
        if not fits or math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"{len(data)} bytes for an array of shape {shape} and type {dtype.dtype}")
        self.value = np.ndarray(0, dtype.dtype)
        self.value.__setstate__((1, tuple(shape), dtype.dtype, bool(is_fortran), bytes(data)))  # takes the bytes over


def _scalar(dtype, data):
    array = _Array()
    array.__setstate__((1, (), dtype, False, data))
    return array


def _encode(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


class _BoundedFile:
    """A file that is never asked for more than it has: a lie about a length costs no memory."""

    def __init__(self, file):
        self.file, self.left = file, os.fstat(file.fileno()).st_size

    def read(self, size):
        if size > self.left:
            raise pickle.UnpicklingError("it is cut short")
        self.left -= size
        return self.file.read(size)

    def readline(self):
        line = self.file.readline()
        self.left -= len(line)
        return line


# What pickles of arrays and plain data consist of, in protocols 2 to 4.
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
    BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINBYTES SHORT_BINBYTES BINBYTES8 BINSTRING SHORT_BINSTRING
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET GLOBAL STACK_GLOBAL REDUCE BUILD
"""


class _ArrayUnpickler(pickle._Unpickler):  # the C one allocates whatever a memo index or a length claims
    _ALLOWED = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("collections", "OrderedDict"): dict,
        ("builtins", "tuple"): tuple,
        ("__builtin__", "tuple"): tuple,
        ("_codecs", "encode"): _encode,
        **{
            (f"numpy.{core}.multiarray", name): stand_in
            for core in ("core", "_core")
            for name, stand_in in (("_reconstruct", _Array), ("scalar", _scalar))
        },
    }

    def __init__(self, file):
        super().__init__(_BoundedFile(file), encoding="latin1")

    def find_class(self, module, name):
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of arrays needs")
        return self._ALLOWED[module, name]

    def load_build(self):
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _DType)):
            raise pickle.UnpicklingError(f"it sets the state of a {type(self.stack[-1]).__name__}")
        self.stack[-1].__setstate__(state)

    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES.split()
    }
    dispatch[pickle.BUILD[0]] = load_build


class _Converter:
    """Puts arrays where their stand-ins are, every shared container once."""

    def __init__(self):
        self.done = {}

    def __call__(self, value):
        if isinstance(value, _Array):
            if value.value is None:
                raise pickle.UnpicklingError("an array without data")
            return value.value
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            if isinstance(value, (str, bytes, int, float, complex, type(None))):
                return value
            raise pickle.UnpicklingError(f"a stray {type(value).__name__}")
        if id(value) not in self.done:
            self.done[id(value)] = None  # until it is done: a container inside itself
            self.done[id(value)] = self._container(value)
        if self.done[id(value)] is None:
            raise pickle.UnpicklingError("a container that contains itself")
        return self.done[id(value)]

    def _container(self, value):
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        items = [self(item) for item in value]
        if not isinstance(value, tuple):
            return type(value)(items)
        if len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray):
            return items[1]  # paddle.save's form of a tensor inside other data: its name and its value
        return tuple(items)
