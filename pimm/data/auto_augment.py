"""AutoAugment (arXiv 1805.09501), RandAugment (1909.13719), AugMix (1912.02781) and 3-Augment (2204.07118).

Operations, policies and what is drawn in which order are timm's, so equal random streams give equal pixels. Choices of
operations and mixing weights come from ``numpy.random``, all other draws from ``random``.
"""

from __future__ import annotations

import random
import re

import numpy as np
from PIL import Image

from pimm.data.augment_ops import DEFAULT_HPARAMS, MAX_LEVEL, OPS, AugmentOp
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

__all__ = [
    "OPS",
    "POLICIES",
    "AugMixAugment",
    "AugmentOp",
    "AutoAugment",
    "RandAugment",
    "augment_and_mix_transform",
    "augmix_ops",
    "auto_augment_policy",
    "auto_augment_transform",
    "rand_augment_ops",
    "rand_augment_transform",
]


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
    """Return the sub-policies of ``name``, each a list of ``AugmentOp``; ConfigError for an unknown name."""
    if name not in POLICIES:
        hint = did_you_mean(name, POLICIES)
        raise ConfigError(f"AutoAugment policy {name!r:.80} is none of {', '.join(POLICIES)}{hint}")
    return [
        [AugmentOp(op, float(prob), int(magnitude), hparams) for op, prob, magnitude in map(str.split, line.split(","))]
        for line in POLICIES[name].strip().splitlines()
    ]


class AutoAugment:
    """Apply one sub-policy at random, its operations in order."""

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
    """Return (name, {key: value}) of ``name-key1value-key2value``; ``kinds`` has a conversion for each key."""
    name, *sections = config.split("-")
    settings = {}
    for section in sections:
        key, value = re.fullmatch(r"([a-z]*)(.*)", section, re.DOTALL).groups()
        if section.startswith("t") and "t" in kinds:
            key, value = "t", section[1:]
        try:
            settings[key] = kinds[key](value)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"augmentation {config!r:.80}: section {section!r:.80} is not one of {', '.join(kinds)} followed by "
                "its value"
            ) from error
    return name, settings


def auto_augment_transform(config_str, hparams=None):
    """Make AutoAugment from a text such as ``original-mstd0.5``.

    Args:
        config_str: a name of ``POLICIES``, and with ``mstd`` the noise on the magnitudes.
        hparams: see ``AugmentOp``.
    """
    name, settings = _parse(config_str, {"mstd": _magnitude_std})
    return AutoAugment(auto_augment_policy(name, _with_noise(hparams, settings)))


def _with_noise(hparams, settings):
    """Return the settings of the operations; the caller's ``hparams`` override those of the text."""
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
    """Return the operations that RandAugment chooses from."""
    return [AugmentOp(name, prob, magnitude, hparams) for name in transforms or _RAND_TRANSFORMS]


class RandAugment:
    """Apply ``num_layers`` operations at random; with ``choice_weights`` none of them twice."""

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
    """Make RandAugment from a text such as ``rand-m9-mstd0.5-inc1``.

    Args:
        config_str: ``rand`` and sections: ``m`` magnitude (10), ``n`` operations an image (2), ``p`` probability of
            each (0.5), ``mstd`` noise on the magnitude (above 100: uniform from 0), ``mmax`` limit of the magnitude
            (10), ``inc1`` operations that all get stronger with the magnitude, ``w0`` unequal odds of the operations,
            ``t`` a set of operations (weights, 3a, 3aw).
        hparams: see ``AugmentOp``.
        transforms: name of a set, list of operations, or dict of their weights; overrides ``t``.
    """
    kinds = {"m": int, "n": int, "p": float, "mstd": _magnitude_std, "mmax": int, "inc": int, "w": int, "t": str}
    name, settings = _parse(config_str, kinds)
    if name != "rand":
        raise ConfigError(f"RandAugment settings start with 'rand-', not {config_str!r:.80}")
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
            raise ConfigError(
                f"augmentation {config_str!r:.80}: n{layers} is more than the weighted operations there are"
            )
    ops = rand_augment_ops(
        settings.get("m", MAX_LEVEL), settings.get("p", 0.5), _with_noise(hparams, settings), transforms
    )
    return RandAugment(ops, layers, choice_weights=weights)


def _choose(table, key, config):
    if key not in table:
        raise ConfigError(f"augmentation {config!r:.80}: {key!r:.80} is none of {', '.join(map(str, table))}")
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
    """Return the operations that AugMix chains."""
    return [AugmentOp(name, 1.0, magnitude, hparams) for name in transforms or _AUGMIX_TRANSFORMS]


class AugMixAugment:
    """Mix the image with chains of operations.

    Args:
        ops: the operations.
        alpha: of the Dirichlet and Beta distributions of the mixing weights.
        width: number of chains.
        depth: operations in a chain; 1 to 3 at random if it is not positive.
        blended: blend one chain after the other into the image, which is faster and differs by more than rounding.
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
    """Make AugMix from a text such as ``augmix-m5-w4-d2``.

    Args:
        config_str: ``augmix`` and sections: ``m`` magnitude (3), ``w`` chains (3), ``d`` operations a chain (-1: 1 to
            3), ``a`` alpha (1), ``b1`` blended, ``mstd`` noise on the magnitude (without: uniform from 0).
        hparams: see ``AugmentOp``.
    """
    name, settings = _parse(config_str, {"m": int, "w": int, "d": int, "a": float, "b": int, "mstd": _magnitude_std})
    if name != "augmix":
        raise ConfigError(f"AugMix settings start with 'augmix-', not {config_str!r:.80}")
    if settings.get("w", 1) < 1 or settings.get("a", 1.0) <= 0:
        raise ConfigError(f"augmentation {config_str!r:.80}: w, the chains, and a, alpha, must be positive")
    hparams = {"magnitude_std": float("inf"), **_with_noise(hparams, settings)}
    return AugMixAugment(
        augmix_ops(settings.get("m", 3), hparams),
        alpha=settings.get("a", 1.0),
        width=settings.get("w", 3),
        depth=settings.get("d", -1),
        blended=bool(settings.get("b", 0)),
    )
