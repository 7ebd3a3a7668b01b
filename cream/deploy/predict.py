"""The likeliest classes of images: files, folders of images, and tar files."""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import paddle

from cream.convert.verify import likeliest
from cream.deploy.backends import Backend
from cream.deploy.settings import InferenceSettings
from pimm.data.loader import Loader
from pimm.data.pixels import decode
from pimm.data.readers import create_reader
from pimm.data.samplers import BatchPlan
from pimm.engine.program import PADDLE_FILES
from pimm.errors import ConfigError, DataError
from pimm.utils import write_csv, write_text
from pimm.utils.checkpoint import MANIFEST
from pimm.utils.model_record import NOTE

_logger = logging.getLogger(__name__)

FORMATS = (".csv", ".json")
# Files of these formats that belong to trained nets.
_OF_NETS = (PADDLE_FILES[0], MANIFEST, "architecture.json", "candidates.csv", "summary.csv")
_WEIGHTS = (".pdparams", ".pdema", ".safetensors")


class Guess(NamedTuple):
    """Says how likely an image is of a class: the image's path, the rank from 1, and the class."""

    image: str
    rank: int
    index: int
    name: str
    probability: float


class ImageFiles:
    """Lists the images of files, folders and tar files: ``files.name(i)`` is a path, ``files.open(i)`` an open file.

    The paths are looked at when their images are asked for. This raises DataError for a path that does not exist, and
    for a folder or tar file without images.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = paths

    @functools.cached_property
    def _parts(self) -> list[_File | _Collection]:
        return [_part(Path(path)) for path in self.paths]

    @functools.cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def name(self, index: int) -> str:
        """Return the path of an image; that of an image in a tar file begins with the path of the tar file."""
        part, number = self._place(index)
        return part.name(number)

    def open(self, index: int) -> BinaryIO:
        """Open an image."""
        part, number = self._place(index)
        return part.open(number)

    def _place(self, index: int) -> tuple[_File | _Collection, int]:
        found = bisect.bisect_right(self._ends, index)
        return self._parts[found], index - (self._ends[found - 1] if found else 0)


class _File:
    def __init__(self, path: Path):
        self.path = path

    def __len__(self) -> int:
        return 1

    def name(self, _: int) -> str:
        return str(self.path)

    def open(self, _: int) -> BinaryIO:
        return self.path.open("rb")


class _Collection:
    """Lists the images of a folder or a tar file."""

    def __init__(self, path: Path):
        self.reader = create_reader("", path, labelled=False)
        self.prefix = "" if path.is_dir() else f"{path}/"  # two tar files may share names
        self.open = self.reader.open

    def __len__(self) -> int:
        return len(self.reader)

    def name(self, number: int) -> str:
        return self.prefix + self.reader.filename(number, absolute=True)


def _part(path: Path) -> _File | _Collection:
    if path.is_dir() or path.suffix == ".tar":
        return _Collection(path)
    if path.is_file():
        return _File(path)
    raise DataError(f"{path}: no such image, folder of images or tar file")


class _Inputs:
    """Gives images as inputs of a net, for a `Loader`: ``inputs[i]`` is [C, H, W], or None for an unreadable image."""

    def __init__(self, files: ImageFiles, settings: InferenceSettings):
        self.files, self.mode, self.prepare = files, settings.mode, settings.transform()
        self.shape = settings.input_size
        self.broken: dict[str, str] = {}  # path -> reason; those of a worker process come back with its batch

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | None]:
        try:
            with self.files.open(index) as file:
                return index, self.prepare(decode(file, mode=self.mode))
        except Exception as error:  # Pillow raises anything for a damaged image
            self.skip(self.files.name(index), " ".join(str(error).split()))
            return index, None

    def skip(self, path: str, reason: str) -> None:
        """Note an image that cannot be read; the main process logs it."""
        self.broken[path] = reason
        if paddle.io.get_worker_info() is None:
            _logger.warning("%s is left out: %s", path, reason)

    def collate(self, samples: Sequence[tuple[int, np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the images that can be read, [N, C, H, W], and their indices."""
        read = [(index, image) for index, image in samples if image is not None]
        images = np.stack([image for _, image in read]) if read else np.zeros((0, *self.shape), "float32")
        return images, np.array([index for index, _ in read], "int64")


def predict(
    backend: Backend,
    settings: InferenceSettings,
    images: ImageFiles | Sequence[str | Path],
    topk: int = 5,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[list[Guess]]:
    """Yield the ``topk`` likeliest classes of every image, the likeliest first.

    An image that cannot be read is left out, with a warning.

    Args:
        backend: what computes logits.
        settings: how images become its input, and the names of the classes.
        images: image files, folders of images and tar files.
        topk: number of classes of each image.
        batch_size: number of images that the backend takes at once.
        workers: processes that read the next images while the backend computes.

    Raises:
        DataError: a path does not exist, or no image can be read.
        ConfigError: the settings name another number of classes than the net has.
    """
    files = images if isinstance(images, ImageFiles) else ImageFiles(images)
    inputs, found = _Inputs(files, settings), False
    loader = Loader(
        inputs,
        BatchPlan(len(files), batch_size, is_training=False),
        inputs.collate,
        workers if len(files) > batch_size else 0,  # a single batch has nothing to overlap with
        batch_bytes=4 * batch_size * math.prod(settings.input_size),
    )
    for _, batch, indices in loader.batches():
        if not len(indices):
            continue
        found = True
        logits = backend(batch)
        if logits.shape[1] != len(settings.class_names):
            raise ConfigError(f"the net has {logits.shape[1]} classes, its settings name {len(settings.class_names)}")
        for index, classes in zip(indices.tolist(), likeliest(logits, topk)):
            path, ranked = files.name(index), enumerate(classes, start=1)
            yield [Guess(path, rank, i, settings.class_names[i], share) for rank, (i, share) in ranked]
    if not found:
        raise DataError(f"no image could be read in {', '.join(map(str, files.paths))}")


def check_results_file(path: Path) -> None:
    """Raise ConfigError for a file of results that is not named after a format, or that belongs to a trained net."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"--output {path}: the name must end with {' or '.join(FORMATS)}")
    is_note = path.suffix == NOTE and path.with_suffix("").suffix in _WEIGHTS
    if path.is_file() and (path.name in _OF_NETS or is_note):
        raise ConfigError(f"--output {path} belongs to a trained net, and would be replaced; name another file")


def write_guesses(path: Path, guesses: Sequence[Sequence[Guess]]) -> None:
    """Write one row for each image and class as CSV, or a JSON object with a list of classes for each image."""
    if path.suffix == ".csv":
        write_csv(path, [guess._asdict() for image in guesses for guess in image])
        return
    keys = ("index", "name", "probability")
    content = {image[0].image: [{key: getattr(guess, key) for key in keys} for guess in image] for image in guesses}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
