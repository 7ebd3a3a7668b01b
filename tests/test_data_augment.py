"""AutoAugment, RandAugment, AugMix: timm's pixels on equal draws, and the distributions of the draws."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pimm.data.auto_augment import (
    OPS,
    POLICIES,
    AugmentOp,
    RandAugment,
    augment_and_mix_transform,
    auto_augment_policy,
    auto_augment_transform,
    rand_augment_transform,
)
from pimm.errors import ConfigError

# What timm makes of one image; keys: op/NAME/MAGNITUDE (seed 7 + magnitude), else KIND/SETTINGS/SEED.
GOLDEN = np.load(Path(__file__).parent / "data" / "augment" / "timm.npz")
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
        (augment_and_mix_transform, "augmix-q3", "section 'q3'"),
        (auto_augment_transform, "orignal", "did you mean original"),
        (auto_augment_transform, "v0-m3", "section 'm3'"),
    ],
)
def test_bad_settings_are_named(make, settings, says):
    with pytest.raises(ConfigError, match=says):
        make(settings)
