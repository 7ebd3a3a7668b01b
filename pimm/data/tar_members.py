"""The members of tar files, each number of their headers checked before it is believed.

Python's ``tarfile`` takes what a header says: a negative size lets it read the same header for ever, a large one lets
it ask for as much memory, and a damaged header in the middle ends the file in silence.
"""

from __future__ import annotations

import os
import tarfile

from pimm.data.bounded import brief
from pimm.errors import DataError

_MAX_EXTENSION = 1 << 20  # bytes of a header's extension, such as a long name
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def open_archive(file, mode="r:", size=None):
    """Return the ``tarfile.TarFile`` of an open file.

    Args:
        file: binary file at the start of the archive.
        mode: ``r:`` for an uncompressed archive, ``r:*`` for any.
        size: bytes of an uncompressed archive; None for one whose size is not known.

    Raises:
        tarfile.TarError: for what is no tar file, or has an impossible header at its start.
    """
    return tarfile.open(fileobj=file, mode=mode, tarinfo=_checked_member(size))


def walk(archive, size=None):
    """Yield the archive's members, forgotten as they pass: a million of them take more than a gigabyte.

    Args:
        archive: what ``open_archive`` returned.
        size: as there.

    Raises:
        tarfile.TarError: for a member that lies outside the archive or is stored with holes, for a damaged header, and
            for an archive that is cut.
    """
    position = -1
    while True:
        member = archive.next()
        if member is None:
            break
        archive.members = []
        if archive.offset <= position or member.offset_data < 0:
            raise tarfile.ReadError(f"after {brief(member.name)} it goes back to byte {archive.offset}")
        if member.issparse():
            raise tarfile.ReadError(f"{brief(member.name)} is stored with holes; pack it without --sparse")
        _check_size(member, size)
        if member.isreg() and size is not None and member.offset_data + member.size > size:
            raise tarfile.ReadError(f"it ends inside {brief(member.name)}")
        position = archive.offset
        yield member
    if size is not None:
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {archive.offset} is damaged")


def inner_path(name, source):
    """Return a member's name as a relative path without detours, ``a/b`` for ``/./a//b``.

    Args:
        name: what the header says.
        source: the archive, for the message.

    Raises:
        DataError: for a path that leads out of the archive, which has no class folder inside.
    """
    path = os.path.normpath(name.lstrip("/") or ".")
    if path == ".." or path.startswith("../"):
        raise DataError(
            f"{source}: {brief(name)} leads out of the tar file; pack the folder of images itself, with "
            "'tar -C FOLDER -cf IMAGES.tar .'"
        )
    return path


def _checked_member(size):
    """Return a ``tarfile.TarInfo`` that refuses impossible sizes before anything is read by them."""

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf, encoding, errors):
            member = super().frombuf(buf, encoding, errors)
            _check_size(member, size)
            return member

    return Member


def _check_size(member, size):
    limit = _MAX_EXTENSION if member.type in _EXTENSIONS else size if member.isreg() else None
    if member.size < 0 or (limit is not None and member.size > limit):
        raise tarfile.ReadError(f"{brief(member.name)} claims a size of {brief(member.size)} bytes")
