"""Transforms of one image: torchvision's geometry and colours, the distributions of random ones, and the factory."""

import math
import random

import numpy as np
import paddle
import pytest
from PIL import Image, ImageEnhance

from pimm.data import RandomErasing, RandomResizedCropAndInterpolation, ToNumpy, ToTensor, create_transform
from pimm.data import resolve_data_config as resolve
from pimm.data.color import ColorJitter, shift_hue
from pimm.data.transforms import CenterCrop, Normalize, RandomHorizontalFlip, RandomVerticalFlip, Resize
from pimm.errors import ConfigError

RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width, height):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3)).astype(np.uint8))


def test_arrays_and_tensors():
    image = noise(5, 3)
    pixels = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(ToNumpy()(image), pixels)
    assert ToNumpy()(image.convert("L")).shape == (1, 3, 5)
    tensor = ToTensor()(image)
    assert tensor.dtype == paddle.float32
    np.testing.assert_array_equal(tensor.numpy(), pixels)


def test_normalize_is_the_same_for_arrays_and_tensors_images_and_batches():
    batch = RNG.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    expected = (batch / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    normalize = Normalize(MEAN, STD)
    for result in (normalize(batch), normalize(paddle.to_tensor(batch)).numpy(), np.stack(list(map(normalize, batch)))):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "image_size", "result"),
    [
        (256, (500, 375), (341, 256)),
        (256, (375, 500), (256, 341)),
        (8, (8, 20), (8, 20)),
        (36, (32, 32), (36, 36)),
        ((10, 20), (7, 7), (20, 10)),
    ],
)
def test_resize_scales_the_short_side(size, image_size, result):
    image = noise(*image_size)
    expected = np.asarray(image.resize(result, Image.BICUBIC))
    np.testing.assert_array_equal(np.asarray(Resize(size, "bicubic")(image)), expected)


@pytest.mark.parametrize(
    ("size", "image_size", "left", "top"),
    [(4, (10, 8), 3, 2), (4, (9, 7), 2, 2), (4, (11, 5), 4, 0), ((2, 6), (7, 7), 0, 2)],  # halves go to even numbers
)
def test_center_crop_rounds_as_torchvision(size, image_size, left, top):
    image = noise(*image_size)
    crop = CenterCrop(size)
    height, width = crop.size
    np.testing.assert_array_equal(np.asarray(crop(image)), np.asarray(image)[top : top + height, left : left + width])


def test_center_crop_pads_what_is_too_small():
    image = noise(3, 9)
    result = np.asarray(CenterCrop(6)(image))
    np.testing.assert_array_equal(result[:, 1:4], np.asarray(image)[2:8])
    assert result.shape == (6, 6, 3)
    assert not result[:, [0, 4, 5]].any()


@pytest.mark.parametrize(("kind", "axis"), [(RandomHorizontalFlip, 1), (RandomVerticalFlip, 0)])
def test_flips(kind, axis):
    image = noise(4, 3)
    random.seed(0)
    pixels = np.asarray(image)
    flipped = [not np.array_equal(np.asarray(kind(0.3)(image)), pixels) for _ in range(3000)]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(np.asarray(kind(1.0)(image)), np.flip(pixels, axis))


def test_hue_turns_around():
    image = Image.new("RGB", (1, 1), (255, 0, 0))
    assert shift_hue(image, 0.0).getpixel((0, 0)) == (255, 0, 0)
    np.testing.assert_allclose(shift_hue(image, 1 / 3).getpixel((0, 0)), (0, 255, 0), atol=6)
    np.testing.assert_allclose(shift_hue(image, -1 / 3).getpixel((0, 0)), (0, 0, 255), atol=6)


@pytest.mark.parametrize(
    ("arguments", "ranges"),
    [
        ((0.4, 0.4, 0.4), [(0.6, 1.4)] * 3 + [(0, 0)]),
        ((2, 0, 0, 0.1), [(0, 3), (1, 1), (1, 1), (-0.1, 0.1)]),
        (((0.5, 0.7), 0, 0, (-0.2, 0.3)), [(0.5, 0.7), (1, 1), (1, 1), (-0.2, 0.3)]),
    ],
)
def test_color_jitter_ranges(arguments, ranges):
    np.testing.assert_allclose(list(ColorJitter(*arguments).ranges.values()), ranges)


@pytest.mark.parametrize("arguments", [(-0.1,), (0, 0, 0, 0.6), ((0.9, 0.5),)])
def test_color_jitter_refuses(arguments):
    with pytest.raises(ConfigError, match=r"colour jitter: .* is outside"):
        ColorJitter(*arguments)


def test_color_jitter_draws_order_and_factors():
    applied = []
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    jitter._ADJUST = {
        name: lambda image, factor, name=name: applied.append((name, factor)) or image for name in jitter.ranges
    }
    random.seed(0)
    for _ in range(4000):
        jitter(None)
    first = [applied[i][0] for i in range(0, len(applied), 4)]
    assert [first.count(name) / 4000 for name in jitter.ranges] == pytest.approx([0.25] * 4, abs=0.02)
    factors = [factor for name, factor in applied if name == "contrast"]
    assert len(factors) == 4000
    assert np.histogram(factors, 4, (0.6, 1.4))[0] / 4000 == pytest.approx([0.25] * 4, abs=0.03)


