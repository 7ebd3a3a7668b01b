"""A pickle machine that runs nothing.

A name in a pickle is looked up in the reader's list of functions; one that is not in it becomes inert data, whatever
the pickle then does with it. Time and memory are bounded by the number of operations and by what functions may copy.
Protocols 2 to 5 are read, which is all that PyTorch has written.
"""

from __future__ import annotations

import pickle
import struct

MAX_OPERATIONS = 1_000_000  # less than a second; a tensor takes some forty
_MAX_LINE = 1000
_MAX_INTEGER = 256  # bytes
_CALL = 12  # twice the bytes of the shortest call

# Names that only an attack asks for. They would be inert too, but whoever has such a file should know.
_HOSTILE_MODULES = {"os", "posix", "nt", "subprocess", "commands", "socket", "shutil", "importlib", "runpy", "pty"}
_HOSTILE_BUILTINS = {"eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__"}
_BUILTINS = {"builtins", "__builtin__"}


class Malformed(Exception):
    """What a file holds cannot be read; the message says why."""


class Inert:
    """Something in a checkpoint that is not data: its name, and what the pickle gave it. It does nothing.

    ``args`` are those of the call that would have made it (None: the name alone was pickled), ``state`` what would
    have been its attributes, ``items`` the content of a list or dict of a class of its own.
    """

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name, args=None):
        self.name, self.args, self.state, self.items = name, args, None, None

    def __repr__(self):
        return f"<inert {self.name!r}>"


class Global:
    """A name on the stack; ``function`` is what the reader has for it, if anything."""

    __slots__ = ("function", "name")

    def __init__(self, name, function=None):
        self.name, self.function = name, function


