"""Where images come from: folders, tar files or a list file; each an index of (path, class) and a way to open one.

A reader has ``len(reader)``, ``reader[i]`` (an open file and a class index), ``filename`` and ``filenames``, as timm's
have; ``ImageDataset`` takes any object with these. Those here also have ``samples`` and ``class_to_idx``.
"""

from __future__ import annotations

import difflib
import inspect
import io
import os

import numpy as np

from pimm.data.class_map import classes_of, load_class_map, number_classes, number_labels
from pimm.data.folder_index import index_folder
from pimm.data.img_extensions import get_img_extensions
from pimm.data.samples import PathTable, Reordered, Samples
from pimm.data.splits import find_list, find_tars
from pimm.data.tar_index import index_tars
from pimm.errors import ConfigError, DataError

_MAX_OPEN = 256  # tar files that stay open in each process


def create_reader(name, root=None, split="train", **kwargs):
    """Make the reader of a data set.

    Args:
        name: ``folder``, ``tar`` or ``list``; ``""`` chooses by what ``root`` is.
        root: folder, tar file or list file.
        split: which part of it, where ``root`` holds several.
        kwargs: the reader's own arguments; those that are None are left out.

    Raises:
        ConfigError: for a reader that is not known, or an argument that it does not have.
        DataError: for a ``root`` that does not exist or holds nothing usable.
    """
    if root is None:
        raise ConfigError("a data set needs its root: the folder, tar file or list file with the images")
    root = os.fspath(root)
    if not os.path.exists(root):
        raise DataError(f"{os.path.abspath(root)}: no such folder or tar file of images{_near_name(root)}")
    kind = name.partition("/")[0].lower() or _kind_of(root)
    if kind not in READERS:
        raise ConfigError(f"{name}: no such reader{_near(kind, READERS)}; there are {', '.join(READERS)}")
    options = {key: value for key, value in kwargs.items() if value is not None}
    known = list(inspect.signature(READERS[kind]).parameters)[1:]
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        hint = _near(unknown, known)
        raise ConfigError(f"{unknown}: the reader {kind} has no such option{hint}; it has {', '.join(known)}")
    return READERS[kind](root, split=split, **options)


class Reader:
    """What all readers share: paths in order, their classes, and names to show."""

    def __init__(self, root, paths, targets, class_to_idx):
        """``paths``: sequence of paths relative to ``root``; ``targets``: class indices [images]."""
        self.root = root
        self.paths = paths
        self.class_to_idx = class_to_idx
        self.samples = Samples(paths, np.asarray(targets, np.int32), self._full)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.open(index), int(self.samples.targets[index])

    def open(self, index):
        """The image's file, to read from."""
        raise NotImplementedError

    def filename(self, index, basename=False, absolute=False):
        """Path of one image: below ``root``, or its last part, or in full."""
        path = self.paths[index]
        if basename:
            return os.path.basename(path)
        return self._full(path) if absolute else path

    def filenames(self, basename=False, absolute=False):
        """Paths of all images, in the order of their indices."""
        return [self.filename(index, basename, absolute) for index in range(len(self))]

    def _full(self, path):
        return os.path.join(self.root, path)


class FolderReader(Reader):
    """Images below a folder, each of the class that its own folder is named after; symbolic links are followed.

    Args:
        cache_index: keep the index of the tree in a file (``.pimm_index.folder.npz`` in ``root``, or in the user's
            cache folder); None does so for large trees alone.
        labelled: if not, folders are no classes: images may lie anywhere, and each has the index -1.
    """

    def __init__(self, root, split="", class_map="", cache_index=None, labelled=True):
        index = index_folder(root, cache_index)
        if not len(index.paths) and any(name.endswith(".tar") for name in os.listdir(root)):
            raise DataError(f"{root}: no images found but tar files; name the reader 'tar', or one of these files")
        targets, class_to_idx = _folder_classes(root, index.paths, index.empty, class_map, labelled)
        super().__init__(root, index.paths, targets, class_to_idx)

    def open(self, index):
        return open(self._full(self.paths[index]), "rb")


class TarReader(Reader):
    """Images inside uncompressed tar files, read by position: any number of threads and processes may do so.

    The layouts are those of ``pimm.data.tar_index``.

    Args:
        root: a tar file of images or of tar files, or a folder of tar files.
        target_key: where in a sample's JSON file its class is.
        in_natural_order: as the folders would be; or else as the images lie in the files.
        cache_index: as a folder's; the file is ``.pimm_index.tar.npz``.
        labelled: as of a folder.
    """

    def __init__(
        self,
        root,
        split="",
        class_map="",
        target_key=None,
        in_natural_order=True,
        cache_index=None,
        labelled=True,
    ):
        self.files = find_tars(root, split)
        index = index_tars(root, self.files, target_key, cache_index)
        self._opened = {}
        self.shard_ends = index.shard_ends
        if index.labels and labelled:
            class_to_idx = number_labels(index.labels, class_map, _folder_of(root), f"{root}: ")
            targets = np.array([class_to_idx[label] for label in index.labels])[index.label_ids]
        else:
            targets, class_to_idx = _folder_classes(root, index.paths, index.empty, class_map, labelled)
        order = index.natural if in_natural_order else np.arange(len(targets))
        self._file_ids, self._spans = index.file_ids[order], index.spans[order]
        super().__init__(root, Reordered(index.paths, order), targets[order], class_to_idx)

    def open(self, index):
        start, size = self._spans[index].tolist()
        data = self._read(int(self._file_ids[index]), start, size)
        if len(data) != size:
            raise OSError(f"{self.files[self._file_ids[index]]} ends inside this image")
        return io.BytesIO(data)

    def _read(self, number, start, size):
        """Reading by position leaves the file's own position alone, which forked workers share."""
        file = self._opened.get(number)
        if file is not None:
            return os.pread(file.fileno(), size, start)
        file = open(self.files[number], "rb", buffering=0)  # noqa: SIM115 (may stay open)
        if len(self._opened) < _MAX_OPEN:
            file = self._opened.setdefault(number, file)
            return os.pread(file.fileno(), size, start)
        with file:
            return os.pread(file.fileno(), size, start)

    def __getstate__(self):
        return {**self.__dict__, "_opened": {}}

    def _full(self, path):
        return path if os.path.isfile(self.root) else os.path.join(self.root, path)


