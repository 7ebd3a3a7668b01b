"""Updates of many tensors in one pass, against their formulas in float64 and against Paddle's kernels."""

import re

import numpy as np
import paddle
import pytest

from pimm.ops.updates import momentum_step, move_averages, rmsprop_step, updates_together

SHAPES = [(3, 1, 2), (1,), (0, 4), (), (129, 257), (16385,)]  # the last two take several tasks

pytestmark = pytest.mark.usefixtures("instruction_set")


def drawn(seed, low=-1.0, high=1.0):
    random = np.random.default_rng(seed)
    return [random.uniform(low, high, shape).astype("float32") for shape in SHAPES]


def tensors(arrays):
    return [paddle.to_tensor(array) for array in arrays]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for tensor, array in zip(found, expected):
        assert tensor.shape == list(array.shape)
        np.testing.assert_allclose(tensor.numpy(), array, rtol=2e-6, atol=2e-7)


def exact(arrays):
    return [array.astype("float64") for array in arrays]


def test_averages_move_each_by_its_own_shares():
    averages, values = drawn(0), drawn(1)
    keeps, shares = [0.9, 0.5, 0.1, 0.0, 0.99, 1.0], [0.1, 0.5, 0.2, 1.0, 0.02, 0.0]
    found = tensors(averages)
    move_averages(found, tensors(values), keeps, shares)
    parts = zip(exact(averages), exact(values), keeps, shares)
    assert_close(found, [average * keep + value * share for average, value, keep, share in parts])


def test_averages_of_float64_move_too():
    average = paddle.ones([3], "float64")
    move_averages([average], [paddle.full([3], 3.0, "float64")], [0.5], [0.25])
    np.testing.assert_array_equal(average.numpy(), [1.25] * 3)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_momentum(nesterov, momentum, l2):
    arrays = drawn(0), drawn(1), drawn(2)
    params, grads, velocities = (tensors(part) for part in arrays)
    momentum_step(params, grads, velocities, 0.1, l2, momentum, nesterov)
    expected, kept = [], []
    for param, grad, velocity in zip(*map(exact, arrays)):
        grad = grad + l2 * param
        kept.append(momentum * velocity + grad)
        expected.append(param - 0.1 * (grad + momentum * kept[-1] if nesterov else kept[-1]))
    assert_close(params, expected)
    assert_close(velocities, kept)
    assert_close(grads, arrays[1])


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("rate_inside", [False, True])
@pytest.mark.parametrize(("l2", "keep"), [(0.3, 1.0), (0.0, 0.7)])
def test_rmsprop(centered, rate_inside, l2, keep):
    arrays = drawn(0), drawn(1), drawn(2, 1.0, 2.0), drawn(3), drawn(4, -0.5, 0.5)
    lists = [tensors(part) for part in arrays]
    rmsprop_step(*lists, 0.1, l2, keep, rate_inside, 0.9, 1e-3, 0.8, centered)
    expected = []
    for param, grad, square, velocity, mean in zip(*map(exact, arrays)):
        grad = grad + l2 * param
        square = 0.9 * square + 0.1 * grad**2
        mean = 0.9 * mean + 0.1 * grad if centered else mean
        change = grad / np.sqrt(square + 1e-3 - (mean**2 if centered else 0))
        velocity = 0.8 * velocity + (0.1 * change if rate_inside else change)
        expected.append((keep * param - velocity * (1.0 if rate_inside else 0.1), square, velocity, mean))
    params, grads, squares, velocities, means = lists
    for found, wanted in zip((params, squares, velocities, means), zip(*expected)):
        assert_close(found, wanted)
    assert_close(grads, arrays[1])


def momentum_of(params=((2, 3), (4,)), grads=((2, 3), (4,)), velocities=((2, 3), (4,)), dtype="float32"):
    lists = [[paddle.ones(shape, dtype) for shape in shapes] for shapes in (params, grads, velocities)]
    momentum_step(*lists, 0.1, 0.0, 0.9, False)
    return lists


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grads": ((2, 3),)}, "lists of 2 and 1 tensors"),
        ({"velocities": ((2, 3), (4,), (1,))}, "lists of 2 and 3 tensors"),
        ({"grads": ((3, 2), (4,))}, "has shape [3, 2] and must have [2, 3]"),
        ({"dtype": "float64"}, "an input is not of float32"),
        ({"dtype": "int32"}, "must be a dense tensor of float32 or float64"),
    ],
    ids=str,
)
def test_lists_that_do_not_fit_are_refused(arguments, message):
    np.testing.assert_allclose(momentum_of()[0][1].numpy(), [0.81] * 4, rtol=1e-6)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        momentum_of(**arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_averages_without_their_shares_are_refused():
    with pytest.raises(ValueError, match="1 settings for 2 tensors"):
        move_averages(tensors(drawn(0)[:2]), tensors(drawn(1)[:2]), [0.9], [0.1, 0.1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shapes", "keeps", "shares"),
    [([], [0.5], [0.5]), ([[3], [3]], [0.5], [0.5]), ([[3]], [], [0.5]), ([[3]], [0.5], []), ([[1]], [0.5], [0.5])],
    ids=str,
)
def test_averages_that_do_not_fit_are_refused_and_stay(shapes, keeps, shares, dtype):
    average = paddle.ones([3], dtype)
    with pytest.raises(ValueError, match=r"settings|lists of|each average needs|has shape"):
        move_averages([average], [paddle.zeros(shape, dtype) for shape in shapes], keeps, shares)
    np.testing.assert_array_equal(average.numpy(), [1.0] * 3)


def test_a_tensor_that_does_not_lie_in_one_piece_takes_another_way():
    strided = paddle.ones([4, 6]).transpose([1, 0])
    assert not strided.is_contiguous()
    assert updates_together([paddle.ones([6, 4])], [strided])
    assert not updates_together([strided], [paddle.ones([6, 4])])
    move_averages([strided], [paddle.full([6, 4], 3.0)], [0.5], [0.25])
    np.testing.assert_array_equal(strided.numpy(), np.full([6, 4], 1.25))


def test_a_tensor_that_is_read_need_not_lie_in_one_piece():
    average, values = paddle.zeros([6, 4]), np.arange(24.0, dtype="float32").reshape(4, 6)
    move_averages([average], [paddle.to_tensor(values).transpose([1, 0])], [0.5], [1.0])
    np.testing.assert_array_equal(average.numpy(), values.T)


def test_without_our_operators_averages_move_all_the_same(monkeypatch):
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    average = paddle.ones([3])
    assert not updates_together([average], [])
    move_averages([average], [paddle.full([3], 3.0)], [0.5], [0.25])
    np.testing.assert_array_equal(average.numpy(), [1.25] * 3)
