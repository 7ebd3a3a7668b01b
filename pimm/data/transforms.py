"""Transforms of one PIL image, with torchvision's behaviour; random ones draw from the stream of ``random``."""

from __future__ import annotations

import difflib
import math
import random

import numpy as np
import paddle
from PIL import Image, ImageEnhance, ImageOps

from pimm.errors import ConfigError

INTERPOLATIONS = {
    "nearest": Image.NEAREST,
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
    "hamming": Image.HAMMING,
    "box": Image.BOX,
}
RANDOM_INTERPOLATION = (Image.BILINEAR, Image.BICUBIC)


def pil_interpolation(name):
    """Pillow's filter of that name."""
    if name not in INTERPOLATIONS:
        near = difflib.get_close_matches(str(name), INTERPOLATIONS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"interpolation {name!r} is none of {', '.join(INTERPOLATIONS)}, random{hint}")
    return INTERPOLATIONS[name]


def pair(size):
    """(height, width) of a size given as one number or as two."""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


class Compose:
    """One transform after the other."""

    def __init__(self, transforms):
        self.transforms = list(transforms)

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self):
        return "Compose(\n" + "".join(f"    {transform}\n" for transform in self.transforms) + ")"


class ToNumpy:
    """PIL image to uint8 array [channels, height, width]."""

    def __call__(self, image):
        array = np.array(image, dtype=np.uint8)
        if array.ndim == 2:
            array = array[:, :, None]
        return array.transpose(2, 0, 1)


class ToTensor:
    """PIL image, or array [channels, height, width], to a Paddle tensor on the CPU; values are kept as they are."""

    def __init__(self, dtype="float32"):
        self.dtype = dtype
        self.to_numpy = ToNumpy()

    def __call__(self, image):
        array = image if isinstance(image, np.ndarray) else self.to_numpy(image)
        return paddle.to_tensor(array.astype(self.dtype, copy=False), place=paddle.CPUPlace())


class Normalize:
    """Pixels of 0 to 255, channels third from last, to ``(pixel / 255 - mean) / std`` in float32 (or ``dtype``).

    Takes one image or a batch, as uint8 array (gives an array) or as Paddle tensor (computes on its device).
    """

    def __init__(self, mean, std, dtype="float32"):
        self.dtype = dtype
        self._tensors = {}
        self.mean = np.asarray(mean, np.float32).reshape(-1, 1, 1) * 255
        self.std = np.asarray(std, np.float32).reshape(-1, 1, 1) * 255

    def __call__(self, images):
        if isinstance(images, np.ndarray):
            images = images - self.mean
            images /= self.std
            return images.astype(self.dtype, copy=False)
        mean, std = self._on_device(images.place)
        return ((images.astype("float32") - mean) / std).astype(self.dtype)

    def _on_device(self, place):
        if str(place) not in self._tensors:  # once, for copying to a device waits for it
            self._tensors[str(place)] = [paddle.to_tensor(value, place=place) for value in (self.mean, self.std)]
        return self._tensors[str(place)]


class Resize:
    """Scale the short side to ``size``, keeping proportions; or both sides, if ``size`` is (height, width)."""

    def __init__(self, size, interpolation="bilinear"):
        self.size = size
        self.interpolation = pil_interpolation(interpolation)

    def __call__(self, image):
        size = self._target(*image.size)
        return image if size == image.size else image.resize(size, self.interpolation)

    def _target(self, width, height):
        if isinstance(self.size, (tuple, list)):
            return self.size[1], self.size[0]
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def __repr__(self):
        return f"Resize(size={self.size}, interpolation={Image.Resampling(self.interpolation).name.lower()})"


class CenterCrop:
    """Cut ``size`` out of the middle; an image that is too small is padded with black."""

    def __init__(self, size):
        self.size = pair(size)

    def __call__(self, image):
        height, width = self.size
        if image.width < width or image.height < height:
            extra_w, extra_h = max(width - image.width, 0), max(height - image.height, 0)
            image = ImageOps.expand(image, (extra_w // 2, extra_h // 2, (extra_w + 1) // 2, (extra_h + 1) // 2))
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def __repr__(self):
        return f"CenterCrop(size={self.size})"


class RandomFlip:
    """Mirror with probability ``p``."""

    method = None

    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, image):
        return image.transpose(self.method) if random.random() < self.p else image

    def __repr__(self):
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(RandomFlip):
    """Swap left and right with probability ``p``."""

    method = Image.FLIP_LEFT_RIGHT


class RandomVerticalFlip(RandomFlip):
    """Swap top and bottom with probability ``p``."""

    method = Image.FLIP_TOP_BOTTOM


def shift_hue(image, factor):
    """Turn the hue of an RGB image by ``factor`` of a full circle, -0.5 to 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(factor * 255) % 256)  # wraps around
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def _enhancer(kind):
    return lambda image, factor: kind(image).enhance(factor)


class ColorJitter:
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    Each argument is a number v, for factors in [max(0, 1 - v), 1 + v] (hue: [-v, v]), or the range itself. 0 leaves
    the property alone.
    """

    _ADJUST = {
        "brightness": _enhancer(ImageEnhance.Brightness),
        "contrast": _enhancer(ImageEnhance.Contrast),
        "saturation": _enhancer(ImageEnhance.Color),
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


class RandomResizedCropAndInterpolation:
    """Cut out a random part (``scale`` of the area, ``ratio`` of width to height) and resize it, as Inception does.

    ``interpolation`` may be ``random``: bilinear or bicubic for each image. After ten parts that do not fit into the
    image, the largest central one whose shape is inside ``ratio`` is taken.
    """

    def __init__(self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bilinear"):
        self.size = pair(size)
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ConfigError(f"random crop: {name} ({low}, {high}) is not a range of positive numbers (low, high)")
        self.interpolation = RANDOM_INTERPOLATION if interpolation == "random" else (pil_interpolation(interpolation),)

    @staticmethod
    def get_params(image, scale, ratio):
        """Draw (top, left, height, width) of the part."""
        width, height = image.size
        log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
        for _ in range(10):
            area = random.uniform(*scale) * width * height
            aspect = math.exp(random.uniform(*log_ratio))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w <= width and h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = min(width, round(height * max(ratio))), min(height, round(width / min(ratio)))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image):
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        interpolation = random.choice(self.interpolation) if len(self.interpolation) > 1 else self.interpolation[0]
        part = image.crop((left, top, left + width, top + height))
        return part.resize((self.size[1], self.size[0]), interpolation)

    def __repr__(self):
        names = "/".join(Image.Resampling(choice).name.lower() for choice in self.interpolation)
        return (
            f"RandomResizedCropAndInterpolation(size={self.size}, scale={self.scale}, ratio={self.ratio}, "
            f"interpolation={names})"
        )
