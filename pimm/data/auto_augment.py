"""AutoAugment (arXiv 1805.09501), RandAugment (1909.13719), AugMix (1912.02781) and 3-Augment (2204.07118).

Operations, policies and what is drawn in which order are timm's, so equal random streams give equal pixels. Magnitudes
run from 0 to 10. Choices of operations and mixing weights come from ``numpy.random``, all else from ``random``.
"""

from __future__ import annotations

import difflib
import random
import re

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pimm.data.transforms import RANDOM_INTERPOLATION
from pimm.errors import ConfigError

MAX_LEVEL = 10.0
DEFAULT_HPARAMS = {"translate_const": 250, "img_mean": (128, 128, 128)}


# Operations: (image, argument, fill colour and interpolation of the moving ones) -> image


def _affine(matrix):
    """An operation that moves pixels by the matrix made from its argument and the image's size."""

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
    """One operation of ``OPS``, done with probability ``prob`` at a magnitude of 0 to 10.

    ``hparams``: ``magnitude_std`` (normal noise on the magnitude; infinite: uniform below it), ``magnitude_max``
    (instead of 10), ``img_mean`` (fill colour), ``interpolation``, ``translate_const`` (pixels), ``translate_pct``.
    """

    def __init__(self, name, prob=0.5, magnitude=10, hparams=None):
        if name not in OPS:
            near = difflib.get_close_matches(name, OPS, n=1)
            raise ConfigError(f"augmentation operation {name!r} is none of {', '.join(OPS)}; near: {near}")
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
            arguments += [self._draw_interpolation(), self.hparams.get("img_mean", DEFAULT_HPARAMS["img_mean"])]
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


# Policies: one line a sub-policy of two operations, each with probability and magnitude

_V0 = """
    Equalize 0.8 1, ShearY 0.8 4
    Color 0.4 9, Equalize 0.6 3
    Color 0.4 1, Rotate 0.6 8
    Solarize 0.8 3, Equalize 0.4 7
    Solarize 0.4 2, Solarize 0.6 2
    Color 0.2 0, Equalize 0.8 8
    Equalize 0.4 8, SolarizeAdd 0.8 3
    ShearX 0.2 9, Rotate 0.6 8
    Color 0.6 1, Equalize 1.0 2
    Invert 0.4 9, Rotate 0.6 0
    Equalize 1.0 9, ShearY 0.6 3
    Color 0.4 7, Equalize 0.6 0
    Posterize 0.4 6, AutoContrast 0.4 7
    Solarize 0.6 8, Color 0.6 9
    Solarize 0.2 4, Rotate 0.8 9
    Rotate 1.0 7, TranslateYRel 0.8 9
    ShearX 0.0 0, Solarize 0.8 4
    ShearY 0.8 0, Color 0.6 4
    Color 1.0 0, Rotate 0.6 2
    Equalize 0.8 4, Equalize 0.0 8
    Equalize 1.0 4, AutoContrast 0.6 2
    ShearY 0.4 7, SolarizeAdd 0.6 7
    Posterize 0.8 2, Solarize 0.6 10
    Solarize 0.6 8, Equalize 0.6 1
    Color 0.8 6, Rotate 0.4 5
"""

_ORIGINAL = """
    PosterizeOriginal 0.4 8, Rotate 0.6 9
    Solarize 0.6 5, AutoContrast 0.6 5
    Equalize 0.8 8, Equalize 0.6 3
    PosterizeOriginal 0.6 7, PosterizeOriginal 0.6 6
    Equalize 0.4 7, Solarize 0.2 4
    Equalize 0.4 4, Rotate 0.8 8
    Solarize 0.6 3, Equalize 0.6 7
    PosterizeOriginal 0.8 5, Equalize 1.0 2
    Rotate 0.2 3, Solarize 0.6 8
    Equalize 0.6 8, PosterizeOriginal 0.4 6
    Rotate 0.8 8, Color 0.4 0
    Rotate 0.4 9, Equalize 0.6 2
    Equalize 0.0 7, Equalize 0.8 8
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Rotate 0.8 8, Color 1.0 2
    Color 0.8 8, Solarize 0.8 7
    Sharpness 0.4 7, Invert 0.6 8
    ShearX 0.6 5, Equalize 1.0 9
    Color 0.4 0, Equalize 0.6 3
    Equalize 0.4 7, Solarize 0.2 4
    Solarize 0.6 5, AutoContrast 0.6 5
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Equalize 0.8 8, Equalize 0.6 3
"""

_3A = """
    Solarize 1.0 5
    Desaturate 1.0 10
    GaussianBlurRand 1.0 10
"""

POLICIES = {
    "v0": _V0,  # of the TPU EfficientNet code
    "v0r": _V0.replace("Posterize ", "PosterizeIncreasing "),  # of Google's research code
    "original": _ORIGINAL,  # of the paper
    "originalr": _ORIGINAL.replace("PosterizeOriginal ", "PosterizeIncreasing "),
    "3a": _3A,
}