class Unpickler:
    """Reads one pickle from ``data[start:end]``; ``position`` is then behind it.

    ``functions`` maps ``"module.name"`` to what may be called; ``persistent_load`` gets the identifiers of data that
    is elsewhere. Whatever is wrong raises `Malformed` or one of Python's own errors.
    """

    def __init__(self, data, start, end, functions, persistent_load=None):
        self.data, self.position, self.end = data, start, end
        self.functions, self.persistent_load = functions, persistent_load
        self.start, self.made = start, 0
        self.stack, self.marks, self.memo, self.globals = [], [], {}, {}

    def load(self):
        for _ in range(MAX_OPERATIONS):
            if self.position >= self.end:
                raise Malformed("a pickle in it has no end")
            code = self.data[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise Malformed(f"pickle operation {bytes([code])!r} at byte {self.position - 1} is none that is read")
            operation(self)
        raise Malformed(f"the pickle at byte {self.start} has more than {MAX_OPERATIONS:,} operations")

    def take(self, size):
        """The next ``size`` bytes."""
        if size > self.end - self.position:
            raise Malformed(f"{size:,} bytes at byte {self.position} reach beyond the end")
        start = self.position
        self.position += size
        return self.data[start : self.position]

    def line(self):
        """Text up to the next newline."""
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + _MAX_LINE))
        if stop < 0:
            raise Malformed(f"a name at byte {self.position} has no end")
        text = self.data[self.position : stop].decode("utf-8")
        self.position = stop + 1
        return text

    def pop_mark(self):
        """What was put on the stack since the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push_global(self, module, name):
        if (module, name) not in self.globals:
            self.globals[module, name] = self._resolve(module, name)
        self.stack.append(self.globals[module, name])

    def _resolve(self, module, name):
        root = module.partition(".")[0]
        if root in _HOSTILE_MODULES or (root in _BUILTINS and name.partition(".")[0] in _HOSTILE_BUILTINS):
            raise Malformed(f"it asks for {module}.{name}, which no checkpoint needs; do not trust where it comes from")
        full = f"{module}.{name}"
        return Global(full, self.functions.get(full))

    def call(self, target, args):
        """The result of a listed function, or an inert object that remembers the call."""
        if not isinstance(target, Global) or not isinstance(args, tuple):
            raise Malformed(f"a call of {_describe(target)} with {_describe(args)}")
        if target.function is None:
            return Inert(target.name, args)
        self.charge(args)
        return target.function(*args)

    def charge(self, args):
        """Stop a pickle that has things made or copied again and again: honest ones describe each, and about once."""
        sizes = [len(value) for value in args if isinstance(value, (str, bytes, list, tuple, dict, set))]
        self.made += _CALL + sum(sizes)
        if self.made > 2 * (self.position - self.start) + 10_000:
            raise Malformed("it has more made than it holds")


def _describe(value):
    return value.name if isinstance(value, (Global, Inert)) else f"a {type(value).__name__}"


def check_key(key):
    """Refuse keys of a dict or set that cannot be hashed, or that could be chosen to be slow."""
    kind = type(key)
    if not (
        key is None
        or kind in (str, bytes, bool)
        or (kind is int and -(2**63) <= key < 2**63)
        or (kind is float and key == key)
    ):
        raise Malformed(f"{_describe(key)} as a key")


def _constant(make):
    def operation(machine):
        machine.stack.append(make())

    return operation


def _number(layout):
    unpack, size = struct.Struct(layout).unpack, struct.calcsize(layout)

    def operation(machine):
        machine.stack.append(unpack(machine.take(size))[0])

    return operation


def _sized(layout, convert):
    unpack, size = struct.Struct(layout).unpack, struct.calcsize(layout)

    def operation(machine):
        machine.stack.append(convert(machine.take(unpack(machine.take(size))[0])))

    return operation


def _text(data):
    return data.decode("utf-8", "surrogatepass")


def _python2_text(data):
    return data.decode("utf-8", "surrogateescape")  # the bytes can be had back


def _integer(data):
    if len(data) > _MAX_INTEGER:
        raise Malformed(f"an integer of {len(data):,} bytes")
    return int.from_bytes(data, "little", signed=True)


def _tuple_of(count):
    def operation(machine):
        if len(machine.stack) < count:
            raise Malformed("a tuple of more than there is")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return operation


def _get(layout):
    unpack, size = struct.Struct(layout).unpack, struct.calcsize(layout)

    def operation(machine):
        machine.stack.append(machine.memo[unpack(machine.take(size))[0]])

    return operation


def _put(layout):
    unpack, size = struct.Struct(layout).unpack, struct.calcsize(layout)

    def operation(machine):
        machine.memo[unpack(machine.take(size))[0]] = machine.stack[-1]

    return operation


def _skip(size):
    def operation(machine):
        machine.take(size)

    return operation


def _mark(machine):
    machine.marks.append(len(machine.stack))


def _tuple(machine):
    machine.stack.append(tuple(machine.pop_mark()))


def _list(machine):
    machine.stack.append(machine.pop_mark())


def _dict(machine):
    items = machine.pop_mark()
    machine.stack.append({})
    _set_items(machine, items)


def _frozenset(machine):
    items = machine.pop_mark()
    machine.stack.append(make_set(items, frozenset))


def make_set(items=(), kind=set):
    """A set of ``items``, all of them fit for keys."""
    for item in items:
        check_key(item)
    return kind(items)


def _set_items(machine, items):
    target = _content(machine.stack[-1], dict)
    if len(items) % 2:
        raise Malformed("a key without a value")
    for key in items[::2]:
        check_key(key)
    target.update(zip(items[::2], items[1::2]))


def _append_items(machine, items):
    _content(machine.stack[-1], list).extend(items)


def _content(target, kind):
    """Where items go that are added to ``target``: itself, or what an inert object holds."""
    if isinstance(target, Inert):
        if target.items is None:
            target.items = kind()
        target = target.items
    if type(target) is not kind:
        raise Malformed(f"items of a {kind.__name__} for {_describe(target)}")
    return target


def _set_item(machine):
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine, [key, value])


def _set_all(machine):
    _set_items(machine, machine.pop_mark())


def _append(machine):
    item = machine.stack.pop()
    _append_items(machine, [item])


def _append_all(machine):
    _append_items(machine, machine.pop_mark())


def _add_all(machine):
    items = machine.pop_mark()
    _content(machine.stack[-1], set).update(make_set(items))


def _global(machine):
    machine.push_global(machine.line(), machine.line())


def _stack_global(machine):
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > _MAX_LINE:
        raise Malformed("a name that is not one")
    machine.push_global(module, name)


def _reduce(machine):
    args, target = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(target, args))


def _new_object_with_keywords(machine):
    keywords, args, target = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    if not isinstance(target, Global):
        raise Malformed(f"a call of {_describe(target)}")
    machine.stack.append(Inert(target.name, (args, keywords)))


def _build(machine):
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif hasattr(target, "set_state") and isinstance(state, tuple):
        machine.charge(state)
        target.set_state(state)
    elif type(target) is not dict:  # attributes of an OrderedDict, such as versions of modules, are left
        raise Malformed(f"attributes for {_describe(target)}")


def _persistent(machine):
    if machine.persistent_load is None:
        raise Malformed("a reference to data elsewhere where there is none")
    machine.stack.append(machine.persistent_load(machine.stack.pop()))


def _pop(machine):
    machine.stack.pop()


def _duplicate(machine):
    machine.stack.append(machine.stack[-1])


def _memoize(machine):
    machine.memo[len(machine.memo)] = machine.stack[-1]


_STOP = pickle.STOP[0]
_OPERATIONS = {
    code[0]: operation
    for code, operation in {
        pickle.PROTO: _skip(1),
        pickle.FRAME: _skip(8),
        pickle.NONE: _constant(lambda: None),
        pickle.NEWTRUE: _constant(lambda: True),
        pickle.NEWFALSE: _constant(lambda: False),
        pickle.EMPTY_TUPLE: _constant(tuple),
        pickle.EMPTY_LIST: _constant(list),
        pickle.EMPTY_DICT: _constant(dict),
        pickle.EMPTY_SET: _constant(set),
        pickle.BININT: _number("<i"),
        pickle.BININT1: _number("<B"),
        pickle.BININT2: _number("<H"),
        pickle.BINFLOAT: _number(">d"),
        pickle.LONG1: _sized("<B", _integer),
        pickle.LONG4: _sized("<I", _integer),
        pickle.BINUNICODE: _sized("<I", _text),
        pickle.SHORT_BINUNICODE: _sized("<B", _text),
        pickle.BINUNICODE8: _sized("<Q", _text),
        pickle.BINSTRING: _sized("<I", _python2_text),
        pickle.SHORT_BINSTRING: _sized("<B", _python2_text),
        pickle.BINBYTES: _sized("<I", bytes),
        pickle.SHORT_BINBYTES: _sized("<B", bytes),
        pickle.BINBYTES8: _sized("<Q", bytes),
        pickle.BYTEARRAY8: _sized("<Q", bytearray),
        pickle.TUPLE1: _tuple_of(1),
        pickle.TUPLE2: _tuple_of(2),
        pickle.TUPLE3: _tuple_of(3),
        pickle.TUPLE: _tuple,
        pickle.LIST: _list,
        pickle.DICT: _dict,
        pickle.FROZENSET: _frozenset,
        pickle.MARK: _mark,
        pickle.POP: _pop,
        pickle.POP_MARK: Unpickler.pop_mark,
        pickle.DUP: _duplicate,
        pickle.BINGET: _get("<B"),
        pickle.LONG_BINGET: _get("<I"),
        pickle.BINPUT: _put("<B"),
        pickle.LONG_BINPUT: _put("<I"),
        pickle.MEMOIZE: _memoize,
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: _set_all,
        pickle.APPEND: _append,
        pickle.APPENDS: _append_all,
        pickle.ADDITEMS: _add_all,
        pickle.GLOBAL: _global,
        pickle.STACK_GLOBAL: _stack_global,
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _reduce,
        pickle.NEWOBJ_EX: _new_object_with_keywords,
        pickle.BUILD: _build,
        pickle.BINPERSID: _persistent,
    }.items()
}
