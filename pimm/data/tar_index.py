"""The images inside tar files: where each lies, so that it can be read without its tar file being unpacked.

A data set may be one tar file, a folder of them, or a tar file of tar files (as ImageNet's are). The innermost are its
shards. Two layouts are told apart by what is in them:

- class folders, ``CLASS/NAME.jpg``: the class is the folder, or the name of the tar file for images at its top;
- webdataset's, ``KEY.jpg`` beside ``KEY.cls`` with the class (a number, or a name of a class map), or beside
  ``KEY.json`` with the class under ``target_key``.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pimm.data.bounded import MAX_TEXT, brief, parse_json
from pimm.data.class_map import natural_order
from pimm.data.folder_index import THREADS, empty_folders, is_hidden
from pimm.data.img_extensions import get_img_extensions, is_img_extension, is_other_image
from pimm.data.index_cache import (
    check_integers,
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
from pimm.data.samples import PathTable
from pimm.data.tar_members import inner_path, open_archive, walk
from pimm.errors import DataError

_MAX_DEPTH = 8  # tar files inside each other; ImageNet's are two


class TarIndex(NamedTuple):
    """List images in the order in which they lie in their shards."""

    paths: PathTable  # "shard/inner path"; in a single tar file the inner path alone
    file_ids: np.ndarray  # int32 [images]: which tar file holds it
    spans: np.ndarray  # int64 [images, 2]: where in that file it starts, and its bytes
    shard_ends: np.ndarray  # int64 [shards]: number of images up to the end of each
    natural: np.ndarray  # int32 [images]: indices in natural order of the paths
    empty: list  # inner paths of folders without images in them or below, in any shard
    bare: list  # names of shards without images, beside others that have some
    left_out: dict  # {ending: number of files} of images whose ending is not among those in use
    label_ids: np.ndarray  # int32 [images], or empty for class folders
    labels: list  # distinct labels, as text


class _Shard(NamedTuple):
    """List the images of one innermost tar file: paths, spans, and in webdataset's layout labels."""

    name: str
    paths: list
    spans: list
    labels: list
    folders: list
    left_out: Counter


def index_tars(root, files, target_key=None, cache_index=None):
    """Return the ``TarIndex`` of the images in tar files.

    Args:
        root: the data set.
        files: full paths of the tar files that make up the data set.
        target_key: where in a sample's JSON file its class is, instead of in its ``.cls`` file.
        cache_index: see ``index_folder``; a kept index is used while size and time of change of every tar file are
            the same.

    Raises:
        DataError: for a file that is no whole, uncompressed tar file, a link or a path that leads out of it, or an
            image without class among others that have one.
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
    """Return the ``_Shard`` list of one tar file; ``alone`` is a file that needs no name."""
    name = "" if alone else os.path.splitext(os.path.basename(path))[0]
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _scan_archive(path, file, file, (0, size), name, target_key)
    except DataError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise DataError(
            f"{path}: not a whole, uncompressed tar file ({brief(str(error), 200)}); pack images with 'tar cf', "
            "without compression"
        ) from error


def _scan_archive(source, file, window, span, name, target_key, depth=1):
    """Return the ``_Shard`` list of an archive.

    Args:
        source: path of the archive, for messages.
        file: the outermost tar file.
        window: binary file of the archive alone.
        span: where in ``file`` the archive starts, and its bytes.
        name: of the shard.
        target_key: see ``index_tars``.
        depth: how many archives there are from ``file`` to this one.
    """
    if depth > _MAX_DEPTH:
        raise DataError(f"{file.name}: more than {_MAX_DEPTH} tar files inside each other; {_MAX_DEPTH} are read")
    offset, size = span
    spans, links, folders, shards = {}, [], [], []
    with open_archive(window, size=size) as archive:
        for member in walk(archive, size):
            if member.isdir():
                folders.append(os.path.normpath(member.name.lstrip("/") or "."))
                continue
            path = inner_path(member.name, source)
            if any(map(is_hidden, path.split("/"))):
                continue
            if member.issym() or member.islnk():
                links.append((path, member))
            elif member.isfile() and path.lower().endswith(".tar"):
                inner, inner_span = archive.extractfile(member), (offset + member.offset_data, member.size)
                inner_name = f"{name}/{path[:-4]}" if name else path[:-4]
                shards += _scan_archive(f"{source}/{path}", file, inner, inner_span, inner_name, target_key, depth + 1)
            elif member.isfile():
                spans[path] = (offset + member.offset_data, member.size)
    folders = [folder for folder in folders if not any(map(is_hidden, folder.split("/")))]
    _follow(links, spans, source)
    shard = _shard(name, spans, folders, file, source, target_key)
    return [*shards, shard] if shard.paths or not shards else shards  # else it holds nothing but tar files


def _shard(name, spans, folders, file, source, target_key):
    has_labels = bool(target_key) or any(path.lower().endswith(".cls") for path in spans)
    images = [path for path in spans if is_img_extension(_ending(path, has_labels))]
    endings = Counter(_ending(path, has_labels) for path in spans)
    left_out = Counter({ending: count for ending, count in endings.items() if is_other_image(ending)})
    labels = _read_labels(images, spans, file, source, target_key) if has_labels else []
    return _Shard(name, images, [spans[path] for path in images], labels, folders, left_out)


def _follow(links, spans, source):
    """Add hard links to what lies in the same tar file. Raises DataError for images that are other links."""
    for path, member in links:
        target = os.path.normpath(member.linkname.lstrip("/") or ".")
        if member.islnk() and target in spans:
            spans[path] = spans[target]
        elif path.lower().endswith(get_img_extensions()):
            raise DataError(
                f"{source}: {brief(path)} is a link to {brief(member.linkname, 99)}, which cannot be followed inside a "
                "tar file; pack images with 'tar --hard-dereference -h -cf'"
            )


def _split_key(path):
    """Return webdataset's (key, ending): a file's name ends at its first dot."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    return folder + slash + stem, dot + ending.lower()


