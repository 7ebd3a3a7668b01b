"""Write and read checkpoints: folders that appear whole or not at all, with a manifest that shows damage.

A folder ``NAME-EPOCH`` is the end of an epoch, ``NAME-EPOCH-BATCH`` a moment inside an epoch. The file
``manifest.json`` in the folder holds what the writer says about the checkpoint, the size and SHA-256 of every other
file, and a checksum of itself. Only folders that hold the files of a checkpoint and nothing else are ever removed or
renamed: a user may keep files of any name beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
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

_WRITING = ".tmp-"  # begins the name of a folder that is being written or removed
_REPLACED = ".old-"  # begins the name of a folder whose successor is just being put in place
_BEST = "model_best"
_NAME = re.compile(r"(?P<prefix>.+?)-(?P<epoch>\d+)(?:-(?P<batch>\d+))?")
_LEFTOVER = re.compile(r"(?P<kind>\.tmp-|\.old-)(?P<name>.+?)(?P<token>\.[0-9a-f]{8})?")
_OF_FILE_SYSTEMS = re.compile(r"\.nfs\w+|\.DS_Store")  # files that NFS and macOS put into folders of others
_MAX_MANIFEST = 64 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Holds what was read of a checkpoint: the manifest's entries, and the content of each file by its name."""

    folder: Path
    manifest: dict
    files: dict


def write_checkpoint(folder, files, manifest):
    """Write a checkpoint, and replace the checkpoint of the same name if there is one.

    Args:
        folder: where; its name is that of the checkpoint.
        files: ``{file name: arrays and plain data}``.
        manifest: what else to note, as JSON has it.

    Raises:
        CheckpointError: if the checkpoint cannot be written, as when the disk is full, or if ``folder`` holds anything
            but a checkpoint; all that was there before is then untouched.
    """
    folder = Path(folder)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _make_temporary(folder)
        entries = {name: _write_file(temporary / name, content) for name, content in files.items()}
        _write_manifest(temporary, {**manifest, "format": FORMAT, "files": entries})
        sync_folder(temporary)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoint {folder}: {error.strerror}; earlier checkpoints are untouched"
        ) from error
    finally:
        _remove(temporary)


