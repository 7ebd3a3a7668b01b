"""Erase random rectangles of normalised images (Zhong et al., arXiv 1708.04896)."""

from __future__ import annotations

import math
import random

import numpy as np

from pimm.data.device import to_device
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_FILLS = {
    "const": lambda shape: np.float32(0),
    "rand": lambda shape: np.random.standard_normal((shape[0], 1, 1)).astype(np.float32),
    "pixel": lambda shape: np.random.standard_normal(shape).astype(np.float32),
}


class RandomErasing:
    """Erase rectangles of images [channels, height, width] or batches of them, in place, after normalisation.

    Rectangles come from the stream of ``random``, values from that of ``numpy.random``; arrays are changed by numpy,
    Paddle tensors on their device.

    Args:
        probability: of erasing in an image at all.
        min_area: least erased part of the image's area, shared by all its rectangles.
        max_area: largest erased part.
        min_aspect: least height of a rectangle as a multiple of its width.
        max_aspect: largest such multiple; ``1 / min_aspect`` if None.
        mode: ``const`` fills with 0 (the mean colour), ``rand`` with one normal value a channel, ``pixel`` with one a
            pixel.
        min_count: least number of rectangles in an image.
        max_count: largest number; ``min_count`` if None.
        num_splits: leave the first of so many equal parts of the batch alone (AugMix's clean images).
        device: not used, as values are made where the images are; timm's scripts pass it.

    Raises:
        ConfigError: for an unknown mode.
    """

    def __init__(
        self,
        probability=0.5,
        min_area=0.02,
        max_area=1 / 3,
        min_aspect=0.3,
        max_aspect=None,
        mode="const",
        min_count=1,
        max_count=None,
        num_splits=0,
        device=None,
    ):
        mode = mode.lower() or "const"
        if mode not in _FILLS:
            raise ConfigError(
                f"random erasing: mode {mode!r:.80} is none of {', '.join(_FILLS)}{did_you_mean(mode, _FILLS)}"
            )
        self.probability = probability
        self.area = (min_area, max_area)
        self.log_aspect = (math.log(min_aspect), math.log(max_aspect or 1 / min_aspect))
        self.mode = mode
        self.count = (min_count, max_count or min_count)
        self.num_splits = num_splits

    def __call__(self, images):
        if isinstance(images, np.ndarray):
            for box, value in self._fills(images.shape):
                images[box] = value
            return images
        return self._erase_on_device(images)

    def _erase_on_device(self, images):
        """Draw all values on the host, and copy these values alone, all at once."""
        fills = list(self._fills(images.shape))
        if not fills:
            return images
        values = to_device(np.concatenate([value.ravel() for _, value in fills]), images.place)
        parts = values.astype(images.dtype).split([value.size for _, value in fills])
        for (box, value), part in zip(fills, parts):
            images[box] = part.reshape(value.shape)
        return images

    def _fills(self, shape):
        """Yield the index of each rectangle among images of this shape, and what fills the rectangle."""
        if len(shape) == 3:
            indices = [()]
        else:
            first = shape[0] // self.num_splits if self.num_splits > 1 else 0
            indices = [(index,) for index in range(first, shape[0])]
        for index in indices:
            for box in self._boxes(shape[-3:]):
                _, rows, columns = box
                size = (shape[-3], rows.stop - rows.start, columns.stop - columns.start)
                yield (*index, *box), _FILLS[self.mode](size)

    def _boxes(self, shape):
        """Yield the slices of each rectangle of one image; the draws are timm's, in timm's order."""
        if random.random() > self.probability:
            return
        _, height, width = shape
        count = self.count[0] if self.count[0] == self.count[1] else random.randint(*self.count)
        for _ in range(count):
            for _ in range(10):
                area = random.uniform(*self.area) * height * width / count
                aspect = math.exp(random.uniform(*self.log_aspect))
                h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if h < height and w < width:
                    top, left = random.randint(0, height - h), random.randint(0, width - w)
                    yield slice(None), slice(top, top + h), slice(left, left + w)
                    break

    def __repr__(self):
        return f"RandomErasing(p={self.probability}, mode={self.mode}, count={self.count})"
