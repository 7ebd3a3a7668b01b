"""Inputs and references that the tests of the operators share."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from pimm.ops import batch_norm, depthwise_conv2d, swish


def paddle_conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1):
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])


def draw(*shape, seed=0, dtype="float32"):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return paddle.to_tensor(values.astype(dtype), stop_gradient=False)


def outputs_and_gradients(conv, x, weight, **options):
    out = conv(x, weight, **options)
    gradients = paddle.grad(out, [x, weight], draw(*out.shape, seed=1, dtype=x.numpy().dtype))
    return [tensor.numpy() for tensor in (out, *gradients)]


def assert_equal_to_paddle(x, weight, **options):
    ours = outputs_and_gradients(depthwise_conv2d, x, weight, **options)
    theirs = outputs_and_gradients(paddle_conv2d, x, weight, **options)
    for name, a, b in zip(("output", "input gradient", "weight gradient"), ours, theirs):
        error, size = np.abs(a - b).max(), np.abs(b).max()
        assert error <= 1e-5 * size, f"{name} of {x.shape}, {weight.shape}, {options}: {error} of {size}"


def assert_gradients_equal_finite_differences(loss, tensors):
    gradients = paddle.grad(loss(*tensors), tensors)
    for which, (tensor, gradient) in enumerate(zip(tensors, gradients)):
        step = 1e-5 * draw(*tensor.shape, seed=2, dtype="float64")
        there, back = list(tensors), list(tensors)
        there[which], back[which] = tensor + step, tensor - step
        difference = (loss(*there) - loss(*back)).item() / 2
        assert difference == pytest.approx((gradient * step).sum().item(), rel=1e-7)


def normalise_and_differentiate(x, weight, bias, then_swish=False):
    out, mean, variance = batch_norm(x, weight, bias, then_swish=then_swish)
    gradients = paddle.grad(out, [x, weight, bias], draw(*out.shape, seed=1))
    return [tensor.numpy() for tensor in (out, mean, variance, *gradients)]


def swish_and_differentiate(x):
    return [tensor.numpy() for tensor in (swish(x), *paddle.grad(swish(x), [x], draw(*x.shape, seed=1)))]


def exact_batch_norm(x, weight, bias, then_swish=False, eps=1e-5):
    """Output, mean, variance, and the gradients for that of `draw(seed=1)`, in float64."""
    gradient = draw(*x.shape, seed=1).numpy().astype("float64")
    x, weight, bias = (tensor.numpy().astype("float64") for tensor in (x, weight, bias))
    wide, axes = (1, -1, 1, 1), (0, 2, 3)
    mean, variance = x.mean(axes), x.var(axes)
    deviation = np.sqrt(variance + eps).reshape(wide)
    normal = (x - mean.reshape(wide)) / deviation
    out = normal * weight.reshape(wide) + bias.reshape(wide)
    if then_swish:
        sigmoid = 1 / (1 + np.exp(-out))
        gradient, out = gradient * sigmoid * (1 + out * (1 - sigmoid)), out * sigmoid
    weight_gradient, bias_gradient = (gradient * normal).sum(axes), gradient.sum(axes)
    shared = (bias_gradient.reshape(wide) + normal * weight_gradient.reshape(wide)) * x.shape[1] / x.size
    x_gradient = weight.reshape(wide) / deviation * (gradient - shared)
    return out, mean, variance, x_gradient, weight_gradient, bias_gradient


def assert_near(actual, expected, tolerances):
    for a, b, tolerance in zip(actual, expected, tolerances):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
