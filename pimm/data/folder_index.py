"""The image files below a folder, found once by many threads and kept in an index file.

The index of 1.28 million files is used only while every folder's time of change is the one that it was made at, and
the root, whose own time moves when the index is written into it, still lists the same names.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pimm.data.class_map import natural_order
from pimm.data.img_extensions import get_img_extensions, is_other_image
from pimm.data.index_cache import (
    is_worth_keeping,
    load_index,
    pack_counts,
    pack_paths,
    pack_texts,
    save_index,
    unpack_counts,
    unpack_paths,
    unpack_texts,
)
from pimm.data.samples import PathTable, TextTable
from pimm.errors import DataError

_logger = logging.getLogger(__name__)

THREADS = 16  # they wait for the disk, or the network
MAX_VISITS = 100  # paths by which links may lead to one folder; where links double, paths do so at every level


class FolderIndex(NamedTuple):
    """List what lies below a folder."""

    paths: PathTable  # of the images, relative, in natural order
    empty: list  # relative paths of the folders without images in them or below
    left_out: dict  # {ending: number of files} of images whose ending is not among those in use


class _Listing(NamedTuple):
    """List one folder: its sub-folders and the names of its images."""

    folder: str
    subfolders: list
    names: list  # naturally ordered and in a TextTable, once all is listed
    left_out: Counter  # ending -> number of files
    changed: int  # time of last change, nanoseconds
    chain: tuple  # identities (device, inode) of this folder and those above it


def index_folder(root, cache_index=None):
    """Return the ``FolderIndex`` of the images below ``root``, from the index file if there is a fresh one.

    Symbolic links to folders are followed, except those to a folder above.

    Args:
        root: the folder.
        cache_index: whether to use and write an index file; None uses one, and writes it for large trees alone.

    Raises:
        DataError: for a folder that cannot be read, and for one that links lead to by more than ``MAX_VISITS`` paths.
    """
    started = time.time()
    if cache_index is not False:
        index = load_index(root, "folder", lambda arrays: _restore(root, arrays))
        if index is not None:
            return index
    listings = _list_tree(root)
    listings.sort(key=lambda listing: (listing.folder != "", natural_order(listing.folder + "/")))
    index = _index(_ordered_paths(listings), sum((listing.left_out for listing in listings), Counter()))
    newest = max((listing.changed for listing in listings[1:]), default=0) / 1e9
    if is_worth_keeping(len(index.paths), newest, started, cache_index):
        save_index(root, "folder", _arrays(listings, index))
    return index


def empty_folders(folders, filled):
    """Return those of ``folders`` that are neither ``filled`` nor above one that is, in order."""
    above = {folder[:end] for folder in filled for end in _slashes(folder)}
    return sorted(set(folders) - set(filled) - above - {"", "."})


def is_hidden(name):
    """Return whether a file or folder of this name is no data: macOS puts '._x' beside each file 'x'."""
    return name == "__MACOSX" or (name.startswith(".") and name != ".")


def _index(paths, left_out):
    filled = [paths.folders[number] for number in np.unique(paths.folder_ids)]
    return FolderIndex(paths, empty_folders(paths.folders, filled), dict(left_out))


def _list_tree(root):
    listings, visits, level = [], Counter(), [("", ())]
    with ThreadPoolExecutor(THREADS) as pool:
        while level:
            listed = pool.map(lambda task: _list_folder(root, *task), level)
            found = [_compact(listing) for listing in listed if listing]  # sorting would slow the threads down
            listings += found
            visits.update(listing.chain[-1] for listing in found)
            _check_visits(root, found, visits)
            level = [(_join(above.folder, name), above.chain) for above in found for name in above.subfolders]
    return listings


def _check_visits(root, listings, visits):
    often = next((listing.folder for listing in listings if visits[listing.chain[-1]] > MAX_VISITS), None)
    if often is not None:
        raise DataError(
            f"{os.path.join(root, often)}: links lead to this folder by more than {MAX_VISITS} paths; "
            "remove the symbolic links that lead from folder to folder"
        )


def _list_folder(root, folder, chain=()):
    """Return the ``_Listing`` of one folder, or None for a link back to a folder above."""
    path = os.path.join(root, folder) if folder else os.fspath(root)
    endings = get_img_extensions()
    subfolders, names, left_out = [], [], Counter()
    try:
        status = os.stat(path)  # before the names: what comes meanwhile will be noticed next time
        identity = (status.st_dev, status.st_ino)
        if identity in chain:
            return None
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if _is_folder(entry):
                    subfolders.append(entry.name)
                elif not entry.name.lower().endswith(endings):
                    left_out[os.path.splitext(entry.name)[1].lower()] += 1
                elif _is_file(entry):
                    names.append(entry.name)
                else:
                    _logger.warning("%s is no regular file and is passed over", entry.path)
    except OSError as error:
        raise DataError(f"{path}: this folder cannot be read: {error.strerror}") from error
    left_out = Counter({ending: count for ending, count in left_out.items() if is_other_image(ending)})
    return _Listing(folder, sorted(subfolders), names, left_out, status.st_mtime_ns, (*chain, identity))


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry):
    """Return whether an entry is no FIFO, socket or device; a link to nothing is an image that cannot be read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:  # a link to itself
        return False


