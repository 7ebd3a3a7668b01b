"""The operations of AutoAugment and its followers, with timm's pixels on equal draws.

Magnitudes run from 0 to 10. All draws come from ``random``.
"""

from __future__ import annotations

import random

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pimm.data.channels import fill_for
from pimm.data.transforms import RANDOM_INTERPOLATION
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

MAX_LEVEL = 10.0
DEFAULT_HPARAMS = {"translate_const": 250, "img_mean": (128, 128, 128)}


# Operations: (image, argument, fill colour and interpolation of the moving ones) -> image


def _affine(matrix):
    """Return an operation that moves pixels by the matrix made from its argument and the image's size."""

    def move(image, argument, resample, fill):
        return image.transform(image.size, Image.AFFINE, matrix(argument, *image.size), resample, fillcolor=fill)

    move.moves_pixels = True
    return move


def _rotate(image, degrees, resample, fill):
    return image.rotate(degrees, resample, fillcolor=fill)


_rotate.moves_pixels = True


def _enhance(kind):
    return lambda image, factor: kind(image).enhance(factor)


def _solarize_add(image, amount, threshold=128):
    table = [min(255, value + amount) if value < threshold else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _posterize(image, bits):
    if bits <= 0:  # black; newer Pillow refuses it
        return image.point([0] * 256 * len(image.getbands()))
    return ImageOps.posterize(image, bits) if bits < 8 else image


def _blur(image, radius):
    return image.filter(ImageFilter.GaussianBlur(radius))


_shear_x = _affine(lambda factor, *_: (1, factor, 0, 0, 1, 0))
_shear_y = _affine(lambda factor, *_: (1, 0, 0, factor, 1, 0))
_translate_x = _affine(lambda pixels, *_: (1, 0, pixels, 0, 1, 0))
_translate_y = _affine(lambda pixels, *_: (1, 0, 0, 0, 1, pixels))
_translate_x_part = _affine(lambda part, width, _: (1, 0, part * width, 0, 1, 0))
_translate_y_part = _affine(lambda part, _, height: (1, 0, 0, 0, 1, part * height))
_brightness = _enhance(ImageEnhance.Brightness)
_color = _enhance(ImageEnhance.Color)
_contrast = _enhance(ImageEnhance.Contrast)
_sharpness = _enhance(ImageEnhance.Sharpness)


# Levels: (part of the full magnitude, settings) -> argument of the operation


def _either_sign(value):
    return -value if random.random() > 0.5 else value


def _signed(full):
    return lambda part, _: _either_sign(part * full)


def _enhance_level(part, _):
    return part * 1.8 + 0.1


def _enhance_increasing(part, _):
    return max(0.1, 1.0 + _either_sign(part * 0.9))


def _between(low, high):
    return lambda part, _: max(low, min(high, low + (high - low) * part))


# name -> (operation, level); operations without a level have no argument
OPS = {
    "AutoContrast": (ImageOps.autocontrast, None),
    "Equalize": (ImageOps.equalize, None),
    "Invert": (ImageOps.invert, None),
    "Rotate": (_rotate, _signed(30.0)),
    "Posterize": (_posterize, lambda part, _: int(part * 4)),  # bits kept, as TPU EfficientNet: stronger when lower
    "PosterizeIncreasing": (_posterize, lambda part, _: 4 - int(part * 4)),
    "PosterizeOriginal": (_posterize, lambda part, _: 4 + int(part * 4)),  # as the AutoAugment paper
    "Solarize": (ImageOps.solarize, lambda part, _: min(256, int(part * 256))),  # stronger when lower
    "SolarizeIncreasing": (ImageOps.solarize, lambda part, _: 256 - min(256, int(part * 256))),
    "SolarizeAdd": (_solarize_add, lambda part, _: min(128, int(part * 110))),
    "Color": (_color, _enhance_level),
    "ColorIncreasing": (_color, _enhance_increasing),
    "Contrast": (_contrast, _enhance_level),
    "ContrastIncreasing": (_contrast, _enhance_increasing),
    "Brightness": (_brightness, _enhance_level),
    "BrightnessIncreasing": (_brightness, _enhance_increasing),
    "Sharpness": (_sharpness, _enhance_level),
    "SharpnessIncreasing": (_sharpness, _enhance_increasing),
    "ShearX": (_shear_x, _signed(0.3)),
    "ShearY": (_shear_y, _signed(0.3)),
    "TranslateX": (_translate_x, lambda part, hparams: _either_sign(part * float(hparams["translate_const"]))),
    "TranslateY": (_translate_y, lambda part, hparams: _either_sign(part * float(hparams["translate_const"]))),
    "TranslateXRel": (_translate_x_part, lambda part, hparams: _either_sign(part * hparams.get("translate_pct", 0.45))),
    "TranslateYRel": (_translate_y_part, lambda part, hparams: _either_sign(part * hparams.get("translate_pct", 0.45))),
    "Desaturate": (lambda image, factor: _color(image, min(1.0, max(0.0, 1.0 - factor))), _between(0.5, 1.0)),
    "GaussianBlur": (_blur, _between(0.1, 2.0)),
    "GaussianBlurRand": (
        lambda image, factor: _blur(image, random.uniform(0.1, 2.0 * factor)),
        _between(0.0, 1.0),
    ),
}


class AugmentOp:
    """Apply one operation of ``OPS`` with probability ``prob``.

    Args:
        name: of the operation.
        prob: its probability.
        magnitude: from 0 to 10.
        hparams: dict with ``magnitude_std`` (normal noise on the magnitude; infinite: uniform below it),
            ``magnitude_max`` (instead of 10), ``img_mean`` (fill colour, see ``fill_for``), ``interpolation``,
            ``translate_const`` (pixels), ``translate_pct``.

    Raises:
        ConfigError: for an unknown name.
    """

    def __init__(self, name, prob=0.5, magnitude=10, hparams=None):
        if name not in OPS:
            hint = did_you_mean(name, OPS, count=3)
            raise ConfigError(f"augmentation operation {name!r:.80} is not one of the {len(OPS)} that there are{hint}")
        self.name = name
        self.prob = prob
        self.magnitude = magnitude
        self.hparams = dict(hparams or DEFAULT_HPARAMS)

    def __call__(self, image):
        if self.prob < 1.0 and random.random() > self.prob:
            return image
        operation, level = OPS[self.name]
        part = self._draw_magnitude() / MAX_LEVEL
        arguments = [] if level is None else [level(part, self.hparams)]
        if getattr(operation, "moves_pixels", False):
            color = self.hparams.get("img_mean", DEFAULT_HPARAMS["img_mean"])
            arguments += [self._draw_interpolation(), fill_for(image, color)]
        return operation(image, *arguments)

    def _draw_magnitude(self):
        magnitude, std = self.magnitude, self.hparams.get("magnitude_std", 0)
        if std == float("inf"):
            magnitude = random.uniform(0, magnitude)
        elif std > 0:
            magnitude = random.gauss(magnitude, std)
        return max(0, min(self.hparams.get("magnitude_max", MAX_LEVEL), magnitude))

    def _draw_interpolation(self):
        interpolation = self.hparams.get("interpolation", RANDOM_INTERPOLATION)
        return random.choice(interpolation) if isinstance(interpolation, tuple) else interpolation

    def __repr__(self):
        return f"AugmentOp({self.name}, p={self.prob}, m={self.magnitude})"
