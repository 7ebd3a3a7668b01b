"""The transforms of training and evaluation, put together from a script's settings."""

from __future__ import annotations

import math

from pimm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from pimm.data.constants import DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.data.random_erasing import RandomErasing
from pimm.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCropAndInterpolation,
    RandomVerticalFlip,
    Resize,
    ToNumpy,
    ToTensor,
    pair,
    pil_interpolation,
)
from pimm.errors import ConfigError


def transforms_imagenet_train(
    img_size=224,
    scale=None,
    ratio=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    auto_augment=None,
    interpolation="random",
    use_prefetcher=False,
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_num_splits=0,
    separate=False,
):
    """Random crop and flips; then colour jitter, or the policy of ``auto_augment`` instead; then the final array.

    Returns one transform; with ``separate`` the three stages, as ``AugMixDataset`` takes them.
    """
    primary = [
        RandomResizedCropAndInterpolation(
            img_size, scale=scale or (0.08, 1.0), ratio=ratio or (3 / 4, 4 / 3), interpolation=interpolation
        )
    ]
    if hflip > 0:
        primary.append(RandomHorizontalFlip(hflip))
    if vflip > 0:
        primary.append(RandomVerticalFlip(vflip))
    if auto_augment:
        secondary = [_policy(auto_augment, min(pair(img_size)), interpolation, mean)]
    else:
        secondary = _color_jitter(color_jitter)
    erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits)
    final = _to_array(use_prefetcher, mean, std, [erasing] if re_prob > 0 else [])
    if separate:
        return Compose(primary), Compose(secondary), Compose(final)
    return Compose(primary + secondary + final)


def transforms_imagenet_eval(
    img_size=224,
    crop_pct=None,
    interpolation="bilinear",
    use_prefetcher=False,
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
):
    """Scale the short side (both, if ``img_size`` is not square) to ``img_size / crop_pct`` and cut out the middle.

    ``interpolation="random"``, a setting for training, means bilinear here, as in timm.
    """
    crop_pct = crop_pct or DEFAULT_CROP_PCT
    height, width = pair(img_size)
    scaled = tuple(math.floor(side / crop_pct) for side in (height, width))
    interpolation = "bilinear" if interpolation == "random" else interpolation
    resize = [Resize(scaled[0] if height == width else scaled, interpolation), CenterCrop(img_size)]
    return Compose(resize + _to_array(use_prefetcher, mean, std))


def create_transform(
    input_size,
    is_training=False,
    use_prefetcher=False,
    scale=None,
    ratio=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    auto_augment=None,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_num_splits=0,
    crop_pct=None,
    tf_preprocessing=False,
    separate=False,
):
    """The transform from a PIL image to what a loader collates.

    Args:
        input_size: side, (height, width) or (channels, height, width).
        use_prefetcher: end with a uint8 array [3, H, W] that the loader normalises and erases in whole batches; else
            with a normalised float32 tensor.
        scale, ratio, hflip, vflip, color_jitter, auto_augment, re_*: training only.
        crop_pct: evaluation only.
        separate: training only, see ``transforms_imagenet_train``.

    Raises:
        ConfigError: for settings that do not exist or do not go together.
    """
    if tf_preprocessing:
        raise ConfigError("tf_preprocessing runs TensorFlow inside timm and does not exist here; leave it at False")
    img_size = tuple(input_size[-2:]) if isinstance(input_size, (tuple, list)) else input_size
    common = {"interpolation": interpolation, "use_prefetcher": use_prefetcher, "mean": mean, "std": std}
    if not is_training:
        if separate:
            raise ConfigError("separate transforms are for training; evaluation has no augmented splits")
        return transforms_imagenet_eval(img_size, crop_pct=crop_pct, **common)
    return transforms_imagenet_train(
        img_size,
        scale=scale,
        ratio=ratio,
        hflip=hflip,
        vflip=vflip,
        color_jitter=color_jitter,
        auto_augment=auto_augment,
        re_prob=re_prob,
        re_mode=re_mode,
        re_count=re_count,
        re_num_splits=re_num_splits,
        separate=separate,
        **common,
    )


def _policy(name, img_size, interpolation, mean):
    hparams = {
        "translate_const": int(img_size * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
    }
    if interpolation != "random":
        hparams["interpolation"] = pil_interpolation(interpolation)
    if name.startswith("rand"):
        return rand_augment_transform(name, hparams)
    if name.startswith("augmix"):
        return augment_and_mix_transform(name, {**hparams, "translate_pct": 0.3})
    return auto_augment_transform(name, hparams)


def _color_jitter(strength):
    """``strength``: for brightness, contrast and saturation alike, or a sequence of three, or of four with hue."""
    if not strength:
        return []
    strengths = tuple(strength) if isinstance(strength, (tuple, list)) else (float(strength),) * 3
    if len(strengths) not in (3, 4):
        raise ConfigError(f"color_jitter {strength}: one number, three, or four with hue")
    return [ColorJitter(*strengths)]


def _to_array(use_prefetcher, mean, std, erasing=()):
    if use_prefetcher:
        return [ToNumpy()]
    return [ToNumpy(), Normalize(mean, std), *erasing, ToTensor()]