def _compact(listing):
    return listing._replace(names=TextTable.of(sorted(listing.names, key=natural_order)))


def _join(folder, name):
    return f"{folder}/{name}" if folder else name


def _ordered_paths(listings):
    """Return all images in natural order of their whole paths; ``listings`` are in natural order of their folders."""
    counts = [len(listing.names) for listing in listings]
    lengths = [np.diff(listing.names.ends, prepend=0) for listing in listings]
    names = TextTable.joined(b"".join(listing.names.data.tobytes() for listing in listings), np.concatenate(lengths))
    folder_ids = np.repeat(np.arange(len(listings), dtype=np.int32), counts)
    paths = PathTable([listing.folder for listing in listings], folder_ids, names)
    if _is_ordered_by_folder(listings):
        return paths
    order = sorted(range(len(paths)), key=lambda index: natural_order(paths[index]))
    return PathTable(paths.folders, folder_ids[order], TextTable.of([names[index] for index in order]))


def _is_ordered_by_folder(listings):
    """Return whether no folder's images stand between those of another, as where images lie beside folders of them."""
    filled = [listing.folder for listing in listings if len(listing.names)]
    above = {folder[:end] for folder in filled for end in _slashes(folder)} | {""}
    keys = {tuple(natural_order(folder)[0]) for folder in filled}
    return len(keys) == len(filled) and (above.isdisjoint(filled) or len(filled) == 1)


def _slashes(folder):
    return [position for position, letter in enumerate(folder) if letter == "/"]


def _arrays(listings, index):
    stamps = np.array([listing.changed for listing in listings[1:]], np.int64)
    texts = {**pack_texts("top", _top(listings[0])), **pack_counts("left_out", index.left_out)}
    return {**pack_paths(index.paths), **texts, "stamps": stamps}


def _restore(root, arrays):
    paths, top = unpack_paths(arrays), list(unpack_texts("top", arrays))
    is_fresh = np.array_equal(_stamps(root, paths.folders[1:]), arrays["stamps"])
    if not is_fresh or _top(_list_folder(root, "")) != top:
        return None
    return _index(paths, unpack_counts("left_out", arrays))


def _top(listing):
    return [*listing.subfolders, "", *sorted(listing.names)]


def _stamps(root, folders):
    """Return the folders' times of change in nanoseconds, -1 for a folder that is gone."""

    def changed(folder):
        try:
            return os.stat(os.path.join(root, folder)).st_mtime_ns
        except (OSError, ValueError):  # a damaged index can name impossible paths
            return -1

    with ThreadPoolExecutor(THREADS) as pool:
        return np.fromiter(pool.map(changed, folders), np.int64, len(folders))
