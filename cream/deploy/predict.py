"""The likeliest classes of images: files, folders of images, and tar files."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cream.convert.verify import likeliest
from cream.deploy.backends import PADDLE_FILES, Backend
from cream.deploy.settings import InferenceSettings
from pimm.data.pixels import decode
from pimm.data.readers import create_reader
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


def predict(
    backend: Backend, settings: InferenceSettings, images: Sequence[str | Path], topk: int = 5, batch_size: int = 32
) -> Iterator[list[Guess]]:
    """Yield the ``topk`` likeliest classes of every image, the likeliest first.

    An image that cannot be read is left out, with a warning.

    Raises:
        DataError: a path does not exist, or no image can be read.
        ConfigError: the settings name another number of classes than the net has.
    """
    prepare, found = settings.transform(), False
    for batch in batches(read_images(images, settings.mode), batch_size):
        found = True
        logits = backend(np.stack([prepare(image) for _, image in batch]))
        if logits.shape[1] != len(settings.class_names):
            raise ConfigError(f"the net has {logits.shape[1]} classes, its settings name {len(settings.class_names)}")
        for (path, _), classes in zip(batch, likeliest(logits, topk)):
            ranked = enumerate(classes, start=1)
            yield [Guess(path, rank, i, settings.class_names[i], share) for rank, (i, share) in ranked]
    if not found:
        raise DataError(f"no image could be read in {', '.join(map(str, images))}")


def batches(images: Iterator, size: int) -> Iterator[list]:
    """Yield lists of ``size`` images, the last of which may be shorter."""
    while batch := list(itertools.islice(images, size)):
        yield batch


def read_images(paths: Sequence[str | Path], mode: str) -> Iterator[tuple[str, Image.Image]]:
    """Yield the path and the pixels, in a mode of Pillow's, of every image that can be read."""
    for path, file in open_images(paths):
        try:
            with file:
                image = decode(file, mode=mode)
        except Exception as error:  # Pillow raises anything for a damaged image
            _logger.warning("%s is left out: %s", path, " ".join(str(error).split()))
        else:
            yield path, image


def open_images(paths: Sequence[str | Path]) -> Iterator[tuple[str, object]]:
    """Yield the path and the open file of every image.

    Raises:
        DataError: a path does not exist, or a folder or tar file has no images.
    """
    for path in map(Path, paths):
        if path.is_dir() or path.suffix == ".tar":
            reader = create_reader("", path, labelled=False)
            for number in range(len(reader)):
                name = reader.filename(number, absolute=True)
                yield name if path.is_dir() else f"{path}/{name}", reader.open(number)  # two tar files may share names
        elif path.is_file():
            yield str(path), path.open("rb")
        else:
            raise DataError(f"{path}: no such image, folder of images or tar file")


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