def remove_checkpoint(folder):
    """Remove a checkpoint so that a kill half-way leaves no half of the checkpoint under its name.

    A folder that holds anything else stays as it is, and the log says so.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    other = _foreign_entry(folder)
    if other:
        _logger.warning("%s stays, although it is superseded: %s", folder, other)
        return
    with contextlib.suppress(FileNotFoundError):
        temporary = _free_name(folder.with_name(f"{_WRITING}{folder.name}"))
        os.rename(folder, temporary)
        _remove(temporary)


def link_checkpoint(source, folder):
    """Make ``folder`` a checkpoint with the content of ``source``; the two share their files if the file system can.

    Raises:
        CheckpointError: as `write_checkpoint`, and if ``source`` is no checkpoint.
    """
    source, folder = Path(source), Path(folder)
    temporary = None
    names = [*read_manifest(source)["files"], MANIFEST]
    try:
        temporary = _make_temporary(folder)
        for name in names:
            _link_or_copy(source / name, temporary / name)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"cannot copy {source} to {folder}: {error.strerror}") from error
    finally:
        _remove(temporary)


def _make_temporary(folder):
    temporary = _free_name(folder.with_name(f"{_WRITING}{folder.name}"))
    temporary.mkdir()
    return temporary


def _put_in_place(temporary, folder):
    """Rename a finished folder to ``folder``, in the place of the checkpoint that is there."""
    replaced = None
    if os.path.lexists(folder):
        other = _foreign_entry(folder, whole=False)
        if other:
            raise CheckpointError(f"cannot write checkpoint {folder}: {other}; move that folder elsewhere")
        replaced = _free_name(folder.with_name(f"{_REPLACED}{folder.name}"))
        os.rename(folder, replaced)
    try:
        os.rename(temporary, folder)
    except OSError:
        if replaced:
            os.rename(replaced, folder)
        raise
    sync_folder(folder.parent)
    if replaced and _foreign_entry(replaced) and any(replaced.iterdir()):
        _logger.warning("%s had no %s; what it held is kept as %s", folder, MANIFEST, replaced)
    else:
        _remove(replaced)


def _remove(folder):
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _free_name(path):
    """Return ``path``, or a name like it if ``path`` is in use.

    What an earlier attempt left under the name is removed, unless that fails, as on NFS while somebody has a file open.
    """
    if os.path.lexists(path) and not _foreign_entry(path, whole=False):
        _remove(path)
    return path if not os.path.lexists(path) else path.with_name(f"{path.name}.{secrets.token_hex(4)}")


def _foreign_entry(folder, whole=True):
    """Return what shows that a folder is not just a checkpoint that this program wrote, as text; None if nothing does.

    ``whole`` asks for a manifest, damaged or not; a checkpoint that is half written has none yet.
    """
    if folder.is_symlink() or not folder.is_dir():
        return "it is no folder"
    try:
        known = {MODEL, OPTIMIZER, EMA, STATE, MANIFEST, *read_manifest(folder)["files"]}
    except CheckpointError:
        known = {MODEL, OPTIMIZER, EMA, STATE, MANIFEST}
    with os.scandir(folder) as entries:
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if whole and MANIFEST not in found:
        return f"it has no {MANIFEST}, and is no checkpoint"
    others = [
        name
        for name, is_file in found.items()
        if not is_file or not (name in known or _OF_FILE_SYSTEMS.fullmatch(name))
    ]
    return f"it holds {min(others)!r:.60}, which is no part of a checkpoint" if others else None


def clear_leftovers(folder, prefixes=("checkpoint", "recovery")):
    """Remove half-written checkpoints, and put back a checkpoint that a kill left without its successor.

    Only who is about to write checkpoints into ``folder`` may call this. What is not certain to be a checkpoint of this
    program, by its name and by the names of all its files, stays.

    Args:
        folder: where to look; it need not exist.
        prefixes: how names of checkpoints begin.
    """
    for path in _entries(folder):
        match = _LEFTOVER.fullmatch(path.name)
        if not match or not _is_name(match["name"], prefixes):
            continue
        is_replaced = match["kind"] == _REPLACED
        if _foreign_entry(path, whole=is_replaced) or not (match["token"] or any(path.iterdir())):
            continue
        original = path.with_name(match["name"])
        if is_replaced and not os.path.lexists(original):
            os.rename(path, original)
        else:
            _remove(path)


def _is_name(name, prefixes):
    """Tell whether this is the name of a checkpoint that begins with one of ``prefixes``, or of the best one."""
    match = _NAME.fullmatch(name)
    return name == _BEST or (match is not None and match["prefix"] in prefixes)


def read_checkpoint(folder):
    """Check a checkpoint and read all of it; raise `CheckpointError` that says which file is missing or damaged."""
    folder = Path(folder)
    manifest = verify_checkpoint(folder)
    return Checkpoint(folder, manifest, {name: load_arrays(folder / name) for name in manifest["files"]})


def read_manifest(folder):
    """Return the manifest of a checkpoint; raise `CheckpointError` if there is none, or if it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST:
            raise CheckpointError(f"{folder} is not a checkpoint: {path} is no file, or too large for a manifest")
        manifest = json.loads(path.read_text())
        checksum = manifest.pop("checksum")
        if checksum != _checksum(manifest):
            raise CheckpointError(f"{path} is damaged: its checksum is not that of its content")
    except OSError as error:
        raise CheckpointError(f"{folder} is not a checkpoint: cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged") from error
    _check_manifest(manifest, path)
    return manifest


