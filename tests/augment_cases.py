"""What timm and pimm are both asked to make of one image; ``tests/parity/test_timm_augment.py`` asks timm.

Where timm draws from PyTorch's stream (flips, colour jitter, blur), the cases leave nothing to chance.
"""

import random

import numpy as np

SIZE = 16
RGB_FACTORS = (0.0, 0.35, 1.0, 1.7)
COLORS = {  # name of pimm.data.color's function and of torchvision's -> factors
    "shift_brightness": ("adjust_brightness", RGB_FACTORS),
    "shift_contrast": ("adjust_contrast", RGB_FACTORS),
    "shift_saturation": ("adjust_saturation", RGB_FACTORS),
    "shift_hue": ("adjust_hue", (-0.5, -0.2, 0.1, 0.37)),
}
BLUR_SIGMAS = (0.1, 0.8, 2.0)
REPEATS = [  # size, ranks, repeats, round to a multiple of
    (10, 2, 3, 256),
    (20, 3, 3, 4),
    (9, 4, 2, 256),
    (11, 2, 1.5, 4),
]

_TRAIN = {"is_training": True, "hflip": 0.0, "color_jitter": None}

TRANSFORMS = {  # name -> arguments of create_transform
    "center": {},
    "center_bicubic": {"interpolation": "bicubic", "crop_pct": 0.7},
    "center_wide": {"input_size": (3, 12, 20)},
    "center_enlarged": {"input_size": 40},
    "squash": {"crop_mode": "squash", "crop_pct": 0.9},
    "border": {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "bicubic"},
    "border_cut": {"crop_mode": "border", "crop_pct": 0.8},
    "trimmed": {"crop_border_pixels": 4},
    "no_aug": {"is_training": True, "no_aug": True, "input_size": SIZE},
    "no_aug_both_sides": {"is_training": True, "no_aug": True, "interpolation": "random"},
    "rrc": _TRAIN,
    "rrc_random": {**_TRAIN, "interpolation": "random", "scale": (0.3, 0.5), "ratio": (0.5, 2.0)},
    "rkrc": {**_TRAIN, "train_crop_mode": "rkrc"},
    "rkrr": {**_TRAIN, "train_crop_mode": "rkrr", "interpolation": "random"},
    "rkrr_ranges": {**_TRAIN, "train_crop_mode": "rkrr", "scale": (0.5, 3.0), "ratio": (0.5, 2.0)},
    "flipped": {**_TRAIN, "hflip": 1.0, "vflip": 1.0},
    "grey": {**_TRAIN, "grayscale_prob": 1.0},
    "rand": {**_TRAIN, "auto_augment": "rand-m9-n3-p0.8-mstd0.5-mmax12-inc1", "interpolation": "random"},
    "rand_weighted": {**_TRAIN, "auto_augment": "rand-m5-tweights"},
    "original": {**_TRAIN, "auto_augment": "original-mstd0.5"},
    "v0r": {**_TRAIN, "auto_augment": "v0r", "interpolation": "bicubic"},
    "3a": {**_TRAIN, "auto_augment": "3a"},
    "augmix": {**_TRAIN, "auto_augment": "augmix-m5-w4-d2"},
    "augmix_blended": {**_TRAIN, "auto_augment": "augmix-m5-b1"},
}


def apply_transform(create_transform, name, image, seed):
    """uint8 [3, height, width] of one case."""
    transform = create_transform(use_prefetcher=True, **{"input_size": (3, SIZE, SIZE), **TRANSFORMS[name]})
    random.seed(seed)
    np.random.seed(seed)
    return np.asarray(transform(image))
