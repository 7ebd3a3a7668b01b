"""subImageNet, on which Cream's rank correlation is measured: 100 classes of 250 training and 50 validation images.

The official script copies the first 350 training images of the first 100 classes into one folder, without a split.
Here classes and images are drawn by seed or read from the official lists, and the validation images are the 50 images
of each class in ImageNet's validation set, or further training images where that set is missing.
"""

from __future__ import annotations

import ast
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from pimm.data.img_extensions import get_img_extensions
from pimm.errors import DataError

CLASS_LIST, IMAGE_LIST = "subclass_list.txt", "subimages_list.txt"


class Images(NamedTuple):
    """Lists the files of one class for training and for validation, as paths below the source."""

    train: list[Path]
    val: list[Path]


PLACE: Mapping[str, Callable[[Path, Path], object]] = {
    "link": lambda source, target: target.symlink_to(source.resolve()),
    "copy": shutil.copyfile,
}


class Source:
    """Reads an image set in folders ``train/CLASS`` and ``val/CLASS``; DataError where something is missing."""

    def __init__(self, folder: Path):
        self.folder = folder

    def classes(self) -> list[str]:
        """Return the names of the training classes, in order."""
        return sorted(entry.name for entry in self._entries("train") if entry.is_dir())

    def images(self, split: str, name: str) -> list[str]:
        """Return the names of a class's images, in order."""
        endings = tuple(get_img_extensions())
        return sorted(entry.name for entry in self._entries(split, name) if entry.name.lower().endswith(endings))

    def _entries(self, *parts: str) -> list[os.DirEntry]:
        folder = self.folder.joinpath(*parts)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; must be {self.folder}/train/CLASS/IMAGE, and val alike")
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]


def draw_classes(source: Source, number: int, seed: int) -> list[str]:
    """Draw ``number`` classes by ``seed``, and return them in order; raise DataError if there are fewer."""
    classes = source.classes()
    if len(classes) < number:
        raise DataError(f"{source.folder}/train has {len(classes)} classes; must have at least {number}")
    return sorted(np.random.default_rng(seed).choice(classes, number, replace=False).tolist())


def choose_images(
    source: Source,
    name: str,
    train: int,
    val: int,
    seed: int,
    val_from: str = "val",
    listed: Sequence[str] | None = None,
) -> Images:
    """Choose the images of one class; the draw for a class does not depend on the other classes.

    Args:
        source: the image set.
        name: the class.
        train: number of training images.
        val: number of validation images.
        seed: the seed of the draw.
        val_from: the split of the validation images; with ``train``, they are the images after the training images.
        listed: names of training images in their order, in place of drawn ones.

    Raises:
        DataError: the class has too few images, or lacks an image of the list.
    """
    splits = ("train",) if val_from == "train" else ("train", "val")
    pools = {
        split: _shuffled(source.images(split, name), [seed, zlib.crc32(f"{split}/{name}".encode())]) for split in splits
    }
    missing = sorted(set(listed or ()) - set(pools["train"]))
    if missing:
        raise DataError(f"{source.folder / 'train' / name / missing[0]} is in the list of images, but not there")
    if listed is not None:
        pools["train"] = list(listed)
    wanted = {"train": train, "val": 0}
    wanted[val_from] += val
    for split, pool in pools.items():
        if len(pool) < wanted[split]:
            place = "the list" if split == "train" and listed is not None else source.folder / split
            raise DataError(f"{place} has {len(pool)} images of class {name}; must have at least {wanted[split]}")
    paths = {split: [Path(split, name, file) for file in pool[: wanted[split]]] for split, pool in pools.items()}
    return Images(paths["train"][:train], paths["val"] if val_from == "val" else paths["train"][train:])


def _shuffled(names: Sequence[str], seed: Sequence[int]) -> list[str]:
    return np.random.default_rng(seed).permutation(names).tolist()


def read_class_list(path: Path) -> list[str]:
    """Read a file with one class a line, such as ``subclass_list.txt``.

    Raises:
        DataError: the file has no class, or one class twice.
    """
    names = path.read_text(encoding="utf-8").split()
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: must hold one class a line, each once")
    return names


def read_image_list(path: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Read the images of each class from a file with a Python list of names a line, such as ``subimages_list.txt``.

    Raises:
        DataError: a line has another form, or there are not as many lines as classes.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) != len(classes):
        raise DataError(f"{path} has {len(lines)} lines; must have one for each of the {len(classes)} classes")
    images = {}
    for number, (name, line) in enumerate(zip(classes, lines), start=1):
        try:
            images[name] = ast.literal_eval(line)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two come from nested brackets
            images[name] = None
        if not isinstance(images[name], list) or not all(isinstance(file, str) for file in images[name]):
            raise DataError(f"{path}, line {number}: must be a list of names, ['a.JPEG', 'b.JPEG', ...]")
        if len(set(images[name])) < len(images[name]):
            raise DataError(f"{path}, line {number}: a name occurs twice; must be each once")
    return images


def make_subset(source: Source, output: Path, subset: Mapping[str, Images], how: str = "link") -> None:
    """Write ``output/train/CLASS``, ``output/val/CLASS`` and the two lists; the folder appears whole or not at all.

    Args:
        source: the image set.
        output: the new folder.
        subset: the chosen images by class.
        how: ``link`` or ``copy``.

    Raises:
        DataError: the folder exists and is not empty.
    """
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} exists already and is left unchanged; give another --output, or remove the folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{output.name}-", dir=output.parent))
    try:
        temporary.chmod(0o755)
        _fill(temporary, source, subset, how)
        os.replace(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(folder: Path, source: Source, subset: Mapping[str, Images], how: str) -> None:
    for name, images in subset.items():
        for split, paths in images._asdict().items():
            place = folder / split / name
            place.mkdir(parents=True)
            for path in paths:
                PLACE[how](source.folder / path, place / path.name)
    (folder / CLASS_LIST).write_text("".join(f"{name}\n" for name in subset), encoding="utf-8")
    lists = ([path.name for path in (*images.train, *_from_train(images.val))] for images in subset.values())
    (folder / IMAGE_LIST).write_text("".join(f"{names}\n" for names in lists), encoding="utf-8")


def _from_train(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.parts[0] == "train"]