class ListReader(Reader):
    """Images of a text file with a line ``path label`` each, PaddleClas's format; where and how, see ``find_list``.

    The label is what follows the last tab, or in a line without one the last space: other spaces belong to the path.
    It is the class index, or with ``class_map`` the name of a class. Not ``labelled``, a list may leave the indices
    out, and all are -1.

    Raises:
        DataError: naming file and line, for lines without a path or a usable label.
    """

    def __init__(self, root, split="train", class_map="", list_file=None, labelled=True):
        self.list_file, folder = find_list(root, split, list_file)
        class_to_idx = load_class_map(class_map, folder) if class_map and labelled else None
        paths, targets = _read_list(self.list_file, class_to_idx, labelled)
        class_to_idx = class_to_idx or (classes_of(targets) if labelled else {})
        super().__init__(str(folder), PathTable.of(paths), targets, class_to_idx)

    def open(self, index):
        return open(self._full(self.paths[index]), "rb")


READERS = {"folder": FolderReader, "tar": TarReader, "list": ListReader}


def _kind_of(root):
    if os.path.isdir(root):
        return "folder"
    return "list" if root.lower().endswith((".txt", ".lst")) else "tar"


def _folder_of(root):
    return root if os.path.isdir(root) else os.path.dirname(root)


def _folder_classes(root, paths, empty, class_map, labelled):
    """Class index of each image, the one of its folder's name, and the dict of all; not ``labelled``, -1 and none."""
    if not len(paths):
        raise DataError(f"{root}: no images found; {_layout()}")
    if not labelled:
        return np.full(len(paths), -1), {}
    names = [folder.rpartition("/")[2] for folder in paths.folders]
    filled = np.unique(paths.folder_ids).tolist()
    stray = next((number for number in filled if not paths.folders[number]), None)
    if stray is not None and len(filled) > 1:
        path = paths[np.argmax(paths.folder_ids == stray)]
        raise DataError(f"{os.path.join(root, path)}: an image beside the class folders; {_layout()}")
    if empty:
        raise DataError(f"{os.path.join(root, empty[0])}: a class folder without images; {_layout()}")
    classes = {names[number] for number in filled}
    class_to_idx = number_classes(classes, class_map, _folder_of(root), os.path.join(root, ""))
    return np.array([class_to_idx.get(name, -1) for name in names])[paths.folder_ids], class_to_idx


def _layout():
    return f"expected CLASS/NAME with a name that ends in one of {', '.join(get_img_extensions())}"


def _read_list(list_file, class_to_idx, labelled):
    """Paths and class indices."""
    paths, targets = [], []
    try:
        with open(list_file, encoding="utf-8-sig") as lines:  # some editors begin a file with a mark of its encoding
            for number, line in enumerate(lines, 1):
                if line.strip():
                    path, target = _read_line(line.strip(), class_to_idx, labelled, f"{list_file}:{number}")
                    paths.append(path)
                    targets.append(target)
    except UnicodeDecodeError as error:
        raise DataError(f"{list_file}: a list is text in UTF-8, which this is not: {error}") from None
    if not paths:
        raise DataError(f"{list_file}: an empty list; expected lines 'path label'")
    return paths, targets


def _read_line(line, class_to_idx, labelled, where):
    if labelled:
        path, label = _split_line(line, where)
        return path, _index_of(label, class_to_idx, where)
    path, _, label = line.replace("\t", " ").rpartition(" ")
    return (path.strip() if path and label.isdigit() else line), -1


def _split_line(line, where):
    parts = line.rsplit("\t" if "\t" in line else None, 1)
    if len(parts) != 2 or not parts[0].strip():
        raise DataError(f"{where}: {line!r} is not 'path label'")
    return parts[0].strip(), parts[1].strip()


def _index_of(label, class_to_idx, where):
    if class_to_idx is None and label.isascii() and label.isdigit():
        return int(label)
    if class_to_idx is None:
        raise DataError(f"{where}: {label!r} is no class index, 0 or more; names of classes need a class_map")
    if label not in class_to_idx:
        raise DataError(f"{where}: class {label!r} is not in the class map{_near(label, class_to_idx)}")
    return class_to_idx[label]


def _near_name(path):
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        return f"; {parent} does not exist either"
    return _near(os.path.basename(path), os.listdir(parent))


def _near(name, names):
    near = difflib.get_close_matches(name, names, n=3)
    return f"; near names there: {', '.join(near)}" if near else ""
