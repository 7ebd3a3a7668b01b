"""Geometry of one PIL image, with torchvision's and timm's pixels; random transforms draw from ``random``."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageOps

from pimm.data.arrays import MaybePILToTensor, MaybeToTensor, Normalize, ToNumpy, ToTensor
from pimm.data.channels import fill_for
from pimm.data.jpeg import DecodedJpeg, scales_columns_first
from pimm.errors import ConfigError, DataError
from pimm.layers.helpers import to_pair
from pimm.messages import did_you_mean

__all__ = [
    "INTERPOLATIONS",
    "RANDOM_INTERPOLATION",
    "CenterCrop",
    "CenterCropOrPad",
    "Compose",
    "MaybePILToTensor",
    "MaybeToTensor",
    "Normalize",
    "RandomApply",
    "RandomCropOrPad",
    "RandomFlip",
    "RandomHorizontalFlip",
    "RandomPad",
    "RandomResizedCropAndInterpolation",
    "RandomVerticalFlip",
    "Resize",
    "ResizeCenterCrop",
    "ResizeKeepRatio",
    "ToNumpy",
    "ToTensor",
    "TrimBorder",
    "center_crop_or_pad",
    "crop_or_pad",
    "interp_mode_to_str",
    "str_to_pil_interp",
]

INTERPOLATIONS = {
    "nearest": Image.NEAREST,
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
    "hamming": Image.HAMMING,
    "box": Image.BOX,
}
RANDOM_INTERPOLATION = (Image.BILINEAR, Image.BICUBIC)


def str_to_pil_interp(mode_str):
    """Return Pillow's filter of that name; ConfigError for an unknown one."""
    if mode_str not in INTERPOLATIONS:
        hint = did_you_mean(mode_str, INTERPOLATIONS)
        raise ConfigError(f"interpolation {mode_str!r:.80} is none of {', '.join(INTERPOLATIONS)}, random{hint}")
    return INTERPOLATIONS[mode_str]


def interp_mode_to_str(mode):
    """Return the name of one of Pillow's filters."""
    return Image.Resampling(mode).name.lower()


class Compose:
    """Apply one transform after the other."""

    def __init__(self, transforms):
        self.transforms = list(transforms)

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self):
        return "Compose(\n" + "".join(f"    {transform}\n" for transform in self.transforms) + ")"


class RandomApply:
    """Apply all of ``transforms`` with probability ``p``, or none of them."""

    def __init__(self, transforms, p=0.5):
        self.transforms = Compose(transforms)
        self.p = p

    def __call__(self, image):
        return self.transforms(image) if random.random() < self.p else image

    def __repr__(self):
        return f"RandomApply({', '.join(map(str, self.transforms.transforms))}, p={self.p})"


class Resize:
    """Scale the short side to ``size``, keeping proportions; or both sides, if ``size`` is (height, width).

    Args:
        size: pixels.
        interpolation: name of one of Pillow's filters.
    """

    def __init__(self, size, interpolation="bilinear"):
        self.size = size
        self.interpolation = str_to_pil_interp(interpolation)

    def __call__(self, image):
        return image.resize(self.target(*image.size), self.interpolation)

    def target(self, width, height):
        """Return the (width, height) to which an image of this width and height is scaled."""
        if isinstance(self.size, (tuple, list)):
            return self.size[1], self.size[0]
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def __repr__(self):
        return f"Resize(size={self.size}, interpolation={interp_mode_to_str(self.interpolation)})"


def crop_or_pad(image, top, left, height, width, fill=0, padding_mode="constant"):
    """Cut out a rectangle that may reach over the image's borders.

    Args:
        image: PIL image.
        top: pixels from the image's upper border to that of the rectangle, negative above the image.
        left: the same from the left border.
        height: of the rectangle.
        width: of the rectangle.
        fill: colour for ``constant``: a number, or one for each channel, see ``fill_for``.
        padding_mode: that of ``numpy.pad``.
    """
    beyond = (-left, -top, left + width - image.width, top + height - image.height)
    if max(beyond) > 0:
        before_x, before_y, after_x, after_y = (max(pixels, 0) for pixels in beyond)
        image = _pad(image, (before_x, before_y, after_x, after_y), fill, padding_mode)
        top, left = top + before_y, left + before_x
    return image.crop((left, top, left + width, top + height))


def _pad(image, border, fill, padding_mode):
    """Add ``border`` pixels: at the left, the top, the right and the bottom."""
    if padding_mode == "constant":
        return ImageOps.expand(image, border, fill_for(image, fill))
    left, top, right, bottom = border
    sides = [(top, bottom), (left, right), (0, 0)][: np.ndim(image)]
    return Image.fromarray(np.pad(image, sides, mode=padding_mode))


