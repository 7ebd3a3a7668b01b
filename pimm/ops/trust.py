"""Decide whether a library in the cache is whole, and one that no other user can have changed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

DIGITS = 16  # of a checksum in a file's name


def checksum(content: bytes) -> str:
    """Return the first DIGITS hexadecimal digits of the SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def name_for(prefix: str, content: bytes) -> str:
    """Return the file name ``PREFIX-SIZE-CHECKSUM.so``, by which `is_whole` finds a damaged file."""
    return f"{prefix}-{len(content)}-{checksum(content)}.so"


def is_whole(library: Path, prefix: str) -> bool:
    """Return whether ``library`` has the size and the checksum that its name states; loading a cut one is a SIGBUS."""
    return library.is_file() and library.name == name_for(prefix, library.read_bytes())


def reason_for_distrust(folder: Path, library: Path | None = None) -> str:
    """Say why another user than root may have written the library of this folder, or return an empty text.

    Loading a library runs its code. Only the owner's user and group, and users' rights to write, are looked at.

    Args:
        folder: where the library is or will be, as an absolute path without symbolic links.
        library: the library, if there is one already.
    """
    if not hasattr(os, "geteuid"):  # Windows, where there are no operators either
        return ""
    for path in (folder, library) if library else (folder,):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return f"{path} is a symbolic link"
        if status.st_uid not in (os.geteuid(), 0):
            return f"{path} belongs to another user, of number {status.st_uid}"
        if status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid():
            return f"{path} can be written by another group, of number {status.st_gid}"
        if status.st_mode & stat.S_IWOTH:
            return f"{path} can be written by every user"
    for path in folder.parents:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # in a sticky folder, nobody replaces the folders of others
            return f"{path} can be written by every user"
    return ""
