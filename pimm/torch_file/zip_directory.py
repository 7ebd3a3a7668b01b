"""Find the entries of a zip archive that stores them as they are, as PyTorch's archives do."""

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
    """Says where the bytes of an entry are, what their CRC-32 is (0: not computed), and whether they are plain."""

    name: str
    start: int
    end: int
    crc: int
    is_plain: bool

    def check(self, data):
        """Raise `Malformed` if the entry is compressed, or if its bytes are not those that were written."""
        if not self.is_plain:
            raise Malformed(f"{self.name!r:.60} is compressed or encrypted, which PyTorch's files never are")
        if self.crc and zlib.crc32(memoryview(data)[self.start : self.end]) != self.crc:
            raise Malformed(f"bytes {self.start} to {self.end} are damaged: their checksum is another")


def read_directory(data):
    """Return ``{name: Record}`` of an archive; raise `Malformed` if it is damaged or names an entry twice."""
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
    """Return the number of entries, and where the directory's row for the first one is."""
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
    """Return the name and the record of the row at ``position`` of the directory, and where the next row is."""
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
    is_plain = not method and not flags & 1 and size == stored
    start = _start_of_entry(data, local, stored)
    return name, Record(name, start, start + stored, crc, is_plain), position + extra_length + comment_length


def _start_of_entry(data, local, size):
    """Return where the ``size`` bytes of the entry begin whose own header is at ``local``."""
    if data[local : local + 4] != b"PK\3\4":
        raise Malformed("its zip directory points to nothing")
    start = local + _LOCAL_SIZE + sum(_unpack(_LOCAL_LENGTHS, data, local + 26))
    if start + size > len(data):
        raise Malformed("an entry of it reaches beyond its end")
    return start


def _zip64(extra, *numbers):
    """Return the numbers, with those that did not fit into 32 bits read from the extra field."""
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
