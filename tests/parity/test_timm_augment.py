"""Compare pimm's augmentation with that of timm and torchvision; skipped where these are not installed.

``python tests/parity/test_timm_augment.py`` writes their results for one image to tests/data/augment/transforms.npz.
"""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

import augment_cases as cases

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
import timm.data.auto_augment as timm_augment  # noqa: E402
import timm.data.transforms as timm_transforms  # noqa: E402
import torchvision.transforms.functional as F  # noqa: E402
from timm.data import FastCollateMixup as TimmFastCollateMixup  # noqa: E402
from timm.data import Mixup as TimmMixup  # noqa: E402
from timm.data import create_transform as timm_create_transform  # noqa: E402
from timm.data.distributed_sampler import RepeatAugSampler as TimmRepeatAugSampler  # noqa: E402
from timm.data.random_erasing import RandomErasing as TimmRandomErasing  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "augment" / "transforms.npz"
SHAPES = ((61, 47), (30, 90), (100, 64))  # of images: width, height
SEEDS = 12


def picture(width, height, seed=0):
    """Smooth shapes and some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 9.0
    waves = np.sin(x * rng.uniform(0.3, 1, 3) + rng.uniform(0, 6, 3)) + np.cos(y * rng.uniform(0.3, 1, 3))
    return Image.fromarray((127 + 55 * waves + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8))


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def golden():
    """Everything that the suite compares with, as timm and torchvision have it."""
    image = picture(45, 37)
    arrays = {"image": np.asarray(image)}
    for name in cases.TRANSFORMS:
        arrays[f"transform/{name}"] = cases.apply_transform(timm_create_transform, name, image, seed=3)
    image = image.crop((0, 0, 16, 14))
    for ours, (theirs, factors) in cases.COLORS.items():
        for factor in factors:
            arrays[f"color/{ours}/{factor}"] = np.asarray(getattr(F, theirs)(image, factor))
    for sigma in cases.BLUR_SIGMAS:
        arrays[f"blur/{sigma}"] = np.asarray(F.gaussian_blur(image, [23, 23], [sigma, sigma]))
    for number, case in enumerate(cases.REPEATS):
        arrays[f"repeats/{number}"] = np.array(repeats(TimmRepeatAugSampler, *case))
    return arrays


def repeats(sampler, size, ranks, num_repeats, selected_round):
    """Indices of every rank, in the order of the data set."""
    options = {"shuffle": False, "num_repeats": num_repeats, "selected_round": selected_round}
    return [list(sampler(range(size), ranks, rank, **options)) for rank in range(ranks)]


def test_the_golden_file_is_timms():
    stored, made = np.load(GOLDEN), golden()
    assert set(stored) == set(made)
    for name, values in made.items():
        np.testing.assert_array_equal(stored[name], values, err_msg=name)


def assert_same_pixels(apply, ours, theirs):
    """Check that ``apply(ours)`` and ``apply(theirs)`` agree; newer Pillow refuses to posterize to 0 bits."""
    try:
        expected = apply(theirs)
    except ValueError as error:
        assert "bits must be" in str(error)
        return
    np.testing.assert_array_equal(np.asarray(apply(ours)), np.asarray(expected))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", cases.TRANSFORMS)
def test_transforms(name, shape):
    from pimm.data import create_transform

    for seed in range(SEEDS):
        image = picture(*shape, seed)

        def apply(create, image=image, seed=seed):
            return cases.apply_transform(create, name, image, seed)

        assert_same_pixels(apply, create_transform, timm_create_transform)


@pytest.mark.parametrize("size", [224, 160, 96])
@pytest.mark.parametrize("is_training", [True, False])
def test_loader_transforms_of_photograph_sizes(size, is_training):
    """Compare the default transforms of the benchmark, without the jitter, which PyTorch draws."""
    from pimm.data import create_transform

    options = {"is_training": is_training, "color_jitter": None, "hflip": 0.0, "use_prefetcher": True}
    for seed, shape in enumerate([(500, 375), (375, 500), (640, 480), (333, 500), (120, 150)]):
        image, results = picture(*shape, seed), []
        for create in (create_transform, timm_create_transform):
            seed_all(seed)
            results.append(np.asarray(create((3, size, size), **options)(image)))
        np.testing.assert_array_equal(*results)


def test_normalised_floats():
    from pimm.data import create_transform

    for options in ({}, {"normalize": False}):
        ours, theirs = (create(32, **options)(picture(61, 47)) for create in (create_transform, timm_create_transform))
        assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("name", timm_augment.NAME_TO_OP)
def test_operations(name):
    from pimm.data.auto_augment import AugmentOp

    hparams = {"translate_const": 20, "img_mean": (124, 116, 104), "magnitude_std": 0.5}
    for seed in range(SEEDS):

        def apply(op, seed=seed):
            seed_all(seed)
            return op(name, 0.9, seed, hparams)(picture(61, 47, seed))

        assert_same_pixels(apply, AugmentOp, timm_augment.AugmentOp)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        *(("auto_augment_transform", f"{name}-mstd0.5") for name in ("original", "originalr", "v0", "v0r", "3a")),
        ("auto_augment_transform", "v0"),
        ("rand_augment_transform", "rand-m9-n3-mstd101"),
        ("rand_augment_transform", "rand-m9-mstd0.5-inc1-p1.0"),
        ("rand_augment_transform", "rand-m12-mmax20-t3a"),
        ("rand_augment_transform", "rand-m5-n4-t3aw"),
        ("rand_augment_transform", "rand-tweights-m3"),
        ("augment_and_mix_transform", "augmix-m5-w4-d2-a0.5"),
        ("augment_and_mix_transform", "augmix-b1-mstd1"),
    ],
)
def test_policies(make, settings):
    import pimm.data.auto_augment as our_augment

    hparams = {"translate_const": 20, "img_mean": (124, 116, 104)}
    for seed in range(2 * SEEDS):

        def apply(module, seed=seed):
            seed_all(seed)
            return getattr(module, make)(settings, dict(hparams))(picture(61, 47, seed))

        assert_same_pixels(apply, our_augment, timm_augment)


@pytest.mark.parametrize("ours", cases.COLORS)
def test_colors(ours):
    from pimm.data import color

    theirs, factors = cases.COLORS[ours]
    for seed, factor in enumerate([*factors, *np.random.default_rng(0).uniform(-0.4, 0.4, 30)]):
        factor = factor if ours == "shift_hue" else abs(factor) * 2
        image = picture(61, 47, seed)
        expected = np.asarray(getattr(F, theirs)(image, factor))
        np.testing.assert_array_equal(np.asarray(getattr(color, ours)(image, factor)), expected)


def test_blur():
    """Allow one level: sums are added in another order, and one that lies on a half may be rounded to either side."""
    from pimm.data.color import GaussianBlur

    blur, differing = GaussianBlur(23), []
    for seed, sigma in enumerate(np.random.default_rng(0).uniform(0.1, 2.0, 30).tolist()):
        image = picture(61, 47, seed)
        theirs = np.asarray(F.gaussian_blur(image, [23, 23], [sigma, sigma]), int)
        difference = np.abs(np.asarray(blur.blur(image, sigma), int) - theirs)
        assert difference.max() <= 1
        differing.append((difference > 0).mean())
    assert np.mean(differing) < 1e-4


@pytest.mark.parametrize("kind", ["RandomPad", "RandomCropOrPad", "CenterCropOrPad"])
@pytest.mark.parametrize("fill", [0, (1, 2, 3)])
def test_crops_and_pads(kind, fill):
    from pimm.data import transforms

    for seed, shape in enumerate([(20, 40), (40, 20), (25, 25), (60, 50)]):
        results = []
        for module in (transforms, timm_transforms):
            seed_all(seed)
            results.append(np.asarray(getattr(module, kind)((32, 30), fill=fill)(picture(*shape))))
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("count", [1, 3])
def test_erasing(count):
    from pimm.data import RandomErasing

    for seed in range(SEEDS):
        images = np.random.default_rng(seed).normal(size=(8, 3, 20, 30)).astype(np.float32)
        seed_all(seed)
        theirs = TimmRandomErasing(0.6, max_count=count, num_splits=2, device="cpu")(torch.tensor(images))
        seed_all(seed)
        ours = RandomErasing(0.6, max_count=count, num_splits=2)(images)
        np.testing.assert_array_equal(ours, theirs.numpy())


MIXES = [
    {"mixup_alpha": 0.8},
    {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.7, "switch_prob": 0.4},
    {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False},
    {"mixup_alpha": 1.0, "cutmix_minmax": (0.2, 0.8)},
]


@pytest.mark.parametrize("options", MIXES)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem", "half"])
def test_mixup(mode, options):
    import paddle

    from pimm.data import FastCollateMixup, Mixup

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 3, 20, 16)).astype(np.uint8), rng.integers(0, 10, 6)
    for seed in range(SEEDS):
        results = []
        for kind in (FastCollateMixup, TimmFastCollateMixup):
            seed_all(seed)
            results.append(kind(**options, mode=mode, num_classes=10)(list(zip(images.copy(), labels.tolist()))))
        (ours, our_soft), (theirs, their_soft) = results
        np.testing.assert_array_equal(ours, np.asarray(theirs))
        np.testing.assert_allclose(our_soft, np.asarray(their_soft), atol=1e-6)
        if mode == "half":
            continue
        seed_all(seed)
        theirs = TimmMixup(**options, mode=mode, num_classes=10)(torch.tensor(images).float(), torch.tensor(labels))
        seed_all(seed)
        ours = Mixup(**options, mode=mode, num_classes=10)(
            paddle.to_tensor(images.astype("float32")), paddle.to_tensor(labels)
        )
        np.testing.assert_allclose(ours[0].numpy(), theirs[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(ours[1].numpy(), theirs[1].numpy(), atol=1e-6)


def test_mixup_of_dense_labels():
    import paddle

    from pimm.data import Mixup

    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 3, 8, 8), np.float32), (rng.random((4, 5)) < 0.4).astype(np.float32)
    results = []
    for kind, tensor in ((Mixup, paddle.to_tensor), (TimmMixup, torch.tensor)):
        seed_all(1)
        results.append(kind(num_classes=5, multi_label=True, mode="elem")(tensor(images), tensor(labels))[1].numpy())
    np.testing.assert_allclose(*results, atol=1e-6)


@pytest.mark.parametrize("case", cases.REPEATS)
def test_repeats(case):
    from pimm.data.samplers import RepeatAugSampler

    assert repeats(RepeatAugSampler, *case) == repeats(TimmRepeatAugSampler, *case)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden())
