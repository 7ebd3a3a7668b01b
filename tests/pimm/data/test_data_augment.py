"""AutoAugment, RandAugment, AugMix: timm's pixels on equal draws, and the distributions of the draws."""

import io
import random

import augment_cases as cases
import numpy as np
import paddle
import pytest
from paths import DATA
from PIL import Image

from pimm.data import RandomErasing, color, create_transform, random_erasing, tf_preprocessing
from pimm.data.auto_augment import (
    OPS,
    POLICIES,
    AugmentOp,
    AutoAugment,
    RandAugment,
    augment_and_mix_transform,
    auto_augment_policy,
    auto_augment_transform,
    rand_augment_transform,
)
from pimm.data.transforms import RandomApply, RandomCropOrPad, RandomPad, ResizeKeepRatio
from pimm.errors import ConfigError

AUGMENT = DATA / "augment"

# What timm makes of one image; keys: op/NAME/MAGNITUDE (seed 7 + magnitude), else KIND/SETTINGS/SEED.
GOLDEN = np.load(AUGMENT / "timm.npz")
HPARAMS = {"translate_const": 100, "img_mean": (124, 116, 104)}
KINDS = {"auto": auto_augment_transform, "rand": rand_augment_transform, "augmix": augment_and_mix_transform}


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)


def picture():
    return Image.fromarray(GOLDEN["image"])


@pytest.mark.parametrize("name", OPS)
def test_operations_give_timms_pixels(name):
    magnitudes = [int(key.split("/")[2]) for key in GOLDEN if key.startswith(f"op/{name}/")]
    if name not in ("Desaturate", "GaussianBlur", "GaussianBlurRand"):  # these are in the policies of 3a below
        assert magnitudes == [3, 8]
    for magnitude in magnitudes:
        seed_all(7 + magnitude)
        result = AugmentOp(name, 1.0, magnitude, HPARAMS)(picture())
        np.testing.assert_array_equal(np.asarray(result), GOLDEN[f"op/{name}/{magnitude}"])


@pytest.mark.parametrize(
    ("kind", "settings"), sorted({tuple(key.split("/")[:2]) for key in GOLDEN if key.split("/")[0] in KINDS})
)
def test_policies_give_timms_pixels(kind, settings):
    transform = KINDS[kind](settings, HPARAMS)
    for seed in range(3):
        seed_all(seed)
        np.testing.assert_array_equal(np.asarray(transform(picture())), GOLDEN[f"{kind}/{settings}/{seed}"])


@pytest.mark.parametrize("name", POLICIES)
def test_policies_have_the_published_size(name):
    policy = auto_augment_policy(name)
    assert [len(ops) for ops in policy] == ([1] * 3 if name == "3a" else [2] * 25)


@pytest.mark.parametrize(
    ("name", "level", "arguments"),
    [
        ("Rotate", 1.0, {-30.0, 30.0}),
        ("ShearX", 0.5, {-0.15, 0.15}),
        ("TranslateX", 0.5, {-50.0, 50.0}),
        ("TranslateYRel", 1.0, {-0.45, 0.45}),
        ("Color", 0.0, {0.1}),
        ("Contrast", 1.0, {1.9}),
        ("SharpnessIncreasing", 0.5, {0.55, 1.45}),
        ("Posterize", 0.9, {3}),
        ("PosterizeIncreasing", 0.9, {1}),
        ("PosterizeOriginal", 0.9, {7}),
        ("Solarize", 0.25, {64}),
        ("SolarizeIncreasing", 0.25, {192}),
        ("SolarizeAdd", 0.9, {99}),
        ("Desaturate", 0.5, {0.75}),
    ],
)
def test_levels(name, level, arguments):
    assert {round(OPS[name][1](level, HPARAMS), 9) for _ in range(50)} == arguments


