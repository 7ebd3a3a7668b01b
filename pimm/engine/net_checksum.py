"""A checksum of all that decides what a net computes: its weights, its structure, and the code of its layers."""

from __future__ import annotations

import functools
import hashlib
import inspect
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from pimm.errors import ConfigError

# Attributes of a layer that do not decide what the layer computes in evaluation mode; names are counted by Paddle.
_IGNORED = {"_full_name", "_helper", "training", "_param_attr", "_weight_attr", "_bias_attr"}
_RANDOM = (np.random.Generator, np.random.RandomState, random.Random)
_VERSIONED = {"", "builtins", "numpy", "paddle"}  # code that changes with the versions alone
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, paddle.dtype, np.dtype)


def net_checksum(net: nn.Layer, *facts: object) -> str:
    """Return the checksum of a net as hexadecimal digits, the same in every process.

    Values that the function cannot compare between processes, such as objects of C libraries, give another checksum in
    every process, never the same one for different nets.

    Args:
        net: the net.
        facts: what else the checksum is made of.

    Raises:
        ConfigError: the source of a layer is in no file, as that of a layer that was typed into an interpreter.
    """
    walk = _Walk()
    walk.add(net)
    walk.add(facts)
    walk.add((paddle.__version__, paddle.version.commit, np.__version__, sys.version))
    for name in sorted(walk.packages):
        walk.add((name, _source_checksum(name)))
    return walk.digest.hexdigest()


class _Walk:
    """Walks through objects, and feeds what they are made of to a digest; collects the packages of their code."""

    def __init__(self):
        self.digest = hashlib.sha256()
        self.packages: set[str] = set()
        self._seen: dict[int, int] = {}
        self._kept = []  # alive as long as their ids are in use

    def add(self, value: object) -> None:
        """Add a value and all that it holds."""
        if isinstance(value, _PLAIN):
            self._feed(type(value).__name__, repr(value))
        elif isinstance(value, (paddle.Tensor, np.ndarray)):
            array = value.numpy() if isinstance(value, paddle.Tensor) else value
            self._feed("array", str(array.dtype), str(array.shape))
            self.digest.update(array.tobytes())
        elif isinstance(value, _RANDOM):
            self._feed(type(value).__name__)
        elif id(value) in self._seen:
            self._feed("again", str(self._seen[id(value)]))
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            for part in self._parts(value):
                self.add(part)

    def _feed(self, *texts: str) -> None:
        self.digest.update("".join(f"{len(text)}:{text}" for text in texts).encode(errors="surrogatepass"))

    def _parts(self, value: object) -> Iterator[object]:
        """Yield what a value that holds others is made of, in a fixed order."""
        if isinstance(value, (list, tuple)):
            yield from (type(value).__name__, len(value), *value)
        elif isinstance(value, dict):
            yield from (type(value).__name__, len(value))
            for item in value.items():
                yield from item
        elif isinstance(value, (set, frozenset)):
            yield from (type(value).__name__, *sorted(map(repr, value)))
        elif isinstance(value, type):
            yield self._named(value)
        elif isinstance(value, functools.partial):
            yield from ("partial", value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            yield from ("method", value.__func__.__qualname__, value.__self__)
        elif isinstance(value, types.FunctionType):
            cells = [_content(cell) for cell in value.__closure__ or ()]
            yield from (self._named(value), *_code(value.__code__), value.__defaults__, value.__kwdefaults__, *cells)
        elif isinstance(value, (types.BuiltinFunctionType, types.ModuleType)):
            yield value.__name__
        else:
            yield from self._of_object(value)

    def _of_object(self, value: object) -> Iterator[object]:
        for base in type(value).__mro__:
            yield self._named(base)
        state = getattr(value, "__dict__", None)
        if state is None:
            yield repr(value)  # with the address of an object that has no text of its own
            return
        ignored = _IGNORED if isinstance(value, nn.Layer) else ()
        yield from ((name, content) for name, content in state.items() if name not in ignored)

    def _named(self, code: type | types.FunctionType) -> str:
        package = code.__module__.partition(".")[0] if code.__module__ else ""
        if package not in _VERSIONED:
            self.packages.add(package)
        return f"{code.__module__}.{code.__qualname__}"


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return "empty"


def _code(code: types.CodeType) -> Iterator[object]:
    yield from (code.co_code, code.co_names)
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, types.CodeType) else (constant,)


@functools.cache
def _source_checksum(name: str) -> str:
    """Return the checksum of the Python files of a package, or of the file of a module."""
    module = sys.modules.get(name)
    if name in sys.builtin_module_names:
        return ""
    try:
        path = Path(inspect.getsourcefile(module))
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
    except (TypeError, OSError):
        raise ConfigError(f"the code of {name}, which the net uses, is in no file") from None
    return digest.hexdigest()
