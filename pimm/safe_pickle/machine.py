"""Read pickles with a machine that runs nothing.

A name in a pickle is looked up in the reader's list of functions; a name that is not in the list becomes inert data,
whatever the pickle then does with it, or is refused. The number of operations bounds the time; what a pickle may have
made, and how many keys it may have that can collide, is bounded by what it holds. Protocols 2 to 5 are read, which is
all that PyTorch, Paddle and numpy have written, and of protocols 0 and 1 what plain data and names need.
"""

from __future__ import annotations

import io
import mmap
import os
import stat

from pimm.safe_pickle.keys import Keys
from pimm.safe_pickle.objects import Global, Inert, Malformed, describe, printable
from pimm.safe_pickle.operations import OPERATIONS, STOP
from pimm.safe_pickle.values import Keyed

MAX_OPERATIONS = 1_000_000  # less than a second; a tensor takes some forty
_MAX_LINE = 1000
_CALL = 12  # twice the bytes of the shortest call

# Names that only an attack asks for. They would be inert too, but whoever has such a file should know.
_HOSTILE_MODULES = {"os", "posix", "nt", "subprocess", "commands", "socket", "shutil", "importlib", "runpy", "pty"}
_HOSTILE_BUILTINS = {"eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__"}
_BUILTINS = {"builtins", "__builtin__"}


def map_file(path):
    """Return the bytes of a file, mapped into memory for reading.

    Raises:
        Malformed: for an empty file and for what is no regular file, such as a named pipe, which would wait for ever.
        OSError: if the file cannot be read.
    """
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise Malformed("it is a pipe or a device and not a file")
    with open(path, "rb") as file:
        if not file.seek(0, io.SEEK_END):
            raise Malformed("it is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Unpickler:
    """Reads one pickle from ``data[start:end]``; ``position`` is then behind the pickle.

    Whatever is wrong raises `Malformed` or one of Python's own errors.

    Args:
        data: bytes, or a file mapped into memory.
        start: where the pickle begins.
        end: where the data of the pickle ends at the latest.
        functions: maps ``"module.name"`` to what the pickle may have called.
        persistent_load: gets the identifiers of data that is elsewhere; None if the format has no such data.
        strict: refuse names that ``functions`` does not hold, in place of making them inert.
    """

    def __init__(self, data, start, end, functions, persistent_load=None, strict=False):
        self.data, self.position, self.end = data, start, end
        self.functions, self.persistent_load, self.strict = functions, persistent_load, strict
        self.start, self.made, self.keys = start, 0, Keys()
        self.stack, self.marks, self.memo, self.globals = [], [], {}, {}

    def load(self):
        """Return what the pickle describes."""
        for _ in range(MAX_OPERATIONS):
            if self.position >= self.end:
                raise Malformed("it is cut short: a pickle in it has no end")
            code = self.data[self.position]
            self.position += 1
            if code == STOP:
                return self.stack.pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                raise Malformed(f"pickle operation {bytes([code])!r} at byte {self.position - 1} is none that is read")
            operation(self)
        raise Malformed(f"the pickle at byte {self.start} has more than {MAX_OPERATIONS:,} operations")

    def take(self, size):
        """Return the next ``size`` bytes."""
        if size > self.end - self.position:
            raise Malformed(f"it is cut short: {size:,} bytes at byte {self.position} reach beyond the end")
        start = self.position
        self.position += size
        return self.data[start : self.position]

    def line(self):
        """Return the text up to the next newline."""
        return self.raw_line(_MAX_LINE).decode("utf-8")

    def raw_line(self, limit):
        """Return the bytes up to the next newline, which must be less than ``limit`` bytes away."""
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + limit))
        if stop < 0:
            raise Malformed(f"a line at byte {self.position} has no end")
        line = self.data[self.position : stop]
        self.position = stop + 1
        return line

    def pop_mark(self):
        """Take off the stack, and return, what was put on it since the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push_global(self, module, name):
        """Put a name on the stack."""
        if (module, name) not in self.globals:
            self.globals[module, name] = self._resolve(module, name)
        self.stack.append(self.globals[module, name])

    def _resolve(self, module, name):
        root = module.partition(".")[0]
        full = f"{module}.{name}"
        if root in _HOSTILE_MODULES or (root in _BUILTINS and name.partition(".")[0] in _HOSTILE_BUILTINS):
            raise Malformed(
                f"it asks for {printable(full)}, which no checkpoint needs; do not trust where it comes from"
            )
        if self.strict and full not in self.functions:
            raise Malformed(f"it asks for {printable(full)}, which no file of arrays needs")
        return Global(full, self.functions.get(full))

    def call(self, target, args):
        """Return the result of a listed function, or an inert object that remembers the call."""
        if not isinstance(target, (Global, Inert)) or not isinstance(args, tuple):
            raise Malformed(f"a call of {describe(target)} with {describe(args)}")
        if isinstance(target, Inert) or target.function is None:
            return Inert(target.name, args)
        self.charge(args)
        if isinstance(target.function, Keyed):
            return target.function.make(self.keys, *args)
        return target.function(*args)

    def charge(self, args):
        """Stop a pickle that has things made or copied again and again: honest ones describe each, and about once."""
        sizes = [len(value) for value in args if isinstance(value, (str, bytes, bytearray, list, tuple, dict, set))]
        self.made += _CALL + sum(sizes)
        if self.made > 2 * (self.position - self.start) + 10_000:
            raise Malformed("it has more made than it holds")
