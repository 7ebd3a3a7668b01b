"""The transforms of training and evaluation, put together from a script's settings."""

from __future__ import annotations

import math

from pimm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from pimm.data.color import ColorJitter, GaussianBlur, RandomGrayscale
from pimm.data.constants import DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.data.random_erasing import RandomErasing
from pimm.data.tf_preprocessing import TfPreprocessTransform
from pimm.data.transforms import (
    CenterCrop,
    CenterCropOrPad,
    Compose,
    MaybePILToTensor,
    Normalize,
    RandomApply,
    RandomCropOrPad,
    RandomHorizontalFlip,
    RandomPaddedCrop,
    RandomResizedCropAndInterpolation,
    RandomVerticalFlip,
    Resize,
    ResizeCenterCrop,
    ResizeKeepRatio,
    ToNumpy,
    ToTensor,
    TrimBorder,
    str_to_pil_interp,
)
from pimm.data.tta import EachView, OversampleCrop
from pimm.errors import ConfigError
from pimm.layers.helpers import to_pair
from pimm.messages import did_you_mean

_BLUR_KERNEL = 23  # pixels, as SimCLR's at 224
_RESIZES_FIRST = (Resize, ResizeCenterCrop, ResizeKeepRatio, RandomResizedCropAndInterpolation)  # take a DecodedJpeg


def transforms_noaug_train(
    img_size=224,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    use_prefetcher=False,
    normalize=True,
):
    """Return a transform for training that scales to ``img_size``, and draws nothing.

    The arguments are those of ``create_transform``; of an ``img_size`` that is one number, it is the short side.
    """
    resize = Resize(img_size, _not_random(interpolation))
    return Compose([resize, CenterCrop(img_size), *_to_array(use_prefetcher, normalize, mean, std)])


def transforms_imagenet_train(
    img_size=224,
    scale=None,
    ratio=None,
    train_crop_mode=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    color_jitter_prob=None,
    force_color_jitter=False,
    grayscale_prob=0.0,
    gaussian_blur_prob=0.0,
    auto_augment=None,
    interpolation="random",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_num_splits=0,
    use_prefetcher=False,
    normalize=True,
    separate=False,
):
    """Return the transform for training: random crop and flips, colour jitter or a policy, the final array.

    The arguments are those of ``create_transform``. ``force_color_jitter`` keeps the colour jitter beside the policy.

    Returns:
        One transform; with ``separate`` the three stages, as ``AugMixDataset`` takes them.
    """
    make_crop = _choose("train_crop_mode", _TRAIN_CROPS, train_crop_mode or "rrc")
    primary = make_crop(img_size, scale, ratio, interpolation)
    if hflip > 0:
        primary.append(RandomHorizontalFlip(hflip))
    if vflip > 0:
        primary.append(RandomVerticalFlip(vflip))
    secondary = [_policy(auto_augment, min(to_pair(img_size)), interpolation, mean)] if auto_augment else []
    if not auto_augment or force_color_jitter or "3a" in auto_augment:
        secondary += _color_jitter(color_jitter, color_jitter_prob)
    if grayscale_prob:
        secondary.append(RandomGrayscale(grayscale_prob))
    if gaussian_blur_prob:
        secondary.append(RandomApply([GaussianBlur(_BLUR_KERNEL)], gaussian_blur_prob))
    erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits)
    final = _to_array(use_prefetcher, normalize, mean, std, [erasing] if re_prob > 0 else [])
    if separate:
        return Compose(primary), Compose(secondary), Compose(final)
    return Compose(primary + secondary + final)


def scaled_size(img_size, crop_pct=None):
    """Return the (height, width) to which evaluation scales before it cuts out ``img_size``."""
    return tuple(math.floor(side / (crop_pct or DEFAULT_CROP_PCT)) for side in to_pair(img_size))


def transforms_imagenet_eval(
    img_size=224,
    crop_pct=None,
    crop_mode=None,
    crop_border_pixels=None,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    use_prefetcher=False,
    normalize=True,
    tta=0,
):
    """Return the transform for evaluation: scale to ``img_size / crop_pct`` and cut out the middle.

    Args:
        img_size: side, or (height, width), in pixels.
        crop_pct: part of the scaled image that is cut out; 0.875 by default.
        crop_mode: which side gets the size: ``center`` the shorter (the default), ``border`` the longer, filling up
            with the mean colour, ``squash`` both, whatever the proportions.
        crop_border_pixels: pixels to cut off from every side first.
        interpolation: name of one of Pillow's filters; ``random``, a setting for training, means bilinear, as in timm.
        mean: of each channel.
        std: of each channel.
        use_prefetcher: see ``create_transform``.
        normalize: see ``create_transform``.
        tta: views of each image, see ``pimm.data.tta``; they come as one more, first, dimension.
    """
    make_crop = _choose("crop_mode", _EVAL_CROPS, crop_mode or "center")
    resize, crop = make_crop(img_size, scaled_size(img_size, crop_pct), _not_random(interpolation), mean)
    final = _to_array(use_prefetcher, normalize, mean, std)
    if tta > 1:
        steps = [resize, OversampleCrop(crop, tta), EachView(Compose(final))]
    else:
        steps = [*([ResizeCenterCrop(resize, crop)] if isinstance(resize, Resize) else [resize, crop]), *final]
    return Compose([TrimBorder(crop_border_pixels), *steps] if crop_border_pixels else steps)


