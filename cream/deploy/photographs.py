"""Images to calibrate an INT8 net on, others to measure it on, and the accuracy that the net loses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cream.deploy.backends import Backend
from cream.deploy.settings import InferenceSettings
from pimm.data.pixels import decode
from pimm.data.readers import create_reader
from pimm.errors import DataError

_SYNSET = re.compile(r"n\d{8}\b")  # of ImageNet, before the words of a class
_SEED = 0  # of the choice of images
_BATCH = 16


class Photographs(NamedTuple):
    """Holds images [channels, height, width] as a net takes them, and their classes; None where a class is unknown."""

    images: list[np.ndarray]
    labels: list[int | None]


class Accuracy(NamedTuple):
    """Compares a net with its quantized form, in percent of the images.

    ``same`` is the share of the images that both give the same class. ``before`` and ``after`` are top-1 of the net and
    of its quantized form on the ``labelled`` images, or None without such images.
    """

    images: int
    same: float
    labelled: int
    before: float | None
    after: float | None

    def __str__(self) -> str:
        text = f"same class as the net on {self.same:.1f}% of {self.images} images"
        if self.labelled:
            text += f"; top-1 {self.before:.1f}% before, {self.after:.1f}% after, on {self.labelled} of known class"
        return text


def draw_photographs(folder: str | Path, settings: InferenceSettings, count: int) -> tuple[Photographs, Photographs]:
    """Return ``count`` images of a folder or a tar file to calibrate on, and up to as many others to measure on.

    The images are drawn at random, always the same ones. The class of an image is known where its folder has the name
    of a class of the net. Images that cannot be read are left out.

    Raises:
        DataError: there are no images.
    """
    reader = create_reader("", folder, labelled=False)
    prepare, classes = settings.transform(), _indices(settings.class_names)
    images, labels = [], []
    for number in np.random.default_rng(_SEED).permutation(len(reader)).tolist():
        if len(images) == 2 * count:
            break
        try:
            with reader.open(number) as file:
                images.append(prepare(decode(file, mode=settings.mode)))
        except Exception:  # Pillow raises anything for a damaged image
            continue
        labels.append(classes.get(Path(reader.filename(number)).parent.name))
    if not images:
        raise DataError(f"{folder}: no image could be read to calibrate on")
    return Photographs(images[:count], labels[:count]), Photographs(images[count:], labels[count:])


def _indices(class_names: Sequence[str]) -> Mapping[str, int]:
    """Return the index of a class by its name, and by the synset that its name begins with."""
    synsets = {name.partition(" ")[0]: index for index, name in enumerate(class_names) if _SYNSET.match(name)}
    return {**synsets, **{name: index for index, name in enumerate(class_names)}}


def measure_accuracy(net: Backend, quantized: Backend, photographs: Photographs) -> Accuracy:
    """Compare the classes that a net and its quantized form give to images."""
    batches = [photographs.images[start : start + _BATCH] for start in range(0, len(photographs.images), _BATCH)]
    before, after = (
        np.concatenate([backend(np.stack(batch)).argmax(1) for batch in batches]) for backend in (net, quantized)
    )
    labels = np.array([-1 if label is None else label for label in photographs.labels])
    known = labels >= 0
    right = [100 * float((found == labels)[known].mean()) if known.any() else None for found in (before, after)]
    return Accuracy(len(labels), 100 * float((before == after).mean()), int(known.sum()), *right)
