"""Where images come from: folders, tar files or a list file; each an index of (path, class) and a way to open one.

A reader has ``len(reader)``, ``reader[i]`` (an open file and a class index), ``filename`` and ``filenames``, as timm's
have; ``ImageDataset`` takes any object with these. The readers here also have ``samples``, ``class_to_idx`` and
``fixed_indices``.
"""

from __future__ import annotations

import inspect
import io
import os

import numpy as np

from pimm.data.bounded import brief, open_regular
from pimm.data.class_map import MAX_CLASSES, classes_of, load_class_map, number_classes, number_labels, parse_index
from pimm.data.embedded import find_images
from pimm.data.folder_index import index_folder
from pimm.data.img_extensions import describe_left_out, get_img_extensions, warn_of_left_out
from pimm.data.samples import PathTable, Reordered, Samples
from pimm.data.splits import find_list, find_tars, search_split_root
from pimm.data.tar_index import index_tars
from pimm.errors import ConfigError, DataError
from pimm.messages import did_you_mean

_MAX_OPEN = 256  # tar files that stay open in each process


def create_reader(name, root=None, split="train", **kwargs):
    """Make the reader of a data set.

    Args:
        name: ``folder``, ``tar`` or ``list``; ``""`` chooses by what ``root`` is.
        root: folder, tar file or list file.
        split: which part of it, where ``root`` holds several.
        kwargs: the reader's own arguments; those that are None are left out.

    Raises:
        ConfigError: for an unknown reader, or an argument that the reader does not have.
        DataError: for a ``root`` that does not exist or holds nothing usable.
    """
    if root is None:
        raise ConfigError("a data set needs its root: the folder, tar file or list file with the images")
    root = check_root(root)
    kind = name.partition("/")[0].lower() or _kind_of(root)
    if kind not in READERS:
        raise ConfigError(f"{brief(name)}: no such reader{did_you_mean(kind, READERS)}; there are {', '.join(READERS)}")
    options = {key: value for key, value in kwargs.items() if value is not None}
    known = list(inspect.signature(READERS[kind]).parameters)[1:]
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        hint = did_you_mean(unknown, known)
        raise ConfigError(f"{unknown}: the reader {kind} has no such option{hint}; it has {', '.join(known)}")
    return READERS[kind](root, split=split, **options)


def check_root(root, split=""):
    """Return the path of a folder, tar file or list of images, or inside a folder that of a split.

    Raises:
        DataError: if there is none.
    """
    root = find_images(root)
    if not os.path.exists(root):
        raise DataError(f"{os.path.abspath(root)}: no such folder or tar file of images{_near_name(root)}")
    return search_split_root(root, split) if split else root


class Reader:
    """Hold what all readers share: paths in order, their classes, and names to show.

    Args:
        root: what was opened.
        paths: sequence of paths relative to ``root``.
        targets: class indices [images], -1 for an image without class.
        class_to_idx: ``{class name: class index}``.
        fixed_indices: whether a class keeps its index where another class is missing, as by a class map, and where
            labels are the indices themselves; folders without a class map are numbered by the order of their names.

    Raises:
        DataError: for a class index that is out of bounds.
    """

    def __init__(self, root, paths, targets, class_to_idx, fixed_indices):
        targets = np.asarray(targets)
        if targets.size and not -1 <= targets.min() <= targets.max() < MAX_CLASSES:
            wrong = targets.max() if targets.max() >= MAX_CLASSES else targets.min()
            raise DataError(f"{root}: class index {brief(int(wrong))} is not between 0 and {MAX_CLASSES - 1}")
        self.root = root
        self.paths = paths
        self.class_to_idx = class_to_idx
        self.fixed_indices = fixed_indices
        self.samples = Samples(paths, targets.astype(np.int32), self._full)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.open(index), int(self.samples.targets[index])

    def open(self, index):
        """Return the image's file, open to read from it."""
        raise NotImplementedError

    def filename(self, index, basename=False, absolute=False):
        """Return the path of one image: below ``root``, or its last part, or in full."""
        path = self.paths[index]
        if basename:
            return os.path.basename(path)
        return self._full(path) if absolute else path

    def filenames(self, basename=False, absolute=False):
        """Return the paths of all images, in the order of their indices."""
        return [self.filename(index, basename, absolute) for index in range(len(self))]

    def _full(self, path):
        return os.path.join(self.root, path)


class FolderReader(Reader):
    """Read images below a folder, each of the class that its own folder is named after; symbolic links are followed.

    Images with other endings than those in use are left out, with a warning that counts them.

    Args:
        root: the folder.
        split: not used.
        class_map: what ``load_class_map`` takes.
        cache_index: keep the index of the tree in a file (``.pimm_index.folder.npz`` in ``root``, or in the user's
            cache folder); None does so for large trees alone.
        labelled: False for folders that are no classes: images may lie anywhere, and each has the index -1.
    """

    def __init__(self, root, split="", class_map="", cache_index=None, labelled=True):
        index = index_folder(root, cache_index)
        if not len(index.paths) and any(name.endswith(".tar") for name in os.listdir(root)):
            raise DataError(f"{root}: no images found but tar files; name the reader 'tar', or one of these files")
        warn_of_left_out(root, index.left_out)
        targets, class_to_idx = _folder_classes(root, index, class_map, labelled)
        super().__init__(root, index.paths, targets, class_to_idx, fixed_indices=bool(class_map))

    def open(self, index):
        return open_regular(self._full(self.paths[index]))


