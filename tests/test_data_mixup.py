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
def test_fast_collate_as_timm_0_1_calls_it(name, monkeypatch):
    case = FACTS["0.1.20"][name]
    np.random.seed(case["np_seed"])
    monkeypatch.setattr(np.random, "rand", lambda: 0.0)  # which that version did not draw
    collate = FastCollateMixup(case["mixup_alpha"], case["label_smoothing"], case["num_classes"])
    images, soft = collate(list(zip(golden.images_u8((4, 3, 8, 8)), batch()[1])))
    np.testing.assert_array_equal(images, expected("0.1.20", name, "images"))
    np.testing.assert_allclose(soft, expected("0.1.20", name, "target"), atol=1e-6)


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
    ],
)
def test_bad_settings_are_named(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Mixup(**arguments)


def test_pairs_need_an_even_batch():
    with pytest.raises(ConfigError, match="needs an even batch size, not 3"):
        FastCollateMixup(mode="pair")([(np.zeros((3, 4, 4), np.uint8), 0)] * 3)
