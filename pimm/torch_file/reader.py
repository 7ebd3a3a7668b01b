"""Read ``.pth`` files without PyTorch: the zip format, and the format before PyTorch 1.6.

Storages stay in the file, which is mapped into memory: arrays are read-only views of the file. In the old format
numbers are little-endian on every machine, whatever its marker says; in the zip format a record names the byte order.
"""

from __future__ import annotations

import pickle
import struct
from typing import NamedTuple

from pimm.errors import CheckpointError
from pimm.safe_pickle import Global, Inert, Malformed, Resolver, Unpickler, map_file, no_garbage_collection
from pimm.safe_pickle.objects import printable
from pimm.torch_file.tensors import FUNCTIONS, Storage, Tensor, storage_dtype
from pimm.torch_file.zip_directory import read_directory

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_NO_FORMAT = "it begins as none of PyTorch's formats does"
_MAX_TENSORS = 50_000
_TORCHSCRIPT = (
    "constants.pkl",
    "code/",
    "model.json",
)  # what archives of torch.jit.save have beside data.pkl, or before it
_COUNT = struct.Struct("<q")


class TorchFile(NamedTuple):
    """Holds the dict of a ``.pth`` file, and which of PyTorch's formats the file has: ``"zip"`` or ``"legacy"``."""

    content: dict
    format: str


def load_torch(path):
    """Return the dict that ``torch.save`` wrote to ``path``, with numpy arrays for tensors.

    The arrays are read-only views of the file; bfloat16 comes as its bits (`is_bfloat16`). What is not data comes as
    `Inert`; nothing in the file is run.

    Raises:
        CheckpointError: for damaged and hostile files and for those that hold no dict; the message names the file.
    """
    return read_torch(path).content


def read_torch(path):
    """Return what `load_torch` returns together with the file's format; raise what `load_torch` raises."""
    try:
        data = map_file(path)
        with no_garbage_collection():
            content, form = _read(data)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except Malformed as error:
        raise CheckpointError(f"{path} is no PyTorch file that can be read: {error}") from None
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(f"{path} is damaged: {type(error).__name__} {error!s:.200}") from error
    if not isinstance(content, dict):
        what = f"a whole {printable(content.name)}" if isinstance(content, Inert) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {what} and not a dict; save the state_dict() of the net instead")
    return TorchFile(content, form)


def _read(data):
    if data[:4] == b"PK\3\4":
        return _read_zip(data), "zip"
    if data[257:262] == b"ustar":
        raise Malformed("it is a tar archive, as PyTorch's first releases wrote; load it there and save it anew")
    if data[:1] != pickle.PROTO:
        raise Malformed(_NO_FORMAT)
    return _read_legacy(data), "legacy"


def _read_zip(data):
    records = read_directory(data)
    folder = next(iter(records)).partition("/")[0]
    pickled = records.get(f"{folder}/data.pkl")
    of_torchscript = tuple(f"{folder}/{part}" for part in _TORCHSCRIPT)
    if any(name.startswith(of_torchscript) for name in records):
        raise Malformed(
            "it is a TorchScript archive, a program and not a state dict; in PyTorch, "
            "torch.save(torch.jit.load(OLD).state_dict(), NEW) writes a file of its weights"
        )
    if pickled is None:
        raise Malformed("it is a zip archive, but not one that torch.save writes")
    swapped = _byte_order(data, records.get(f"{folder}/byteorder")) == b"big"

    def refer(identifier):
        tag, kind, key, _, numel = identifier
        _check_tag(tag)
        return _storage(kind, key, numel)

    pickled.check(data)
    content = Unpickler(data, pickled.start, pickled.end, FUNCTIONS, refer).load()
    checked = set()

    def locate(storage):
        record = records.get(f"{folder}/data/{storage.key}")
        if record is None or record.end - record.start != storage.nbytes:
            raise Malformed(f"storage {storage.key!r:.40} is not there, or not {storage.nbytes:,} bytes")
        if storage.key not in checked:
            checked.add(storage.key)
            record.check(data)
        return record.start

    return _TensorResolver(data, locate, swapped)(content)


