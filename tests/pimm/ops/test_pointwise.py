"""The 1x1 convolution by matrix products against Paddle's."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from pimm.layers.conv import conv2d
from pimm.ops import pointwise_conv2d

# Sides on either side of the thresholds, here and in the operator, and one pixel.
POINTWISE_SIDES = [(1, 1), (1, 3), (3, 4), (4, 4), (7, 5), (10, 10), (25, 24)]


@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("sides", POINTWISE_SIDES, ids=str)
def test_pointwise_equals_paddles_convolution_and_so_do_its_gradients(sides, with_bias):
    paddle.seed(0)
    values = [paddle.randn([3, 10, *sides]), paddle.randn([6, 10, 1, 1])] + [paddle.randn([6])] * with_bias
    slope = paddle.randn([3, 6, *sides])
    results = []
    for convolve in (pointwise_conv2d, F.conv2d):
        leaves = [paddle.to_tensor(value.numpy(), stop_gradient=False) for value in values]
        out = convolve(*leaves)
        results.append([out, *paddle.grad([(out * slope).sum()], leaves)])
    for ours, paddles in zip(*results):
        assert ours.shape == paddles.shape
        np.testing.assert_allclose(ours.numpy(), paddles.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"groups": 2}], ids=str)
def test_a_strided_padded_or_grouped_convolution_is_no_pointwise_one(options):
    paddle.seed(0)
    x, weight = paddle.randn([2, 4, 6, 6]), paddle.randn([8, 4 // options.get("groups", 1), 1, 1])
    np.testing.assert_allclose(conv2d(x, weight, **options), F.conv2d(x, weight, **options), rtol=1e-5, atol=1e-5)
