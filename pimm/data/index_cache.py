"""Indexes of large data sets kept in files: beside the data, or where that cannot be written, in the user's cache.

A file is an ``.npz`` of plain arrays: nothing in it is run, and its checksums show damage. It appears whole or not at
all, so that any number of processes may write it at once. Who reads a file says what the file must have been made
from; a file that does not fit, or is damaged, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import zipfile
from pathlib import Path

import numpy as np

from pimm.data.bounded import brief, open_regular
from pimm.data.img_extensions import get_img_extensions
from pimm.data.samples import PathTable, TextTable
from pimm.errors import CheckpointError, PimmError
from pimm.ops.build import cache_folder
from pimm.utils.serialization import atomic_file

_logger = logging.getLogger(__name__)

FORMAT = 2
MIN_IMAGES = 5000  # below, looking at the files takes a moment, and no folder is littered
SETTLED = 2.0  # seconds for which a folder must have been left alone: times of change are that coarse on some disks


def load_index(root, kind, restore, **facts):
    """Return what ``restore`` makes of the arrays in the first usable file for ``root``, or None.

    Args:
        root: folder or tar file.
        kind: tells folder trees from tar files.
        restore: callable that takes ``{name: array}`` and returns None where the data has changed since; an exception
            of it means that the file is damaged.
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
            _logger.warning("%s is damaged and will be made anew: %s", path, brief(str(error), 200))
    return None


def save_index(root, kind, arrays, **facts):
    """Keep ``arrays`` for the next time; where that is nowhere possible, log why and go on.

    Args:
        root: folder or tar file.
        kind: tells folder trees from tar files.
        arrays: ``{name: array}``.
        facts: what else the index depends on.
    """
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
    """Return whether to save an index.

    What changed right before the search started may change again within the same tick of the clock, without a trace.

    Args:
        images: number of images in it.
        newest: time of the last change of their folders, seconds.
        started: time at which the search for images started, seconds.
        cache_index: True, False, or None for "if the index is large".
    """
    wanted = images >= MIN_IMAGES if cache_index is None else cache_index
    return wanted and newest < started - SETTLED


def pack_texts(name, strings):
    """Return a list or ``TextTable`` of strings as two arrays for ``save_index``."""
    table = strings if isinstance(strings, TextTable) else TextTable.of(strings)
    return {name: table.data, f"{name}_ends": table.ends}


def unpack_texts(name, arrays):
    """Return the ``TextTable`` that ``pack_texts`` packed.

    Raises:
        ValueError: for arrays that make no sense.
    """
    table = TextTable(arrays[name], check_integers(name, arrays[f"{name}_ends"]))
    if table.data.dtype != np.uint8 or table.data.ndim != 1:
        raise ValueError(f"{name} is no text")
    if len(table) and (table.ends[-1] != len(table.data) or np.diff(table.ends, prepend=0).min() < 0):
        raise ValueError(f"{name} does not end where its bytes do")
    return table


def check_integers(name, array, ndim=1):
    """Return the array; ValueError for one that is not of whole numbers, or has other than ``ndim`` dimensions."""
    if array.dtype.kind not in "iu" or array.ndim != ndim:
        raise ValueError(f"{name} is no array of whole numbers with {ndim} dimensions")
    return array


def pack_counts(name, counts):
    """Return ``{text: count}`` as arrays for ``save_index``."""
    return {**pack_texts(name, list(counts)), f"{name}_counts": np.array(list(counts.values()), np.int64)}


def unpack_counts(name, arrays):
    """Return the dict that ``pack_counts`` packed.

    Raises:
        ValueError: for arrays that make no sense.
    """
    texts, counts = list(unpack_texts(name, arrays)), check_integers(name, arrays[f"{name}_counts"]).tolist()
    if len(texts) != len(counts):
        raise ValueError(f"{name} has {len(counts)} counts for {len(texts)} texts")
    return dict(zip(texts, counts))


def pack_paths(paths):
    """Return a ``PathTable`` as arrays for ``save_index``."""
    return {"folder_ids": paths.folder_ids, **pack_texts("folders", paths.folders), **pack_texts("names", paths.names)}


def unpack_paths(arrays):
    """Return the ``PathTable`` that ``pack_paths`` packed.

    Raises:
        ValueError: for arrays that make no sense.
    """
    folders, names = list(unpack_texts("folders", arrays)), unpack_texts("names", arrays)
    ids = check_integers("folder_ids", arrays["folder_ids"])
    if any(folder.startswith("/") or ".." in folder.split("/") for folder in folders) or (names.data == ord("/")).any():
        raise ValueError("paths that lead out of the data set")
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
    if not os.path.isfile(path):
        return None
    try:
        with open_regular(path) as file:
            _check_sizes(file)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:  # another process has just removed it
        return None
    except Exception as error:  # a damaged zip file can raise anything
        _logger.warning("%s is damaged and will be made anew: %s", path, brief(str(error), 200))
        return None


def _check_sizes(file):
    """Raise ValueError for a zip file whose arrays would take more memory than the file has bytes."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError(f"its arrays would take {sum(entry.file_size for entry in entries)} bytes of {size}")
        for entry in entries:
            with archive.open(entry) as array:
                shape, dtype = _header(array)
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename} claims an array of shape {shape}, which it does not hold")
    file.seek(0)


def _header(file):
    """Return shape and type of the array in an open ``.npy`` file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
