"""Checkpoints: one folder each, that appears whole or not at all, with a manifest that tells damage.

A folder ``NAME-EPOCH`` is the end of an epoch, ``NAME-EPOCH-BATCH`` a moment inside one. Its ``manifest.json`` holds
what the writer says about it, the size and SHA-256 of every file, and a checksum of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

from pimm.errors import CheckpointError
from pimm.utils.serialization import DigestingFile, dump_arrays, file_sha256, load_arrays, sync_folder

_logger = logging.getLogger(__name__)

MODEL = "model.pdparams"
OPTIMIZER = "optimizer.pdopt"
EMA = "ema.pdema"
STATE = "state.pdstate"
MANIFEST = "manifest.json"
FORMAT = 1

_WRITING = ".tmp-"  # a folder being written or removed
_REPLACED = ".old-"  # a folder whose successor is just being put in place
_NAME = re.compile(r"(?P<prefix>.+?)-(?P<epoch>\d+)(?:-(?P<batch>\d+))?")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: the manifest's entries, and the content of each file by its name."""

    folder: Path
    manifest: dict
    files: dict


def write_checkpoint(folder, files, manifest):
    """Write ``{file name: arrays and plain data}`` and the manifest's entries as the checkpoint ``folder``.

    A checkpoint of that name is replaced. CheckpointError if it cannot be written, as when the disk is full: all that
    was there before is then untouched.
    """
    folder = Path(folder)
    temporary = folder.with_name(f"{_WRITING}{folder.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        entries = {name: _write_file(temporary / name, content) for name, content in files.items()}
        _write_manifest(temporary, {**manifest, "format": FORMAT, "files": entries})
        sync_folder(temporary)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoint {folder}: {error.strerror}; earlier checkpoints are untouched"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary, folder):
    """Rename a finished folder to ``folder``, over what is there."""
    replaced = folder.with_name(f"{_REPLACED}{folder.name}")
    if folder.exists():
        _free_name(replaced)
        os.rename(folder, replaced)
    try:
        os.rename(temporary, folder)
    except OSError:
        os.rename(replaced, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _free_name(path):
    """Take away what an earlier replacement could not remove, as on NFS while somebody has a file of it open."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        os.rename(path, tempfile.mkdtemp(prefix=_WRITING, dir=path.parent))  # under such a name it is removed later


def remove_checkpoint(folder):
    """Remove a checkpoint so that a kill half-way leaves no half of it under its name."""
    folder = Path(folder)
    with contextlib.suppress(FileNotFoundError):
        temporary = folder.with_name(f"{_WRITING}{folder.name}")
        os.rename(folder, temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def link_checkpoint(source, folder):
    """Make ``folder`` a checkpoint with the content of ``source``, sharing its files where the file system can."""
    source, folder = Path(source), Path(folder)
    temporary = folder.with_name(f"{_WRITING}{folder.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary, copy_function=_link_or_copy)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"cannot copy {source} to {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checkpoint(folder):
    """Check a checkpoint and read all of it; CheckpointError says which file of it is missing or damaged."""
    folder = Path(folder)
    manifest = verify_checkpoint(folder)
    return Checkpoint(folder, manifest, {name: load_arrays(folder / name) for name in manifest["files"]})


def read_manifest(folder):
    """The manifest of a checkpoint; CheckpointError if there is none or it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        checksum = manifest.pop("checksum")
    except OSError as error:
        raise CheckpointError(f"{folder} is not a checkpoint: cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged") from error
    if checksum != _checksum(manifest):
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its content")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']}; this version reads format {FORMAT}")
    return manifest


def verify_checkpoint(folder):
    """Check every file of a checkpoint by size and SHA-256 and return its manifest; CheckpointError names a bad one."""
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = Path(folder) / name
        try:
            intact = path.stat().st_size == entry["bytes"] and file_sha256(path) == entry["sha256"]
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        if not intact:
            raise CheckpointError(f"{path} is damaged: its size or SHA-256 is not what {MANIFEST} says")
    return manifest


def list_checkpoints(folder, prefix=None):
    """The folders of checkpoints in ``folder``, whole or not, the furthest in training first.

    ``checkpoint-3`` is further than ``recovery-3-500``, which is further than ``checkpoint-2``.
    """
    found = []
    for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir() and not path.name.startswith(".") and prefix in (None, match["prefix"]):
            batch = match["batch"]
            position = (int(match["epoch"]), int(batch)) if batch else (int(match["epoch"]) + 1, -1)
            found.append((position, path))
    return [path for _, path in sorted(found, reverse=True)]


def latest_checkpoint(folder, prefix=None):
    """The furthest complete checkpoint in ``folder``, or None; what is damaged is reported in the log and passed over.

    Nothing is changed: a training may be writing there.
    """
    for path in list_checkpoints(folder, prefix):
        try:
            verify_checkpoint(path)
            return path
        except CheckpointError as error:
            _logger.warning("%s; going back to the checkpoint before it", error)
    return None


def clear_leftovers(folder):
    """Remove half-written folders and put back what a kill left without its successor; for who is to write there."""
    for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
        if path.name.startswith(_REPLACED):
            original = path.with_name(path.name[len(_REPLACED) :])
            if original.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.rename(path, original)
        elif path.name.startswith(_WRITING) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _write_file(path, content):
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        digesting = DigestingFile(file, digest)
        dump_arrays(content, digesting)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": digesting.size, "sha256": digest.hexdigest()}


def _write_manifest(folder, manifest):
    with open(folder / MANIFEST, "w") as file:
        json.dump({**manifest, "checksum": _checksum(manifest)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _checksum(manifest):
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copy2(source, target)
