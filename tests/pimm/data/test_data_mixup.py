"""Mixup and CutMix against timm's values on equal draws."""

import golden
import numpy as np
import paddle
import pytest

from pimm.data import FastCollateMixup, Mixup, mixup_batch, mixup_target
from pimm.errors import ConfigError

FACTS = golden.facts("loss_metric")
CASES = {name: case for name, case in FACTS["1.0.31"].items() if name.startswith(("mixup_", "fast_collate_"))}


def batch():
    return golden.inputs((4, 3, 8, 8), stream=12351), golden.targets(4, 10, stream=779)


def expected(version, name, what):
    return golden.arrays("loss_metric")[f"{version}/{name}/{what}"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mixup_")])
def test_mixup(name):
    images, labels = (paddle.to_tensor(value) for value in batch())
    np.random.seed(CASES[name]["np_seed"])
    mixed, soft = Mixup(**CASES[name]["config"])(images, labels)
    np.testing.assert_allclose(mixed.numpy(), expected("1.0.31", name, "x"), atol=1e-6)
    np.testing.assert_allclose(soft.numpy(), expected("1.0.31", name, "target"), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fast_collate_")])
def test_fast_collate(name):
    samples = list(zip(golden.images_u8((4, 3, 8, 8)), batch()[1]))
    np.random.seed(CASES[name]["np_seed"])
    images, soft = FastCollateMixup(**CASES[name]["config"])(samples)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, expected("1.0.31", name, "images"))
    np.testing.assert_allclose(soft, expected("1.0.31", name, "target"), atol=1e-6)


@pytest.mark.parametrize("name", ["fast_collate_mixup0", "fast_collate_mixup1"])
def test_fast_collate_as_timm_0_1_calls_it(name):
    case = FACTS["0.1.20"][name]
    collate = FastCollateMixup(case["mixup_alpha"], case["label_smoothing"], case["num_classes"])
    np.random.seed(case["np_seed"])
    images, soft = collate(list(zip(golden.images_u8((4, 3, 8, 8)), batch()[1])))
    np.testing.assert_array_equal(images, expected("0.1.20", name, "images"))
    np.testing.assert_allclose(soft, expected("0.1.20", name, "target"), atol=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_draws_of_timm_0_1(enabled):
    """One share a batch, and nothing where mixup is off: the stream goes on where that version leaves it."""
    collate = FastCollateMixup(0.3, 0.1, 10)
    collate.mixup_enabled = enabled
    samples = list(zip(golden.images_u8((4, 3, 8, 8)), batch()[1]))
    np.random.seed(5)
    theirs = np.random.RandomState(5)
    for _ in range(3):
        share = theirs.beta(0.3, 0.3) if enabled else 1.0
        one_hot = np.eye(10)[batch()[1]] * 0.9 + 0.01
        np.testing.assert_allclose(collate(samples)[1], one_hot * share + one_hot[::-1] * (1 - share), atol=1e-6)
    assert np.random.rand() == theirs.rand()


def test_mixup_target():
    soft = mixup_target(paddle.to_tensor(batch()[1]), **FACTS["0.1.20"]["mixup_target"], device="cpu")
    np.testing.assert_allclose(soft.numpy(), golden.arrays("loss_metric")["0.1.20/mixup_target"], atol=1e-7)


@pytest.mark.parametrize("disable", [False, True])
def test_mixup_batch(disable):
    images, labels = batch()
    np.random.seed(3)
    share = 1.0 if disable else np.random.RandomState(3).beta(0.2, 0.2)
    mixed, soft = mixup_batch(
        paddle.to_tensor(images), paddle.to_tensor(labels), num_classes=10, smoothing=0.0, disable=disable
    )
    np.testing.assert_allclose(mixed.numpy(), images * share + images[::-1] * (1 - share), atol=1e-6)
    np.testing.assert_allclose(
        soft.numpy(), np.eye(10)[labels] * share + np.eye(10)[labels[::-1]] * (1 - share), atol=1e-6
    )


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_disabled_mixup_only_softens_labels(mode):
    images, labels = batch()
    mixup = Mixup(mode=mode, num_classes=10, label_smoothing=0.0)
    mixup.mixup_enabled = False
    mixed, soft = mixup(paddle.to_tensor(images), paddle.to_tensor(labels))
    np.testing.assert_array_equal(mixed.numpy(), images)
    np.testing.assert_array_equal(soft.numpy(), np.eye(10, dtype=np.float32)[labels])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "pairs"}, "'pairs' is none of batch, pair, elem"),
        ({"mode": "half"}, "'half' is none of batch, pair, elem"),
        ({"mixup_alpha": 0.0}, "needs mixup_alpha or cutmix_alpha"),
        ({"cutmix_minmax": (0.1, 0.2, 0.3)}, "not a range"),
        ({"cutmix_minmax": (0.9, 0.2)}, "not a range"),
        ({"cutmix_minmax": (0.2, 1.5)}, "not a range"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha must be finite, got nan"),
        ({"cutmix_alpha": float("inf")}, "cutmix_alpha must be finite, got inf"),
        ({"prob": 1.5}, "prob must be from 0 to 1, got 1.5"),
        ({"prob": float("nan")}, "prob must be from 0 to 1, got nan"),
        ({"switch_prob": -0.1}, "switch_prob must be from 0 to 1, got -0.1"),
        ({"label_smoothing": 1.5}, "at least 0 and below 1, got 1.5"),
    ],
)
def test_bad_settings_are_named(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Mixup(**arguments)


def test_rectangles_of_one_size():
    np.random.seed(0)
    mixed, labels = FastCollateMixup(cutmix_minmax=(0.3, 0.35), mixup_alpha=0, label_smoothing=0, num_classes=2)(
        [(np.full((3, 8, 8), level, np.uint8), label) for label, level in enumerate((0, 9))]
    )
    np.testing.assert_array_equal((mixed[0] == 9).sum((1, 2)), 4)  # 0.3 and 0.35 of 8 are two whole pixels
    np.testing.assert_array_equal(labels, [[1 - 4 / 64, 4 / 64], [4 / 64, 1 - 4 / 64]])


def test_pairs_need_an_even_batch():
    with pytest.raises(ConfigError, match="needs an even batch size, not 3"):
        FastCollateMixup(mode="pair")([(np.zeros((3, 4, 4), np.uint8), 0)] * 3)


def test_what_is_drawn():
    """Probabilities of mixing and of CutMix, shares as the Beta distribution has them, rectangles anywhere."""
    np.random.seed(0)
    mixup = Mixup(mixup_alpha=0.4, cutmix_alpha=2.0, prob=0.6, switch_prob=0.3, mode="elem", correct_lam=False)
    shares, boxes = mixup._draw(20000, (3, 40, 60))
    cut = np.array([box is not None for box in boxes])
    mixed = (shares != 1) & ~cut
    assert (cut.mean(), mixed.mean()) == pytest.approx((0.6 * 0.3, 0.6 * 0.7), abs=0.01)
    for values, alpha in ((shares[mixed], 0.4), (shares[cut], 2.0)):
        assert (values.mean(), values.var()) == pytest.approx((0.5, 1 / (8 * alpha + 4)), abs=0.01)
    inside = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in filter(None, boxes)]
    top, bottom, left, right = np.array(inside).T
    whole = (top > 0) & (bottom < 40) & (left > 0) & (right < 60)
    area = ((bottom - top) * (right - left) / 2400)[whole]
    np.testing.assert_allclose(area, 1 - shares[cut][whole], atol=0.06)  # sides are whole pixels
    assert ((top + bottom) / 2)[whole].mean() == pytest.approx(20, abs=0.5)


