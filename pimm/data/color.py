"""Colours and sharpness of one PIL image, with torchvision's pixels; all draws come from the stream of ``random``."""

from __future__ import annotations

import functools
import math
import random

import numpy as np
from PIL import Image, ImageEnhance

from pimm.errors import ConfigError


def shift_brightness(image, factor):
    """Blend with black; 1 leaves the image as it is."""
    return Image.blend(Image.new(image.mode, image.size), image, factor)


def shift_contrast(image, factor):
    """Blend with the mean grey, as Pillow's ``ImageEnhance.Contrast`` does with more conversions."""
    counts = image.convert("L").histogram()
    mean = int(np.dot(counts, np.arange(256)) / (image.width * image.height) + 0.5)
    return Image.blend(Image.new(image.mode, image.size, (mean,) * len(image.getbands())), image, factor)


def shift_saturation(image, factor):
    """Blend with the grey image."""
    return ImageEnhance.Color(image).enhance(factor)


def shift_hue(image, factor):
    """Turn the hue of an image by ``factor`` of a full circle, -0.5 to 0.5; grey has no hue and stays as it is."""
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(factor * 255) % 256)  # wraps around
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


class ColorJitter:
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    Each argument is a number v, for factors in [max(0, 1 - v), 1 + v], or the range itself; 0 leaves the property
    alone.

    Args:
        brightness: see above.
        contrast: see above.
        saturation: see above.
        hue: v stands for [-v, v].

    Raises:
        ConfigError: for a range outside that of the property.
    """

    _ADJUST = {
        "brightness": shift_brightness,
        "contrast": shift_contrast,
        "saturation": shift_saturation,
        "hue": shift_hue,
    }

    def __init__(self, brightness=0, contrast=0, saturation=0, hue=0):
        self.ranges = {
            "brightness": self._range("brightness", brightness, 1, 0, math.inf),
            "contrast": self._range("contrast", contrast, 1, 0, math.inf),
            "saturation": self._range("saturation", saturation, 1, 0, math.inf),
            "hue": self._range("hue", hue, 0, -0.5, 0.5),
        }

    @staticmethod
    def _range(name, value, neutral, lowest, highest):
        if isinstance(value, (tuple, list)):
            low, high = value
        else:
            low, high = neutral - value, neutral + value
            low = max(low, lowest) if neutral else low
        if not lowest <= low <= high <= highest:
            raise ConfigError(f"colour jitter: {name} {value} is outside [{lowest}, {highest}]")
        return (low, high)

    def __call__(self, image):
        for name in random.sample(list(self.ranges), len(self.ranges)):
            low, high = self.ranges[name]
            if low != high:
                image = self._ADJUST[name](image, random.uniform(low, high))
        return image

    def __repr__(self):
        return f"ColorJitter({', '.join(f'{name}={limits}' for name, limits in self.ranges.items())})"


class RandomGrayscale:
    """Make the image grey, in all its channels, with probability ``p``."""

    def __init__(self, p=0.1):
        self.p = p

    def __call__(self, image):
        return image.convert("L").convert(image.mode) if random.random() < self.p else image

    def __repr__(self):
        return f"RandomGrayscale(p={self.p})"


@functools.lru_cache(maxsize=32)
def _reflections(length, kernel_size):
    """Return the index of the pixel under each tap of the kernel [length, kernel_size]; borders mirror the image."""
    positions = np.arange(length)[:, None] + np.arange(kernel_size) - kernel_size // 2
    return length - 1 - abs(length - 1 - abs(positions))


def _blur_matrix(length, weights):
    """Return the matrix [length, length] that blurs a column of pixels."""
    matrix = np.zeros((length, length), np.float32)
    taps = _reflections(length, len(weights))
    np.add.at(matrix, (np.arange(length)[:, None], taps), weights)
    return matrix


class GaussianBlur:
    """Blur by a Gaussian of a random width; the image's borders are mirrored.

    Args:
        kernel_size: pixels at which the Gaussian is cut off, an odd number.
        sigma: range of the width, in pixels.

    Raises:
        ConfigError: for an even kernel, and for images that are not larger than half of the kernel.
    """

    def __init__(self, kernel_size, sigma=(0.1, 2.0)):
        if kernel_size % 2 != 1:
            raise ConfigError(f"a Gaussian's kernel has a pixel in the middle: {kernel_size} is not odd")
        self.kernel_size = kernel_size
        self.sigma = tuple(sigma)

    def __call__(self, image):
        return self.blur(image, random.uniform(*self.sigma))

    def blur(self, image, sigma):
        """Blur by a Gaussian of the width ``sigma``."""
        if min(image.size) <= self.kernel_size // 2:
            raise ConfigError(
                f"a blur of {self.kernel_size} pixels needs images of more than {self.kernel_size // 2}, "
                f"not {image.width}x{image.height}"
            )
        offsets = np.arange(self.kernel_size, dtype=np.float32) - self.kernel_size // 2
        weights = np.exp(-0.5 * (offsets / np.float32(sigma)) ** 2)
        weights /= weights.sum()
        pixels = np.asarray(image, np.float32)
        rows = np.tensordot(_blur_matrix(image.height, weights), pixels, 1)  # [height, width, channels]
        columns = np.tensordot(_blur_matrix(image.width, weights), rows, (1, 1))  # [width, height, channels]
        return Image.fromarray(np.rint(columns).astype(np.uint8).swapaxes(0, 1).copy())

    def __repr__(self):
        return f"GaussianBlur(kernel_size={self.kernel_size}, sigma={self.sigma})"
