"""Where images come from: a folder tree or a tar file, each an index of (path, class) and a way to open one."""

from __future__ import annotations

import difflib
import io
import os
import tarfile
from pathlib import Path

from pimm.errors import DataError
from pimm.utils.misc import natural_key

IMG_EXTENSIONS = (".png", ".jpg", ".jpeg")

_LAYOUT = f"expected CLASS/NAME with a name that ends in one of {', '.join(IMG_EXTENSIONS)}"


def open_reader(root, class_map=""):
    """Index a folder or a tar file. Raises ``DataError`` if there is none, or nothing usable in it."""
    root = os.fspath(root)
    if os.path.isdir(root):
        return FolderReader(root, class_map)
    if os.path.isfile(root):
        return TarReader(root, class_map)
    raise DataError(f"{os.path.abspath(root)}: no such folder or tar file of images{_near_name(root)}")


def load_class_map(filename, root=""):
    """Read ``{class name: index}`` from a text file with one name a line; looked for as it is, then inside ``root``."""
    path = next((path for path in (Path(filename), Path(root, filename)) if path.is_file()), None)
    if path is None:
        raise DataError(f"{filename}: no such class map, nor inside {root or '.'}")
    if path.suffix.lower() != ".txt":
        raise DataError(f"{path}: a class map is a .txt file with one class name a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a class map is text in UTF-8, which this is not: {error}") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: a class is named twice: {next(name for name in names if names.count(name) > 1)}")
    return {name: index for index, name in enumerate(names)}


class _Reader:
    """The index that both kinds share; ``samples`` is a list of (path, class index) in natural order of the paths."""

    def __init__(self, root, class_map, entries, folders):
        """``entries``: relative path of each image -> what opens it; ``folders``: relative paths of all folders."""
        self.root = root
        _check_layout(root, entries, folders)
        paths = sorted(entries, key=_order)
        classes = {_class_name(path) for path in paths}
        if class_map:
            self.class_to_idx = load_class_map(class_map, root if os.path.isdir(root) else os.path.dirname(root))
            _check_classes(root, classes, self.class_to_idx, class_map)
        else:
            self.class_to_idx = {name: index for index, name in enumerate(sorted(classes, key=_order))}
        self.samples = [(self._full(path), self.class_to_idx[_class_name(path)]) for path in paths]
        self._entries = [entries[path] for path in paths]

    def filename(self, index, basename=False, absolute=False):
        path = self.samples[index][0]
        if basename:
            return os.path.basename(path)
        return path if absolute else self._relative(path)


class FolderReader(_Reader):
    """Images below a folder; symbolic links are followed."""

    def __init__(self, root, class_map=""):
        entries, folders, seen = {}, [], set()
        for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise_unreadable):
            real = os.path.realpath(folder)
            if real in seen:  # a link back to where we came from
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
            folders.append(os.path.relpath(folder, root))
            for name in filter(_is_image, files):
                path = os.path.join(folder, name)
                entries[os.path.relpath(path, root)] = path
        super().__init__(root, class_map, entries, folders)

    def open(self, index):
        return open(self._entries[index], "rb")

    def _full(self, path):
        return os.path.join(self.root, path)

    def _relative(self, path):
        return os.path.relpath(path, self.root)


class TarReader(_Reader):
    """Images inside an uncompressed tar file, read by position: any number of threads and processes may do so."""

    def __init__(self, root, class_map=""):
        try:
            with tarfile.open(root, "r:") as archive:
                members = archive.getmembers()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"{root}: not a whole, uncompressed tar file ({error}); pack images with 'tar cf', without compression"
            ) from error
        contents = _contents(members)
        entries, folders = {}, []
        for member in members:
            path = os.path.normpath(member.name)
            if any(map(_is_hidden, path.split("/"))):
                continue
            if member.isdir():
                folders.append(path)
            elif _is_image(path) and path in contents:
                entries[path] = contents[path]
            elif _is_image(path) and (member.issym() or member.islnk()):
                raise DataError(
                    f"{root}: {path} is a link to {member.linkname}, which cannot be followed inside a tar file; "
                    "pack images with 'tar --hard-dereference -h -cf'"
                )
        self._file = None
        super().__init__(root, class_map, entries, folders)

    def open(self, index):
        if self._file is None:
            self._file = open(self.root, "rb", buffering=0)  # noqa: SIM115 (stays open)
        start, size = self._entries[index]
        data = os.pread(self._file.fileno(), size, start)  # leaves the position alone, which forked workers share
        if len(data) != size:
            raise OSError(f"{self.root} ends inside this image")
        return io.BytesIO(data)

    def __getstate__(self):
        return {**self.__dict__, "_file": None}

    def _full(self, path):
        return path

    _relative = _full


def _contents(members):
    """``{path: (position, size)}`` of the files of a tar file, and of hard links to those before them."""
    contents = {}
    for member in members:
        path, target = os.path.normpath(member.name), os.path.normpath(member.linkname)
        if member.isfile():
            contents[path] = (member.offset_data, member.size)
        elif member.islnk() and target in contents:
            contents[path] = contents[target]
    return contents


def _is_image(path):
    return path.lower().endswith(IMG_EXTENSIONS) and not _is_hidden(os.path.basename(path))


def _is_hidden(name):
    return name == "__MACOSX" or (name.startswith(".") and name != ".")  # macOS puts '._x' beside each file 'x'


def _order(name):
    return natural_key(name), name  # "A" and "a", "1" and "01" tie, and sets have an order of their own in each process


def _class_name(path):
    return os.path.basename(os.path.dirname(path))


def _check_layout(root, entries, folders):
    if not entries:
        raise DataError(f"{root}: no images found; {_LAYOUT}")
    stray = next((path for path in entries if not os.path.dirname(path)), None)
    if stray is not None and any(map(os.path.dirname, entries)):
        raise DataError(f"{os.path.join(root, stray)}: an image beside the class folders; {_LAYOUT}")
    filled = {"."}
    for path in entries:
        folder = os.path.dirname(path)
        while folder and folder not in filled:
            filled.add(folder)
            folder = os.path.dirname(folder)
    empty = next((folder for folder in sorted(folders) if folder not in filled), None)
    if empty is not None:
        raise DataError(f"{os.path.join(root, empty)}: a class folder without images; {_LAYOUT}")


def _check_classes(root, classes, class_to_idx, class_map):
    unknown = sorted(classes - class_to_idx.keys(), key=_order)
    if unknown:
        near = difflib.get_close_matches(unknown[0], class_to_idx, n=3)
        hint = f"; near names there: {', '.join(near)}" if near else ""
        raise DataError(f"{os.path.join(root, unknown[0])}: this class is not in the class map {class_map}{hint}")


def _near_name(path):
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        return f"; {parent} does not exist either"
    near = difflib.get_close_matches(os.path.basename(path), os.listdir(parent), n=3)
    return f"; near names there: {', '.join(near)}" if near else ""


def _raise_unreadable(error):
    raise DataError(f"{error.filename}: this folder cannot be read: {error.strerror}") from error
