"""Replace what a pickle machine put in the place of arrays and objects by arrays and inert objects."""

from __future__ import annotations

import contextlib
import gc

from pimm.safe_pickle.objects import Global, Inert, Malformed
from pimm.safe_pickle.values import NumpyArray, NumpyType

_MAX_DEPTH = 100
_UNFINISHED = object()


@contextlib.contextmanager
def no_garbage_collection():
    """Keep the collector, which would look through a million new containers again and again, from running."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Resolver:
    """Copies a tree of data with arrays where their stand-ins are; a value that is shared is copied once.

    ``KINDS`` has a method for each type of value that is not plain. Raises `Malformed` for data nested more than a
    hundred deep, and for a container that contains itself.
    """

    def __init__(self):
        self.done = {}

    def __call__(self, value, depth=0):
        if isinstance(value, (str, bytes, int, float, type(None))):
            return value
        resolve = self.KINDS.get(type(value))
        if resolve is None:
            return value
        if depth > _MAX_DEPTH:
            raise Malformed(f"it is nested more than {_MAX_DEPTH} deep")
        if id(value) not in self.done:
            self.done[id(value)] = (value, _UNFINISHED)  # with the value, whose id must not be given to another
            self.done[id(value)] = (value, resolve(self, value, depth + 1))
        found = self.done[id(value)][1]
        if found is _UNFINISHED:
            raise Malformed("something in it contains itself")
        return found

    def _key(self, key, depth):
        if isinstance(key, (tuple, frozenset)):
            return type(key)([self._key(part, depth) for part in key])
        return Inert("an array as a key") if hasattr(key, "is_stand_in") else self(key, depth)

    def _dict(self, value, depth):
        return {key if type(key) is str else self._key(key, depth): self(item, depth) for key, item in value.items()}

    def _list(self, value, depth):
        return [self(item, depth) for item in value]

    def _tuple(self, value, depth):
        return tuple([self(item, depth) for item in value])

    def _set(self, value, depth):
        return type(value)([self._key(item, depth) for item in value])

    def _inert(self, value, depth):
        self.done[id(value)] = (value, value)  # an object may refer to itself: nobody goes through it
        value.args, value.state, value.items = (self(part, depth) for part in (value.args, value.state, value.items))
        return value

    def _name(self, value, depth):
        return Inert(value.name)

    def _numpy_array(self, value, depth):
        if value.value is None:
            raise Malformed("a numpy array without data")
        return self(value.value, depth) if isinstance(value.value, Inert) else value.value

    def _numpy_type(self, value, depth):
        return Inert("numpy.dtype", (value.name if value.dtype is None else value.dtype.str,))

    KINDS = {
        dict: _dict,
        list: _list,
        tuple: _tuple,
        set: _set,
        frozenset: _set,
        Inert: _inert,
        Global: _name,
        NumpyArray: _numpy_array,
        NumpyType: _numpy_type,
    }
