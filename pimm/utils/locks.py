"""Locks of files between processes, on systems that have them."""

from __future__ import annotations

from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


def try_lock(file: IO) -> bool:
    """Lock an open file until it is closed, and return False if another process holds it.

    The lock is the process's: its workers do not inherit it.

    Raises:
        OSError: the system, or the storage of the file, has no locks.
    """
    if fcntl is None:
        raise OSError("this system has no locks of files")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
