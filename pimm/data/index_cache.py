"""Indexes of large data sets kept in files: beside the data, or where that cannot be written, in the user's cache.

A file is an ``.npz`` of plain arrays: nothing in it is run, and its checksums show damage. It appears whole or not at
all, so that any number of processes may write it at once. Whoever reads one says what it must have been made from;
what does not fit, or is damaged, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np

from pimm.data.img_extensions import get_img_extensions
from pimm.data.samples import PathTable, TextTable
from pimm.errors import CheckpointError, PimmError
from pimm.ops.build import cache_folder
from pimm.utils.serialization import atomic_file

_logger = logging.getLogger(__name__)

FORMAT = 1
MIN_IMAGES = 5000  # below, looking at the files takes a blink, and no folder is littered
SETTLED = 2.0  # seconds for which a folder must have been left alone: times of change are that coarse on some disks


def load_index(root, kind, restore, **facts):
    """What ``restore`` makes of the arrays in the first usable file for ``root``, or None.

    Args:
        kind: tells folder trees from tar files.
        restore: callable that takes ``{name: array}`` and returns None where the data has changed since; any exception
            of its means that the file is damaged.
        facts: what else the index depends on, as ``save_index`` was told.
    """
    for path in _places(root, kind):
        arrays = _read(path)
        if arrays is None:
            continue
        try:
            if arrays.pop("made_from").tobytes() == _made_from(facts):
                index = restore(arrays)
                if index is not None:
                    return index
            _logger.info("%s is stale and will be made anew", path)
        except (LookupError, TypeError, ValueError) as error:
            _logger.warning("%s is damaged and will be made anew: %s", path, error)
    return None


def save_index(root, kind, arrays, **facts):
    """Keep ``arrays`` for the next time; where that is nowhere possible, log why and go on."""
    reasons = []
    for path in _places(root, kind):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                np.savez(file, made_from=np.frombuffer(_made_from(facts), np.uint8), **arrays)
        except (CheckpointError, OSError) as error:
            reasons.append(str(error))
        else:
            _logger.info("The index of %s is kept in %s", root, path)
            return
    _logger.info("The index of %s is not kept, and will be made anew: %s", root, "; ".join(reasons))


def is_worth_keeping(images, newest, started, cache_index):
    """Whether to save an index of ``images`` files, whose folders last changed at ``newest`` (seconds).

    ``cache_index`` is True, False, or None for "if it is large". What changed right before we ``started`` to look may
    change again within the same tick of the clock, without a trace.
    """
    wanted = images >= MIN_IMAGES if cache_index is None else cache_index
    return wanted and newest < started - SETTLED


def pack_texts(name, strings):
    """A list or ``TextTable`` of strings as two arrays for ``save_index``."""
    table = strings if isinstance(strings, TextTable) else TextTable.of(strings)
    return {name: table.data, f"{name}_ends": table.ends}


def unpack_texts(name, arrays):
    """The ``TextTable`` that ``pack_texts`` packed. Raises ValueError if it makes no sense."""
    table = TextTable(arrays[name], arrays[f"{name}_ends"])
    if len(table) and (table.ends[-1] != len(table.data) or np.diff(table.ends, prepend=0).min() < 0):
        raise ValueError(f"{name} does not end where its bytes do")
    return table


def pack_paths(paths):
    """A ``PathTable`` as arrays for ``save_index``."""
    return {"folder_ids": paths.folder_ids, **pack_texts("folders", paths.folders), **pack_texts("names", paths.names)}


def unpack_paths(arrays):
    """The ``PathTable`` that ``pack_paths`` packed. Raises ValueError if it makes no sense."""
    folders, names, ids = list(unpack_texts("folders", arrays)), unpack_texts("names", arrays), arrays["folder_ids"]
    if len(ids) != len(names) or (len(ids) and not 0 <= ids.min() <= ids.max() < len(folders)):
        raise ValueError("paths without folders")
    return PathTable(folders, ids, names)


def _places(root, kind):
    root = Path(os.path.realpath(root))
    beside, stem = (root, "") if root.is_dir() else (root.parent, f".{root.name}")
    yield beside / f".pimm_index{stem}.{kind}.npz"
    try:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
        yield cache_folder() / "indexes" / f"{name}.{kind}.npz"
    except PimmError:  # a user without a home
        return


def _made_from(facts):
    return json.dumps({"format": FORMAT, "extensions": get_img_extensions(), **facts}, sort_keys=True).encode()


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged zip file can raise anything
        _logger.warning("%s is damaged and will be made anew: %s", path, error)
        return None
