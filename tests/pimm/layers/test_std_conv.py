import numpy as np
import paddle
import pytest

from pimm.layers import Conv2d, Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

GEOMETRIES = [(3, 1, 1, 1), (3, 2, 1, 2), (1, 2, 1, 1), (3, 1, 2, 8)]  # kernel, stride, dilation, groups


def standardized(weight, eps=1e-6):
    rows = weight.reshape(len(weight), -1)
    return ((rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + eps)).reshape(weight.shape)


def images():
    return paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 8, 7, 6)).astype("float32"))


def plain(kind, layer, weight, padding):
    kernel, stride, dilation, groups = layer.kernel_size[0], layer.stride[0], layer.dilation[0], layer.groups
    plain_layer = kind(8, 16, kernel, stride, padding, dilation, groups)
    plain_layer.weight.set_value(weight.astype("float32"))
    plain_layer.bias.set_value(layer.bias)
    return plain_layer


@pytest.mark.parametrize(("kernel", "stride", "dilation", "groups"), GEOMETRIES)
def test_standardized_convolution_is_a_convolution_with_standardized_filters(kernel, stride, dilation, groups):
    layer = StdConv2d(8, 16, kernel, stride, None, dilation, groups, bias=True)
    other = plain(Conv2d, layer, standardized(layer.weight.numpy()), layer.padding)
    np.testing.assert_allclose(layer(images()).numpy(), other(images()).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_same_padding_is_that_of_the_input(kernel):
    layer = StdConv2dSame(8, 16, kernel, 2, bias=True)
    assert layer.same_pad
    other = plain(Conv2dSame, layer, standardized(layer.weight.numpy()), 0)
    np.testing.assert_allclose(layer(images()).numpy(), other(images()).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "plain_kind"), [(ScaledStdConv2d, Conv2d), (ScaledStdConv2dSame, Conv2dSame)])
def test_scaled_filters_have_the_gain_over_the_root_of_the_fan_in(kind, plain_kind):
    layer = kind(8, 16, 3, 2, gamma=1.7, gain_init=0.5)
    np.testing.assert_array_equal(layer.gain.numpy(), np.full((16, 1, 1, 1), 0.5, "float32"))
    weight = standardized(layer.weight.numpy()) * 0.5 * 1.7 / np.sqrt(8 * 9)
    other = plain(plain_kind, layer, weight, layer.padding)
    np.testing.assert_allclose(layer(images()).numpy(), other(images()).numpy(), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_standardized_filters_is_orthogonal_to_shift_and_scale():
    layer = ScaledStdConv2d(8, 16, 3, bias=False, eps=0.0)
    layer(images()).square().sum().backward()
    grad, weight = layer.weight.grad.numpy().reshape(16, -1), layer.weight.numpy().reshape(16, -1)
    size = np.abs(grad).sum(1)
    assert (size > 1).all()
    np.testing.assert_allclose(grad.sum(1) / size, 0, atol=1e-5)
    np.testing.assert_allclose((grad * weight).sum(1) / size, 0, atol=1e-5)
    assert layer.gain.grad.shape == [16, 1, 1, 1]