def test_rectangles_within_limits():
    np.random.seed(0)
    shares, boxes = Mixup(cutmix_minmax=(0.2, 0.8), switch_prob=1.0, mode="elem")._draw(5000, (3, 50, 100))
    sides = np.array([(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes])
    assert (sides.min(0).tolist(), sides.max(0).tolist()) == ([10, 20], [39, 79])
    assert sides.mean(0) == pytest.approx([24.5, 49.5], abs=0.5)
    np.testing.assert_allclose(shares, 1 - sides.prod(1) / 5000, atol=1e-6)


@pytest.mark.parametrize("collate", [False, True])
def test_labels_of_many_classes_at_once(collate):
    images, labels = golden.images_u8((4, 3, 8, 8)), np.float32([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    options = {"num_classes": 3, "label_smoothing": 0.2, "multi_label": True}
    np.random.seed(2)
    if collate:
        soft = FastCollateMixup(**options)(list(zip(images, labels)))[1]
    else:
        soft = Mixup(**options)(paddle.to_tensor(images).astype("float32"), paddle.to_tensor(labels))[1].numpy()
    np.random.seed(2)
    np.random.rand()
    share, smooth = np.random.beta(1.0, 1.0), labels * 0.8 + 0.1
    np.testing.assert_allclose(soft, smooth * share + smooth[::-1] * (1 - share), atol=1e-6)
    with pytest.raises(ConfigError, match=r"multi_label needs labels \[batch, 4\], not \[4, 3\]"):
        FastCollateMixup(num_classes=4, multi_label=True)(list(zip(images, labels)))


def test_rectangles_of_no_size_change_nothing(monkeypatch):
    monkeypatch.setattr(np.random, "beta", lambda *_: 0.9999)
    images = paddle.to_tensor(golden.images_u8((4, 3, 8, 8))).astype("float32")
    mixed, _ = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0)(images, paddle.to_tensor([0, 1, 2, 3]))
    np.testing.assert_array_equal(mixed.numpy(), images.numpy())
