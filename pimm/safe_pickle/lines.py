"""Carry out the operations of protocol 0, Python 2's, whose numbers and texts are lines of text."""

from __future__ import annotations

import codecs
import pickle
import re

from pimm.safe_pickle.objects import Malformed

_WHOLE = re.compile(rb"[+-]?\d{1,600}")  # digits of the 256 bytes that an integer of the later protocols may have
_QUOTED = re.compile(rb"(?P<quote>['\"]).*(?P=quote)", re.DOTALL)
_LONGEST_NUMBER = 700
_LONGEST_TEXT = 1 << 16
_MAX_PLACE = 1_000_000  # of the memo; numbers below it have too few rivals to collide badly


def _whole_number(line):
    if not _WHOLE.fullmatch(line):
        raise Malformed(f"{line[:40]!r} is no whole number")
    return int(line)


def _int(machine):
    line = machine.raw_line(_LONGEST_NUMBER)
    truth = {b"00": False, b"01": True}  # how protocol 0 writes them
    machine.stack.append(truth[line] if line in truth else _whole_number(line))


def _long(machine):
    machine.stack.append(_whole_number(machine.raw_line(_LONGEST_NUMBER).removesuffix(b"L")))


def _float(machine):
    machine.stack.append(float(machine.raw_line(_LONGEST_NUMBER)))


def _string(machine):
    line = machine.raw_line(_LONGEST_TEXT)
    if len(line) < 2 or not _QUOTED.fullmatch(line):
        raise Malformed(f"{line[:40]!r} is no text in quotes")
    machine.stack.append(codecs.escape_decode(line[1:-1])[0].decode("utf-8", "surrogateescape"))


def _unicode(machine):
    machine.stack.append(machine.raw_line(_LONGEST_TEXT).decode("raw-unicode-escape"))


def _place(machine):
    place = _whole_number(machine.raw_line(_LONGEST_NUMBER))
    if not 0 <= place < _MAX_PLACE:
        raise Malformed(f"place {place} of the memo")
    return place


def _get(machine):
    machine.stack.append(machine.memo[_place(machine)])


def _put(machine):
    machine.memo[_place(machine)] = machine.stack[-1]


LINE_OPERATIONS = {
    code[0]: operation
    for code, operation in {
        pickle.INT: _int,
        pickle.LONG: _long,
        pickle.FLOAT: _float,
        pickle.STRING: _string,
        pickle.UNICODE: _unicode,
        pickle.GET: _get,
        pickle.PUT: _put,
    }.items()
}
