"""Losses, value and gradient, against the original ones."""

import golden
import numpy as np
import paddle
import pytest

from pimm.errors import ConfigError
from pimm.loss import (
    AsymmetricLossMultiLabel,
    AsymmetricLossSingleLabel,
    BinaryCrossEntropy,
    JsdCrossEntropy,
    LabelSmoothingCrossEntropy,
    SoftTargetCrossEntropy,
)

CLASSES = {
    "label_smoothing": LabelSmoothingCrossEntropy,
    "soft_target": SoftTargetCrossEntropy,
    "cream_soft_target": SoftTargetCrossEntropy,
    "jsd": JsdCrossEntropy,
    "bce": BinaryCrossEntropy,
    "asl_multi": AsymmetricLossMultiLabel,
    "asl_single": AsymmetricLossSingleLabel,
}
FACTS = golden.facts("loss_metric")
CASES = [
    (f"{version}/{case}", cls)
    for version in ("0.1.20", "1.0.31")
    for case in FACTS[version]
    for prefix, cls in CLASSES.items()
    if case.startswith(prefix)
]
TOLERANCE = {"f32": {"rtol": 2e-6, "atol": 1e-6}, "f64": {"rtol": 1e-10, "atol": 1e-12}}
DTYPE = {"f32": "float32", "f64": "float64"}


def soft_targets(dtype):
    logits = golden.inputs((12, 10), stream=12346).astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32).astype(dtype)


def targets_of(case, dtype):
    if "soft_target" in case or case.endswith("_soft"):
        return soft_targets(dtype)
    if "asl_multi" in case:
        return (golden.inputs((12, 10), stream=12347) > 0.7).astype(dtype)
    return golden.targets(12, 10)


def config_of(key, dtype):
    version, case = key.split("/")
    config = {name: value for name, value in FACTS[version][case]["config"].items() if name != "function"}
    if "weight" in config:
        config["weight"] = paddle.to_tensor(np.linspace(0.5, 1.5, 10).astype(np.float32).astype(dtype))
    return config


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("key, cls", CASES, ids=[key for key, _ in CASES])
def test_loss_and_gradient(key, cls, precision):
    dtype = DTYPE[precision]
    logits = paddle.to_tensor((2 * golden.inputs((12, 10))).astype(dtype), stop_gradient=False)
    loss = cls(**config_of(key, dtype))(logits, paddle.to_tensor(targets_of(key.split("/")[1], dtype)))
    loss.sum().backward()
    tolerance = TOLERANCE["f32" if cls is AsymmetricLossMultiLabel else precision]
    expected = golden.arrays("loss_metric")
    np.testing.assert_allclose(loss.numpy(), expected[f"{key}/{precision}/loss"], **tolerance)
    np.testing.assert_allclose(logits.grad.numpy(), expected[f"{key}/{precision}/grad"], **tolerance)


@pytest.mark.parametrize(
    "build, says",
    [
        (lambda: LabelSmoothingCrossEntropy(1.0), "label smoothing is a share from 0 to below 1, got 1.0"),
        (lambda: BinaryCrossEntropy(smoothing=-0.1), "label smoothing is a share from 0 to below 1, got -0.1"),
        (lambda: AsymmetricLossMultiLabel(reduction="average"), "'average'; valid are mean, batchmean, sum, none"),
        (lambda: AsymmetricLossSingleLabel(reduction="sum"), "'sum'; valid are mean, none"),
        (
            lambda: JsdCrossEntropy(num_splits=3)(paddle.zeros([4, 2]), paddle.zeros([4], "int64")),
            "a batch of 4 images does not split into 3 equal parts",
        ),
    ],
)
def test_impossible_settings(build, says):
    with pytest.raises(ConfigError) as error:
        build()
    assert says in str(error.value)


def closed_form_asl(logits, targets, weight, pos_weight, gamma_neg=4, gamma_pos=1, clip=0.05):
    positive = 1 / (1 + np.exp(-logits))
    negative = np.minimum(1 - positive + clip, 1)
    losses = np.where(
        targets > 0,
        pos_weight * np.log(positive) * (1 - positive) ** gamma_pos,
        np.log(negative) * (1 - negative) ** gamma_neg,
    )
    return -(losses * weight).sum() / len(logits)


def test_weights_of_the_asymmetric_loss():
    logits = golden.inputs((4, 3)).astype(np.float64)
    targets = (golden.inputs((4, 3), stream=2) > 0).astype(np.float64)
    weight, pos_weight = np.array([0.5, 1.0, 2.0]), np.array([3.0, 1.0, 0.25])
    tensors = [paddle.to_tensor(value.astype(np.float32)) for value in (logits, targets, weight, pos_weight)]
    loss = AsymmetricLossMultiLabel(weight=tensors[2], pos_weight=tensors[3])(*tensors[:2])
    assert loss.item() == pytest.approx(closed_form_asl(logits, targets, weight, pos_weight), rel=1e-5)
    number = AsymmetricLossMultiLabel(pos_weight=3.0)(*tensors[:2])
    assert number.item() == pytest.approx(closed_form_asl(logits, targets, 1.0, 3.0), rel=1e-5)


def test_dense_targets_are_smoothed_towards_a_half_where_asked():
    logits = paddle.to_tensor(golden.inputs((4, 3)))
    targets = (golden.inputs((4, 3), stream=2) > 0).astype(np.float32)
    smoothed = BinaryCrossEntropy(smoothing=0.2, smooth_dense=True)(logits, paddle.to_tensor(targets))
    by_hand = BinaryCrossEntropy(smoothing=0.2)(logits, paddle.to_tensor(targets * 0.8 + 0.1))
    assert smoothed.item() == pytest.approx(by_hand.item(), rel=1e-6)
    plain = BinaryCrossEntropy(smoothing=0.2)(logits, paddle.to_tensor(targets))
    assert plain.item() != pytest.approx(smoothed.item(), rel=1e-3)
