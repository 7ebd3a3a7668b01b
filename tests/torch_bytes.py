"""Write files as ``torch.save`` does, byte by byte, without PyTorch.

``save_zip`` and ``save_legacy`` write content in which each array is a tensor with a storage of its own. ``Tensor``,
``Name``, ``Call``, ``Reference`` and ``Raw`` stand for what only PyTorch or an attacker writes.
"""

import pickle
import struct
import zipfile
from dataclasses import dataclass, field

import numpy as np

PROTO, STOP = b"\x80\x02", b"."  # what a pickle of protocol 2 begins and ends with
MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}


@dataclass(frozen=True)
class Name:
    """Stands for a global name."""

    module: str
    name: str


@dataclass(eq=False)
class Call:
    """Stands for the result of a call in a pickle, which then gets ``state`` and ``items``."""

    function: object
    args: tuple = ()
    state: object = None
    items: object = None
    new: bool = False  # by __new__


@dataclass(frozen=True)
class Reference:
    """Stands for a persistent identifier."""

    parts: tuple


@dataclass(frozen=True)
class Raw:
    """Holds pickle operations that are written as they are."""

    data: bytes


@dataclass(eq=False)
class Tensor:
    """Stands for a tensor on the storage of ``array``, by default of its size and stride; ``dtype`` is PyTorch's."""

    array: np.ndarray
    offset: int = 0
    size: tuple = None
    stride: tuple = None
    dtype: str = ""
    metadata: dict = None
    view: tuple = None  # of the legacy format: start and length of the part of the storage that it is on


@dataclass
class Pickled:
    """Writes one pickle of protocol 2, remembering what it has written as ``pickle`` does."""

    legacy: bool = False
    storages: list = field(default_factory=list)
    out: bytearray = field(default_factory=bytearray)
    memo: dict = field(default_factory=dict)
    kept: list = field(default_factory=list)

    def save(self, value):
        kinds = {
            dict: self.dict,
            list: self.list,
            tuple: self.tuple,
            str: self.text,
            Name: self.name,
            Call: self.call,
            Reference: self.reference,
            Tensor: self.tensor,
            np.ndarray: lambda array: self.tensor(Tensor(array)),
            Raw: lambda raw: self.out.extend(raw.data),
        }
        if type(value) in kinds:
            kinds[type(value)](value)
        else:
            self.out += pickle.dumps(value, 2)[2:-1]

    def remembered(self, key):
        """Write a reference to the memo if the value was written before, and tell whether it was."""
        if key in self.memo:
            self.out += pickle.LONG_BINGET + struct.pack("<I", self.memo[key])
            return True
        return False

    def remember(self, key):
        self.memo[key] = len(self.memo)
        self.out += pickle.LONG_BINPUT + struct.pack("<I", self.memo[key])

    def text(self, value):
        if not self.remembered(value):
            data = value.encode()
            self.out += pickle.BINUNICODE + struct.pack("<I", len(data)) + data
            self.remember(value)

    def name(self, value):
        if not self.remembered(value):
            self.out += pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode()
            self.remember(value)

    def dict(self, value):
        self.out += pickle.EMPTY_DICT
        self.items(value)

    def list(self, value):
        self.out += pickle.EMPTY_LIST
        self.items(value)

    def items(self, value):
        pairs = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        self.out += pickle.MARK
        for part in pairs:
            self.save(part)
        self.out += pickle.SETITEMS if isinstance(value, dict) else pickle.APPENDS

    def tuple(self, value):
        self.out += pickle.MARK
        for part in value:
            self.save(part)
        self.out += pickle.TUPLE

    def call(self, value):
        if self.remembered(id(value)):
            return
        self.kept.append(value)  # so that no other gets its id
        self.save(value.function)
        self.save(value.args)
        self.out += pickle.NEWOBJ if value.new else pickle.REDUCE
        self.remember(id(value))
        if value.items is not None:
            self.items(value.items)
        if value.state is not None:
            self.save(value.state)
            self.out += pickle.BUILD

    def reference(self, value):
        self.save(value.parts)
        self.out += pickle.BINPERSID

    def storage(self, array, dtype, view):
        has_class = dtype in STORAGES
        numel = array.size if has_class else array.nbytes
        if not any(array is known for known, _ in self.storages):
            self.storages.append((array, numel))
        key = str(next(i for i, (known, _) in enumerate(self.storages) if known is array))
        kind = Name("torch", STORAGES[dtype]) if has_class else Name("torch.storage", "UntypedStorage")
        parts = ("storage", kind, key, "cuda:0", numel)
        if self.legacy:
            parts += ((f"{key}-part", *view) if view else None,)
        return Reference(parts)

    def tensor(self, value):
        array = value.array
        dtype = value.dtype or array.dtype.newbyteorder("=").name
        size = array.shape if value.size is None else value.size
        stride = contiguous(array.shape) if value.stride is None else value.stride
        args = (self.storage(array, dtype, value.view), value.offset, size, stride, False, ordered_dict())
        if dtype in STORAGES:
            metadata = () if value.metadata is None else (value.metadata,)
            self.call(Call(Name("torch._utils", "_rebuild_tensor_v2"), args + metadata))
        else:
            self.call(Call(Name("torch._utils", "_rebuild_tensor_v3"), (*args, Name("torch", dtype))))


def contiguous(shape):
    """Return the strides, in elements, of an array in C order."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.insert(0, strides[0] * size)
    return tuple(strides[: len(shape)])


def ordered_dict(items=None):
    return Call(Name("collections", "OrderedDict"), (), items=items, state={"_metadata": {"": {"version": 1}}})


def pickled(content, legacy=False):
    """Return the pickle of ``content``, and the arrays that it refers to with the number of elements of each."""
    writer = Pickled(legacy)
    writer.save(content)
    return PROTO + bytes(writer.out) + STOP, writer.storages


def save_zip(path, content, byteorder="little", folder="archive"):
    """Write ``content``, or a pickle given as bytes, in the format since PyTorch 1.6."""
    data, storages = (content, []) if isinstance(content, bytes) else pickled(content)
    records = {"data.pkl": data, "byteorder": byteorder.encode()}
    records.update({f"data/{key}": array.tobytes() for key, (array, _) in enumerate(storages)})
    records["version"] = b"3\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(f"{folder}/{name}", record)


def save_legacy(path, content, little_endian=True):
    """Write ``content``, or a pickle given as bytes, in the format before PyTorch 1.6."""
    data, storages = (content, []) if isinstance(content, bytes) else pickled(content, legacy=True)
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as file:
        for header in (MAGIC, 1001, system):
            pickle.dump(header, file, protocol=2)
        file.write(data)
        pickle.dump([str(key) for key in range(len(storages))], file, protocol=2)
        for array, numel in storages:
            file.write(struct.pack("<q", numel) + array.tobytes())


FORMATS = {"zip": save_zip, "legacy": save_legacy}
