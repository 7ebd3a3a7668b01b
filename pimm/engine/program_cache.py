"""Programs of Paddle Inference for nets, kept in the user's cache.

A program lies in a folder of its own, ``programs/CHECKSUM`` below `pimm.ops.build.cache_folder`, whose name is the
checksum of all that decides what the program computes. The folder appears whole or not at all, so that any number of
processes may ask for it at once: one writes, the others wait. Checksums of its files tell a damaged program, which is
made anew. The programs that were not used for the longest time go when all together are too large.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pimm.engine.program import PADDLE_FILES
from pimm.errors import ConfigError
from pimm.ops.build import cache_folder, file_lock
from pimm.ops.trust import reason_for_distrust
from pimm.utils.serialization import file_sha256, write_text

MOST_BYTES = 1 << 30  # of all programs, except that the latest one is kept whatever its size
_MANIFEST = "files.json"
_PARTIAL = ".partial-"
_PATIENCE = 3600  # seconds after which an unfinished program is one of a process that was killed


def find_program(checksum: str, is_right: Callable[[Path], bool] | None = None) -> Path | None:
    """Return the folder of a whole program, or None; a program that is found is the latest used.

    Args:
        checksum: of what decides the content of the program.
        is_right: called with the folder of a whole program, which counts as not found if that returns False.
    """
    folder = _programs() / checksum
    if not _is_whole(folder) or reason_for_distrust(folder.parent) or (is_right and not is_right(folder)):
        return None
    with contextlib.suppress(OSError):  # a cache that can only be read
        os.utime(folder)
    return folder


def make_program(checksum: str, write: Callable[[Path], None], find: Callable[[], Path | None] | None = None) -> Path:
    """Return the folder of a program, which is written if it is not there, damaged or not right.

    Args:
        checksum: of what decides the content of the program.
        write: called with an empty folder, into which it writes `PADDLE_FILES`.
        find: finds the program; None for `find_program` of the checksum.

    Raises:
        ConfigError: the cache can be written by other users.
        OSError: the cache cannot be written.
    """
    find = find or functools.partial(find_program, checksum)
    programs = _programs()
    programs.mkdir(mode=0o700, parents=True, exist_ok=True)
    reason = reason_for_distrust(programs)
    if reason:
        raise ConfigError(f"{reason}: set PIMM_CACHE_DIR to a folder that nobody else can write")
    with file_lock(programs / "lock"):
        found = find()  # the owner of the lock before may have written it
        if found is None:
            found = _write(programs, checksum, write, find)
            _remove_oldest(programs, found)
    return found


def _programs() -> Path:
    return cache_folder() / "programs"


def _write(programs: Path, checksum: str, write: Callable[[Path], None], find: Callable[[], Path | None]) -> Path:
    folder, partial = programs / checksum, Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=programs))
    try:
        write(partial)
        files = {name: file_sha256(partial / name) for name in PADDLE_FILES}
        write_text(partial / _MANIFEST, json.dumps(files))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged or wrong one
        os.rename(partial, folder)
    except OSError:
        if find() is None:  # on a disk without locks, another process may have been faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return files == {name: file_sha256(folder / name) for name in PADDLE_FILES}
    except (OSError, ValueError):
        return False


def _remove_oldest(programs: Path, latest: Path) -> None:
    """Remove programs until the rest takes at most `MOST_BYTES`, and what killed processes have left."""
    folders = [path for path in programs.iterdir() if path.is_dir() and path != latest]
    ages = {path: _last_use(path) for path in folders}
    left = MOST_BYTES - _size(latest)
    for folder in sorted(folders, key=ages.get, reverse=True):
        if folder.name.startswith(_PARTIAL):
            gone = time.time() - ages[folder] > _PATIENCE
        else:
            left -= _size(folder)
            gone = left < 0
        if gone:
            shutil.rmtree(folder, ignore_errors=True)


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:  # another process has just removed it
        return 0