def test_probability_and_noise_of_the_magnitude(monkeypatch):
    seen = []
    monkeypatch.setitem(OPS, "Spy", (lambda image, part: seen.append(part) or image, lambda part, _: part * 10))
    seed_all(0)
    op = AugmentOp("Spy", 0.3, 6, {"magnitude_std": 0.5})
    for _ in range(20000):
        op(None)
    assert len(seen) / 20000 == pytest.approx(0.3, abs=0.01)
    assert (np.mean(seen), np.std(seen)) == pytest.approx((6, 0.5), abs=0.03)
    seen.clear()
    op = AugmentOp("Spy", 1.0, 8, {"magnitude_std": float("inf")})
    for _ in range(5000):
        op(None)
    assert np.histogram(seen, 4, (0, 8))[0] / 5000 == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("rand-n2", [1 / 15] * 15),
        ("rand-n1-w0", [0.025, 0.005, 0, 0.3, 0, 0.005, 0.005, 0.025, 0.005, 0.005, 0.025, 0.2, 0.2, 0.1, 0.1]),
    ],
)
def test_odds_of_the_operations(settings, expected):
    transform = rand_augment_transform(settings)
    counts = np.zeros(15)

    def count(index):
        def op(image):
            counts[index] += 1
            return image

        return op

    chooser = RandAugment([count(i) for i in range(15)], transform.num_layers, transform.choice_weights)
    seed_all(1)
    for _ in range(10000):
        chooser(None)
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=0.012)


def test_weighted_operations_do_not_repeat():
    transform = rand_augment_transform("rand-n13-w0-m4")  # of 15, two have no weight
    chosen = []
    transform.ops = [lambda image, name=op.name: chosen.append(name) or image for op in transform.ops]
    transform(picture())
    assert len(set(chosen)) == 13


def test_settings_are_understood():
    transform = rand_augment_transform("rand-m7-n3-p0.8-mstd0.5-mmax12-inc1", {"img_mean": (1, 2, 3)})
    op = transform.ops[4]
    assert (op.name, op.magnitude, op.prob, transform.num_layers) == ("PosterizeIncreasing", 7, 0.8, 3)
    assert op.hparams == {"magnitude_std": 0.5, "magnitude_max": 12, "img_mean": (1, 2, 3)}
    mix = augment_and_mix_transform("augmix-m5-w4-d2-a0.5-b1")
    assert (mix.ops[0].magnitude, mix.width, mix.depth, mix.alpha, mix.blended) == (5, 4, 2, 0.5, True)


def test_augmix_of_an_image_that_is_not_square():
    seed_all(0)
    image = picture().crop((0, 0, 24, 10))
    assert augment_and_mix_transform("augmix")(image).size == (24, 10)


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (rand_augment_transform, "rand-x9", "section 'x9' is not one of m, n, p"),
        (rand_augment_transform, "rand-mbig", "section 'mbig'"),
        (rand_augment_transform, "rand-w1", "1 is none of 0"),
        (rand_augment_transform, "rand-t3", "'3' is none of weights, 3a, 3aw"),
        (rand_augment_transform, "random-m9", "start with 'rand-'"),
        (rand_augment_transform, "rand-n14-w0", "n14 is more than the weighted operations"),
        (augment_and_mix_transform, "augmix-q3", "section 'q3'"),
        (augment_and_mix_transform, "augmix-w0", "w, the chains, and a, alpha, must be positive"),
        (auto_augment_transform, "orignal", "did you mean original"),
        (auto_augment_transform, "v0-m3", "section 'm3'"),
    ],
)
def test_bad_settings_are_named(make, settings, says):
    with pytest.raises(ConfigError, match=says):
        make(settings)


# What today's timm, torchvision and TensorFlow make of one image; tests/parity/test_timm_augment.py wrote the first.
TRANSFORMED = np.load(AUGMENT / "transforms.npz")
TENSORFLOW = np.load(AUGMENT / "tensorflow.npz")


@pytest.mark.parametrize("name", cases.TRANSFORMS)
def test_transforms_give_timms_pixels(name):
    result = cases.apply_transform(create_transform, name, Image.fromarray(TRANSFORMED["image"]), seed=3)
    np.testing.assert_array_equal(result, TRANSFORMED[f"transform/{name}"])


@pytest.mark.parametrize("name", cases.COLORS)
def test_colors_are_torchvisions(name):
    image = Image.fromarray(TRANSFORMED["image"][:14, :16])
    for factor in cases.COLORS[name][1]:
        np.testing.assert_array_equal(getattr(color, name)(image, factor), TRANSFORMED[f"color/{name}/{factor}"])


