"""The operators on images [N, H, W, C], for every instruction set, against Paddle's own operators in float64."""

import os
import re

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from pimm.ops import channels_last as ops
from pimm.ops import cpu_backend
from pimm.ops.backend import run_operator

SEEDS = range(3)
CASES = 12  # for each seed
EXACT = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "swish": F.silu,
    "hard_swish": F.hardswish,
    "hard_sigmoid": lambda x: F.hardsigmoid(x, slope=1 / 6, offset=0.5),
}


@pytest.fixture(autouse=True)
def without_gradients():
    with paddle.no_grad():
        yield


def draw(rng, *shape, dtype="float32"):
    return paddle.to_tensor(rng.standard_normal(shape).astype(dtype))


def exact(tensor):
    return tensor.astype("float64")


def wide(values):
    return exact(values).reshape([1, -1, 1, 1])


def assert_near(ours, precise, context):
    assert ours.shape == precise.shape, context
    difference, size = np.abs(ours.numpy() - precise.numpy()).max(), max(np.abs(precise.numpy()).max(), 1)
    assert difference <= 1e-5 * size, (context, difference)


def drawn_geometry(rng, height, width):
    """Draw kernel, stride, padding and dilation of a convolution that has an output."""
    while True:
        kernel, stride, dilation = rng.integers(1, 6, 2), rng.integers(1, 4, 2), rng.integers(1, 4, 2)
        if rng.random() < 0.4:
            kernel, stride = np.ones(2, int), np.ones(2, int)
        padding = rng.integers(0, 4, 4) if kernel.max() > 1 else np.zeros(4, int)
        spans = dilation * (kernel - 1) + 1
        if (spans <= (height + padding[:2].sum(), width + padding[2:].sum())).all():
            return [[int(value) for value in each] for each in (kernel, stride, padding, dilation)]


def paddle_conv2d(x, weight, geometry, groups=1):
    _, stride, padding, dilation = geometry
    x = F.pad(exact(ops.to_channels_first(x)), [*padding[2:], *padding[:2]])
    return F.conv2d(x, exact(weight), None, stride, 0, dilation, groups)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("seed", SEEDS)
def test_convolution(seed):
    rng = np.random.default_rng(seed)
    for case in range(CASES):
        n, height, width, channels, outs = (int(value) for value in rng.integers(1, [5, 12, 12, 40, 70]))
        dtype = "float64" if case == 0 else "float32"
        x = draw(rng, n, height, width, channels, dtype=dtype)
        geometry = drawn_geometry(rng, height, width)
        weight = draw(rng, outs, channels, *geometry[0], dtype=dtype)
        scale, shift = draw(rng, outs, dtype=dtype), draw(rng, outs, dtype=dtype)
        act = str(rng.choice(ops.ACTS))
        gate = draw(rng, n, channels, dtype=dtype) if geometry[0] == geometry[1] == [1, 1] else None
        gated = x if gate is None else x * gate.unsqueeze([1, 2])
        out = paddle_conv2d(gated, weight, geometry) * wide(scale) + wide(shift)
        shortcut = draw(rng, *ops.to_channels_last(out).shape, dtype=dtype) if rng.random() < 0.5 else None
        if shortcut is not None:
            out = out + exact(ops.to_channels_first(shortcut))
        ours = ops.convolve(x, ops.pack(weight), scale, shift, *geometry, act, gate, shortcut)
        assert ours.dtype == x.dtype
        assert_near(ops.to_channels_first(ours), EXACT[act](out), (x.shape, weight.shape, geometry, act))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("seed", SEEDS)
