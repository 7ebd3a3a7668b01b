"""Make numpy arrays of the types, storages and tensors that a PyTorch pickle describes."""

from __future__ import annotations

import math

import numpy as np

from pimm import safe_pickle
from pimm.safe_pickle import Global, Inert, Malformed
from pimm.safe_pickle.values import are_counts, is_count, sequence
from pimm.utils.bfloat16 import BFLOAT16

# PyTorch's name: numpy's type, and the class of the storage (None: storages of this type are of raw bytes)
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

_MAX_STRETCH = 1 << 30  # bytes of an array beyond those of its storage


def storage_dtype(value):
    """Return the numpy type of the elements of a storage class that the pickle names; None if there is none."""
    if not isinstance(value, Global) or not value.name.startswith("torch."):
        return None
    return _STORAGES.get(value.name.rpartition(".")[2])


class Storage:
    """Describes ``numel`` elements of type ``dtype`` in the file, from element ``start`` of the storage ``key`` on."""

    __slots__ = ("dtype", "key", "numel", "start")
    is_stand_in = True

    def __init__(self, key, dtype, numel, start=0):
        if type(key) is not str or not is_count(numel) or not is_count(start):
            raise Malformed(f"a storage {key!r:.40} of {numel!r:.40} elements")
        self.key, self.dtype, self.numel, self.start = key, dtype, numel, start

    @property
    def nbytes(self):
        return self.numel * self.dtype.itemsize


class Tensor:
    """Describes a view of a storage in PyTorch's terms: offset and strides count elements."""

    __slots__ = ("conj", "dtype", "neg", "offset", "size", "storage", "stride")
    is_stand_in = True

    def __init__(self, storage, offset, size, stride, dtype=None, metadata=None):
        if not are_counts(size) or not are_counts(stride) or len(size) != len(stride) or not is_count(offset):
            raise Malformed("a tensor whose offset, sizes and strides do not make one")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        self.dtype = storage.dtype if dtype is None else dtype
        metadata = metadata if isinstance(metadata, dict) else {}
        self.conj, self.neg = bool(metadata.get("conj")), bool(metadata.get("neg"))

    def view(self, buffer, start, swapped):
        """Return the tensor as an array; raise `Malformed` where the tensor would reach beyond its storage.

        Args:
            buffer: the bytes of the file.
            start: where the storage begins in them.
            swapped: whether the numbers are big-endian.
        """
        itemsize = self.dtype.itemsize
        numel = math.prod(self.size)
        if not numel:
            return np.empty(self.size, self.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride))
        if (last + 1) * itemsize > self.storage.nbytes:
            raise Malformed(
                f"a tensor of {list(self.size)!s:.100} reaches beyond its storage of {self.storage.nbytes:,} bytes"
            )
        if numel * itemsize > self.storage.nbytes + _MAX_STRETCH:
            raise Malformed(f"a tensor {list(self.size)!s:.100} is made of a storage of {self.storage.nbytes:,} bytes")
        strides = [stride * itemsize if size > 1 else 0 for size, stride in zip(self.size, self.stride)]
        dtype = self.dtype.newbyteorder(">") if swapped and itemsize > 1 else self.dtype
        return np.ndarray(self.size, dtype, buffer, start + self.offset * itemsize, strides)

    def needs_copy(self, swapped):
        """Tell whether no view of the file can give the values of the tensor."""
        return self.conj or self.neg or (swapped and self.dtype.itemsize > 1)

    def copy(self, view):
        """Return what `view` returned as values of this machine."""
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
    """Return a tensor, or an inert object if the storage is of a type that numpy does not have."""
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


_REBUILDERS = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)

# Every function that a file can have called.
FUNCTIONS = {
    **safe_pickle.FUNCTIONS,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,
    "torch.Size": sequence(tuple),
}
