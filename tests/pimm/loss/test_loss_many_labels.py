"""Losses for many labels an image, weights of classes, and the factory: in closed form, written with numpy."""

import inspect
import json

import golden
import numpy as np
import paddle
import pytest

from pimm import loss as losses
from pimm.errors import ConfigError, DataError
from pimm.loss import (
    DistributionBalancedLoss,
    PolyBinaryCrossEntropy,
    PolyCrossEntropy,
    TwoWayLoss,
    ZlprLoss,
    compute_class_weights,
    create_classification_loss,
    load_class_stats,
    load_class_weights,
    resolve_class_weights,
)

LOGITS = 2 * golden.inputs((6, 4)).astype(np.float64)
LABELS = (golden.inputs((6, 4), stream=2) > 0.3).astype(np.float64)
LABELS[0], LABELS[:, 3] = 0.0, 0.0  # an image without a label, a class without an image
CLASSES = golden.targets(6, 4)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def poly(logits, classes, epsilon, smoothing=0.0):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.eye(4)[classes] * (1 - smoothing) + smoothing / 4
    return ((-target * np.log(p)).sum(axis=1) + epsilon * (1 - (target * p).sum(axis=1))).mean()


def poly_binary(logits, y, epsilon, gamma=0.0, alpha=None, smoothing=0.0):
    y = y * (1 - smoothing) + smoothing / 2
    p = sigmoid(logits)
    missed = 1 - y * p - (1 - y) * (1 - p)
    focal = -(y * np.log(p) + (1 - y) * np.log(1 - p)) * missed**gamma
    balance = 1.0 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
    return ((focal + epsilon * missed ** (gamma + 1)) * balance).sum() / len(y)


def two_way(logits, y, tp=4.0, tn=1.0):
    total = 0.0
    for by_image in (True, False):
        rows = zip(logits, y) if by_image else zip(logits.T, y.T)
        values = [
            softplus(tn * np.log(np.exp(x[t == 0] / tn).sum()) + tp * np.log(np.exp(-x[t == 1] / tp).sum()))
            for x, t in rows
            if t.any()
        ]
        total += np.mean(values)
    return total


def zlpr(logits, y):
    return np.mean([np.log1p(np.exp(x[t == 0]).sum()) + np.log1p(np.exp(-x[t == 1]).sum()) for x, t in zip(logits, y)])


def balanced(logits, y, counts, images, gamma=2.0, smoothing=0.0, scale=2.0, bias=0.05):
    counts = np.clip(counts, 1, images - 1)
    draws = (y / counts).sum(axis=1, keepdims=True)
    ratio = np.divide(1 / counts, draws, out=np.full_like(y, np.inf), where=draws > 0)
    with np.errstate(over="ignore"):
        weight = 0.1 + sigmoid(10 * (ratio - 0.2))
    z = logits - np.log(images / counts - 1) * bias / scale
    focus = (lambda v: 2 * sigmoid(v) ** gamma) if gamma else (lambda v: 1.0)
    y = y * (1 - smoothing) + smoothing / 2
    return (weight * (y * softplus(-z) * focus(-z) + (1 - y) * softplus(scale * z) / scale * focus(scale * z))).mean()


