"""The preprocessing of TensorFlow's EfficientNet and MnasNet code, as timm runs it, without TensorFlow.

The usual transforms differ: here the crop is cut before it is scaled, and scaling is that of TensorFlow 1, which
takes samples at ``output index * scale`` (no half-pixel centres) and does not average over skipped pixels. Files are
decoded by Pillow, whose inverse DCT is exact; TensorFlow's default is a fast one, off by a few grey levels.
"""

from __future__ import annotations

import io
import math
import random

import numpy as np

from pimm.data.pixels import convert, decode
from pimm.errors import ConfigError
from pimm.layers.helpers import to_pair

CROP_PADDING = 32  # pixels around the crop at 224
_TABLE_SIZE = 1024  # steps that bicubic weights are rounded to
_CUBIC = -0.75  # the free parameter of the cubic kernel


def _taps(length, size):
    """Return the first source index of every output pixel along one side, and the offset from it, each [size]."""
    positions = np.arange(size, dtype=np.float32) * np.float32(np.float32(length) / np.float32(size))
    first = np.floor(positions).astype(np.int64)
    return first, positions - first.astype(np.float32)


def _cubic_weights(offset):
    """Return the weights [size, 4] of the pixels -1, 0, 1 and 2 from the first."""
    near = (np.rint(offset * _TABLE_SIZE) / _TABLE_SIZE)[:, None] + np.float32((1, 0, -1, -2))
    x, a = abs(near), _CUBIC
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, outer).astype(np.float32)


def _linear_weights(offset):
    """Return the weights [size, 2] of the pixels 0 and 1 from the first."""
    return np.stack([1 - offset, offset], axis=1)


_KERNELS = {"bicubic": (_cubic_weights, -1), "bilinear": (_linear_weights, 0)}  # and where its taps begin


def resize(pixels, size, interpolation):
    """Scale [height, width, channels] to ``size`` (height, width) in float32, as ``tf.compat.v1.image.resize``."""
    weigh, begin = _KERNELS[interpolation]
    for axis in (1, 0):
        length = pixels.shape[axis]
        first, offset = _taps(length, size[axis])
        weights = weigh(offset)
        taps = np.clip(first[:, None] + begin + np.arange(weights.shape[1]), 0, length - 1)
        pixels = np.moveaxis(pixels, axis, 0)[taps]  # [size, taps, ...]
        pixels = np.moveaxis(np.einsum("st...,st->s...", pixels.astype(np.float32), weights), 0, axis)
    return pixels


def center_crop(height, width, size):
    """Return (top, left, height, width) of the square that evaluation looks at, of at least one pixel."""
    side = max(1, int(np.float32(size / (size + CROP_PADDING)) * np.float32(min(height, width))))
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side


def random_crop(height, width, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), attempts=10):
    """Draw (top, left, height, width) as ``tf.image.sample_distorted_bounding_box`` does; None if no part fits.

    Args:
        height: of the image.
        width: of the image.
        area: range of the part's share of the image's area; of the heights that keep it, each is as likely.
        aspect: range of the part's width to its height, drawn evenly, not by the logarithm.
        attempts: number of draws.
    """
    for _ in range(attempts):
        ratio = random.uniform(*aspect)
        lowest, highest = (round(math.sqrt(part * height * width / ratio)) for part in area)
        if round(highest * ratio) > width:
            highest = int((width + 0.5 - 1e-7) / ratio)
        highest = min(highest, height)
        h = random.randint(min(lowest, highest), highest)
        w = round(h * ratio)
        if 0 < h <= height and 0 < w <= width and area[0] <= h * w / (height * width) <= area[1]:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    return None


class TfPreprocessTransform:
    """Turn a file's bytes, or a decoded image, into a uint8 array [3, size, size].

    Training takes a random part and mirrors every second image; evaluation takes the central square of
    ``size / (size + 32)`` of the short side.

    Args:
        is_training: draw a random part.
        size: side of the result, or (height, width) of a square.
        interpolation: ``bicubic``; anything else is ``bilinear``, as in timm.
    """

    def __init__(self, is_training=False, size=224, interpolation="bicubic"):
        height, width = to_pair(size)
        if height != width:
            raise ConfigError(f"TensorFlow's preprocessing makes square images, not {height}x{width}")
        self.is_training = is_training
        self.size = height
        self.interpolation = "bicubic" if interpolation == "bicubic" else "bilinear"

    def __call__(self, image):
        image = decode(io.BytesIO(image)) if isinstance(image, bytes) else convert(image)
        pixels = np.asarray(image)
        crop = random_crop(*pixels.shape[:2]) if self.is_training else None
        top, left, height, width = crop or center_crop(*pixels.shape[:2], self.size)
        pixels = resize(pixels[top : top + height, left : left + width], (self.size, self.size), self.interpolation)
        if self.is_training and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.rint(pixels).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)

    def __repr__(self):
        return (
            f"TfPreprocessTransform(is_training={self.is_training}, size={self.size}, "
            f"interpolation={self.interpolation})"
        )
