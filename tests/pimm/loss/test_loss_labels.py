"""Nothing broadcasts over a label: shapes of labels that losses, accuracy and evaluation take and refuse."""

import numpy as np
import paddle
import pytest

from pimm.engine import evaluate
from pimm.errors import DataError
from pimm.loss import (
    AsymmetricLossMultiLabel,
    AsymmetricLossSingleLabel,
    BinaryCrossEntropy,
    DistributionBalancedLoss,
    JsdCrossEntropy,
    LabelSmoothingCrossEntropy,
    PolyBinaryCrossEntropy,
    PolyCrossEntropy,
    SoftTargetCrossEntropy,
    TwoWayLoss,
    ZlprLoss,
    create_classification_loss,
)
from pimm.utils import accuracy

N, C = 6, 4
LOGITS = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2, 3, 3])
ONE_LABEL = {
    "ce": lambda: create_classification_loss("ce"),
    "label_smoothing": LabelSmoothingCrossEntropy,
    "jsd": lambda: JsdCrossEntropy(num_splits=2),
    "bce": BinaryCrossEntropy,
    "asl": AsymmetricLossSingleLabel,
    "poly": PolyCrossEntropy,
}
DENSE = {
    "soft": SoftTargetCrossEntropy,
    "bce": BinaryCrossEntropy,
    "asl": AsymmetricLossMultiLabel,
    "poly": PolyCrossEntropy,
    "poly_bce": PolyBinaryCrossEntropy,
    "two_way": TwoWayLoss,
    "zlpr": ZlprLoss,
    "db": lambda: DistributionBalancedLoss([2, 3, 4, 5], 10),
}


def logits():
    return paddle.to_tensor(LOGITS)


@pytest.mark.parametrize("kind", ONE_LABEL)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_column_of_labels_is_a_list_of_labels(kind, dtype):
    loss = ONE_LABEL[kind]()
    flat = loss(logits(), paddle.to_tensor(LABELS.astype(dtype)))
    column = loss(logits(), paddle.to_tensor(LABELS.astype(dtype)[:, None]))
    assert column.shape == flat.shape and column.item() == flat.item()


@pytest.mark.parametrize("kind", sorted(ONE_LABEL.keys() - {"ce", "jsd"}))
@pytest.mark.parametrize(
    "labels", [LABELS[:1], LABELS[:, None, None], LABELS[None], LABELS.astype(np.float32), LABELS[:, None] + 0.5]
)
def test_other_labels_are_refused(kind, labels):
    with pytest.raises(DataError, match=rf"class indices for logits \[{N}, {C}\] must be integers of shape \[{N}\] or"):
        ONE_LABEL[kind]()(logits(), paddle.to_tensor(labels))


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("shape", [(N, 1), (1, C), (C,), (1, 1), (N,)])
def test_dense_targets_of_another_shape_are_refused(kind, shape):
    with pytest.raises(DataError, match=rf"for logits \[{N}, {C}\] must be"):
        DENSE[kind]()(logits(), paddle.ones(shape, "float32"))


@pytest.mark.parametrize("kind", DENSE)
def test_dense_targets_of_the_right_shape_count_one_by_one(kind):
    """One target that changes changes the loss by what its image alone says."""
    targets = np.eye(C, dtype=np.float32)[LABELS]
    loss = DENSE[kind]()(logits(), paddle.to_tensor(targets))
    assert loss.ndim == 0 and np.isfinite(loss.item())
    targets[0] = targets[0][::-1]
    assert DENSE[kind]()(logits(), paddle.to_tensor(targets)).item() != loss.item()


def test_evaluation_and_accuracy_of_a_column_of_labels():
    loaders = [[(logits(), paddle.to_tensor(labels))] for labels in (LABELS, LABELS[:, None])]
    flat, column = (evaluate(lambda images: images, loader) for loader in loaders)
    first = 100.0 * np.mean(LOGITS.argmax(1) == LABELS)
    assert flat == column and flat["top1"] == pytest.approx(first) and flat["top5"] == 100.0
    for labels in (LABELS, LABELS[:, None]):
        top1, top3 = accuracy(logits(), paddle.to_tensor(labels), topk=(1, 3))
        ranks = (LOGITS[np.arange(N), LABELS][:, None] < LOGITS).sum(1)
        assert (top1.item(), top3.item()) == pytest.approx((first, 100.0 * np.mean(ranks < 3)))


def test_evaluation_refuses_one_hot_labels():
    with pytest.raises(DataError, match="class indices"):
        evaluate(lambda images: images, [(logits(), paddle.to_tensor(np.eye(C)[LABELS]))])
    with pytest.raises(DataError, match="class indices"):
        accuracy(logits(), paddle.to_tensor(np.eye(C, dtype=np.int64)[LABELS]))