def test_color_jitter_enhances():
    image = noise(6, 6)
    result = ColorJitter(saturation=(0.3, 0.3 + 1e-12))(image)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(ImageEnhance.Color(image).enhance(0.3)))


def test_random_crop_covers_the_published_ranges():
    random.seed(0)
    image = Image.new("RGB", (400, 400))
    get_params = RandomResizedCropAndInterpolation.get_params
    boxes = np.array([get_params(image, (0.08, 0.5), (3 / 4, 4 / 3)) for _ in range(4000)])  # these all fit
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (top + height <= 400).all() and (left >= 0).all() and (left + width <= 400).all()
    area, log_aspect = height * width / 160000, np.log(width / height)
    assert np.histogram(area, 4, (0.08, 0.5))[0] / 4000 == pytest.approx([0.25] * 4, abs=0.02)
    assert (log_aspect.min(), log_aspect.max()) == pytest.approx((math.log(3 / 4), math.log(4 / 3)), abs=0.02)


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 100), (43, 0, 13, 10)), ((100, 10), (0, 43, 10, 13)), ((12, 10), (0, 0, 10, 12))]
)
def test_random_crop_falls_back_to_the_middle(size, expected):
    assert RandomResizedCropAndInterpolation.get_params(Image.new("RGB", size), (2.0, 2.0), (3 / 4, 4 / 3)) == expected


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "random"])
def test_random_crop_crops_then_resizes(interpolation):
    image = noise(40, 30)
    transform = RandomResizedCropAndInterpolation((8, 12), interpolation=interpolation)
    for seed in range(8):
        random.seed(seed)
        result = transform(image)
        random.seed(seed)
        top, left, height, width = transform.get_params(image, transform.scale, transform.ratio)
        chosen = random.choice((Image.BILINEAR, Image.BICUBIC)) if interpolation == "random" else None
        chosen = chosen or {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation]
        expected = image.crop((left, top, left + width, top + height)).resize((12, 8), chosen)
        np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


@pytest.mark.parametrize("as_input", [np.asarray, paddle.to_tensor])
@pytest.mark.parametrize(("mode", "count"), [("const", 1), ("rand", 3), ("pixel", 2)])
def test_erasing_draws_timms_boxes(mode, count, as_input):
    """The draws are timm's in timm's order: rectangles from ``random``, values from ``numpy.random``."""
    images = np.full((20, 3, 32, 24), 7, np.float32)
    random.seed(5)
    np.random.seed(5)
    result = np.asarray(RandomErasing(0.6, mode=mode, max_count=count)(as_input(images.copy())))
    random.seed(5)
    np.random.seed(5)
    for image in images:
        if random.random() > 0.6:
            continue
        boxes = 1 if count == 1 else random.randint(1, count)
        for _ in range(boxes):
            for _ in range(10):
                area = random.uniform(0.02, 1 / 3) * 32 * 24 / boxes
                aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
                h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if w < 24 and h < 32:
                    top, left = random.randint(0, 32 - h), random.randint(0, 24 - w)
                    shape = {"const": (1, 1, 1), "rand": (3, 1, 1), "pixel": (3, h, w)}[mode]
                    value = 0 if mode == "const" else np.random.standard_normal(shape)
                    image[:, top : top + h, left : left + w] = value
                    break
    assert (images != 7).any()
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("shape", [(3, 16, 16), (8, 3, 16, 16)])
def test_erasing_of_tensors_is_in_place_and_copies_once(shape, monkeypatch):
    images, copies = paddle.full(shape, 7.0), []
    to_tensor = paddle.to_tensor
    monkeypatch.setattr(paddle, "to_tensor", lambda array, **options: copies.append(1) or to_tensor(array, **options))
    assert RandomErasing(1.0, mode="pixel", min_count=2)(images) is images
    assert len(copies) == 1  # of what is filled in
    assert 0.02 < (images.numpy() != 7).mean() < 1 / 3


def test_erasing_share_of_images_and_area():
    random.seed(0)
    erased = (RandomErasing(0.25)(np.ones((4000, 1, 32, 32), np.float32)) == 0).mean((1, 2, 3))
    assert (erased > 0).mean() == pytest.approx(0.25, abs=0.02)
    assert erased[erased > 0].mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)


def test_erasing_leaves_the_clean_split_alone():
    result = RandomErasing(1.0, num_splits=2, device="cuda")(np.ones((8, 1, 9, 9), np.float32))
    assert result[:4].all() and not result[4:].all((1, 2, 3)).any()