def create_transform(
    input_size=224,
    is_training=False,
    no_aug=False,
    train_crop_mode=None,
    scale=None,
    ratio=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    color_jitter_prob=None,
    grayscale_prob=0.0,
    gaussian_blur_prob=0.0,
    auto_augment=None,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_num_splits=0,
    crop_pct=None,
    crop_mode=None,
    crop_border_pixels=None,
    tf_preprocessing=False,
    use_prefetcher=False,
    normalize=True,
    separate=False,
    tta=0,
):
    """Return the transform from a PIL image to what a loader collates.

    The image may have any number of channels: values for each channel are adapted to it.

    Args:
        input_size: side, (height, width) or (channels, height, width).
        is_training: augment; otherwise prepare for an evaluation.
        no_aug: train on images that are only scaled.
        train_crop_mode: ``rrc`` (a random part, scaled: the default), ``rkrc`` (scaled with its proportions nearly
            kept, the middle cut out), ``rkrr`` (the same, cut out anywhere) or ``pad`` (scaled by the short side, an
            eighth of it added in black at every side, cut out anywhere: for small images).
        scale: range of the part's share of the image's area.
        ratio: range of the part's width to its height.
        hflip: probability of swapping left and right.
        vflip: probability of swapping top and bottom.
        color_jitter: strength, one number, three, or four with hue; off under ``auto_augment``.
        color_jitter_prob: probability of the colour jitter; None for always.
        grayscale_prob: probability of an image in grey, as in SimCLR.
        gaussian_blur_prob: probability of a blur, as in SimCLR.
        auto_augment: settings of AutoAugment, RandAugment or AugMix, see ``pimm.data.auto_augment``.
        interpolation: name of one of Pillow's filters; or ``random``, bilinear or bicubic for each image.
        mean: of each channel, for pixels from 0 to 1.
        std: of each channel.
        re_prob: probability of random erasing; with the next three see ``RandomErasing``.
        re_mode: what erased rectangles are filled with.
        re_count: the most rectangles.
        re_num_splits: parts of a batch of which the first is not erased.
        crop_pct: evaluation only; with the next two see ``transforms_imagenet_eval``.
        crop_mode: evaluation only.
        crop_border_pixels: evaluation only.
        tf_preprocessing: scale and crop as TensorFlow's EfficientNet code, and nothing else; see
            ``pimm.data.tf_preprocessing``.
        use_prefetcher: end with a uint8 array [C, H, W] that the loader normalises and erases in whole batches;
            otherwise with a normalised float32 tensor (uint8 as it is, if ``normalize`` is off).
        normalize: see ``use_prefetcher``.
        separate: training only, see ``transforms_imagenet_train``.
        tta: evaluation only: views of each image, see ``pimm.data.tta``.

    Raises:
        ConfigError: for unknown settings, and settings that do not go together.
    """
    img_size = tuple(input_size[-2:]) if isinstance(input_size, (tuple, list)) else input_size
    if separate and (not is_training or no_aug or tf_preprocessing):
        raise ConfigError("separate transforms are for training with augmentation; nothing else has augmented splits")
    if tta > 1 and (is_training or tf_preprocessing):
        raise ConfigError("tta, the views of an image in a test, goes neither with training nor with tf_preprocessing")
    final = {"use_prefetcher": use_prefetcher, "normalize": normalize, "mean": mean, "std": std}
    if tf_preprocessing:
        steps = [step for step in _to_array(**final) if not isinstance(step, ToNumpy)]
        return Compose([TfPreprocessTransform(is_training, img_size, interpolation), *steps])
    if not is_training:
        return transforms_imagenet_eval(
            img_size, crop_pct, crop_mode, crop_border_pixels, interpolation, tta=tta, **final
        )
    if no_aug:
        return transforms_noaug_train(img_size, interpolation, **final)
    return transforms_imagenet_train(
        img_size,
        scale=scale,
        ratio=ratio,
        train_crop_mode=train_crop_mode,
        hflip=hflip,
        vflip=vflip,
        color_jitter=color_jitter,
        color_jitter_prob=color_jitter_prob,
        grayscale_prob=grayscale_prob,
        gaussian_blur_prob=gaussian_blur_prob,
        auto_augment=auto_augment,
        interpolation=interpolation,
        re_prob=re_prob,
        re_mode=re_mode,
        re_count=re_count,
        re_num_splits=re_num_splits,
        separate=separate,
        **final,
    )


