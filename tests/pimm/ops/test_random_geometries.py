"""Every operator on drawn sizes, for every instruction set, against Paddle's own operators in float64."""

import numpy as np
import paddle
import pytest
from ops_cases import assert_near, draw, exact_batch_norm, normalise_and_differentiate
from paddle.nn import functional as F

from pimm.ops import batch_norm, depthwise_conv2d, global_avg_pool2d, pointwise_conv2d, scale_channels, swish

pytestmark = pytest.mark.usefixtures("instruction_set")
SEEDS = range(5)
CASES = 12  # for each seed


def drawn_convolution(rng):
    """Draw the shapes and options of a depthwise convolution that has an output, of every size down to one pixel."""
    while True:
        images, channels = rng.integers(1, 40) if rng.random() < 0.3 else rng.integers(1, 4), rng.integers(2, 40)
        height, width = rng.choice([rng.integers(1, 9, 2), rng.integers(1, 70, 2)])
        kernel = rng.integers(1, 10, 2) if rng.random() < 0.5 else np.repeat(rng.integers(1, 8), 2)
        stride, dilation, padding = rng.integers(1, 3), rng.integers(1, 5), rng.integers(0, 12, 4)
        spans = dilation * (kernel - 1) + 1
        if (spans <= (height + padding[:2].sum(), width + padding[2:].sum())).all():
            options = {"stride": int(stride), "padding": padding.tolist(), "dilation": int(dilation)}
            shapes = (images, channels, height, width), (channels, 1, *kernel)
            return [tuple(map(int, shape)) for shape in shapes], options


def results(function, tensors):
    out = function(*tensors)
    gradient = draw(*out.shape, seed=1).astype(out.dtype)
    return [tensor.numpy() for tensor in (out, *paddle.grad(out, tensors, gradient))]


def assert_equal_to_float64(ours, exact, shapes, context):
    tensors = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    precise = [paddle.to_tensor(tensor.numpy().astype("float64"), stop_gradient=False) for tensor in tensors]
    for a, b in zip(results(ours, tensors), results(exact, precise)):
        assert a.shape == b.shape and np.abs(a - b).max() <= 2e-5 * max(np.abs(b).max(), 1), context


@pytest.mark.parametrize("seed", SEEDS)
def test_depthwise_convolution(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        shapes, options = drawn_convolution(rng)
        assert_equal_to_float64(
            lambda x, weight, options=options: depthwise_conv2d(x, weight, **options),
            lambda x, weight, options=options: F.conv2d(x, weight, groups=x.shape[1], **options),
            shapes,
            (shapes, options),
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_pointwise_convolution(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        n, channels, filters = (int(value) for value in rng.integers(1, 40, 3))
        height, width = (int(value) for value in rng.integers(1, 26, 2))
        shapes = [(n, channels, height, width), (filters, channels, 1, 1), (filters,)]
        assert_equal_to_float64(pointwise_conv2d, F.conv2d, shapes, shapes)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_norm(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        while True:
            shape = tuple(int(value) for value in rng.integers(1, [40, 70, 40, 40]))
            if shape[0] * shape[2] * shape[3] > 8:  # of fewer values, the gradient is next to nothing
                break
        tensors = draw(*shape), draw(shape[1], seed=1), draw(shape[1], seed=2)
        for then_swish in (False, True):
            found, expected = (f(*tensors, then_swish) for f in (normalise_and_differentiate, exact_batch_norm))
            assert_near(found, expected, [1e-6, 1e-6, 1e-6] + [1e-5] * 3)
        plain = batch_norm(*tensors)[0]
        with paddle.no_grad():
            np.testing.assert_array_equal(batch_norm(*tensors, then_swish=True)[0].numpy(), swish(plain).numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_swish(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        shape = tuple(int(value) for value in rng.integers(1, 30, rng.integers(0, 4)))
        scale = float(rng.choice([0.1, 3, 30]))
        assert_equal_to_float64(
            lambda x, scale=scale: swish(scale * x),
            lambda x, scale=scale: scale * x * F.sigmoid(scale * x),
            [shape],
            shape,
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_scaled_channels(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        shape = tuple(int(value) for value in rng.integers(1, [40, 70, 40, 40]))
        shapes = [shape, (*shape[:2], 1, 1)]
        assert_equal_to_float64(scale_channels, lambda x, factors: x * factors, shapes, shapes)
        assert_equal_to_float64(global_avg_pool2d, lambda x: x.mean([2, 3], keepdim=True), shapes[:1], shapes[:1])