def test_blur_is_torchvisions():
    image = Image.fromarray(TRANSFORMED["image"][:14, :16])
    for sigma in cases.BLUR_SIGMAS:
        np.testing.assert_array_equal(color.GaussianBlur(23).blur(image, sigma), TRANSFORMED[f"blur/{sigma}"])
    with pytest.raises(ConfigError, match="a blur of 23 pixels needs images of more than 11, not 11x14"):
        color.GaussianBlur(23)(image.crop((0, 0, 11, 14)))
    with pytest.raises(ConfigError, match="4 is not odd"):
        color.GaussianBlur(4)


@pytest.mark.parametrize("name", [name for name in TENSORFLOW if name != "image"])
def test_tf_preprocessing_is_tensorflows(name):
    kind, interpolation, *size = name.split("/")
    if kind == "resize":
        result = tf_preprocessing.resize(TENSORFLOW["image"][:12], tuple(map(int, size)), interpolation)
        np.testing.assert_allclose(result, TENSORFLOW[name], atol=3e-4)
    else:
        transform = create_transform(
            int(size[0]), tf_preprocessing=True, interpolation=interpolation, use_prefetcher=True
        )
        difference = np.abs(np.int64(transform(Image.fromarray(TENSORFLOW["image"]))) - TENSORFLOW[name])
        assert difference.max() <= 1  # sums in another order may fall on the other side of a half
        assert (difference > 0).mean() < 0.01


def test_tf_preprocessing_in_training():
    """Files as bytes; a part of the image, mirrored every second time; floats where there is no prefetcher."""
    file = io.BytesIO()
    Image.fromarray(TENSORFLOW["image"]).save(file, "PNG")
    seed_all(0)
    transform = create_transform(16, is_training=True, tf_preprocessing=True, use_prefetcher=True)
    assert transform(file.getvalue()).shape == (3, 16, 16)
    step = np.zeros((40, 60, 3), np.uint8)
    step[:, 30:] = 255
    rises = [
        np.sign(int(image[0, 8, -1]) - int(image[0, 8, 0])) for image in map(transform, [Image.fromarray(step)] * 300)
    ]
    assert np.mean([rise > 0 for rise in rises if rise]) == pytest.approx(0.5, abs=0.08)
    ours = create_transform(16, tf_preprocessing=True)(Image.fromarray(step)).numpy()
    np.testing.assert_allclose(
        ours[:, 0, 0], [(0 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0 - 0.406) / 0.225], rtol=1e-5
    )
    with pytest.raises(ConfigError, match="makes square images, not 16x20"):
        create_transform((16, 20), tf_preprocessing=True)


def test_parts_that_tensorflow_draws():
    """TensorFlow draws the shape evenly, and of the heights that the area allows each is as likely."""
    random.seed(0)
    crops = np.array([tf_preprocessing.random_crop(300, 400) for _ in range(3000)])
    top, left, height, width = crops.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    area = height * width / 120000
    assert 0.08 <= area.min() < 0.1 and 0.9 < area.max() <= 1
    aspect = (width / height)[area < 0.5]  # these fit in whatever shape
    assert np.histogram(aspect, 4, (3 / 4, 4 / 3))[0] / len(aspect) == pytest.approx([0.25] * 4, abs=0.05)
    assert tf_preprocessing.random_crop(10, 1000) is None


@pytest.mark.parametrize(
    ("transform", "probability"),
    [
        (RandomApply([lambda image: None], 0.3), 0.3),
        (color.RandomGrayscale(0.2), 0.2),
    ],
)
def test_probabilities(transform, probability):
    random.seed(0)
    image = Image.new("RGB", (1, 1), (255, 0, 0))
    changed = [(result := transform(image)) is None or result.getpixel((0, 0)) == (76, 76, 76) for _ in range(4000)]
    assert np.mean(changed) == pytest.approx(probability, abs=0.02)