def test_eval_transform_is_timms():
    image = noise(50, 40)
    scaled = image.resize((int(36 * 50 / 40), 36), Image.BICUBIC)  # floor(32 / 0.875) = 36
    expected = np.asarray(scaled)[2:34, 6:38].transpose(2, 0, 1)  # round((45 - 32) / 2) = 6
    result = create_transform((3, 32, 32), use_prefetcher=True, interpolation="bicubic")(image)
    np.testing.assert_array_equal(result, expected)
    tensor = create_transform(32, interpolation="bicubic", mean=MEAN, std=STD)(image)
    np.testing.assert_allclose(tensor.numpy(), Normalize(MEAN, STD)(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "crop_pct", "resized"), [(224, None, 256), ((3, 300, 300), 0.904, 331), ((3, 20, 30), 0.9, (22, 33))]
)
def test_eval_sizes(size, crop_pct, resized):
    text = repr(create_transform(size, crop_pct=crop_pct, use_prefetcher=True, interpolation="random"))
    assert f"size={resized}, interpolation=bilinear" in text
    assert f"CenterCrop(size={(size, size) if isinstance(size, int) else size[-2:]})" in text


def names(transform):
    return [type(step).__name__ for step in transform.transforms]


def test_train_transform_is_put_together_as_timms():
    crop, flip = "RandomResizedCropAndInterpolation", "RandomHorizontalFlip"
    make = lambda **options: names(create_transform((3, 32, 32), is_training=True, **options))  # noqa: E731
    assert make(use_prefetcher=True) == [crop, flip, "ColorJitter", "ToNumpy"]
    assert make(color_jitter=None, hflip=0, vflip=0.5)[:3] == [crop, "RandomVerticalFlip", "ToNumpy"]
    assert make(re_prob=0.2)[3:] == ["ToNumpy", "Normalize", "RandomErasing", "ToTensor"]
    assert make(auto_augment="rand-m9", use_prefetcher=True)[2:] == ["RandAugment", "ToNumpy"]
    assert make(auto_augment="augmix-m3")[2] == "AugMixAugment"
    assert make(auto_augment="original")[2] == "AutoAugment"
    stages = create_transform(32, is_training=True, separate=True, use_prefetcher=True)
    assert [names(stage) for stage in stages] == [[crop, flip], ["ColorJitter"], ["ToNumpy"]]


def test_transforms_describe_themselves():
    text = repr(create_transform((3, 32, 32), is_training=True, interpolation="random"))
    assert "size=(32, 32)" in text and "interpolation=bilinear/bicubic" in text
    assert "RandomHorizontalFlip(p=0.5)" in text and "contrast=(0.6, 1.4)" in text
    assert "Resize(size=36, interpolation=bicubic)" in repr(create_transform(32, interpolation="bicubic"))


def test_policies_get_timms_settings():
    step = create_transform(100, is_training=True, auto_augment="augmix-m3", interpolation="bicubic").transforms[2]
    assert step.ops[0].hparams == {
        "translate_const": 45,
        "img_mean": (124, 116, 104),
        "interpolation": Image.BICUBIC,
        "translate_pct": 0.3,
        "magnitude_std": math.inf,
    }
    step = create_transform(100, is_training=True, auto_augment="rand-m9", interpolation="random").transforms[2]
    assert "interpolation" not in step.ops[0].hparams


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"is_training": True, "scale": (0.5, 0.1)}, "scale"),
        ({"is_training": True, "color_jitter": (0.1, 0.2)}, "three, or four with hue"),
        ({"is_training": True, "re_prob": 0.1, "re_mode": "pixels"}, "'pixels' is none of const, rand, pixel"),
        ({"separate": True}, "separate transforms are for training"),
        ({"crop_mode": "centre"}, "crop_mode 'centre' is none of center, border, squash; did you mean center"),
        ({"is_training": True, "train_crop_mode": "rrk"}, "train_crop_mode 'rrk' is none of rrc, rkrc, rkrr"),
        ({"is_training": True, "separate": True, "no_aug": True}, "separate transforms are for training"),
        ({"is_training": True, "tta": 2}, "goes neither with training"),
        ({"tta": 11}, "tta 11: an image has 1 to 10 views"),
    ],
)
def test_bad_settings_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        create_transform(32, **options)


def test_data_config_takes_arguments_then_the_model_then_imagenet():
    class Model:
        default_cfg = {"input_size": (3, 240, 240), "mean": (0.5, 0.5, 0.5), "crop_pct": 0.9}

    assert resolve({}, verbose=False) == {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    settings = resolve({"img_size": None, "mean": [0.1], "interpolation": "bilinear"}, model=Model(), verbose=False)
    assert settings == {
        "input_size": (3, 240, 240),
        "interpolation": "bilinear",
        "mean": (0.1, 0.1, 0.1),
        "std": STD,
        "crop_pct": 0.9,
        "crop_mode": "center",
    }
    assert resolve({"img_size": 96}, Model.default_cfg)["input_size"] == (3, 96, 96)
    for wrong in ({"input_size": (96, 96)}, {"mean": (0.1, 0.2)}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            resolve(wrong)
