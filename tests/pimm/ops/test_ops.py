"""The CPU operators against Paddle's own and finite differences."""

import concurrent.futures
import itertools
import os
from functools import partial

import numpy as np
import paddle
import pytest
from ops_cases import (
    assert_equal_to_paddle,
    assert_gradients_equal_finite_differences,
    assert_near,
    draw,
    exact_batch_norm,
    normalise_and_differentiate,
    outputs_and_gradients,
    paddle_conv2d,
    swish_and_differentiate,
)
from paddle.nn import functional as F

from pimm.errors import ConfigError
from pimm.ops import batch_norm, cpu_backend, depthwise_conv2d, log_softmax, scale_channels, swish

SIZES = [(1, 1), (2, 2), (3, 4), (7, 7), (8, 8), (14, 13), (33, 18)]
LAYERS = [  # images, channels, kernel, stride, of nets for small and for large images
    ((33, 7, 2, 2), 5, 1),
    ((16, 24, 4, 4), 3, 1),
    ((9, 40, 8, 8), 5, 2),
    ((2, 96, 14, 14), 7, 1),
    ((2, 16, 56, 56), 3, 2),
    ((1, 3, 112, 112), 3, 1),
]


def fits(size, kernel, padding, dilation):
    top, bottom, left, right = padding
    spans = (size[0] + top + bottom, size[1] + left + right)
    return all(span > dilation * (k - 1) for span, k in zip(spans, kernel))


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (7, 7), (9, 9), (3, 5)], ids=str)
def test_equals_paddle_on_a_grid(kernel, stride, dilation):
    assert cpu_backend() != "paddle", "these tests need a C++ compiler"
    same = [dilation * (k // 2) for k in kernel]
    paddings = [[0, 0, 0, 0], [same[0], same[0], same[1], same[1]], [0, 1, 1, 2], [3, 0, 2, 1]]
    checked = 0
    for size, padding, (images, channels) in itertools.product(SIZES, paddings, [(1, 3), (5, 17)]):
        if fits(size, kernel, padding, dilation):
            x, weight = draw(images, channels, *size), draw(channels, 1, *kernel)
            assert_equal_to_paddle(x, weight, stride=stride, padding=padding, dilation=dilation)
            checked += 1
    assert checked >= 14


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(("shape", "kernel", "stride"), LAYERS)
def test_every_instruction_set_equals_paddle(shape, kernel, stride):
    assert_equal_to_paddle(draw(*shape), draw(shape[1], 1, kernel, kernel), stride=stride, padding=kernel // 2)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, [0, 1, 0, 1], 1), (1, [2, 1, 3, 0], 2)])
def test_gradients_equal_finite_differences(stride, padding, dilation):
    assert_gradients_equal_finite_differences(
        lambda *tensors: depthwise_conv2d(*tensors, stride=stride, padding=padding, dilation=dilation).square().sum(),
        [draw(2, 3, 6, 5, dtype="float64"), draw(3, 1, 3, 3, dtype="float64")],
    )


@pytest.mark.parametrize("padding", [1, (1, 2), [0, 1, 2, 3]], ids=str)
def test_bias_and_forms_of_padding(padding):
    x, weight, bias = draw(2, 5, 9, 7), draw(5, 1, 3, 3), draw(5)
    out = depthwise_conv2d(x, weight, bias, padding=padding)
    np.testing.assert_allclose(out.numpy(), paddle_conv2d(x, weight, bias, padding=padding).numpy(), atol=1e-5)
    (gradient,) = paddle.grad(out.sum(), [bias])
    np.testing.assert_allclose(gradient.numpy(), np.full(5, out.numel().item() / 5))


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (draw(5, 1, 3, 3), {"stride": 3}),
        (draw(5, 1, 3, 3), {"stride": (1, 2)}),
        (draw(5, 1, 3, 3), {"dilation": (1, 2)}),
        (draw(10, 1, 3, 3), {"padding": 1}),
    ],
    ids=["stride 3", "two strides", "two dilations", "two filters a channel"],
)
def test_what_the_operator_cannot_do_is_left_to_paddle(weight, options):
    x = draw(2, 5, 12, 10)
    for a, b in zip(*(outputs_and_gradients(conv, x, weight, **options) for conv in (depthwise_conv2d, paddle_conv2d))):
        np.testing.assert_array_equal(a, b)


def test_the_environment_switches_it_off_and_rejects_other_names(monkeypatch):
    x, weight = draw(2, 5, 12, 10), draw(5, 1, 3, 3)
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    assert cpu_backend() == "paddle"
    np.testing.assert_array_equal(depthwise_conv2d(x, weight).numpy(), paddle_conv2d(x, weight).numpy())
    monkeypatch.setenv("PIMM_CPU_OPS", "neon")
    with pytest.raises(ConfigError, match=r"'neon'; it can be paddle, avx512, avx2, portable"):
        depthwise_conv2d(x, weight)


def test_an_empty_batch():
    assert depthwise_conv2d(draw(0, 5, 6, 4), draw(5, 1, 3, 3), stride=2, padding=1).shape == [0, 5, 3, 2]


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_only_wanted_gradients_are_made(frozen):
    tensors = {"x": draw(2, 5, 6, 6), "weight": draw(5, 1, 3, 3)}
    tensors[frozen].stop_gradient = True
    (other,) = tensors.keys() - {frozen}
    (expected,) = paddle.grad(paddle_conv2d(**tensors).sum(), [tensors[other]])
    depthwise_conv2d(**tensors).sum().backward()
    assert tensors[frozen].grad is None
    np.testing.assert_allclose(tensors[other].grad.numpy(), expected.numpy(), atol=1e-5)


def test_no_graph_is_recorded_without_need():
    x, weight = draw(2, 5, 6, 6), draw(5, 1, 3, 3)
    with paddle.no_grad():
        assert depthwise_conv2d(x, weight).stop_gradient
    assert depthwise_conv2d(x.detach(), weight.detach()).stop_gradient
    assert not depthwise_conv2d(x.detach(), weight).stop_gradient


def test_tensors_that_are_not_contiguous():
    x, weight = draw(2, 6, 7, 5).transpose([0, 3, 1, 2]), draw(3, 3, 1, 5).transpose([3, 2, 0, 1])
    gradient = draw(2, 6, 7, 5, seed=3).transpose([0, 3, 1, 2])
    assert not x.is_contiguous() and not gradient.is_contiguous()
    ours, theirs = (
        paddle.grad(conv(x, weight, padding=1), [x, weight], gradient) for conv in (depthwise_conv2d, paddle_conv2d)
    )
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("results", "shapes"),
    [
        (
            lambda x, weight: outputs_and_gradients(depthwise_conv2d, x, weight, padding=2),
            [(7, 50, 14, 14), (50, 1, 5, 5)],
        ),
        (normalise_and_differentiate, [(16, 50, 14, 14), (50,), (50,)]),
        (normalise_and_differentiate, [(9, 2, 200, 200), (2,), (2,)]),  # large enough to split its images
        (normalise_and_differentiate, [(9, 16, 200, 200), (16,), (16,)]),  # and with channels for all threads
        (partial(normalise_and_differentiate, then_swish=True), [(9, 2, 200, 200), (2,), (2,)]),
        (swish_and_differentiate, [(3, 50, 37, 37)]),
        (lambda x, factors: scale_and_differentiate(x, factors), [(3, 50, 37, 37), (3, 50, 1, 1)]),
    ],
    ids=[
        "depthwise",
        "batch norm",
        "of large maps",
        "of large maps and many channels",
        "and swish",
        "swish",
        "factors",
    ],
)
def test_the_number_of_threads_changes_no_bit(results, shapes):
    tensors, runs = [draw(*shape) for shape in shapes], []
    try:
        for threads in (1, 3, 3):
            paddle.base.core.set_num_threads(threads)
            runs.append(results(*tensors))
    finally:
        paddle.base.core.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # Paddle sets it on import
    for one, *others in zip(*runs):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_several_threads_of_python_at_once():
    inputs, weight = [draw(4, 32, 14, 14, seed=seed) for seed in range(8)], draw(32, 1, 3, 3)
    expected = [paddle_conv2d(x, weight).numpy() for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for a, b in zip(pool.map(lambda x: depthwise_conv2d(x, weight).numpy(), inputs), expected):
            np.testing.assert_allclose(a, b, atol=1e-5)


# Batch norm, against its formula in float64.

NORM_SHAPES = [(2, 1, 1, 1), (1, 3, 1, 2), (33, 7, 2, 2), (4, 17, 7, 7), (16, 70, 4, 4), (3, 5, 17, 19)]
SPLIT_SHAPES = [(9, 2, 200, 200), (1, 1, 700, 700)]  # too large for one task


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("then_swish", [False, True], ids=["alone", "then swish"])
@pytest.mark.parametrize("shape", NORM_SHAPES + SPLIT_SHAPES, ids=str)
def test_batch_norm_equals_its_formula(shape, then_swish):
    tensors = draw(*shape), draw(shape[1], seed=1), draw(shape[1], seed=2)
    results = normalise_and_differentiate(*tensors, then_swish)
    expected = list(exact_batch_norm(*tensors, then_swish))
    if shape[0] * shape[2] * shape[3] == 2:  # whatever the two values are, the gradient is almost nothing
        assert np.abs(results.pop(3) - expected.pop(3)).max() < 1e-4
    assert_near(results, expected, [1e-6] * 6)


@pytest.mark.parametrize("shape", [(32, 20, 8, 8), (2, 3, 112, 112)], ids=str)
def test_batch_norm_of_a_large_mean_is_as_good_as_sums_in_float64(shape):
    x = (draw(*shape).detach() + 1000).detach()
    x.stop_gradient = False
    tensors = x, draw(shape[1], seed=1), draw(shape[1], seed=2)
    # The gradient of the weight meets the mean as rounded to float32, by up to 3e-5.
    assert_near(normalise_and_differentiate(*tensors), exact_batch_norm(*tensors), [3e-7, 6e-8, 2e-7, 1e-5, 1e-4, 1e-6])


def test_batch_norm_whose_first_value_is_far_from_the_others():
    values = draw(8, 3, 16, 16).numpy()
    values[0, :, 0, 0] = 1e4
    tensors = paddle.to_tensor(values, stop_gradient=False), draw(3, seed=1), draw(3, seed=2)
    assert_near(normalise_and_differentiate(*tensors)[:3], exact_batch_norm(*tensors)[:3], [1e-6] * 3)


def test_batch_norm_without_weight_and_bias_equals_ones_and_zeros():
    x = draw(4, 5, 6, 6)
    for a, b in zip(batch_norm(x, eps=0.1), batch_norm(x, paddle.ones([5]), paddle.zeros([5]), eps=0.1)):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("backend", ["", "paddle"], ids=["ours", "paddle"])
def test_batch_norm_of_either_backend_returns_the_biased_variance(backend, monkeypatch):
    monkeypatch.setenv("PIMM_CPU_OPS", backend)
    tensors = draw(4, 5, 6, 6), draw(5, seed=1), draw(5, seed=2)
    results = normalise_and_differentiate(*tensors)
    assert_near(results, exact_batch_norm(*tensors), [1e-5] * 6)
    assert all(statistic.stop_gradient for statistic in batch_norm(*tensors)[1:])


@pytest.mark.skipif(paddle.device.cuda.device_count() == 0, reason="no GPU")
def test_batch_norm_on_a_gpu_returns_the_biased_variance():
    x = draw(2, 3, 2, 1)
    _, _, variance = batch_norm(x.cuda(), paddle.ones([3]).cuda(), paddle.zeros([3]).cuda())
    np.testing.assert_allclose(variance.numpy(), x.numpy().var((0, 2, 3)), rtol=1e-5)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", NORM_SHAPES + SPLIT_SHAPES, ids=str)
def test_batch_norm_and_swish_in_one_pass_equal_the_two_bit_for_bit(shape):
    tensors = draw(*shape), draw(shape[1], seed=1), draw(shape[1], seed=2)
    expected = batch_norm(*tensors)
    with paddle.no_grad():
        fused = batch_norm(*tensors, then_swish=True)
    for a, b in zip(fused, (swish(expected[0]), *expected[1:])):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert batch_norm(*tensors, then_swish=True)[0].stop_gradient is False
    assert fused[0].stop_gradient


@pytest.mark.parametrize("then_swish", [False, True], ids=["alone", "then swish"])
def test_batch_norm_gradients_equal_finite_differences(then_swish):
    tensors = draw(3, 4, 5, 2, dtype="float64"), draw(4, dtype="float64"), draw(4, seed=1, dtype="float64")
    assert_gradients_equal_finite_differences(
        lambda *inputs: (batch_norm(*inputs, then_swish=then_swish)[0] ** 3).sum(), list(tensors)
    )


@pytest.mark.parametrize("then_swish", [False, True], ids=["alone", "then swish"])
def test_batch_norm_takes_a_gradient_in_any_order_of_memory(then_swish):
    tensors, gradient = (draw(4, 6, 5, 7), draw(6, seed=1), draw(6, seed=2)), draw(4, 7, 5, 6).transpose([0, 3, 2, 1])
    assert not gradient.is_contiguous()
    out = batch_norm(*tensors, then_swish=then_swish)[0]
    found = paddle.grad(out, list(tensors), gradient, retain_graph=True)
    for a, b in zip(found, paddle.grad(out, list(tensors), paddle.to_tensor(gradient.numpy()))):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_batch_norm_shows_what_is_not_finite_in_its_channel_alone(value):
    values = draw(4, 3, 5, 5).numpy()
    values[2, 1, 3, 0] = value
    out, mean, variance = (tensor.numpy() for tensor in batch_norm(paddle.to_tensor(values)))
    assert np.isnan(out[2, 1, 3, 0]) and not np.isfinite(mean[1]) and np.isnan(variance[1])
    for tensor in (out[:, ::2], mean[::2], variance[::2]):
        assert np.isfinite(tensor).all()


# Swish.


@pytest.mark.usefixtures("instruction_set")
def test_swish_is_precise_for_every_size_of_number():
    powers = np.logspace(-38, 38, 997)
    values = np.concatenate([np.linspace(-105, 105, 100003), powers, -powers]).astype("float32")
    x = paddle.to_tensor(values, stop_gradient=False)
    out = swish(x)
    (slope,) = paddle.grad(out.sum(), [x])
    values = values.astype("float64")
    sigmoid = 1 / (1 + np.exp(-np.maximum(values, -700)))
    np.testing.assert_allclose(out.numpy(), values * sigmoid, rtol=3e-7, atol=1e-42)
    exact_slope = np.where(np.abs(values) > 700, values > 0, sigmoid * (1 + values * (1 - sigmoid)))
    np.testing.assert_allclose(slope.numpy(), exact_slope, rtol=3e-7, atol=3e-7)


@pytest.mark.usefixtures("instruction_set")
def test_swish_where_numbers_end():
    x = paddle.to_tensor([np.inf, -np.inf, np.nan, 3e38, -3e38, 0.0], stop_gradient=False)
    out = swish(x)
    np.testing.assert_array_equal(out.numpy(), np.float32([np.inf, 0, np.nan, 3e38, 0, 0]))
    np.testing.assert_array_equal(paddle.grad(out.sum(), [x])[0].numpy(), [1, 0, np.nan, 1, 0, 0.5])


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 7, 11), (17, 4099)], ids=str)
def test_swish_of_any_shape_equals_paddle(shape):
    x = draw(*shape)
    gradient = draw(*shape, seed=1)
    for a, b in zip(*((f(x), *paddle.grad(f(x), [x], gradient)) for f in (swish, F.silu))):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-6)
        assert a.shape == list(shape)


