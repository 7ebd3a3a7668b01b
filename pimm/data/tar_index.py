"""The images inside tar files: where each lies, so that it can be read without its tar file being unpacked.

A data set may be one tar file, a folder of them, or a tar file of tar files (as ImageNet's are). The innermost are its
shards. Two layouts are told apart by what is in them:

- class folders, ``CLASS/NAME.jpg``: the class is the folder, or the name of the tar file for images at its top;
- webdataset's, ``KEY.jpg`` beside ``KEY.cls`` with the class (a number, or a name of a class map), or beside
  ``KEY.json`` with it under ``target_key``.
"""

from __future__ import annotations

import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pimm.data.class_map import natural_order
from pimm.data.folder_index import THREADS, empty_folders, is_hidden
from pimm.data.img_extensions import get_img_extensions, is_img_extension
from pimm.data.index_cache import (
    is_worth_keeping,
    load_index,
    pack_paths,
    pack_texts,
    save_index,
    unpack_paths,
    unpack_texts,
)
from pimm.data.samples import PathTable
from pimm.errors import DataError


class TarIndex(NamedTuple):
    """Images in the order in which they lie in their shards."""

    paths: PathTable  # "shard/inner path"; in a single tar file the inner path alone
    file_ids: np.ndarray  # int32 [images]: which tar file holds it
    spans: np.ndarray  # int64 [images, 2]: where in that file it starts, and its bytes
    shard_ends: np.ndarray  # int64 [shards]: number of images up to the end of each
    natural: np.ndarray  # int32 [images]: indices in natural order of the paths
    empty: list  # inner paths of folders without images in them or below, in any shard
    label_ids: np.ndarray  # int32 [images], or empty for class folders
    labels: list  # distinct labels, as text


class _Shard(NamedTuple):
    """What one innermost tar file holds: for each image a path and a span, and a label in webdataset's layout."""

    name: str
    paths: list
    spans: list
    labels: list
    folders: list


def index_tars(root, files, target_key=None, cache_index=None):
    """``TarIndex`` of the images in tar files (their full paths) that make up the data set ``root``.

    ``target_key``: where in a sample's JSON its class is, instead of in its ``.cls``. ``cache_index``: see
    ``index_folder``; a kept index is used while size and time of change of every tar file are the same.

    Raises:
        DataError: for a file that is no whole, uncompressed tar file, one without images among others, a link that
            leads out of it, or an image without class among others that have one.
    """
    started = time.time()
    statuses = [os.stat(file) for file in files]
    stamps = np.array([(status.st_size, status.st_mtime_ns) for status in statuses], np.int64)
    if cache_index is not False:
        index = load_index(root, "tar", lambda arrays: _restore(files, stamps, arrays), target_key=target_key)
        if index is not None:
            return index
    with ThreadPoolExecutor(THREADS) as pool:
        shards = list(pool.map(lambda file: _scan(file, target_key, alone=len(files) == 1), files))
    index = _assemble(root, files, shards)
    if is_worth_keeping(len(index.paths), stamps[:, 1].max() / 1e9, started, cache_index):
        save_index(root, "tar", {**_arrays(index), **_stamped(files, stamps)}, target_key=target_key)
    return index


def _scan(path, target_key, alone):
    """The ``_Shard`` list of one tar file; ``alone`` is one that needs no name."""
    name = "" if alone else os.path.splitext(os.path.basename(path))[0]
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            return _scan_archive(path, file, archive, 0, name, target_key)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: not a whole, uncompressed tar file ({error}); pack images with 'tar cf', without compression"
        ) from error


def _scan_archive(source, file, archive, offset, name, target_key):
    spans, links, folders, shards = {}, [], [], []
    for member in _members(archive):
        path = os.path.normpath(member.name)
        if any(map(is_hidden, path.split("/"))):
            continue
        if member.isdir():
            folders.append(path)
        elif member.issym() or member.islnk():
            links.append((path, member))
        elif member.isfile() and path.lower().endswith(".tar"):
            inner_name = f"{name}/{path[:-4]}" if name else path[:-4]
            with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
                shards += _scan_archive(
                    f"{source}/{path}", file, inner, offset + member.offset_data, inner_name, target_key
                )
        elif member.isfile():
            spans[path] = (offset + member.offset_data, member.size)
    _follow(links, spans, source)
    labels = _read_labels(file, spans, target_key)
    images = [path for path in spans if _is_image(path, labels)]
    texts = _labels_of(images, labels, source)
    if images or not shards:  # else it holds nothing but tar files
        shards.append(_Shard(name, images, [spans[path] for path in images], texts, folders))
    return shards


