"""Read CIFAR, MNIST and Flowers by Paddle's own classes, from archives that the user has."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from paddle.dataset.common import DATA_HOME
from paddle.utils.download import get_path_from_url
from paddle.vision.datasets import MNIST, Cifar10, Cifar100, FashionMNIST, Flowers, cifar, flowers
from PIL import Image

from pimm.data.bounded import brief, open_regular
from pimm.data.class_map import classes_of
from pimm.data.readers import Reader
from pimm.data.splits import split_words
from pimm.data.tar_members import open_archive, walk
from pimm.errors import ConfigError, DataError
from pimm.messages import did_you_mean


class _Archive(NamedTuple):
    """Describe a file that Paddle's class needs: the argument for it, its address, its checksum."""

    argument: str
    url: str
    md5: str

    @property
    def name(self):
        return os.path.basename(self.url)


class _Source(NamedTuple):
    """Describe one of Paddle's data sets."""

    dataset: Callable  # Paddle's class
    home: str  # Paddle's folder for its downloads
    reader: Callable  # makes a reader of an instance of ``dataset``
    archives: dict  # mode -> the files it needs


def open_paddle(name, root=None, split="train", download=False, class_map=None):
    """Make the reader of one of ``PADDLE_DATASETS``; classes are numbered from zero.

    Flowers follows Paddle, which trains on the 6,149 images that are elsewhere the test split, and tests on the 1,020
    that are elsewhere the training split. The archive of Flowers is unpacked beside it. Paddle reads CIFAR's archives
    with pickle, which runs what is in them: take these archives from a source that you trust.

    Args:
        name: of the data set.
        root: folder with the archives, as they come; without one, the folder of Paddle's own downloads.
        split: train, val or test by any of timm's words; where there are only two, val and test are the same.
        download: fetch missing archives to ``root``.
        class_map: must be empty, as the classes have indices.

    Raises:
        ConfigError: for an unknown name or split.
        DataError: where an archive is missing or damaged.
    """
    source = PADDLE_DATASETS.get(name)
    if source is None:
        hint = did_you_mean(name, PADDLE_DATASETS)
        raise ConfigError(
            f"paddle/{name:.60}: no such data set of Paddle's; there are {', '.join(PADDLE_DATASETS)}{hint}"
        )
    if class_map:
        raise ConfigError(f"paddle/{name}: its classes have numbers of their own; leave class_map out")
    mode = _mode(name, split, source.archives)
    root = Path(root or os.path.join(DATA_HOME, source.home))
    files = {archive.argument: _find(root, archive, download) for archive in source.archives[mode]}
    try:
        for file in files.values():
            _check_archive(file)
        return source.reader(source.dataset(**files, mode=mode, download=False, backend="cv2"))
    except Exception as error:  # a damaged archive can raise anything
        where = ", ".join(files.values())
        reason = f"{type(error).__name__}: {brief(str(error), 200)}"
        raise DataError(f"paddle/{name}: cannot read {where}: {reason}") from error


class _ArrayReader(Reader):
    """Read images of one size from one array: uint8 [images, height, width], or [images, height, width, 3]."""

    def __init__(self, root, images, targets, mode):
        self._images = np.stack(images)
        names = [f"{mode}/{index:05}.png" for index in range(len(targets))]
        super().__init__(root, names, targets, classes_of(targets), fixed_indices=True)

    def open(self, index):
        return Image.fromarray(self._images[index])


class _FlowersReader(Reader):
    """Read the JPEG files of the unpacked archive."""

    def __init__(self, dataset):
        targets = (dataset.labels[dataset.indexes - 1].astype(int) - 1).tolist()  # Paddle's classes begin at one
        names = [f"jpg/image_{number:05}.jpg" for number in dataset.indexes.tolist()]
        super().__init__(dataset.data_path, names, targets, classes_of(targets), fixed_indices=True)

    def open(self, index):
        return open_regular(self._full(self.paths[index]))