COUNTS = np.array([30.0, 2.0, 90.0, 0.0])
CASES = {
    "poly": (PolyCrossEntropy(), CLASSES, poly(LOGITS, CLASSES, 2.0)),
    "poly_smoothed": (PolyCrossEntropy(-1.0, 0.2), CLASSES, poly(LOGITS, CLASSES, -1.0, 0.2)),
    "poly_binary": (PolyBinaryCrossEntropy(reduction="batchmean"), LABELS, poly_binary(LOGITS, LABELS, 2.0)),
    "poly_focal": (
        PolyBinaryCrossEntropy(1.0, 2.0, 0.25, 0.1, reduction="batchmean"),
        LABELS,
        poly_binary(LOGITS, LABELS, 1.0, 2.0, 0.25, 0.1),
    ),
    "two_way": (TwoWayLoss(), LABELS, two_way(LOGITS, LABELS)),
    "two_way_cold": (TwoWayLoss(tp=1.0, tn=2.0), LABELS, two_way(LOGITS, LABELS, 1.0, 2.0)),
    "zlpr": (ZlprLoss(), LABELS, zlpr(LOGITS, LABELS)),
    "balanced": (DistributionBalancedLoss(COUNTS, 100), LABELS, balanced(LOGITS, LABELS, COUNTS, 100)),
    "balanced_plain": (
        DistributionBalancedLoss(COUNTS, 100, focal_gamma=0.0, smoothing=0.1),
        LABELS,
        balanced(LOGITS, LABELS, COUNTS, 100, 0.0, 0.1),
    ),
}


def tensor(array):
    return paddle.to_tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


@pytest.mark.parametrize("case", CASES)
def test_closed_form(case):
    loss, targets, expected = CASES[case]
    logits = paddle.to_tensor(LOGITS.astype(np.float32), stop_gradient=False)
    value = loss(logits, tensor(targets))
    value.backward()
    assert value.item() == pytest.approx(expected, rel=2e-5)
    assert np.isfinite(logits.grad.numpy()).all() and logits.grad.abs().sum().item() > 0


def test_poly_of_probabilities_is_poly_of_classes():
    dense = PolyCrossEntropy()(tensor(LOGITS), tensor(np.eye(4)[CLASSES]))
    assert dense.item() == pytest.approx(poly(LOGITS, CLASSES, 2.0), rel=1e-5)


@pytest.mark.parametrize(
    "method, options, kind, expected",
    [
        ("neg_pos", {}, "pos_weight", [3.0, 1.0, 0.0, 7.0]),
        ("neg_pos", {"power": 0.5, "max_weight": 2.0}, "pos_weight", [3**0.5, 1.0, 0.0, 2.0]),
        ("inv_freq", {}, "class_weight", np.array([4, 2, 1, 8]) * 4 / 15),
        ("effective_num", {"beta": 0.5}, "class_weight", None),
    ],
)
def test_weights_by_frequency(method, options, kind, expected):
    counts = [2, 4, 8, 0]
    if expected is None:
        expected = 0.5 / (1 - 0.5 ** np.array([2.0, 4.0, 8.0, 1.0]))
        expected = expected / expected.mean()
    given, weights = compute_class_weights(counts, 8, method, **options)
    assert given == kind and weights.dtype == paddle.float32
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    resolved = resolve_class_weights(method, kind, (tensor(np.float32(counts)), 8), **options)
    np.testing.assert_array_equal(resolved.numpy(), weights.numpy())


@pytest.mark.parametrize("value, expected", [("2.5", 2.5), ("1, 2 3", [1, 2, 3]), ([4], 4.0), (3, 3.0), (" ", None)])
def test_weights_as_given(value, expected):
    weights = load_class_weights(value)
    assert (weights.tolist() if isinstance(expected, list) else weights) == expected


def test_weights_and_counts_from_files(tmp_path):
    stats = {"pos_counts": [1, 2], "num_samples": 4, "pos_weight": [3.0, 1.0]}
    path = tmp_path / "stats.json"
    path.write_text(json.dumps(stats))
    counts, images = load_class_stats(str(path))
    assert (counts.tolist(), images) == ([1.0, 2.0], 4)
    assert load_class_stats("") is None
    assert load_class_weights(str(path), key="pos_weight").tolist() == [3.0, 1.0]
    (tmp_path / "weights.txt").write_text("0.5 1.5\n2")
    assert resolve_class_weights(str(tmp_path / "weights.txt")).tolist() == [0.5, 1.5, 2.0]
    with pytest.raises(DataError, match="has no class_weight; it has num_samples, pos_counts, pos_weight"):
        load_class_weights(str(path))
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match="needs the entries"):
        load_class_stats(path)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def smoothed(classes, smoothing):
    return np.eye(4)[classes] * (1 - smoothing) + smoothing / 4