def test_depthwise_convolution(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        n, height, width, channels = (int(value) for value in rng.integers(1, [5, 12, 12, 150]))
        x = draw(rng, n, height, width, channels)
        geometry = drawn_geometry(rng, height, width)
        weight = draw(rng, channels, 1, *geometry[0])
        scale, shift, act = draw(rng, channels), draw(rng, channels), str(rng.choice(ops.ACTS))
        ours = ops.convolve_depthwise(x, ops.pack_depthwise(weight), scale, shift, *geometry, act)
        out = EXACT[act](paddle_conv2d(x, weight, geometry, groups=channels) * wide(scale) + wide(shift))
        assert_near(ops.to_channels_first(ours), out, (x.shape, geometry, act))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("seed", SEEDS)
def test_batch_norm_and_mean(seed):
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        shape = [int(value) for value in rng.integers(1, [40, 9, 9, 40])]
        shape[0] += 1
        x = draw(rng, *shape) + 100 * draw(rng, shape[3])  # means far from zero
        weight, bias, act = draw(rng, shape[3]), draw(rng, shape[3]), str(rng.choice(ops.ACTS))
        shortcut = draw(rng, *shape) if rng.random() < 0.5 else None
        out, mean, variance = ops.normalise(x, weight, bias, 1e-3, act, shortcut)
        precise = exact(x)
        exact_mean, exact_variance = precise.mean([0, 1, 2]), precise.var([0, 1, 2], unbiased=False)
        normal = (precise - exact_mean) / (exact_variance + 1e-3).sqrt() * exact(weight) + exact(bias)
        assert_near(mean, exact_mean, shape)
        np.testing.assert_allclose(variance.numpy(), exact_variance.numpy(), rtol=1e-5, atol=1e-9)
        assert_near(out, EXACT[act](normal if shortcut is None else normal + exact(shortcut)), (shape, act))
        assert_near(ops.mean_of_pixels(x), precise.mean([1, 2]), shape)


def test_the_sums_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    x, weight = draw(rng, 40, 8, 8, 24), ops.pack(draw(rng, 30, 24, 3, 3))
    ones, zeros = paddle.ones([30]), paddle.zeros([30])
    results = []
    for threads in (1, 2):
        paddle.base.core.set_num_threads(threads)
        out = ops.convolve(x, weight, ones, zeros, (3, 3), padding=(1, 1, 1, 1), act="swish")
        results.append([tensor.numpy() for tensor in (out, *ops.normalise(out, ones, zeros, 1e-5))])
    paddle.base.core.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # Paddle sets it on import
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def convolution(x=(2, 5, 5, 3), weight=(2, 9, 3, 16), scale=(20,), shift=(20,), gate=None, shortcut=None, **changed):
    shapes = (x, weight, scale, shift, gate, shortcut)
    tensors = tuple(None if shape is None else paddle.ones(shape) for shape in shapes)
    options = {"outs": 20, "kernel": [3, 3], "stride": [1, 1], "padding": [1] * 4, "dilation": [1, 1], "act": "relu"}
    return run_operator("pimm_channels_last_conv", tensors, *{**options, **changed}.values(), cpu_backend())


def depthwise(x=(2, 5, 5, 3), weight=(9, 3), scale=(3,), shift=(3,), padding=(1, 1, 1, 1), act="none"):
    tensors = tuple(paddle.ones(shape) for shape in (x, weight, scale, shift))
    geometry = [3, 3], [1, 1], list(padding), [1, 1]
    return run_operator("pimm_channels_last_depthwise", tensors, *geometry, act, cpu_backend())


def norm(x=(2, 5, 5, 3), weight=(3,), bias=(3,), shortcut=None):
    tensors = tuple(None if shape is None else paddle.ones(shape) for shape in (x, weight, bias, shortcut))
    return run_operator("pimm_channels_last_norm", tensors, 1e-5, "none", cpu_backend())


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        (convolution, {"x": (2, 5, 3)}, "X has shape [2, 5, 3]"),
        (convolution, {"weight": (1, 9, 3, 16)}, "Weight has shape [1, 9, 3, 16] and must have [2, 9, 3, 16]"),
        (convolution, {"scale": (3,)}, "Scale has shape [3] and must have [20]"),
        (convolution, {"shift": (21,)}, "Shift has shape [21] and must have [20]"),
        (convolution, {"shortcut": (2, 5, 4, 20)}, "Shortcut has shape [2, 5, 4, 20] and must have [2, 5, 5, 20]"),
        (convolution, {"gate": (2, 3)}, "a gate needs a kernel of one pixel"),
        (convolution, {"outs": 0}, "there are 0 output channels"),
        (convolution, {"kernel": [3]}, "the kernel must be 2 numbers from 1"),
        (convolution, {"stride": [0, 1]}, "the stride must be 2 numbers from 1"),
        (convolution, {"dilation": [1, 2**30]}, "the dilation must be 2 numbers from 1 to 1048576"),
        (convolution, {"padding": [0, 0, 0, -1]}, "the padding must be 4 numbers from 0"),
        (convolution, {"dilation": [4, 1]}, "the kernel is larger than the padded image"),
        (convolution, {"act": "tanh"}, "there is no activation 'tanh'"),
        (depthwise, {"weight": (9, 4)}, "Weight has shape [9, 4] and must have [9, 3]"),
        (depthwise, {"act": ""}, "there is no activation ''"),
        (depthwise, {"x": (2, 1, 1, 3), "padding": (0, 0, 0, 0)}, "the kernel is larger than the padded image"),
        (norm, {"bias": (4,)}, "Bias has shape [4] and must have [3]"),
        (norm, {"shortcut": (2, 5, 5, 4)}, "Shortcut has shape [2, 5, 5, 4]"),
    ],
)
def test_an_operator_refuses_what_its_kernel_cannot_take(operator, arguments, message):
    operator()
    with pytest.raises(ValueError, match=re.escape(message)):
        operator(**arguments)