def test_swish_gradients_equal_finite_differences():
    assert_gradients_equal_finite_differences(lambda x: swish(4 * x).square().sum(), [draw(5, 13, dtype="float64")])


@pytest.mark.parametrize(
    "function",
    [swish, lambda x: batch_norm(x)[0], lambda x: scale_channels(x, x.mean([2, 3], keepdim=True))],
    ids=["swish", "batch norm", "factors"],
)
def test_strides_empty_batches_and_no_grad(function):
    x, gradient = draw(2, 6, 7, 5).transpose([0, 3, 1, 2]), draw(2, 6, 7, 5, seed=1).transpose([0, 3, 1, 2])
    dense = paddle.to_tensor(x.numpy(), stop_gradient=False)
    assert not x.is_contiguous() and not gradient.is_contiguous()
    for a, b in zip(*((function(t), *paddle.grad(function(t), [t], gradient)) for t in (x, dense))):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert function(draw(0, 5, 6, 4)).shape == [0, 5, 6, 4]
    with paddle.no_grad():
        assert function(x).stop_gradient
    assert function(x.detach()).stop_gradient and not function(x).stop_gradient


class Depthwise(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(6, 6, 3, groups=6)

    def forward(self, x):
        return F.relu(depthwise_conv2d(2 * x, self.conv.weight, self.conv.bias, padding=[1, 1, 0, 1]))


@pytest.mark.parametrize("full_graph", [True, False])
def test_compiled_functions_give_the_same(full_graph):
    net, x = Depthwise(), draw(2, 6, 8, 8)
    expected = net(x).numpy()
    np.testing.assert_allclose(paddle.jit.to_static(net, full_graph=full_graph)(x).numpy(), expected, atol=1e-5)


def test_an_exported_net_needs_no_operator_of_ours(tmp_path):
    net, x = Depthwise(), draw(2, 6, 8, 8)
    net.eval()
    paddle.jit.save(net, str(tmp_path / "net"), input_spec=[paddle.static.InputSpec([None, 6, None, None], "float32")])
    (program,) = tmp_path.glob("*.json")
    assert "depthwise_conv2d" in program.read_text() and "pimm_" not in program.read_text()
    np.testing.assert_allclose(paddle.jit.load(str(tmp_path / "net"))(x).numpy(), net(x).numpy(), atol=1e-5)


# Factors for channels.


def scale_and_differentiate(x, factors):
    out = scale_channels(x, factors)
    gradients = paddle.grad(out, [x, factors], draw(*out.shape, seed=1))
    return [tensor.numpy() for tensor in (out, *gradients)]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (33, 7, 2, 2), (4, 17, 7, 7), (3, 5, 17, 19), (2, 3, 150, 90)], ids=str
)
def test_scaled_channels_equal_their_formula(shape):
    x, factors = draw(*shape), draw(*shape[:2], 1, 1, seed=3)
    images, gradient = x.numpy().astype("float64"), draw(*shape, seed=1).numpy().astype("float64")
    expected = images * factors.numpy(), gradient * factors.numpy(), (gradient * images).sum((2, 3), keepdims=True)
    assert_near(scale_and_differentiate(x, factors), expected, [1e-6] * 3)


