"""Make the arrays of numpy and the containers of Python that any file of arrays may ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pimm.safe_pickle.keys import Keys
from pimm.safe_pickle.objects import Inert, Malformed

_MAX_DIMENSIONS = 32


class Keyed(NamedTuple):
    """Wraps a function whose first argument is the `Keys` of the pickle, because its result has keys."""

    make: Callable


def is_count(value):
    """Tell whether a value is an integer from 0 to 2 ** 63 - 1."""
    return type(value) is int and 0 <= value < 2**63


def are_counts(values):
    """Tell whether a value is a shape or the like, and a short one."""
    return type(values) in (tuple, list) and len(values) <= _MAX_DIMENSIONS and all(map(is_count, values))


def known(items, *kinds):
    """Return ``items`` if they are of one of these types: a constructor may do too much with others."""
    if type(items) not in kinds:
        raise Malformed(f"something made of a {type(items).__name__}")
    return items


def sequence(kind):
    """Return a function that makes a ``kind`` of a list, tuple or set."""
    return lambda items=(): kind(known(items, list, tuple, set, frozenset))


def _set_of(kind):
    return Keyed(lambda keys, items=(): keys.make_set(known(items, list, tuple, set, frozenset), kind))


def _encode(text, encoding="utf-8"):
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Malformed(f"an encoding {encoding!r:.40}")
    return known(text, str).encode(encoding)


def _byte_array(data=b"", encoding=None):
    return bytearray(_encode(data, encoding) if type(data) is str else known(data, bytes, bytearray))


def _complex(real=0, imag=0):
    return complex(known(real, int, float), known(imag, int, float))


def _default_dict(keys, factory=None, items=()):
    return keys.make_dict(items)


class NumpyType:
    """Stands for a ``numpy.dtype``; ``dtype`` is None if its values are no numbers, text or bytes."""

    __slots__ = ("dtype", "name")
    is_stand_in = True
    _CODE = re.compile(r"[<>=|]?[biufcSU?]\d{0,9}")

    def __init__(self, code, align=False, copy=False):
        self.name = f"{code:.40}" if isinstance(code, str) else "a class of its own"
        dtype = np.dtype(code) if isinstance(code, str) and self._CODE.fullmatch(code) else None
        self.dtype = dtype if dtype is not None and dtype.itemsize else None  # any number of values fit into no bytes

    def set_state(self, state):
        """Take the byte order from the state of a ``numpy.dtype``, or note that its values have fields."""
        if any(part is not None for part in state[2:5]):
            self.dtype, self.name = None, "structured"
        if self.dtype is not None:
            if state[1] not in ("<", ">", "=", "|"):
                raise Malformed(f"a numpy array of byte order {state[1]!r:.40}")
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """Stands for a ``numpy.ndarray`` until its data comes; ``value`` is then the array.

    The value is an `Inert` for arrays of objects, dates and structures, which are no numbers and no text.
    """

    __slots__ = ("value",)
    is_stand_in = True

    def __init__(self, kind=None, shape=None, code=None):
        self.value = None

    def set_state(self, state):
        """Make the array from the state that ``numpy.ndarray`` pickles."""
        _, shape, kind, is_fortran, data = state
        if isinstance(data, str):  # of Python 2
            data = data.encode("utf-8", "surrogateescape")
        self.value = _array(data, kind, shape, is_fortran)


def _array(data, kind, shape, is_fortran):
    """Return the array whose elements are the bytes ``data``, in Fortran's order or in C's, without a copy of them."""
    if isinstance(kind, Inert) or (isinstance(kind, NumpyType) and kind.dtype is None):
        return Inert(f"numpy array of type {kind.name}", state=(shape, data))
    if not isinstance(kind, NumpyType) or type(data) not in (bytes, bytearray) or not are_counts(shape):
        raise Malformed("a numpy array that is none")
    dtype = kind.dtype
    if math.prod(shape) * dtype.itemsize != len(data):
        raise Malformed(f"a numpy array of type {dtype} and shape {list(shape)!s:.100} with {len(data):,} bytes")
    if type(data) is bytearray:
        array = np.ndarray(tuple(shape), dtype, data, order="F" if is_fortran else "C")
    else:
        array = np.ndarray(0, dtype)
        array.__setstate__((1, tuple(shape), dtype, bool(is_fortran), data))  # the array may be written to
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _array_from_buffer(data, kind, shape, order):
    array = NumpyArray()
    array.value = _array(data, kind, shape, order == "F")
    return array


def _numpy_scalar(kind, data=b""):
    value = _array(data, kind, (), False)
    return value if isinstance(value, Inert) else value[()]


FUNCTIONS = {
    "collections.OrderedDict": Keyed(Keys.make_dict),
    "collections.Counter": Keyed(Keys.make_dict),
    "collections.defaultdict": Keyed(_default_dict),
    "_codecs.encode": _encode,
    "numpy.ndarray": NumpyArray,
    "numpy.dtype": NumpyType,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": NumpyArray,
            "multiarray.scalar": _numpy_scalar,
            "numeric._frombuffer": _array_from_buffer,
        }.items()
    },
    **{
        f"{module}.{name}": function
        for module in ("builtins", "__builtin__")
        for name, function in {
            "set": _set_of(set),
            "frozenset": _set_of(frozenset),
            "list": sequence(list),
            "tuple": sequence(tuple),
            "dict": Keyed(Keys.make_dict),
            "bytes": lambda data=b"": bytes(known(data, bytes, bytearray)),
            "bytearray": _byte_array,
            "complex": _complex,
        }.items()
    },
}
