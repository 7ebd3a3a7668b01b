"""Carry out the operations of a pickle on the stack of the machine."""

from __future__ import annotations

import pickle
import struct

from pimm.safe_pickle.lines import LINE_OPERATIONS
from pimm.safe_pickle.objects import Global, Inert, Malformed, describe

_MAX_INTEGER = 256  # bytes
_MAX_NAME = 1000


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
    machine.stack.append(machine.keys.make_set(items, frozenset))


def _set_items(machine, items):
    target = _content(machine.stack[-1], dict)
    if len(items) % 2:
        raise Malformed("a key without a value")
    keys = map(machine.keys.check, items[::2])
    target.update(zip(keys, items[1::2]))


def _append_items(machine, items):
    _content(machine.stack[-1], list).extend(items)


def _content(target, kind):
    """Return where items go that are added to ``target``: the target, or what an inert object holds."""
    if isinstance(target, Inert):
        if target.items is None:
            target.items = kind()
        target = target.items
    if type(target) is not kind:
        raise Malformed(f"items of a {kind.__name__} for {describe(target)}")
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
    _content(machine.stack[-1], set).update(machine.keys.make_set(items))


def _global(machine):
    machine.push_global(machine.line(), machine.line())


def _stack_global(machine):
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > _MAX_NAME:
        raise Malformed("a name that is not one")
    machine.push_global(module, name)


def _reduce(machine):
    args, target = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(target, args))


def _new_object_with_keywords(machine):
    keywords, args, target = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    if not isinstance(target, (Global, Inert)):
        raise Malformed(f"a call of {describe(target)}")
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
        raise Malformed(f"attributes for {describe(target)}")


def _persistent(machine):
    if machine.persistent_load is None:
        raise Malformed("a reference to data elsewhere where there is none")
    machine.stack.append(machine.persistent_load(machine.stack.pop()))


def _pop(machine):
    machine.stack.pop()


def _pop_mark(machine):
    machine.pop_mark()


def _duplicate(machine):
    machine.stack.append(machine.stack[-1])


def _memoize(machine):
    machine.memo[len(machine.memo)] = machine.stack[-1]


STOP = pickle.STOP[0]
OPERATIONS = {
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
        pickle.POP_MARK: _pop_mark,
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
} | LINE_OPERATIONS