def _read_cifar(dataset):
    images = [pixels.reshape(3, 32, 32).transpose(1, 2, 0) for pixels, _ in dataset.data]
    return _ArrayReader(dataset.data_file, images, [int(label) for _, label in dataset.data], dataset.mode)


def _read_mnist(dataset):
    images = [pixels.reshape(28, 28).astype(np.uint8) for pixels in dataset.images]
    return _ArrayReader(dataset.image_path, images, [int(label[0]) for label in dataset.labels], dataset.mode)


def _unpacked_flowers(data_file, **options):
    _unpack(data_file)
    return Flowers(data_file, **options)


def _one_archive(url, md5):
    return {mode: [_Archive("data_file", url, md5)] for mode in ("train", "test")}


def _mnist_archives(dataset):
    return {
        "train": [
            _Archive("image_path", dataset.TRAIN_IMAGE_URL, dataset.TRAIN_IMAGE_MD5),
            _Archive("label_path", dataset.TRAIN_LABEL_URL, dataset.TRAIN_LABEL_MD5),
        ],
        "test": [
            _Archive("image_path", dataset.TEST_IMAGE_URL, dataset.TEST_IMAGE_MD5),
            _Archive("label_path", dataset.TEST_LABEL_URL, dataset.TEST_LABEL_MD5),
        ],
    }


_JPEG = re.compile(r"jpg/[\w.]+\.jpg")
_FLOWERS = [
    _Archive("data_file", flowers.DATA_URL, flowers.DATA_MD5),
    _Archive("label_file", flowers.LABEL_URL, flowers.LABEL_MD5),
    _Archive("setid_file", flowers.SETID_URL, flowers.SETID_MD5),
]

PADDLE_DATASETS = {
    "cifar10": _Source(Cifar10, "cifar", _read_cifar, _one_archive(cifar.CIFAR10_URL, cifar.CIFAR10_MD5)),
    "cifar100": _Source(Cifar100, "cifar", _read_cifar, _one_archive(cifar.CIFAR100_URL, cifar.CIFAR100_MD5)),
    "mnist": _Source(MNIST, "mnist", _read_mnist, _mnist_archives(MNIST)),
    "fashion_mnist": _Source(FashionMNIST, "fashion-mnist", _read_mnist, _mnist_archives(FashionMNIST)),
    "flowers": _Source(
        _unpacked_flowers, "flowers", _FlowersReader, dict.fromkeys(("train", "valid", "test"), _FLOWERS)
    ),
}


def _mode(name, split, modes):
    words = split_words(split)
    mode = next((mode for mode in modes if mode in words), None)
    if mode is None and "val" in words:  # two splits: evaluate on the one that is not for training
        mode = "test"
    if mode is None:
        raise ConfigError(f"paddle/{name}: no split {split}; there are {', '.join(modes)}")
    return mode


def _find(root, archive, download):
    path = root / archive.name
    if path.is_file():
        return str(path)
    if not download:
        raise DataError(f"{path}: no such file; get it from {archive.url}, or pass download=True to let Paddle do so")
    try:
        return get_path_from_url(archive.url, str(root), archive.md5, decompress=False)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be fetched: {error}") from error


def _check_archive(path):
    """Walk through a tar file once, for Paddle believes its headers: a negative size would let it read for ever."""
    if ".tar" in os.path.basename(path) or path.endswith(".tgz"):
        with open(path, "rb") as file, open_archive(file, "r:*") as archive:
            for _ in walk(archive):
                pass


def _unpack(archive):
    """Unpack Flowers' JPEGs to where Paddle looks for them: all or none, however many processes do so at once."""
    folder = Path(archive).with_suffix("")
    if (folder / "jpg").exists():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as temporary:
        with open(archive, "rb") as file, open_archive(file, "r:*") as tar:
            members = [member for member in walk(tar) if member.isfile() and _JPEG.fullmatch(member.name)]
            tar.extractall(temporary, members)
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(os.path.join(temporary, "jpg"), folder / "jpg")