def center_crop_or_pad(image, output_size, fill=0, padding_mode="constant"):
    """Cut ``output_size`` out of the middle; pad an image that is too small. The arguments are ``crop_or_pad``'s."""
    height, width = to_pair(output_size)
    top, left = _middle(image.height, height), _middle(image.width, width)
    return crop_or_pad(image, top, left, height, width, fill, padding_mode)


def _middle(length, part):
    """Return where a part in the middle begins, rounded as by torchvision, which rounds crops unlike pads."""
    return round((length - part) / 2) if part <= length else -((part - length) // 2)


class CenterCropOrPad:
    """Cut ``size`` out of the middle, or pad to ``size``; the arguments are ``center_crop_or_pad``'s."""

    def __init__(self, size, fill=0, padding_mode="constant"):
        self.size = to_pair(size)
        self.fill = fill
        self.padding_mode = padding_mode

    def __call__(self, image):
        return center_crop_or_pad(image, self.size, self.fill, self.padding_mode)

    def __repr__(self):
        return f"{type(self).__name__}(size={self.size})"


class CenterCrop(CenterCropOrPad):
    """Cut ``size`` out of the middle; pad an image that is too small with black."""

    def __init__(self, size):
        super().__init__(size)


class RandomCropOrPad(CenterCropOrPad):
    """Cut ``size`` out of the image, or pad it to ``size``, anywhere."""

    @staticmethod
    def get_params(image, size):
        """Draw (top, left) of the part; negative where the image is too small."""
        spare_y, spare_x = image.height - size[0], image.width - size[1]
        top = int(math.copysign(random.randint(0, abs(spare_y)), spare_y))
        left = int(math.copysign(random.randint(0, abs(spare_x)), spare_x))
        return top, left

    def __call__(self, image):
        top, left = self.get_params(image, self.size)
        return crop_or_pad(image, top, left, *self.size, self.fill, self.padding_mode)


class RandomPaddedCrop(CenterCropOrPad):
    """Add ``padding`` black pixels at every side of an image of at least ``size``, and cut ``size`` out anywhere."""

    def __init__(self, size, padding):
        super().__init__(size)
        self.padding = padding

    def __call__(self, image):
        spare = (image.height - self.size[0], image.width - self.size[1])
        top, left = (random.randint(-self.padding, pixels + self.padding) for pixels in spare)
        return crop_or_pad(image, top, left, *self.size)


class RandomPad:
    """Pad an image that is smaller than ``input_size`` to that size, leaving the image anywhere inside."""

    def __init__(self, input_size, fill=0):
        self.input_size = to_pair(input_size)
        self.fill = fill

    @staticmethod
    def get_params(image, input_size):
        """Draw the pixels to add at the left, the top, the right and the bottom."""
        spare_x, spare_y = max(input_size[1] - image.width, 0), max(input_size[0] - image.height, 0)
        left, top = random.randint(0, spare_x), random.randint(0, spare_y)
        return left, top, spare_x - left, spare_y - top

    def __call__(self, image):
        return _pad(image, self.get_params(image, self.input_size), self.fill, "constant")


class TrimBorder:
    """Cut ``border_size`` pixels off every side; DataError for an image of which nothing is left."""

    def __init__(self, border_size):
        self.border_size = border_size

    def __call__(self, image):
        border = self.border_size
        if 2 * border >= min(image.size):
            raise DataError(f"a border of {border} pixels leaves nothing of an image of {image.width}x{image.height}")
        return image.crop((border, border, image.width - border, image.height - border))

    def __repr__(self):
        return f"TrimBorder(border_size={self.border_size})"


class ResizeCenterCrop:
    """Apply ``Resize``, then ``CenterCrop``, to the same pixels in less time.

    Pillow scales rows first, then columns. Between the two, what lies left and right of the crop can go. Newer
    versions scale columns first where that drops more than twice as many pixels of the height as of the width.

    Args:
        resize: ``Resize``.
        crop: ``CenterCropOrPad``.
    """

    def __init__(self, resize, crop):
        self.resize = resize
        self.crop = crop

    def __call__(self, image):
        width, height = self.resize.target(*image.size)
        crop_height, crop_width = self.crop.size
        if isinstance(image, DecodedJpeg) and crop_width <= width and crop_height <= height:
            part = (_middle(width, crop_width), _middle(height, crop_height), crop_width, crop_height)
            return image.resize((width, height), self.resize.interpolation, part)
        if width > crop_width and not scales_columns_first(image.size, (width, height)):
            rows = image.resize((width, image.height), self.resize.interpolation)
            rows = center_crop_or_pad(rows, (image.height, crop_width))
            image = rows.resize((rows.width, height), self.resize.interpolation)
        else:
            image = self.resize(image)
        return self.crop(image)

    def __repr__(self):
        return f"ResizeCenterCrop({self.resize}, {self.crop})"


class _RandomInterpolation:
    """Choose the filter for each image: the one named, or for ``random`` one of two."""

    def __init__(self, interpolation):
        self.interpolation = RANDOM_INTERPOLATION if interpolation == "random" else (str_to_pil_interp(interpolation),)

    def draw_interpolation(self):
        return random.choice(self.interpolation) if len(self.interpolation) > 1 else self.interpolation[0]

    def interpolation_names(self):
        return "/".join(map(interp_mode_to_str, self.interpolation))


class RandomResizedCropAndInterpolation(_RandomInterpolation):
    """Cut out a random part and resize it, as Inception does.

    After ten parts that do not fit into the image, the largest central part whose shape is inside ``ratio`` is taken.

    Args:
        size: side, or (height, width), in pixels.
        scale: range of the part's share of the image's area.
        ratio: range of the part's width to its height.
        interpolation: name of one of Pillow's filters; or ``random``, bilinear or bicubic for each image.
    """

    def __init__(self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bilinear"):
        super().__init__(interpolation)
        self.size = to_pair(size)
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ConfigError(f"random crop: {name} ({low}, {high}) is not a range of positive numbers (low, high)")

    @staticmethod
    def get_params(image, scale, ratio):
        """Draw (top, left, height, width) of the part."""
        width, height = image.size
        log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
        for _ in range(10):
            area = random.uniform(*scale) * width * height
            aspect = math.exp(random.uniform(*log_ratio))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = min(width, max(1, round(height * max(ratio)))), min(height, max(1, round(width / min(ratio))))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image):
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        interpolation = self.draw_interpolation()
        part = image.crop((left, top, left + width, top + height))
        return part.resize((self.size[1], self.size[0]), interpolation)

    def __repr__(self):
        return (
            f"RandomResizedCropAndInterpolation(size={self.size}, scale={self.scale}, ratio={self.ratio}, "
            f"interpolation={self.interpolation_names()})"
        )


class ResizeKeepRatio(_RandomInterpolation):
    """Scale the image, keeping its proportions, until it covers ``size``, or with ``longest`` 1 fits into it.

    No side becomes shorter than one pixel.

    Args:
        size: side, or (height, width), in pixels, to which the image is cropped or padded afterwards.
        longest: from 0, cover ``size``, to 1, fit into it.
        interpolation: name of one of Pillow's filters; or ``random``, bilinear or bicubic for each image.
        random_scale_prob: probability of a further factor on both sides.
        random_scale_range: range of that factor.
        random_scale_area: whether the range is of the area of the part seen; below 1 is nearer.
        random_aspect_prob: probability of a change of the proportions.
        random_aspect_range: range of the change of width to height.
    """

    def __init__(
        self,
        size,
        longest=0.0,
        interpolation="bilinear",
        random_scale_prob=0.0,
        random_scale_range=(0.85, 1.05),
        random_scale_area=False,
        random_aspect_prob=0.0,
        random_aspect_range=(0.9, 1.11),
    ):
        super().__init__(interpolation)
        self.size = to_pair(size)
        self.longest = float(longest)
        self.random_scale_prob = random_scale_prob
        self.random_scale_range = tuple(random_scale_range)
        self.random_scale_area = random_scale_area
        self.random_aspect_prob = random_aspect_prob
        self.random_aspect_range = tuple(random_aspect_range)

    @staticmethod
    def get_params(
        image,
        target_size,
        longest,
        random_scale_prob=0.0,
        random_scale_range=(1.0, 1.33),
        random_scale_area=False,
        random_aspect_prob=0.0,
        random_aspect_range=(0.9, 1.11),
    ):
        """Draw [height, width] to scale to."""
        ratios = image.height / target_size[0], image.width / target_size[1]
        ratio = max(ratios) * longest + min(ratios) * (1 - longest)
        factor_y = factor_x = 1.0
        if random_scale_prob > 0 and random.random() < random_scale_prob:
            factor = random.uniform(*random_scale_range)
            factor_y = factor_x = 1 / math.sqrt(factor) if random_scale_area else factor
        if random_aspect_prob > 0 and random.random() < random_aspect_prob:
            aspect = math.sqrt(math.exp(random.uniform(*map(math.log, random_aspect_range))))
            factor_y, factor_x = factor_y / aspect, factor_x * aspect
        return [max(1, round(image.height * factor_y / ratio)), max(1, round(image.width * factor_x / ratio))]

    def __call__(self, image):
        height, width = self.get_params(
            image,
            self.size,
            self.longest,
            self.random_scale_prob,
            self.random_scale_range,
            self.random_scale_area,
            self.random_aspect_prob,
            self.random_aspect_range,
        )
        return image.resize((width, height), self.draw_interpolation())

    def __repr__(self):
        return (
            f"ResizeKeepRatio(size={self.size}, interpolation={self.interpolation_names()}, longest={self.longest}, "
            f"random_scale={self.random_scale_range} at {self.random_scale_prob}, "
            f"random_aspect={self.random_aspect_range} at {self.random_aspect_prob})"
        )


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