def resizes_first(transform):
    """Return whether a transform begins with one that scales the image and takes a ``DecodedJpeg`` for a PIL image."""
    return type(transform) is Compose and type(next(iter(transform.transforms), None)) in _RESIZES_FIRST


def _choose(setting, table, name):
    if name not in table:
        raise ConfigError(f"{setting} {name!r:.80} is none of {', '.join(table)}{did_you_mean(name, table)}")
    return table[name]


def _not_random(interpolation):
    return "bilinear" if interpolation == "random" else interpolation


def _random_part(img_size, scale, ratio, interpolation):
    return [
        RandomResizedCropAndInterpolation(
            img_size, scale=scale or (0.08, 1.0), ratio=ratio or (3 / 4, 4 / 3), interpolation=interpolation
        )
    ]


def _nearly_whole(crop):
    """Return a maker of transforms that nearly keep the proportions, every second image nearer or further."""

    def make(img_size, scale, ratio, interpolation):
        resize = ResizeKeepRatio(
            img_size,
            interpolation=interpolation,
            random_scale_prob=0.5,
            random_scale_range=scale or (0.8, 1.0),
            random_scale_area=True,
            random_aspect_prob=0.5,
            random_aspect_range=ratio or (0.9, 1 / 0.9),
        )
        return [resize, crop(img_size, padding_mode="reflect")]

    return make


def _padded(img_size, scale, ratio, interpolation):
    size = to_pair(img_size)
    resize, _ = _center(size, size, _not_random(interpolation), None)
    return [resize, RandomPaddedCrop(size, min(size) // 8)]


# name -> (size, scale, ratio, interpolation) -> transforms
_TRAIN_CROPS = {
    "rrc": _random_part,
    "rkrc": _nearly_whole(CenterCropOrPad),
    "rkrr": _nearly_whole(RandomCropOrPad),
    "pad": _padded,
}


def _center(img_size, scaled, interpolation, _):
    """Scale by the short side; for a size that is not square, by the side that is shorter in proportion to it."""
    square = scaled[0] == scaled[1]
    resize = Resize(scaled[0], interpolation) if square else ResizeKeepRatio(scaled, interpolation=interpolation)
    return resize, CenterCrop(img_size)


def _border(img_size, scaled, interpolation, mean):
    fill = tuple(round(255 * value) for value in mean)
    return ResizeKeepRatio(scaled, longest=1.0, interpolation=interpolation), CenterCropOrPad(img_size, fill)


def _squash(img_size, scaled, interpolation, _):
    return Resize(scaled, interpolation), CenterCrop(img_size)


# name -> (size, size to scale to, interpolation, mean) -> (resize, crop)
_EVAL_CROPS = {"center": _center, "border": _border, "squash": _squash}


def _policy(name, img_size, interpolation, mean):
    hparams = {
        "translate_const": int(img_size * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
    }
    if interpolation != "random":
        hparams["interpolation"] = str_to_pil_interp(interpolation)
    if name.startswith("rand"):
        return rand_augment_transform(name, hparams)
    if name.startswith("augmix"):
        return augment_and_mix_transform(name, {**hparams, "translate_pct": 0.3})
    return auto_augment_transform(name, hparams)


def _color_jitter(strength, probability):
    """Return the list of the colour jitter's transforms.

    Args:
        strength: for brightness, contrast and saturation alike; or a sequence of three, or of four with hue.
        probability: None for always.
    """
    if not strength:
        return []
    strengths = tuple(strength) if isinstance(strength, (tuple, list)) else (float(strength),) * 3
    if len(strengths) not in (3, 4):
        raise ConfigError(f"color_jitter {strength}: one number, three, or four with hue")
    jitter = ColorJitter(*strengths)
    return [jitter if probability is None else RandomApply([jitter], probability)]


def _to_array(use_prefetcher, normalize, mean, std, erasing=()):
    if use_prefetcher:
        return [ToNumpy()]
    if not normalize:
        return [MaybePILToTensor()]
    return [ToNumpy(), Normalize(mean, std), *erasing, ToTensor()]
