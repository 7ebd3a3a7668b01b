"""From what a PyTorch pickle calls to numpy arrays: types, storages, tensors, and numpy's own values."""

from __future__ import annotations

import math
import re

import numpy as np

from pimm.torch_file.unpickler import Global, Inert, Malformed, make_set

# numpy has no bfloat16: such a tensor is an array of its bits, whose dtype says so. This keeps them through
# reading and writing, and is what Paddle's files hold.
BFLOAT16 = np.dtype(np.uint16, metadata={"torch": "bfloat16"})

# name in torch, numpy's type, class of the storage (None: storages of this type are of raw bytes)
DTYPES = {
    "float64": (np.dtype("<f8"), "DoubleStorage"),
    "float32": (np.dtype("<f4"), "FloatStorage"),
    "float16": (np.dtype("<f2"), "HalfStorage"),
    "bfloat16": (BFLOAT16, "BFloat16Storage"),
    "int64": (np.dtype("<i8"), "LongStorage"),
    "int32": (np.dtype("<i4"), "IntStorage"),
    "int16": (np.dtype("<i2"), "ShortStorage"),
    "int8": (np.dtype("i1"), "CharStorage"),
    "uint8": (np.dtype("u1"), "ByteStorage"),
    "uint16": (np.dtype("<u2"), None),
    "uint32": (np.dtype("<u4"), None),
    "uint64": (np.dtype("<u8"), None),
    "bool": (np.dtype("?"), "BoolStorage"),
    "complex64": (np.dtype("<c8"), "ComplexFloatStorage"),
    "complex128": (np.dtype("<c16"), "ComplexDoubleStorage"),
}
RAW = "UntypedStorage"
_STORAGES = {storage: dtype for dtype, storage in DTYPES.values() if storage}
_STORAGES[RAW] = _STORAGES["_UntypedStorage"] = np.dtype("u1")

_MAX_DIMENSIONS = 32
_MAX_STRETCH = 1 << 30  # bytes of an array beyond those of its storage


def is_bfloat16(array):
    """Whether an array holds the bits of bfloat16 values."""
    return bool(array.dtype.metadata) and array.dtype.metadata.get("torch") == "bfloat16"


def storage_dtype(value):
    """The numpy type of the elements of a storage class as the pickle names it; None if there is none."""
    if not isinstance(value, Global) or not value.name.startswith("torch."):
        return None
    return _STORAGES.get(value.name.rpartition(".")[2])


def _is_count(value):
    return type(value) is int and 0 <= value < 2**63


def _are_counts(values):
    """Whether this is a shape or the like, and a short one."""
    return type(values) in (tuple, list) and len(values) <= _MAX_DIMENSIONS and all(map(_is_count, values))


class Storage:
    """``numel`` elements of type ``dtype`` in the file, ``start`` elements into what has ``key``."""

    __slots__ = ("dtype", "key", "numel", "start")

    def __init__(self, key, dtype, numel, start=0):
        if type(key) is not str or not _is_count(numel) or not _is_count(start):
            raise Malformed(f"a storage {key!r} of {numel!r} elements")
        self.key, self.dtype, self.numel, self.start = key, dtype, numel, start

    @property
    def nbytes(self):
        return self.numel * self.dtype.itemsize


class Tensor:
    """A view of a storage in PyTorch's terms: offset and strides count elements."""

    __slots__ = ("conj", "dtype", "neg", "offset", "size", "storage", "stride")

    def __init__(self, storage, offset, size, stride, dtype=None, metadata=None):
        if not _are_counts(size) or not _are_counts(stride) or len(size) != len(stride) or not _is_count(offset):
            raise Malformed("a tensor whose offset, sizes and strides do not make one")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        self.dtype = storage.dtype if dtype is None else dtype
        metadata = metadata if isinstance(metadata, dict) else {}
        self.conj, self.neg = bool(metadata.get("conj")), bool(metadata.get("neg"))

    def view(self, buffer, start, swapped):
        """The numpy array that begins with its storage at byte ``start`` of ``buffer``; ``swapped``: big-endian.

        Raises Malformed where it would reach beyond its storage.
        """
        itemsize = self.dtype.itemsize
        numel = math.prod(self.size)
        if not numel:
            return np.empty(self.size, self.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride))
        if (last + 1) * itemsize > self.storage.nbytes:
            raise Malformed(
                f"a tensor of {list(self.size)} reaches beyond its storage of {self.storage.nbytes:,} bytes"
            )
        if numel * itemsize > self.storage.nbytes + _MAX_STRETCH:
            raise Malformed(f"a tensor {list(self.size)} is made of a storage of {self.storage.nbytes:,} bytes")
        strides = [stride * itemsize if size > 1 else 0 for size, stride in zip(self.size, self.stride)]
        dtype = self.dtype.newbyteorder(">") if swapped and itemsize > 1 else self.dtype
        return np.ndarray(self.size, dtype, buffer, start + self.offset * itemsize, strides)

    def needs_copy(self, swapped):
        """Whether no view can give its values."""
        return self.conj or self.neg or (swapped and self.dtype.itemsize > 1)

    def copy(self, view):
        """What `view` gave, as values of this machine."""
        array = view.astype(self.dtype)
        # numpy's functions make scalars of 0-d arrays
        array = np.asarray(np.conj(array)) if self.conj else array
        return np.asarray(np.negative(array)) if self.neg else array


