"""Write files of arrays that Paddle reads too, whole or not at all, and read them without running what is in them.

The format is Paddle's own for state dicts, a pickle of ``{name: numpy array}``: ``.pdparams``, ``.pdopt``, ``.pdema``.
Values may also be plain data (numbers, strings, None, lists, tuples, sets, dicts) with arrays inside. bfloat16 tensors
are stored as their bits, uint16, as Paddle does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle

from pimm.errors import CheckpointError
from pimm.safe_pickle import (
    FUNCTIONS,
    MAX_OPERATIONS,
    Global,
    Inert,
    Malformed,
    Resolver,
    Unpickler,
    map_file,
    no_garbage_collection,
)
from pimm.safe_pickle.keys import Keys
from pimm.safe_pickle.objects import printable
from pimm.safe_pickle.values import NumpyArray, NumpyType

_BLOCK = 1 << 20  # bytes read at a time
_PROTOCOL = 4  # the newest that paddle.save has
_COSTS = {paddle.Tensor: 40, np.ndarray: 40, dict: 4, list: 4, tuple: 4, set: 4, OrderedDict: 40}  # in operations
_NAME_TABLE = "StructuredToParameterName@@"  # paddle.save's key for the names of parameters in the process that saved


class DigestingFile:
    """Wraps a file that is being written: ``size`` counts the bytes so far, and ``digest`` has seen them."""

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
    """Open a binary file that appears under ``path`` when the block ends well; otherwise what was there stays.

    Raises:
        CheckpointError: if the file cannot be written, as when the disk is full, and for the path of a device or of
            anything else that is no regular file.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise CheckpointError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'no regular file'}")
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
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
        with contextlib.suppress(OSError):  # the file has its final name by now, or could not be made
            os.unlink(temporary)


def write_text(path, text):
    """Write text in UTF-8, whole or not at all; raise `CheckpointError` as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(text.encode())


def file_sha256(path):
    """Return the SHA-256 of a file's bytes in hexadecimal digits; the file is read in parts and may have any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def save_arrays(path, arrays):
    """Write ``{name: tensor or array}``, or other data of the kinds named above, to ``path``, whole or not at all.

    Raises:
        CheckpointError: for data of other kinds, for more values than `load_arrays` reads, and if the disk is full.
    """
    with atomic_file(path) as file:
        dump_arrays(arrays, file)


def dump_arrays(arrays, file):
    """Write into an open binary file what `save_arrays` writes; tensors are copied from the device one at a time."""
    pickler = _ArrayPickler(file, _PROTOCOL)
    pickler.fast = True  # no memo: it would keep every array's bytes in memory until the end
    try:
        _check_size(arrays)
        pickler.dump(arrays)
    except (pickle.PicklingError, Malformed, RecursionError) as error:
        raise CheckpointError(f"cannot be stored in a checkpoint: {error}") from error


def _check_size(content):
    """Raise `Malformed` for content of more values, or of other keys, than `load_arrays` would read back."""
    left, waiting, keys = MAX_OPERATIONS, [content], Keys()
    while waiting and left > 0:
        value = waiting.pop()
        left -= _COSTS.get(type(value), 1)
        if isinstance(value, (dict, set, frozenset)):
            for key in value:
                keys.check(key)
            waiting.extend(value)
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
    if left <= 0:
        raise Malformed(f"more than {MAX_OPERATIONS:,} values; keep many numbers in an array")


class _ArrayPickler(pickle.Pickler):
    """Pickles arrays and plain data, and refuses what `load_arrays` would refuse."""

    _GLOBALS = (np.ndarray, np.dtype, np.array(0).__reduce__()[0], OrderedDict)  # what arrays and states refer to

    def reducer_override(self, value):
        if isinstance(value, paddle.Tensor):
            return value.numpy().__reduce_ex__(_PROTOCOL)
        has_data = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcSU"
        if has_data and isinstance(value, np.generic):
            return np.asarray(value).__reduce_ex__(_PROTOCOL)
        if has_data or isinstance(value, (np.dtype, OrderedDict)) or any(value is known for known in self._GLOBALS):
            return NotImplemented  # the usual way
        raise pickle.PicklingError(f"{type(value).__name__} {str(value)[:60]!r}")


def load_arrays(path, any_protocol=False):
    """Read what `save_arrays` or ``paddle.save`` wrote to ``path``, with numpy arrays in the place of tensors.

    Nothing in the file is run: a pickle that asks for anything but arrays and plain data is refused, and so is one that
    would take more time or memory than its size explains.

    Args:
        path: the file.
        any_protocol: read pickles of protocols 0 and 1 too, as Python 2 wrote them.

    Raises:
        CheckpointError: for such a file, and for missing, damaged and truncated ones; the message names the file.
    """
    try:
        with map_file(path) as data, no_garbage_collection():
            if data[:1] != pickle.PROTO and not any_protocol:
                raise Malformed("it is no pickle of protocols 2 to 5")
            content = _ArrayResolver()(Unpickler(data, 0, len(data), FUNCTIONS, strict=True).load())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = error if isinstance(error, Malformed) else f"{error!r:.200}"
        raise CheckpointError(f"{path} is damaged or not a file of arrays: {reason}") from error
    if isinstance(content, dict):
        content.pop(_NAME_TABLE, None)
    return content


class _ArrayResolver(Resolver):
    """Refuses what is neither an array nor plain data, and reads the form that ``paddle.save`` gives to tensors."""

    def _refuse(self, value, depth):
        name = value.name if isinstance(value, Inert) else type(value).__name__
        raise Malformed(f"it holds a {printable(str(name), 60)}, which is neither an array nor plain data")

    def _numpy_array(self, value, depth):
        found = super()._numpy_array(value, depth)
        return self._refuse(found, depth) if isinstance(found, Inert) else found

    def _tuple(self, value, depth):
        items = super()._tuple(value, depth)
        if len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray):
            return items[1]  # a tensor inside other data: its name and its value
        return items

    KINDS = {
        **Resolver.KINDS,
        tuple: _tuple,
        NumpyArray: _numpy_array,
        **dict.fromkeys((Inert, Global, NumpyType), _refuse),
    }