def cross_entropy(logits, targets):
    return -(targets * log_softmax(logits)).sum(axis=1).mean()


def binary(logits, y, weight=1.0, pos_weight=1.0):
    """Binary cross entropy by image and class."""
    return weight * (pos_weight * y * softplus(-logits) + (1 - y) * softplus(logits))


def asymmetric_one(logits, classes, gamma_pos=1.0, gamma_neg=4.0, smoothing=0.0):
    p, label = np.exp(log_softmax(logits)), np.eye(4)[classes] > 0
    focus = np.where(label, (1 - p) ** gamma_pos, p**gamma_neg)
    return -(smoothed(classes, smoothing) * focus * np.log(p)).sum(axis=1).mean()


def asymmetric_many(logits, y, gamma_pos=1.0, gamma_neg=4.0, clip=0.05, pos_weight=1.0, weight=1.0, smoothing=0.0):
    """Sums over classes of images; targets that are smoothed mix both terms and both focusing powers."""
    y = y * (1 - smoothing) + smoothing / 2
    p, n = sigmoid(logits), np.minimum(1 - sigmoid(logits) + clip, 1)
    focus = (1 - p * y - n * (1 - y)) ** (gamma_pos * y + gamma_neg * (1 - y))
    return -(weight * focus * (y * np.log(p) * pos_weight + (1 - y) * np.log(n))).sum(axis=1)


def jensen_shannon(logits, classes, splits, smoothing=0.0):
    parts = np.split(np.exp(log_softmax(logits)), splits)
    mixture = np.mean(parts, axis=0)
    divergence = np.mean([(p * np.log(p / mixture)).sum(axis=1).mean() for p in parts])
    images = len(parts[0])
    return cross_entropy(logits[:images], smoothed(classes[:images], smoothing)) + 12 * divergence