class TarReader(Reader):
    """Read images inside uncompressed tar files by position: any number of threads and processes may do so.

    The layouts are those of ``pimm.data.tar_index``.

    Args:
        root: a tar file of images or of tar files, or a folder of tar files.
        split: see ``find_tars``.
        class_map: what ``load_class_map`` takes.
        target_key: where in a sample's JSON file its class is.
        in_natural_order: order the images by their paths; otherwise they come as they lie in the files.
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
        warn_of_left_out(root, index.left_out)
        if index.bare and not class_map:
            raise DataError(f"{root}: {index.bare[0]} is a tar file without images, beside others that have some")
        self._opened = {}
        self.shard_ends = index.shard_ends
        has_labels = bool(index.labels) and labelled
        if has_labels:
            class_to_idx = number_labels(index.labels, class_map, _folder_of(root), f"{root}: ")
            targets = np.array([class_to_idx[label] for label in index.labels])[index.label_ids]
        else:
            targets, class_to_idx = _folder_classes(root, index, class_map, labelled)
        order = index.natural if in_natural_order else np.arange(len(targets))
        self._file_ids, self._spans = index.file_ids[order], index.spans[order]
        super().__init__(
            root, Reordered(index.paths, order), targets[order], class_to_idx, bool(class_map) or has_labels
        )

    def open(self, index):
        start, size = self._spans[index].tolist()
        data = self._read(int(self._file_ids[index]), start, size)
        if len(data) != size:
            raise OSError(f"{self.files[self._file_ids[index]]} ends inside this image")
        return io.BytesIO(data)

    def _read(self, number, start, size):
        """Return bytes of a tar file, leaving the file's own position alone, which forked workers share."""
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
    """Read images that a text file lists, one line ``path label`` each, PaddleClas's format.

    The label is what follows the last tab, or in a line without one the last space: other spaces belong to the path.
    The label is the class index, or with ``class_map`` the name of a class.

    Args:
        root: see ``find_list``.
        split: see ``find_list``.
        class_map: what ``load_class_map`` takes.
        list_file: see ``find_list``.
        labelled: False for a list that may leave the indices out; each image has the index -1.

    Raises:
        DataError: naming file and line, for lines without a path or a usable label.
    """

    def __init__(self, root, split="train", class_map="", list_file=None, labelled=True):
        self.list_file, folder = find_list(root, split, list_file)
        class_to_idx = load_class_map(class_map, folder) if class_map and labelled else None
        paths, targets = _read_list(self.list_file, class_to_idx, labelled)
        class_to_idx = class_to_idx or (classes_of(targets) if labelled else {})
        super().__init__(str(folder), PathTable.of(paths), targets, class_to_idx, fixed_indices=True)

    def open(self, index):
        return open_regular(self._full(self.paths[index]))


READERS = {"folder": FolderReader, "tar": TarReader, "list": ListReader}


def _kind_of(root):
    if os.path.isdir(root):
        return "folder"
    return "list" if root.lower().endswith((".txt", ".lst")) else "tar"


def _folder_of(root):
    return root if os.path.isdir(root) else os.path.dirname(root)


def _folder_classes(root, index, class_map, labelled):
    """Return the class index of each image, that of its folder's name, and the dict of all classes.

    Not ``labelled``, each index is -1 and the dict is empty.
    """
    paths, layout = index.paths, _layout(index.left_out)
    if not len(paths):
        raise DataError(f"{root}: no images found; {layout}")
    if not labelled:
        return np.full(len(paths), -1), {}
    names = [folder.rpartition("/")[2] for folder in paths.folders]
    filled = np.unique(paths.folder_ids).tolist()
    stray = next((number for number in filled if not paths.folders[number]), None)
    if stray is not None and len(filled) > 1:
        path = paths[np.argmax(paths.folder_ids == stray)]
        raise DataError(f"{os.path.join(root, path)}: an image beside the class folders; {layout}")
    classes = {names[number] for number in filled}
    class_to_idx = number_classes(classes, class_map, _folder_of(root), os.path.join(root, ""))
    empty = _without_index(index.empty, class_to_idx) if class_map else index.empty
    if empty:
        raise DataError(f"{os.path.join(root, empty[0])}: a class folder without images; {layout}")
    return np.array([class_to_idx.get(name, -1) for name in names])[paths.folder_ids], class_to_idx


def _without_index(folders, class_to_idx):
    """Return those of these empty folders that are no class of a class map, nor above or below one that is."""
    inside = {folder for folder in folders if any(part in class_to_idx for part in folder.split("/"))}
    above = {folder[:end] for folder in inside for end, letter in enumerate(folder) if letter == "/"}
    return [folder for folder in folders if folder not in inside | above]


def _layout(left_out):
    more = f"; {describe_left_out(left_out)}" if left_out else ""
    return f"expected CLASS/NAME with a name that ends in one of {', '.join(get_img_extensions())}{more}"


def _read_list(list_file, class_to_idx, labelled):
    """Return paths and class indices."""
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
        raise DataError(f"{where}: {brief(repr(line))} is not 'path label'")
    return parts[0].strip(), parts[1].strip()


def _index_of(label, class_to_idx, where):
    if class_to_idx is None:
        return parse_index(label, f"{where}: ")
    if label not in class_to_idx:
        hint = did_you_mean(label[:99], class_to_idx, count=3)
        raise DataError(f"{where}: class {brief(repr(label))} is not in the class map{hint}")
    return class_to_idx[label]


def _near_name(path):
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        return f"; {parent} does not exist either"
    return did_you_mean(os.path.basename(path), os.listdir(parent), count=3)