def _check_manifest(manifest, path):
    """Raise `CheckpointError` for entries that are missing or of a wrong type."""
    if type(manifest.get("format")) is not int:
        raise CheckpointError(f"{path} is damaged: it does not say which format it has")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']!s:.20}; this version reads format {FORMAT}")
    for key, is_valid in _ENTRIES.items():
        if key in manifest and not is_valid(manifest[key]):
            raise CheckpointError(f"{path} is damaged: {manifest[key]!r:.60} cannot be its {key}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(map(_is_file_entry, files, files.values())):
        raise CheckpointError(f"{path} is damaged: it does not list the files of a checkpoint")


def _is_count(value):
    return type(value) is int and value >= 0


def _is_file_entry(name, entry):
    """Tell whether a name stays inside the folder, and whether its entry has a size and a digest."""
    if not name.isprintable() or os.path.basename(name) != name or name in ("", ".", ".."):
        return False
    return isinstance(entry, dict) and _is_count(entry.get("bytes")) and isinstance(entry.get("sha256"), str)


_ENTRIES = {
    "epoch": _is_count,
    "batch": _is_count,
    "metric": lambda value: value is None or type(value) in (int, float),
    "arch": lambda value: isinstance(value, str),
    "args": lambda value: isinstance(value, dict),
}


def verify_checkpoint(folder):
    """Check every file of a checkpoint by size and SHA-256, and return the manifest.

    Raises:
        CheckpointError: for the first file that is missing or damaged, by its name.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = Path(folder) / name
        try:
            status = path.stat()
            intact = stat.S_ISREG(status.st_mode) and status.st_size == entry["bytes"]
            intact = intact and file_sha256(path) == entry["sha256"]
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        if not intact:
            raise CheckpointError(f"{path} is damaged: its size or SHA-256 is not what {MANIFEST} says")
    return manifest


def is_prefix(text):
    """Tell whether names of checkpoints can begin so: `list_checkpoints` finds them, in the same folder."""
    match = _NAME.fullmatch(f"{text}-0")
    return match is not None and match["prefix"] == text and Path(text).name == text and not text.startswith(".")


def list_checkpoints(folder, prefix=None):
    """List the folders of checkpoints in ``folder``, whole or not, the furthest in training first.

    ``checkpoint-3`` is further than ``recovery-3-500``, which is further than ``checkpoint-2``. ``prefix`` selects the
    names that begin so, as ``checkpoint``; None selects all.
    """
    found = []
    for path in _entries(folder):
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir() and not path.name.startswith(".") and prefix in (None, match["prefix"]):
            batch = match["batch"]
            position = (int(match["epoch"]), int(batch)) if batch else (int(match["epoch"]) + 1, -1)
            found.append((position, path))
    return [path for _, path in sorted(found, reverse=True)]


def _entries(folder):
    try:
        return list(Path(folder).iterdir()) if Path(folder).is_dir() else []
    except OSError as error:
        raise CheckpointError(f"cannot look for checkpoints in {folder}: {error.strerror}") from error


def latest_checkpoint(folder, prefix=None):
    """Return the furthest complete checkpoint in ``folder``, or None; damaged ones are passed over with a warning.

    Nothing is changed: a training may be writing to the folder. ``prefix`` as in `list_checkpoints`.
    """
    for path in list_checkpoints(folder, prefix):
        try:
            verify_checkpoint(path)
            return path
        except CheckpointError as error:
            _logger.warning("%s; going back to the checkpoint before it", error)
    return None


def recorded_classes(path):
    """Return the class names that a checkpoint, or the latest one of a training's folder, was trained on.

    Returns None for no path, a file of weights, a folder without checkpoints, and a checkpoint that does not name them.
    """
    folder = Path(path)
    if not path or not folder.is_dir():
        return None
    if not (folder / MANIFEST).exists():
        folder = latest_checkpoint(folder)
    return read_manifest(folder)["args"].get("classes") if folder else None


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
