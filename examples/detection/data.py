"""Canvases with pasted photographs: images whose boxes are known, drawn from a seed."""

from typing import NamedTuple

import numpy as np
import paddle
from PIL import Image

from examples.detection.boxes import areas, intersections
from pimm.data import create_dataset
from pimm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

OBJECTS = (4, 9)  # least and most photographs on a canvas
SIDES = (0.2, 0.4)  # of a photograph, as shares of the canvas
ASPECTS = (0.75, 4 / 3)  # width over height
MOST_OVERLAP = 0.2  # of the smaller one of two photographs
ATTEMPTS = 20  # to find a place for a photograph
BACKGROUND_PIXELS = 6  # of a photograph become the whole background


class Canvas(NamedTuple):
    """An image [size, size, 3] of uint8, the boxes [G, 4] of float32 in it, and their classes [G] of int64."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class Photos:
    """Reads the photographs of some classes from ``DIR/SPLIT/CLASS/NAME``.

    Args:
        folder: DIR.
        split: SPLIT, such as ``train`` or ``val``.
        classes: names of the classes, which are numbered in this order.

    Raises:
        DataError: there are no photographs.
        ConfigError: there is no such class.
    """

    def __init__(self, folder, split, classes):
        self.dataset = create_dataset("", root=folder, split=split)
        known = self.dataset.class_to_idx
        for name in classes:
            if name not in known:
                raise ConfigError(f"{self.dataset.root}: there is no class {name:.80}{did_you_mean(name, known)}")
        numbers = {known[name]: number for number, name in enumerate(classes)}
        self.chosen = [(index, numbers[c]) for index, (_, c) in enumerate(self.dataset.samples) if c in numbers]

    def draw(self, rng):
        """Return a photograph at random, as a PIL image, and the number of its class."""
        index, number = self.chosen[rng.integers(len(self.chosen))]
        return self.dataset[index][0], number


def draw_canvas(photos, size, rng):
    """Paste photographs of random sides, shapes and places on a blurred background.

    Photographs for which no place with little overlap is found are left out; the first one always has a place.

    Args:
        photos: where the photographs come from.
        size: height and width of the canvas in pixels.
        rng: numpy's random generator, which decides everything.
    """
    canvas = _background(photos.draw(rng)[0], size, rng)
    boxes, classes = np.zeros([0, 4], "float32"), []
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1)):
        photo, number = photos.draw(rng)
        if rng.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        box = _free_place(boxes, size, rng)
        if box is None:
            continue
        x1, y1, x2, y2 = box.tolist()
        canvas.paste(photo.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR), (x1, y1))
        boxes = np.concatenate([boxes, box[None].astype("float32")])
        classes.append(number)
    return Canvas(np.asarray(canvas), boxes, np.asarray(classes, "int64"))


def _background(photo, size, rng):
    left, top = (int(rng.integers(side - BACKGROUND_PIXELS + 1)) for side in photo.size)
    part = photo.crop((left, top, left + BACKGROUND_PIXELS, top + BACKGROUND_PIXELS))
    return part.resize((size, size), Image.Resampling.BICUBIC)


def _free_place(boxes, size, rng):
    """Return a random box [4] of whole numbers that hides little of the other boxes, or None."""
    for _ in range(ATTEMPTS):
        side, root = size * rng.uniform(*SIDES), np.sqrt(np.exp(rng.uniform(*np.log(ASPECTS))))
        sides = np.rint([side * root, side / root]).astype(int)
        corner = rng.integers(size - sides + 1)
        box = np.concatenate([corner, corner + sides])
        smaller = np.minimum(areas(boxes), sides.prod())
        if (intersections(boxes, box[None])[:, 0] <= MOST_OVERLAP * smaller).all():
            return box
    return None


def normalize(images):
    """Return images [N, H, W, 3] of uint8 as a net's input: a tensor [N, 3, H, W] with mean 0 and deviation 1."""
    mean, std = np.asarray([IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD], "float32") * 255
    return paddle.to_tensor(((images - mean) / std).transpose(0, 3, 1, 2).copy())


class CanvasLoader:
    """Gives batches of canvases: a tensor [N, 3, size, size] and a list of N canvases.

    A canvas depends on the seed, the epoch and its place in the epoch alone, so that a resumed training sees the same
    canvases as an uninterrupted one.

    Args:
        photos: where the photographs come from.
        size: height and width of a canvas in pixels.
        batch_size: canvases in a batch; the last batch may have fewer.
        count: canvases in an epoch.
        seed: of the random streams.
    """

    def __init__(self, photos, size, batch_size, count, seed):
        self.photos, self.size, self.batch_size, self.count, self.seed = photos, size, batch_size, count, seed
        self.epoch = self.start_batch = 0

    def __len__(self):
        return -(-self.count // self.batch_size)

    def set_epoch(self, epoch, start_batch=0):
        """Choose the epoch of the next iteration, and the batch that it begins with."""
        self.epoch, self.start_batch = epoch, start_batch

    def __iter__(self):
        for first in range(self.start_batch * self.batch_size, self.count, self.batch_size):
            canvases = [self.canvas(index) for index in range(first, min(first + self.batch_size, self.count))]
            yield normalize(np.stack([canvas.image for canvas in canvases])), canvases

    def canvas(self, index):
        """Return the canvas at a place of the epoch."""
        return draw_canvas(self.photos, self.size, np.random.default_rng([self.seed, self.epoch, index]))
