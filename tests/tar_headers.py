"""Blocks of tar files whose headers claim whatever a test wants."""

import tarfile


def header(name="a/1.png", size=0, kind=tarfile.REGTYPE, **fields):
    """A header block whose size is any number, written in base 256 where octal digits do not hold it."""
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = number(size)
    return signed(block)


def number(value):
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\xff" if value < 0 else b"\x80") + value.to_bytes(11, "big", signed=True)


def signed(block):
    """The block with the checksum that its bytes have."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def pad(content):
    return content + bytes(-len(content) % 512)


def pax(records, then=b""):
    """An extended header with these records, and the member that it is about."""
    lines = b""
    for key, value in records.items():
        text = b" %s=%s\n" % (key.encode(), value)
        length = len(text)
        while len(b"%d" % length) + len(text) != length:
            length = len(b"%d" % length) + len(text)
        lines += b"%d" % length + text
    return header("x", len(lines), tarfile.XHDTYPE) + pad(lines) + then
