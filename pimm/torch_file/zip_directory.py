"""What is where in a zip archive whose entries are stored as they are, as PyTorch's are."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from pimm.safe_pickle import Malformed

_MAX_ENTRIES = 200_000
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_LOCAL_LENGTHS = struct.Struct("<2H")
_LOCAL_SIZE = 30
_MAX_COMMENT = 65535
_NOT_HERE = 0xFFFFFFFF  # the number is in the zip64 extra field


class Record(NamedTuple):
    """Bytes ``start`` to ``end`` of the archive, and their CRC-32 (0: not computed)."""

    start: int
    end: int
    crc: int

    def check(self, data):
        """Raise Malformed if the bytes are not those that were written."""
        if self.crc and zlib.crc32(memoryview(data)[self.start : self.end]) != self.crc:
            raise Malformed(f"bytes {self.start} to {self.end} are damaged: their checksum is another")


def read_directory(data):
    """``{name: Record}`` of an archive; raises Malformed if it is damaged, or has entries compressed or named twice."""
    count, position = _find_directory(data)
    if count > _MAX_ENTRIES:
        raise Malformed(f"it lists {count:,} entries; up to {_MAX_ENTRIES:,} are read")
    records = {}
    for _ in range(count):
        name, record, position = _read_entry(data, position)
        if name in records:
            raise Malformed(f"it lists {name!r:.60} twice")
        records[name] = record
    if not records:
        raise Malformed("it is an empty zip archive")
    return records


def _find_directory(data):
    """Number of entries, and where the first is."""
    position = data.rfind(b"PK\5\6", max(0, len(data) - _END.size - _MAX_COMMENT))
    if position < 0:
        raise Malformed("it is a zip archive that breaks off")
    _, _, _, _, count, _, start, _ = _unpack(_END, data, position)
    locator = position - _END64_LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        _, _, position, _ = _unpack(_END64_LOCATOR, data, locator)
        signature, _, _, _, _, _, _, count, _, start = _unpack(_END64, data, position)
        if signature != b"PK\6\6":
            raise Malformed("its zip directory is damaged")
    return count, start


def _read_entry(data, position):
    """Name and record of the entry at ``position`` of the directory, and where the next is."""
    fields = _unpack(_ENTRY, data, position)
    signature, flags, method, crc, stored, size = fields[0], fields[5], fields[6], *fields[9:12]
    name_length, extra_length, comment_length = fields[12:15]
    local = fields[18]
    if signature != b"PK\1\2":
        raise Malformed("its zip directory is damaged")
    position += _ENTRY.size
    name = data[position : position + name_length].decode("utf-8")
    position += name_length
    extra = data[position : position + extra_length]
    size, stored, local = _zip64(extra, size, stored, local)
    if method or flags & 1 or size != stored:
        raise Malformed(f"{name!r:.60} is compressed or encrypted, which PyTorch's files never are")
    return name, _record(data, local, size, crc), position + extra_length + comment_length


def _record(data, local, size, crc):
    if data[local : local + 4] != b"PK\3\4":
        raise Malformed("its zip directory points to nothing")
    start = local + _LOCAL_SIZE + sum(_unpack(_LOCAL_LENGTHS, data, local + 26))
    if start + size > len(data):
        raise Malformed("an entry of it reaches beyond its end")
    return Record(start, start + size, crc)


def _zip64(extra, *numbers):
    """The numbers, with those that did not fit into 32 bits read from the extra field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            return tuple(next(wide, 0) if number == _NOT_HERE else number for number in numbers)
        position += length
    return numbers


def _unpack(layout, data, position):
    if position + layout.size > len(data):
        raise Malformed("its zip directory reaches beyond its end")
    return layout.unpack(data[position : position + layout.size])