def auto_augment_policy(name="v0", hparams=None):
    """Sub-policies of ``name``, each a list of ``AugmentOp``."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"AutoAugment policy {name!r} is none of {', '.join(POLICIES)}{hint}")
    return [
        [AugmentOp(op, float(prob), int(magnitude), hparams) for op, prob, magnitude in map(str.split, line.split(","))]
        for line in POLICIES[name].strip().splitlines()
    ]


class AutoAugment:
    """One sub-policy at random, its operations in order."""

    def __init__(self, policy):
        self.policy = policy

    def __call__(self, image):
        for op in random.choice(self.policy):
            image = op(image)
        return image


def _magnitude_std(text):
    std = float(text)
    return float("inf") if std > 100 else std


def _parse(config, kinds):
    """``name-key1value-key2value`` -> (name, {key: value}); ``kinds`` has a conversion for each key."""
    name, *sections = config.split("-")
    settings = {}
    for section in sections:
        key, value = re.fullmatch(r"([a-z]*)(.*)", section).groups()
        if section.startswith("t") and "t" in kinds:
            key, value = "t", section[1:]
        try:
            settings[key] = kinds[key](value)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"augmentation {config!r}: section {section!r} is not one of {', '.join(kinds)} followed by its value"
            ) from error
    return name, settings


def auto_augment_transform(config_str, hparams=None):
    """AutoAugment from a text such as ``original-mstd0.5``: a name of ``POLICIES``, and noise on the magnitudes."""
    name, settings = _parse(config_str, {"mstd": _magnitude_std})
    return AutoAugment(auto_augment_policy(name, _with_noise(hparams, settings)))


def _with_noise(hparams, settings):
    """Settings of the operations; what the caller set goes first."""
    noise = {"mstd": "magnitude_std", "mmax": "magnitude_max"}
    drawn = {name: settings[key] for key, name in noise.items() if key in settings}
    return {**drawn, **(hparams or DEFAULT_HPARAMS)}


_RAND_TRANSFORMS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)

_HAVE_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")

_RAND_INCREASING_TRANSFORMS = tuple(
    f"{name}Increasing" if name in _HAVE_INCREASING else name for name in _RAND_TRANSFORMS
)

# Weights of _RAND_TRANSFORMS (or their increasing forms) that 'w0' selects.
_RAND_CHOICE_WEIGHTS = {
    0: (0.025, 0.005, 0, 0.3, 0, 0.005, 0.005, 0.025, 0.005, 0.005, 0.025, 0.2, 0.2, 0.1, 0.1),
}

# Sets of operations that 't' selects, as {name: weight} or as a list.
_RAND_SETS = {
    "weights": {
        "Rotate": 3,
        "ShearX": 2,
        "ShearY": 2,
        "TranslateXRel": 1,
        "TranslateYRel": 1,
        "ColorIncreasing": 0.25,
        "SharpnessIncreasing": 0.25,
        "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05,
        "SolarizeAdd": 0.05,
        "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05,
        "Equalize": 0.05,
        "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
    "3a": ("SolarizeIncreasing", "Desaturate", "GaussianBlur"),
    "3aw": {
        "SolarizeIncreasing": 6,
        "Desaturate": 6,
        "GaussianBlur": 6,
        "Rotate": 3,
        "ShearX": 2,
        "ShearY": 2,
        "PosterizeIncreasing": 1,
        "AutoContrast": 1,
        "ColorIncreasing": 1,
        "SharpnessIncreasing": 1,
        "ContrastIncreasing": 1,
        "BrightnessIncreasing": 1,
        "Equalize": 1,
        "Invert": 1,
    },
}


def rand_augment_ops(magnitude=10, prob=0.5, hparams=None, transforms=None):
    """The operations that RandAugment chooses from."""
    return [AugmentOp(name, prob, magnitude, hparams) for name in transforms or _RAND_TRANSFORMS]


class RandAugment:
    """``num_layers`` operations at random; with ``choice_weights`` none of them twice."""

    def __init__(self, ops, num_layers=2, choice_weights=None):
        self.ops = ops
        self.num_layers = num_layers
        self.choice_weights = choice_weights

    def __call__(self, image):
        no_weights = self.choice_weights is None
        for index in np.random.choice(len(self.ops), self.num_layers, replace=no_weights, p=self.choice_weights):
            image = self.ops[index](image)
        return image


def rand_augment_transform(config_str, hparams=None, transforms=None):
    """RandAugment from a text such as ``rand-m9-mstd0.5-inc1``.

    Sections: ``m`` magnitude (10), ``n`` operations an image (2), ``p`` probability of each (0.5), ``mstd`` noise on
    the magnitude (above 100: uniform from 0), ``mmax`` its limit (10), ``inc1`` operations that all get stronger with
    the magnitude, ``w0`` unequal odds of the operations, ``t`` a set of them (weights, 3a, 3aw). ``transforms``, such
    a set's name, a list of operations or a dict of their weights, goes before ``t``.
    """
    kinds = {"m": int, "n": int, "p": float, "mstd": _magnitude_std, "mmax": int, "inc": int, "w": int, "t": str}
    name, settings = _parse(config_str, kinds)
    if name != "rand":
        raise ConfigError(f"RandAugment settings start with 'rand-', not {config_str!r}")
    transforms = transforms or settings.get("t")
    if isinstance(transforms, str):
        transforms = _choose(_RAND_SETS, transforms, config_str)
    weights = tuple(transforms.values()) if isinstance(transforms, dict) else None
    if transforms is None:
        transforms = _RAND_INCREASING_TRANSFORMS if settings.get("inc", 0) else _RAND_TRANSFORMS
        weights = _choose(_RAND_CHOICE_WEIGHTS, settings["w"], config_str) if "w" in settings else None
    layers = settings.get("n", 2)
    if weights is not None:
        weights = np.array(weights) / np.sum(weights)
        if layers > np.count_nonzero(weights):
            raise ConfigError(f"augmentation {config_str!r}: n{layers} is more than the weighted operations there are")
    ops = rand_augment_ops(
        settings.get("m", MAX_LEVEL), settings.get("p", 0.5), _with_noise(hparams, settings), transforms
    )
    return RandAugment(ops, layers, choice_weights=weights)


def _choose(table, key, config):
    if key not in table:
        raise ConfigError(f"augmentation {config!r}: {key!r} is none of {', '.join(map(str, table))}")
    return table[key]


_AUGMIX_TRANSFORMS = (
    "AutoContrast",
    "ColorIncreasing",  # this and the next three are not in the paper
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "Equalize",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)


def augmix_ops(magnitude=10, hparams=None, transforms=None):
    """The operations that AugMix chains."""
    return [AugmentOp(name, 1.0, magnitude, hparams) for name in transforms or _AUGMIX_TRANSFORMS]


class AugMixAugment:
    """Mixes the image with ``width`` chains of ``depth`` operations each (1 to 3 at random if it is not positive).

    ``alpha`` shapes the mixing weights' Dirichlet and Beta distributions; ``blended`` blends one chain after the other
    into the image, which is faster and differs by more than rounding.
    """

    def __init__(self, ops, alpha=1.0, width=3, depth=-1, blended=False):
        self.ops = ops
        self.alpha = alpha
        self.width = width
        self.depth = depth
        self.blended = blended

    def __call__(self, image):
        weights = np.float32(np.random.dirichlet([self.alpha] * self.width))
        share = np.float32(np.random.beta(self.alpha, self.alpha))
        return (self._blend_chains if self.blended else self._mix_chains)(image, weights, share)

    def _chain(self, image):
        depth = self.depth if self.depth > 0 else np.random.randint(1, 4)
        for index in np.random.choice(len(self.ops), depth, replace=True):
            image = self.ops[index](image)
        return image

    def _mix_chains(self, image, weights, share):
        mixed = sum(weight * np.asarray(self._chain(image), np.float32) for weight in weights)
        return Image.blend(image, Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)), share)

    def _blend_chains(self, image, weights, share):
        left, alphas = 1.0, []
        for weight in (weights * share)[::-1]:  # the last chain is blended with its own weight, those before it fade
            alphas.append(weight / left)
            left *= 1 - alphas[-1]
        original = image
        for alpha in np.float32(alphas[::-1]):
            image = Image.blend(image, self._chain(original), alpha)
        return image


def augment_and_mix_transform(config_str, hparams=None):
    """AugMix from a text such as ``augmix-m5-w4-d2``.

    Sections: ``m`` magnitude (3), ``w`` chains (3), ``d`` operations a chain (-1: 1 to 3), ``a`` alpha (1), ``b1``
    blended, ``mstd`` noise on the magnitude (without: uniform from 0).
    """
    name, settings = _parse(config_str, {"m": int, "w": int, "d": int, "a": float, "b": int, "mstd": _magnitude_std})
    if name != "augmix":
        raise ConfigError(f"AugMix settings start with 'augmix-', not {config_str!r}")
    if settings.get("w", 1) < 1 or settings.get("a", 1.0) <= 0:
        raise ConfigError(f"augmentation {config_str!r}: w, the chains, and a, alpha, must be positive")
    hparams = {"magnitude_std": float("inf"), **_with_noise(hparams, settings)}
    return AugMixAugment(
        augmix_ops(settings.get("m", 3), hparams),
        alpha=settings.get("a", 1.0),
        width=settings.get("w", 3),
        depth=settings.get("d", -1),
        blended=bool(settings.get("b", 0)),
    )