SOFT = np.exp(log_softmax(golden.inputs((6, 4), stream=3).astype(np.float64)))
BY_CLASS = np.array([1, 2, 3, 4.0])
MANY, BALANCED = {"multi_label": True}, {"loss_type": "db", "class_counts": COUNTS, "num_samples": 100}
# The factory's arguments, the class that it makes, targets, and the loss in closed form.
FACTORY = [
    ({}, "CrossEntropyLoss", CLASSES, cross_entropy(LOGITS, np.eye(4)[CLASSES])),
    ({"smoothing": 0.1}, "LabelSmoothingCrossEntropy", CLASSES, cross_entropy(LOGITS, smoothed(CLASSES, 0.1))),
    ({"smoothing": 0.1, "soft_targets": True}, "SoftTargetCrossEntropy", SOFT, cross_entropy(LOGITS, SOFT)),
    (MANY, "BinaryCrossEntropy", LABELS, binary(LOGITS, LABELS).mean()),
    (
        {**MANY, "smoothing": 0.1, "pos_weight": 3.0},
        "BinaryCrossEntropy",
        LABELS,
        binary(LOGITS, LABELS * 0.9 + 0.05, pos_weight=3.0).mean(),
    ),
    ({**MANY, "soft_targets": True, "smoothing": 0.2}, "BinaryCrossEntropy", SOFT, binary(LOGITS, SOFT).mean()),
    (
        {"loss_type": "bce", "bce_sum": True, "class_weight": [1, 2, 3, 4.0], "smoothing": 0.2},
        "BinaryCrossEntropy",
        CLASSES,
        binary(LOGITS, smoothed(CLASSES, 0.2), BY_CLASS).sum(axis=1).mean(),
    ),
    (
        {"loss_type": "bce", "class_weight": 2.0},
        "BinaryCrossEntropy",
        CLASSES,
        binary(LOGITS, np.eye(4)[CLASSES], 2.0).mean(),
    ),
    (
        {"loss_type": "bce", "soft_targets": True, "smoothing": 0.2, "bce_target_thresh": 0.25},
        "BinaryCrossEntropy",
        SOFT,
        binary(LOGITS, SOFT > 0.25).mean(),
    ),
    ({"loss_type": "asl"}, "AsymmetricLossSingleLabel", CLASSES, asymmetric_one(LOGITS, CLASSES)),
    (
        {"loss_type": "asl", "asl_gamma_pos": 2.0, "asl_gamma_neg": 3.0, "smoothing": 0.2},
        "AsymmetricLossSingleLabel",
        CLASSES,
        asymmetric_one(LOGITS, CLASSES, 2.0, 3.0, 0.2),
    ),
    (
        {**MANY, "loss_type": "asl", "pos_weight": 2.0},
        "AsymmetricLossMultiLabel",
        LABELS,
        asymmetric_many(LOGITS, LABELS, pos_weight=2.0).mean(),
    ),
    (
        {
            **MANY,
            **{"loss_type": "asl", "asl_gamma_pos": 0.5, "asl_gamma_neg": 2.0, "asl_clip": 0.1, "smoothing": 0.2},
            **{"asl_reduction": "sum", "class_weight": [1, 2, 3, 4.0]},
        },
        "AsymmetricLossMultiLabel",
        LABELS,
        asymmetric_many(LOGITS, LABELS, 0.5, 2.0, 0.1, weight=BY_CLASS, smoothing=0.2).sum(),
    ),
    ({"loss_type": "poly"}, "PolyCrossEntropy", CLASSES, poly(LOGITS, CLASSES, 2.0)),
    (
        {"loss_type": "poly", "poly_epsilon": -1.0, "smoothing": 0.2},
        "PolyCrossEntropy",
        CLASSES,
        poly(LOGITS, CLASSES, -1.0, 0.2),
    ),
    (
        {**MANY, "loss_type": "poly", "poly_gamma": 1.0},
        "PolyBinaryCrossEntropy",
        LABELS,
        poly_binary(LOGITS, LABELS, 2.0, 1.0) / 4,  # the mean over classes too
    ),
    (
        {**MANY, "loss_type": "poly", "poly_epsilon": 1.0, "poly_gamma": 2.0, "poly_alpha": 0.25, "smoothing": 0.1},
        "PolyBinaryCrossEntropy",
        LABELS,
        poly_binary(LOGITS, LABELS, 1.0, 2.0, 0.25, 0.1) / 4,
    ),
    ({"loss_type": "jsd", "jsd_splits": 2}, "JsdCrossEntropy", CLASSES, jensen_shannon(LOGITS, CLASSES, 2)),
    (
        {"loss_type": "jsd", "jsd_splits": 3, "smoothing": 0.2},
        "JsdCrossEntropy",
        CLASSES,
        jensen_shannon(LOGITS, CLASSES, 3, 0.2),
    ),
    ({**MANY, "loss_type": "twoway"}, "TwoWayLoss", LABELS, two_way(LOGITS, LABELS)),
    (
        {**MANY, "loss_type": "twoway", "twoway_tp": 1.0, "twoway_tn": 2.0},
        "TwoWayLoss",
        LABELS,
        two_way(LOGITS, LABELS, 1.0, 2.0),
    ),
    ({**MANY, "loss_type": "zlpr"}, "ZlprLoss", LABELS, zlpr(LOGITS, LABELS)),
    ({**MANY, **BALANCED}, "DistributionBalancedLoss", LABELS, balanced(LOGITS, LABELS, COUNTS, 100)),
    (
        {**MANY, **BALANCED, "db_focal_gamma": 0.0, "db_neg_scale": 3.0, "db_init_bias": 0.1, "smoothing": 0.1},
        "DistributionBalancedLoss",
        LABELS,
        balanced(LOGITS, LABELS, COUNTS, 100, 0.0, 0.1, 3.0, 0.1),
    ),
]