def _byte_order(data, record):
    if record is None:
        return b"little"
    record.check(data)
    order = data[record.start : record.end]
    if order not in (b"little", b"big"):
        raise Malformed(f"its byte order is {order[:20]!r}")
    return order


def _read_legacy(data):
    position = 0
    header = []
    for expected in (_MAGIC, _PROTOCOL, None):
        machine = Unpickler(data, position, len(data), FUNCTIONS)
        header.append(machine.load())
        position = machine.position
        if expected is not None and header[-1] != expected:
            raise Malformed(_NO_FORMAT)
    storages = {}

    def refer(identifier):
        if identifier[0] in ("module", b"module"):
            return identifier[1]  # the class, whose source code may follow
        tag, kind, key, _, numel, view = identifier
        _check_tag(tag)
        storage = _storage(kind, key, numel)
        if isinstance(storage, Inert):
            raise Malformed(f"{printable(storage.name, 60)} is a type of numbers that numpy does not have")
        if storages.setdefault(key, storage).nbytes != storage.nbytes:
            raise Malformed(f"storage {key!r:.40} has two sizes")
        if view is None:
            return storage
        _, start, length = view
        part = Storage(key, storage.dtype, length, start)
        if start + length > numel:
            raise Malformed(f"a part of storage {key!r:.40} reaches beyond it")
        return part

    machine = Unpickler(data, position, len(data), FUNCTIONS, refer)
    content = machine.load()
    machine = Unpickler(data, machine.position, len(data), FUNCTIONS)
    starts = _storage_starts(data, machine.load(), storages, machine)
    return _TensorResolver(data, lambda storage: starts[storage.key] + storage.start * storage.dtype.itemsize)(content)


def _storage_starts(data, keys, storages, machine):
    """Return where the numbers of each storage begin: after the list of keys, each after its number of elements."""
    if not isinstance(keys, list) or set(keys) != set(storages) or len(keys) != len(storages):
        raise Malformed("the storages that follow are not those that the tensors need")
    starts = {}
    for key in keys:
        (numel,) = _COUNT.unpack(machine.take(_COUNT.size))
        if numel != storages[key].numel:
            raise Malformed(f"storage {key!r:.40} has {numel:,} elements and not {storages[key].numel:,}")
        starts[key] = machine.position
        if storages[key].nbytes > len(data) - machine.position:
            raise Malformed(f"it ends inside storage {key!r:.40}")
        machine.position += storages[key].nbytes
    return starts


def _check_tag(tag):
    if tag not in ("storage", b"storage"):
        raise Malformed(f"a reference to {tag!r:.40}")


def _storage(kind, key, numel):
    dtype = storage_dtype(kind)
    if dtype is None:
        if not isinstance(kind, Global):
            raise Malformed("a storage of no type")
        return Inert(kind.name, ())
    return Storage(key, dtype, numel)


class _TensorResolver(Resolver):
    """Puts arrays where tensors are, too: views of ``data``, in which ``locate(storage)`` says where a storage is."""

    def __init__(self, data, locate, swapped=False):
        super().__init__()
        self.data, self.locate, self.swapped = data, locate, swapped
        self.tensors, self.copied = 0, 0

    def _storage(self, value, depth):
        return Inert("torch storage")

    def _tensor(self, value, depth):
        self.tensors += 1
        if self.tensors > _MAX_TENSORS:
            raise Malformed(f"it has more than {_MAX_TENSORS:,} tensors")
        view = value.view(self.data, self.locate(value.storage), self.swapped)
        if not value.needs_copy(self.swapped):
            return view
        self.copied += view.nbytes
        if self.copied > 2 * len(self.data):
            raise Malformed("it has more to convert than it holds")
        return value.copy(view)

    KINDS = {**Resolver.KINDS, Storage: _storage, Tensor: _tensor}
