"""The convolution of images without a gradient, by matrices of their patches, against Paddle's."""

import numpy as np
import paddle
import pytest
from ops_cases import assert_near, draw
from paddle.nn import functional as F
from test_random_geometries import drawn_convolution

from pimm.layers.conv import conv2d
from pimm.ops import takes_patches


def drawn_case(rng):
    """Draw images, filters and options, such as lead to patches of at most 32 numbers."""
    while True:
        ((images, channels, *size), _), options = drawn_convolution(rng)
        kernel, channels = [int(value) for value in rng.integers(1, 6, 2)], channels % 4 + 1
        padded = np.array(size) + np.array(options["padding"]).reshape(2, 2).sum(1)
        fits = (options["dilation"] * (np.array(kernel) - 1) + 1 <= padded).all()
        if channels * kernel[0] * kernel[1] <= 32 and kernel != [1, 1] and fits:
            return (images, channels, *size), (int(rng.integers(1, 9)), channels, *kernel), options


@pytest.mark.parametrize("seed", range(5))
def test_values_and_gradients_of_filters_are_those_of_paddle_in_float64(seed):
    rng = np.random.default_rng(seed)
    for _ in range(12):
        shape, kernel, options = drawn_case(rng)
        results = []
        for convolve, dtype in ((conv2d, "float32"), (F.conv2d, "float64")):
            x, weight, bias = draw(*shape), draw(*kernel), draw(kernel[0])
            x, leaves = x.detach().astype(dtype), [tensor.astype(dtype) for tensor in (weight, bias)]
            assert convolve is F.conv2d or takes_patches(x, leaves[0])
            out = convolve(x, *leaves, **options)
            slope = draw(*out.shape, seed=1).astype(dtype)
            results.append([tensor.numpy() for tensor in (out, *paddle.grad(out, leaves[:1], slope))])
        ours, exact = results
        assert ours[0].shape == exact[0].shape
        assert_near(ours, exact, [1e-6, 1e-5])


def test_pixels_outside_of_the_image_are_zeros():
    x = paddle.arange(1.0, 7.0).reshape([1, 1, 2, 3])
    weight = paddle.to_tensor([[[[1.0, 10.0]]]])
    out = conv2d(x, weight, stride=(1, 2), padding=(1, 0, 2, 1))  # of each two pixels the left and ten times the right
    np.testing.assert_array_equal(out, [[[[0, 0, 0], [0, 21, 3], [0, 54, 6]]]])


@pytest.mark.parametrize(
    ("channels", "kernel", "wants_gradient"),
    [(3, (7, 7), False), (4, (3, 3), False), (3, (3, 3), True)],
    ids=["many numbers", "many channels", "gradient"],
)
def test_other_convolutions_are_left_to_paddle(channels, kernel, wants_gradient):
    x = paddle.randn([2, channels, 9, 9])
    x.stop_gradient = not wants_gradient
    weight = paddle.randn([4, channels, *kernel])
    assert not takes_patches(x, weight)
    np.testing.assert_allclose(conv2d(x, weight), F.conv2d(x, weight), rtol=1e-5, atol=1e-5)