@pytest.mark.parametrize("options, name, targets, expected", FACTORY, ids=[row[1] for row in FACTORY])
def test_factory(options, name, targets, expected):
    loss = create_classification_loss(**options)
    assert type(loss).__name__ == name
    assert loss(tensor(LOGITS), tensor(targets)).item() == pytest.approx(expected, rel=1e-5)


def test_every_argument_of_the_factory_is_tested():
    used = set().union(*(options for options, *_ in FACTORY))
    assert used == set(inspect.signature(create_classification_loss).parameters)


def test_unlikely_classes_are_clipped_at_the_references_limits():
    """A hundred millionth of a positive of the asymmetric loss; a ten millionth of a mixture, too little to show."""
    loss = create_classification_loss("asl", multi_label=True)(paddle.to_tensor([[-40.0]]), paddle.to_tensor([[1.0]]))
    assert loss.item() == pytest.approx(-np.log(1e-8), rel=1e-6)
    logits, classes = np.array([[8.0, 0.0, -2.0, -9.0], [0.0, 8.0, -2.0, -9.0]]), np.array([0, 1])
    loss = create_classification_loss("jsd", jsd_splits=2)(tensor(logits), tensor(classes))
    assert loss.item() == pytest.approx(jensen_shannon(logits, classes, 2), rel=1e-6)


def test_weights_reach_the_loss():
    weighted = create_classification_loss("bce", class_weight=2.0)(tensor(LOGITS), tensor(CLASSES))
    plain = create_classification_loss("bce")(tensor(LOGITS), tensor(CLASSES))
    assert weighted.item() == pytest.approx(2 * plain.item(), rel=1e-6)
    assert set(losses.MULTI_LABEL_LOSS_TYPES) < set(losses.LOSS_TYPES)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: create_classification_loss("poli"), "did you mean poly"),
        (lambda: create_classification_loss("ce", multi_label=True), "no loss for many labels; use bce"),
        (lambda: create_classification_loss("zlpr"), "no loss for one label; use ce"),
        (lambda: create_classification_loss("ce", class_weight=[1.0]), "class_weight has no meaning"),
        (lambda: create_classification_loss("poly", poly_gamma=1.0), "poly_gamma has no meaning"),
        (lambda: create_classification_loss("asl", asl_reduction="mean"), "asl_reduction has no meaning"),
        (lambda: create_classification_loss("twoway", True, smoothing=0.1), "targets of 0 and 1"),
        (lambda: create_classification_loss("asl", soft_targets=True), "no Mixup"),
        (lambda: create_classification_loss("jsd"), "two or more"),
        (lambda: create_classification_loss("db", True), "needs class_counts"),
        (lambda: PolyBinaryCrossEntropy(alpha=2.0), "alpha"),
        (lambda: PolyCrossEntropy(reduction="batchmean"), "mean, sum, none"),
        (lambda: TwoWayLoss(tp=0.0), "temperatures"),
        (lambda: DistributionBalancedLoss([5, 1], 4), "from 0 to num_samples=4"),
        (lambda: DistributionBalancedLoss([1, 1], 4, neg_scale=0), "neg_scale"),
        (lambda: compute_class_weights([5], 4), "from 0 to num_samples=4"),
        (lambda: compute_class_weights([1], 4, "square"), "neg_pos, inv_freq, effective_num"),
        (lambda: compute_class_weights([1], 4, beta=1.0), "beta"),
        (lambda: load_class_weights("many"), "neither a file nor numbers"),
        (lambda: load_class_weights([-1.0]), "not negative"),
        (lambda: load_class_weights(True), "one number or one a class"),
        (lambda: resolve_class_weights("neg_pos"), "for a class_weight there are inv_freq"),
        (lambda: resolve_class_weights("inv_freq"), "needs class_stats"),
    ],
)
def test_what_cannot_be(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