def test_gradients_of_scaled_channels_equal_finite_differences():
    tensors = [draw(3, 4, 5, 3, dtype="float64"), draw(3, 4, 1, 1, seed=1, dtype="float64")]
    assert_gradients_equal_finite_differences(lambda *inputs: (scale_channels(*inputs) ** 3).sum(), tensors)


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (1, 5, 1, 1), (4, 5, 6, 7)], ids=str)
def test_factors_of_other_shapes_are_multiplied_as_paddle_does(shape):
    x, factors = draw(4, 5, 6, 7), draw(*shape, seed=1)
    np.testing.assert_array_equal(scale_channels(x, factors).numpy(), (x * factors).numpy())


# Logarithms of probabilities.


@pytest.mark.parametrize("shape", [(1,), (3, 5), (32, 1000), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("offset", [0, 1e4], ids=["small", "large"])
def test_log_softmax_equals_its_formula(shape, offset):
    x = (30 * draw(*shape).detach() + offset).detach()
    x.stop_gradient = False
    gradient = draw(*shape, seed=1)
    out = log_softmax(x)
    exact, weights = x.numpy().astype("float64"), gradient.numpy().astype("float64")
    exact = exact - exact.max(-1, keepdims=True)
    exact = exact - np.log(np.exp(exact).sum(-1, keepdims=True))
    np.testing.assert_allclose(out.numpy(), exact, rtol=1e-6, atol=1e-6)
    (found,) = paddle.grad(out, [x], gradient)
    expected = weights - np.exp(exact) * weights.sum(-1, keepdims=True)
    assert_near([found.numpy()], [expected], [1e-6])


def test_log_softmax_of_impossible_classes():
    out = log_softmax(paddle.to_tensor([[0.0, -np.inf, 0.0], [-200.0, 0.0, -np.inf]]))
    np.testing.assert_allclose(out.numpy(), [[-np.log(2), -np.inf, -np.log(2)], [-200, 0, -np.inf]], rtol=1e-6)


def test_second_derivatives_of_log_softmax_equal_finite_differences():
    def slopes(x):
        return paddle.grad((log_softmax(x) ** 3).sum(), [x], create_graph=True)[0].square().sum()

    assert_gradients_equal_finite_differences(slopes, [draw(3, 5, dtype="float64")])
