"""The image files below a folder, found once by many threads and kept in an index file.

The index of 1.28 million files is used only while every folder's time of change is the one that it was made at, and
the root, whose own time moves when the index is written into it, still lists the same names.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pimm.data.class_map import natural_order
from pimm.data.img_extensions import get_img_extensions
from pimm.data.index_cache import (
    is_worth_keeping,
    load_index,
    pack_paths,
    pack_texts,
    save_index,
    unpack_paths,
    unpack_texts,
)
from pimm.data.samples import PathTable, TextTable
from pimm.errors import DataError

THREADS = 16  # they wait for the disk, or the network


class FolderIndex(NamedTuple):
    """What lies below a folder."""

    paths: PathTable  # of the images, relative, in natural order
    empty: list  # relative paths of the folders without images in them or below


class _Listing(NamedTuple):
    """One folder, its sub-folders and the names of its images."""

    folder: str
    subfolders: list
    names: list  # naturally ordered and in a TextTable, once all is listed
    changed: int  # time of last change, nanoseconds
    chain: tuple  # identities of this folder and those above it


def index_folder(root, cache_index=None):
    """``FolderIndex`` of the images below ``root``, from the index file if there is a fresh one. Links are followed.

    ``cache_index``: whether to use and write such a file; None writes it for large trees alone.

    Raises:
        DataError: for a folder that cannot be read.
    """
    started = time.time()
    if cache_index is not False:
        index = load_index(root, "folder", lambda arrays: _restore(root, arrays))
        if index is not None:
            return index
    listings = _list_tree(root)
    listings.sort(key=lambda listing: (listing.folder != "", natural_order(listing.folder + "/")))
    index = _index(_ordered_paths(listings))
    newest = max((listing.changed for listing in listings[1:]), default=0) / 1e9
    if is_worth_keeping(len(index.paths), newest, started, cache_index):
        save_index(root, "folder", _arrays(listings, index))
    return index


def empty_folders(folders, filled):
    """Those of ``folders`` that are neither ``filled`` nor above one that is, in order."""
    above = {folder[:end] for folder in filled for end in _slashes(folder)}
    return sorted(set(folders) - set(filled) - above - {"", "."})


def is_hidden(name):
    """Whether a file or folder of this name is none of the data: macOS puts '._x' beside each file 'x'."""
    return name == "__MACOSX" or (name.startswith(".") and name != ".")


def _index(paths):
    filled = [paths.folders[number] for number in np.unique(paths.folder_ids)]
    return FolderIndex(paths, empty_folders(paths.folders, filled))


def _list_tree(root):
    listings, level = [], [("", ())]
    with ThreadPoolExecutor(THREADS) as pool:
        while level:
            listed = pool.map(lambda task: _list_folder(root, *task), level)
            found = [_compact(listing) for listing in listed if listing]  # here: sorting would slow the threads down
            listings += found
            level = [(_join(above.folder, name), above.chain) for above in found for name in above.subfolders]
    return listings


def _list_folder(root, folder, chain=()):
    """``_Listing`` of one folder, or None for a link back to a folder above."""
    path = os.path.join(root, folder) if folder else os.fspath(root)
    endings = get_img_extensions()
    subfolders, names = [], []
    try:
        status = os.stat(path)  # before the names: what comes while we look will be noticed next time
        identity = (status.st_dev, status.st_ino)
        if identity in chain:
            return None
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if _is_folder(entry):
                    subfolders.append(entry.name)
                elif entry.name.lower().endswith(endings):
                    names.append(entry.name)
    except OSError as error:
        raise DataError(f"{path}: this folder cannot be read: {error.strerror}") from error
    return _Listing(folder, sorted(subfolders), names, status.st_mtime_ns, (*chain, identity))


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _compact(listing):
    return listing._replace(names=TextTable.of(sorted(listing.names, key=natural_order)))


def _join(folder, name):
    return f"{folder}/{name}" if folder else name


def _ordered_paths(listings):
    """All images in natural order of their whole paths; listings come in that of their folders."""
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
    """Whether no folder's images stand between those of another, as where images lie beside folders of images."""
    filled = [listing.folder for listing in listings if len(listing.names)]
    above = {folder[:end] for folder in filled for end in _slashes(folder)} | {""}
    keys = {tuple(natural_order(folder)[0]) for folder in filled}
    return len(keys) == len(filled) and (above.isdisjoint(filled) or len(filled) == 1)


def _slashes(folder):
    return [position for position, letter in enumerate(folder) if letter == "/"]


def _arrays(listings, index):
    stamps = np.array([listing.changed for listing in listings[1:]], np.int64)
    return {**pack_paths(index.paths), **pack_texts("top", _top(listings[0])), "stamps": stamps}


def _restore(root, arrays):
    paths, top = unpack_paths(arrays), list(unpack_texts("top", arrays))
    is_fresh = np.array_equal(_stamps(root, paths.folders[1:]), arrays["stamps"])
    return _index(paths) if is_fresh and _top(_list_folder(root, "")) == top else None


def _top(listing):
    return [*listing.subfolders, "", *sorted(listing.names)]


def _stamps(root, folders):
    """Times of change, -1 for those that are gone."""

    def changed(folder):
        try:
            return os.stat(os.path.join(root, folder)).st_mtime_ns
        except OSError:
            return -1

    with ThreadPoolExecutor(THREADS) as pool:
        return np.fromiter(pool.map(changed, folders), np.int64, len(folders))