def _ending(path, has_labels):
    return _split_key(path)[1] if has_labels else os.path.splitext(path)[1].lower()


def _read_labels(images, spans, file, source, target_key):
    """Return the label of each image, as text."""
    ending = ".json" if target_key else ".cls"
    beside = {_split_key(path)[0]: path for path in spans if path.lower().endswith(ending)}
    labels = []
    for image in images:
        path = beside.get(_split_key(image)[0])
        label = _read_label(file, spans[path], target_key, f"{source}: {brief(path)}") if path else None
        if label is None:
            raise DataError(
                f"{source}: {brief(image)} has no class beside it, in a .cls file or under target_key in a .json file"
            )
        labels.append(label)
    return labels


def _read_label(file, span, target_key, where):
    """Return the class that a ``.cls`` or JSON file holds, as text; None where the JSON has no such key."""
    start, size = span
    if size > MAX_TEXT:
        raise DataError(f"{where}: {size} bytes, too large for the class of an image")
    content = os.pread(file.fileno(), size, start)
    try:
        return str(parse_json(content)[target_key]) if target_key else content.decode().strip()
    except (LookupError, TypeError):
        return None
    except ValueError as error:
        raise DataError(f"{where}: no class can be read from it: {brief(str(error), 99)}") from error


def _assemble(root, files, scanned):
    shards = [shard for found in scanned for shard in found]
    images = [f"{shard.name}/{path}" if shard.name else path for shard in shards for path in shard.paths]
    labels = [label for shard in shards for label in shard.labels]
    if labels and len(labels) != len(images):
        bare = next(shard for shard in shards if len(shard.labels) < len(shard.paths))
        raise DataError(f"{root}: {bare.name} has no .cls files, which other tar files have; all need them, or none")
    counts = [sum(len(shard.paths) for shard in found) for found in scanned]
    folders = {folder for shard in shards if shard.paths for folder in shard.folders}
    filled = {os.path.dirname(path) for shard in shards for path in shard.paths}
    ids = {}
    return TarIndex(
        paths=PathTable.of(images),
        file_ids=np.repeat(np.arange(len(files), dtype=np.int32), counts),
        spans=np.array([span for shard in shards for span in shard.spans], np.int64).reshape(-1, 2),
        shard_ends=np.cumsum([len(shard.paths) for shard in shards], dtype=np.int64),
        natural=np.array(sorted(range(len(images)), key=lambda index: natural_order(images[index])), np.int32),
        empty=empty_folders(folders, filled),
        bare=[shard.name for shard in shards if images and not shard.paths],
        left_out=dict(sum((shard.left_out for shard in shards), Counter())),
        label_ids=np.fromiter((ids.setdefault(label, len(ids)) for label in labels), np.int32, len(labels)),
        labels=list(ids),
    )


_ARRAYS = ("file_ids", "spans", "shard_ends", "natural", "label_ids")
_TEXTS = ("empty", "bare", "labels")


def _arrays(index):
    texts = {name: array for text in _TEXTS for name, array in pack_texts(text, getattr(index, text)).items()}
    counts = pack_counts("left_out", index.left_out)
    return {**{name: getattr(index, name) for name in _ARRAYS}, **texts, **counts, **pack_paths(index.paths)}


def _stamped(files, stamps):
    return {**pack_texts("files", [os.path.basename(file) for file in files]), "stamps": stamps}


def _restore(files, stamps, arrays):
    now = _stamped(files, stamps)
    if not all(np.array_equal(arrays[name], value) for name, value in now.items()):
        return None
    index = TarIndex(
        paths=unpack_paths(arrays),
        left_out=unpack_counts("left_out", arrays),
        **{name: list(unpack_texts(name, arrays)) for name in _TEXTS},
        **{name: check_integers(name, arrays[name], ndim=2 if name == "spans" else 1) for name in _ARRAYS},
    )
    _check_restored(index, stamps[:, 0])
    return index


def _check_restored(index, sizes):
    """Raise ValueError where a kept index points outside the files, whose ``sizes`` in bytes are given."""
    images = len(index.paths)
    if (index.file_ids.shape, index.spans.shape) != ((images,), (images, 2)):
        raise ValueError("images without places")
    if not images:
        return
    if not 0 <= index.file_ids.min() <= index.file_ids.max() < len(sizes):
        raise ValueError("images without files")
    starts, lengths = index.spans.T
    ends = sizes[index.file_ids]
    if starts.min() < 0 or lengths.min() < 0 or (lengths > ends).any() or (starts > ends - lengths).any():
        raise ValueError("images outside their files")
    if not np.array_equal(np.sort(index.natural), np.arange(images)):
        raise ValueError("an order that is none")
    if not np.array_equal(index.shard_ends, np.maximum.accumulate(index.shard_ends)) or index.shard_ends[-1] != images:
        raise ValueError("shards that do not end where their images do")
    if index.labels and (
        index.label_ids.shape != (images,)
        or not 0 <= index.label_ids.min() <= index.label_ids.max() < len(index.labels)
    ):
        raise ValueError("images without labels")