def test_magnitudes_of_the_blur_and_of_nearly_whole_crops(monkeypatch):
    random.seed(0)
    sigmas = []
    monkeypatch.setattr(color.GaussianBlur, "blur", lambda self, image, sigma: sigmas.append(sigma))
    for _ in range(3000):
        color.GaussianBlur(23)(None)
    assert np.histogram(sigmas, 4, (0.1, 2.0))[0] / 3000 == pytest.approx([0.25] * 4, abs=0.03)
    image = Image.new("RGB", (1000, 1000))
    draw = ResizeKeepRatio.get_params
    sizes = np.array([draw(image, (500, 500), 0.0, 0.5, (0.5, 0.8), True, 0.4, (0.5, 2.0)) for _ in range(4000)])
    scale, aspect = sizes.prod(1) / 250000, sizes[:, 1] / sizes[:, 0]
    scaled, turned = np.abs(scale - 1) > 0.01, np.abs(aspect - 1) > 1e-3
    assert scaled.mean() == pytest.approx(0.5, abs=0.03)
    assert turned.mean() == pytest.approx(0.4, abs=0.03)
    assert np.histogram(1 / scale[scaled], 3, (0.5, 0.8))[0] / scaled.sum() == pytest.approx([1 / 3] * 3, abs=0.03)
    log_aspect = np.log(aspect[turned])
    assert np.histogram(log_aspect, 4, (-np.log(2), np.log(2)))[0] / turned.sum() == pytest.approx([0.25] * 4, abs=0.04)


def test_pads_and_crops_anywhere():
    random.seed(0)
    small, large = Image.new("L", (3, 4), 255), Image.fromarray(np.arange(70, dtype=np.uint8).reshape(7, 10))
    tops, lefts = zip(*(np.argwhere(np.asarray(RandomPad((6, 5))(small)) == 255)[0] for _ in range(600)))
    assert (set(tops), set(lefts)) == ({0, 1, 2}, {0, 1, 2})
    corners = [np.asarray(RandomCropOrPad((5, 8))(large))[0, 0] for _ in range(600)]
    assert sorted(set(corners)) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert np.bincount(corners)[[0, 11, 22]] / 600 == pytest.approx(1 / 9, abs=0.05)


def test_sub_policies_are_equally_likely():
    counts = np.zeros(25)

    def count(index):
        def op(image):
            counts[index] += 1
            return image

        return op

    seed_all(0)
    policy = AutoAugment([[count(index)] for index in range(25)])
    for _ in range(10000):
        policy(None)
    np.testing.assert_allclose(counts / 10000, 1 / 25, atol=0.008)


def test_augmix_mixes_chains_by_dirichlet_and_beta(monkeypatch):
    """Depths from 1 to 3, each as likely; the clean image's share is uniform for alpha 1."""
    calls, shares = [], []
    mix = augment_and_mix_transform("augmix-w2")
    mix.ops = [lambda image: calls.append(1) or image]
    monkeypatch.setattr(Image, "blend", lambda image, mixed, share: shares.append(share))
    depths = []
    seed_all(0)
    for _ in range(3000):
        calls.clear()
        mix(picture().crop((0, 0, 1, 1)))
        depths.append(len(calls))
    assert np.bincount(depths)[2:] / 3000 == pytest.approx(np.array([1, 2, 3, 2, 1]) / 9, abs=0.03)
    assert np.histogram(shares, 4, (0, 1))[0] / 3000 == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize(("mode", "values"), [("const", 1), ("rand", 3), ("pixel", None)])
def test_erasing_on_the_device_copies_no_more_than_it_draws(monkeypatch, mode, values):
    """A value a rectangle, a channel or a pixel; and gives numpy's pixels, also where rectangles overlap."""
    copied, images, erasing = [], np.full((16, 3, 24, 20), 7, np.float32), RandomErasing(0.5, mode=mode, max_count=3)
    to_device = random_erasing.to_device
    monkeypatch.setattr(
        random_erasing, "to_device", lambda array, place: copied.append(array.size) or to_device(array, place)
    )
    seed_all(3)
    on_device = erasing(paddle.to_tensor(images)).numpy()
    seed_all(3)
    boxes = [box for box, _ in erasing._fills(images.shape)]
    seed_all(3)
    np.testing.assert_array_equal(on_device, erasing(images))
    assert copied == [sum(values or images[box].size for box in boxes)] and len(boxes) > 8
    assert RandomErasing(0.0)(paddle.ones([2, 3, 4, 4])).sum().item() == 96
    assert len(copied) == 1  # nothing to erase, nothing to copy
