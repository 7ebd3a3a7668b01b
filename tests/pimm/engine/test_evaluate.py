"""Accuracy that is exact over any number of processes, and batch-norm statistics for one path."""

import golden
import numpy as np
import paddle
import pytest
from paddle import nn

from cream.train.evaluation import evaluate, recalibrated_bn
from pimm.data.samplers import BatchPlan, OrderedDistributedSampler
from pimm.engine import evaluation as module
from pimm.engine.evaluation import train_mode
from pimm.errors import DataError
from pimm.layers import BatchNorm2d

SIZE, CLASSES = 23, 7
LOGITS = 2 * golden.inputs((SIZE, CLASSES))
LABELS = golden.targets(SIZE, CLASSES)


def batches(indices):
    return [(paddle.to_tensor(LOGITS[batch]), paddle.to_tensor(LABELS[batch])) for batch in indices]


def share(rank, world, batch_size=4):
    return batches(BatchPlan(SIZE, batch_size, False, rank, world).batches()[1])


def by_hand():
    """Loss and accuracies in float64."""
    logits = LOGITS.astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    own = log_probabilities[np.arange(SIZE), LABELS]
    rank = (log_probabilities > own[:, None]).sum(axis=1)
    return {"loss": -own.mean(), "prec1": 100 * (rank == 0).mean(), "prec5": 100 * (rank < 5).mean()}


def test_loss_is_the_loss_and_accuracies_are_percentages():
    found = evaluate(lambda x: x, share(0, 1))
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in by_hand().items()}
    assert 0 < found["prec1"] < found["prec5"] < 100


@pytest.mark.parametrize("world", [2, 3, 8, 30])  # of 30 processes seven have no image
def test_the_result_does_not_depend_on_the_number_of_processes(world, monkeypatch):
    totals = []

    def meet(total):
        totals.append(total)
        return total

    monkeypatch.setattr(module, "all_reduce_sum", meet)
    for rank in range(world):
        try:
            evaluate(lambda x: x, share(rank, world))
        except DataError:
            assert rank >= SIZE  # alone it has no images; together with the others it has
    whole = evaluate(lambda x: x, share(0, 1))
    summed = paddle.add_n(totals[:world])
    np.testing.assert_array_equal(summed[1:].numpy(), totals[-1][1:].numpy())  # counts, to the last one
    monkeypatch.setattr(module, "all_reduce_sum", lambda total: summed)
    for rank in range(world):
        found = evaluate(lambda x: x, share(rank, world))
        assert (found["prec1"], found["prec5"]) == (whole["prec1"], whole["prec5"])
        assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)


def test_padded_shares_would_count_images_twice():
    """What the official code evaluates: the mean over processes of shares that are filled up to equal size."""
    shares = [list(OrderedDistributedSampler(range(SIZE), 4, rank)) for rank in range(4)]
    found = [evaluate(lambda x: x, batches([np.array(indices)]))["prec1"] for indices in shares]
    assert sum(map(len, shares)) == SIZE + 1
    assert abs(np.mean(found) - by_hand()["prec1"]) > 0.1


def test_fewer_than_five_classes():
    logits, labels = paddle.to_tensor(golden.inputs((6, 3))), paddle.to_tensor(golden.targets(6, 3))
    assert evaluate(lambda x: x, [(logits, labels)])["prec5"] == 100


def test_nothing_is_copied_for_a_batch(monkeypatch):
    share_of_one = share(0, 1)
    monkeypatch.setattr(paddle, "to_tensor", None)
    assert module.evaluate(lambda x: x, share_of_one)["top1"] == pytest.approx(by_hand()["prec1"], rel=1e-6)


def test_an_empty_batch_changes_nothing():
    images, labels = paddle.eye(3), paddle.to_tensor([0, 1, 1])
    expected = evaluate(lambda x: x, [(images, labels)])
    assert evaluate(lambda x: x, [(images[:0], labels[:0]), (images, labels)]) == expected


def test_nothing_to_evaluate_on_is_an_error():
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate(lambda x: x, [])


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_mode_is_put_back(before, inside):
    net = nn.Sequential(nn.Linear(2, 2))
    net.train() if before else net.eval()
    with train_mode(net, inside):
        assert (net.training, net[0].training) == (inside, inside)
    with pytest.raises(KeyError), train_mode(net, inside):
        raise KeyError
    assert (net.training, net[0].training) == (before, before)


@pytest.fixture
def net():
    """One batch norm on its way in, and one that is on no path."""
    net = nn.Sequential(BatchNorm2d(3, momentum=0.1), BatchNorm2d(3))
    for layer in net:
        layer._mean.set_value(np.array([1, 2, 3], np.float32))
        layer._variance.set_value(np.array([4, 5, 6], np.float32))
    return net


IMAGES = [golden.inputs((4, 3, 2, 2), stream=stream) for stream in range(6)]


def state_of(net):
    return [np.concatenate([layer._mean.numpy(), layer._variance.numpy(), [layer._momentum]]) for layer in net]


@pytest.mark.parametrize("count", [1, 3, 6, 99])
def test_recalibrated_statistics_are_plain_averages(net, count):
    before = state_of(net)
    loader = [(paddle.to_tensor(images), None) for images in IMAGES]
    with recalibrated_bn(net, lambda images: net[0](images), loader, count):
        means = [images.mean(axis=(0, 2, 3)) for images in IMAGES[:count]]
        variances = [images.var(axis=(0, 2, 3), ddof=1) for images in IMAGES[:count]]
        np.testing.assert_allclose(net[0]._mean.numpy(), np.mean(means, axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(net[0]._variance.numpy(), np.mean(variances, axis=0), rtol=1e-5)
        np.testing.assert_array_equal(net[1]._mean.numpy(), before[1][:3])
    for ours, theirs in zip(state_of(net), before):
        np.testing.assert_array_equal(ours, theirs)


def test_statistics_are_put_back_when_something_fails(net):
    before = state_of(net)
    loader = [(paddle.to_tensor(IMAGES[0]), None)]
    with pytest.raises(KeyError), recalibrated_bn(net, lambda images: net[0](images), loader, 1):
        raise KeyError
    for ours, theirs in zip(state_of(net), before):
        np.testing.assert_array_equal(ours, theirs)