def _rebuild_tensor(storage, offset, size, stride):
    return _tensor(storage, offset, size, stride)


def _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, metadata=None):
    return _tensor(storage, offset, size, stride, metadata=metadata)


def _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, backward_hooks, dtype, metadata=None):
    name = dtype.name if isinstance(dtype, Global) else type(dtype).__name__
    if name.partition("torch.")[2] not in DTYPES:
        return Inert(f"tensor of {name}", ())
    return _tensor(storage, offset, size, stride, dtype=DTYPES[name.partition("torch.")[2]][0], metadata=metadata)


def _tensor(storage, *view, **options):
    """A tensor; an inert one if its storage is of a type that numpy does not have."""
    if isinstance(storage, Inert):
        return Inert(f"tensor of {storage.name}", ())
    if not isinstance(storage, Storage):
        raise Malformed(f"a tensor made of a {type(storage).__name__}")
    return Tensor(storage, *view, **options)


def _rebuild_parameter(data, requires_grad=True, backward_hooks=None, state=None):
    return data


def _rebuild_from_type(function, kind, args, state):
    if isinstance(function, Global) and function.function in _REBUILDERS:
        return function.function(*args)
    return Inert("tensor of a class of its own", args)


def _encode(text, encoding="utf-8"):
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Malformed(f"an encoding {encoding!r}")
    return text.encode(encoding)


def _byte_array(data=b"", encoding=None):
    return bytearray(_encode(data, encoding) if type(data) is str else _known(data, bytes, bytearray))


def _known(items, *kinds):
    """``items`` if it is of one of these types: a constructor may do too much with others."""
    if type(items) not in kinds:
        raise Malformed(f"something made of a {type(items).__name__}")
    return items


def _sequence(kind):
    return lambda items=(): kind(_known(items, list, tuple, set))


def _complex(real=0, imag=0):
    return complex(_known(real, int, float), _known(imag, int, float))


def _dict(items=()):
    made = {}
    for key, value in items.items() if isinstance(items, dict) else items:
        make_set((key,))
        made[key] = value
    return made


def _default_dict(factory=None, items=()):
    return _dict(items)


class NumpyType:
    """Stands in for ``numpy.dtype``: numbers alone."""

    _CODE = re.compile(r"[<>=|]?[biufc?]\d{0,2}")

    def __init__(self, code, align=False, copy=False):
        if not isinstance(code, str) or not self._CODE.fullmatch(code):
            raise Malformed(f"a numpy array of type {code!r:.40}")
        self.dtype = np.dtype(code)

    def set_state(self, state):
        if state[1] not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise Malformed("a numpy array of structured type")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """Stands in for ``numpy.ndarray`` until its data comes."""

    def __init__(self, kind=None, shape=None, code=None):
        self.value = None

    def set_state(self, state):
        _, shape, kind, is_fortran, data = state
        if isinstance(data, str):  # of Python 2
            data = data.encode("utf-8", "surrogateescape")
        if not isinstance(kind, NumpyType) or type(data) not in (bytes, bytearray) or not _are_counts(shape):
            raise Malformed("a numpy array that is none")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise Malformed(f"a numpy array of {list(shape)} with {len(data):,} bytes")
        array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")
        self.value = array.astype(kind.dtype.newbyteorder("="), copy=False)


def _numpy_scalar(kind, data):
    array = NumpyArray()
    array.set_state((1, (), kind, False, data))
    return array.value[()]


_REBUILDERS = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)

# Every function that a file can have called.
FUNCTIONS = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,
    "torch.Size": _sequence(tuple),
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encode,
    "numpy.ndarray": NumpyArray,
    "numpy.dtype": NumpyType,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", NumpyArray), ("scalar", _numpy_scalar))
    },
    **{
        f"{module}.{name}": function
        for module in ("builtins", "__builtin__")
        for name, function in {
            "set": _sequence(make_set),
            "frozenset": _sequence(lambda items: make_set(items, frozenset)),
            "list": _sequence(list),
            "tuple": _sequence(tuple),
            "dict": _dict,
            "bytes": lambda data=b"": bytes(_known(data, bytes, bytearray)),
            "bytearray": _byte_array,
            "complex": _complex,
        }.items()
    },
}