def _members(archive):
    """The archive's members, forgotten as they pass: a million of them take more than a gigabyte."""
    while True:
        member = archive.next()
        if member is None:
            return
        archive.members = []
        yield member


def _follow(links, spans, source):
    """Add hard links to what lies in the same tar file. Raises DataError for images that are other links."""
    for path, member in links:
        target = os.path.normpath(member.linkname)
        if member.islnk() and target in spans:
            spans[path] = spans[target]
        elif path.lower().endswith(get_img_extensions()):
            raise DataError(
                f"{source}: {path} is a link to {member.linkname}, which cannot be followed inside a tar file; "
                "pack images with 'tar --hard-dereference -h -cf'"
            )


def _split_key(path):
    """webdataset's (key, ending): a file's name ends at its first dot."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    return folder + slash + stem, dot + ending.lower()


def _read_labels(file, spans, target_key):
    """``{key: label}``, or None where the layout is that of class folders."""
    ending = ".json" if target_key else ".cls"
    found = {_split_key(path)[0]: span for path, span in spans.items() if path.lower().endswith(ending)}
    if not found and not target_key:
        return None
    return {key: _label(_read(file, span), target_key) for key, span in found.items()}


def _read(file, span):
    start, size = span
    return os.pread(file.fileno(), size, start)


def _label(content, target_key):
    try:
        return str(json.loads(content)[target_key]) if target_key else content.decode().strip()
    except (ValueError, KeyError, TypeError):
        return None


def _is_image(path, labels):
    ending = _split_key(path)[1] if labels is not None else os.path.splitext(path)[1]
    return is_img_extension(ending)


def _labels_of(images, labels, source):
    if labels is None:
        return []
    texts = [labels.get(_split_key(path)[0]) for path in images]
    if None in texts:
        path = images[texts.index(None)]
        raise DataError(f"{source}: {path} has no class beside it, in a .cls file or under target_key in a .json file")
    return texts


def _assemble(root, files, scanned):
    shards = [shard for found in scanned for shard in found]
    images = [f"{shard.name}/{path}" if shard.name else path for shard in shards for path in shard.paths]
    labels = [label for shard in shards for label in shard.labels]
    if labels and len(labels) != len(images):
        bare = next(shard for shard in shards if len(shard.labels) < len(shard.paths))
        raise DataError(f"{root}: {bare.name} has no .cls files, which other tar files have; all need them, or none")
    bare = next((shard for shard in shards if not shard.paths), None)
    if bare is not None and images:
        raise DataError(f"{root}: {bare.name} is a tar file without images, beside others that have some")
    counts = [sum(len(shard.paths) for shard in found) for found in scanned]
    folders = {folder for shard in shards for folder in shard.folders}
    filled = {os.path.dirname(path) for shard in shards for path in shard.paths}
    ids = {}
    return TarIndex(
        paths=PathTable.of(images),
        file_ids=np.repeat(np.arange(len(files), dtype=np.int32), counts),
        spans=np.array([span for shard in shards for span in shard.spans], np.int64).reshape(-1, 2),
        shard_ends=np.cumsum([len(shard.paths) for shard in shards], dtype=np.int64),
        natural=np.array(sorted(range(len(images)), key=lambda index: natural_order(images[index])), np.int32),
        empty=empty_folders(folders, filled),
        label_ids=np.fromiter((ids.setdefault(label, len(ids)) for label in labels), np.int32, len(labels)),
        labels=list(ids),
    )


_ARRAYS = ("file_ids", "spans", "shard_ends", "natural", "label_ids")


def _arrays(index):
    texts = {**pack_texts("empty", index.empty), **pack_texts("labels", index.labels)}
    return {**{name: getattr(index, name) for name in _ARRAYS}, **texts, **pack_paths(index.paths)}


def _stamped(files, stamps):
    return {**pack_texts("files", [os.path.basename(file) for file in files]), "stamps": stamps}


def _restore(files, stamps, arrays):
    now = _stamped(files, stamps)
    if not all(np.array_equal(arrays[name], value) for name, value in now.items()):
        return None
    empty, labels = list(unpack_texts("empty", arrays)), list(unpack_texts("labels", arrays))
    return TarIndex(paths=unpack_paths(arrays), empty=empty, labels=labels, **{name: arrays[name] for name in _ARRAYS})
