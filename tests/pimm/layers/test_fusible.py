"""Layers with batch norm: what `fuse` returns computes the same, and batch norm of tokens is that of all tokens."""

import numpy as np
import paddle
import pytest

from pimm.layers import BnLinear, ConvBn, LinearBn


def settled(layer):
    """Return the layer in evaluation mode, with weights and statistics that change its input."""
    paddle.seed(1)
    for norm in (each for each in layer.sublayers() if hasattr(each, "_variance")):
        norm._mean.set_value(paddle.randn(norm._mean.shape))
        norm._variance.set_value(paddle.rand(norm._variance.shape) + 0.5)
        norm.weight.set_value(paddle.rand(norm.weight.shape) + 0.5)
        norm.bias.set_value(paddle.randn(norm.bias.shape))
    layer.eval()
    return layer


@pytest.mark.parametrize(
    "layer, shape",
    [
        (ConvBn(4, 6, 3, 2, 1, groups=2), [2, 4, 5, 5]),
        (ConvBn(4, 6, conv_name="linear"), [2, 4, 3, 3]),
        (LinearBn(4, 6), [2, 3, 4]),
        (BnLinear(4, 6), [2, 4]),
    ],
)
def test_fused_layers_compute_the_same(layer, shape):
    x = paddle.randn(shape)
    expected = settled(layer)(x).numpy()
    fused = layer.fuse()
    assert type(fused).__name__ in ("Conv2d", "Linear")
    np.testing.assert_allclose(fused(x).numpy(), expected, atol=1e-5)


def test_tokens_are_normalised_together():
    layer = LinearBn(3, 5)
    layer.train()
    out = layer(paddle.randn([4, 6, 3]))
    assert out.shape == [4, 6, 5]
    np.testing.assert_allclose(out.mean(axis=[0, 1]).numpy(), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(out.std(axis=[0, 1], unbiased=False).numpy(), np.ones(5), atol=1e-3)


def test_initial_values():
    assert not LinearBn(3, 5, bn_weight_init=0.0)(paddle.randn([2, 3, 3])).numpy().any()
    classifier = BnLinear(64, 100)
    weight = classifier.linear.weight.numpy()
    assert 0.018 < weight.std() < 0.022 and not classifier.linear.bias.numpy().any()
    assert list(ConvBn(1, 2, conv_name="c").state_dict()) == ["c.weight"] + [
        f"bn.{name}" for name in ("weight", "bias", "_mean", "_variance")
    ]
