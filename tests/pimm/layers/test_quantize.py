"""Paddle's quantization of nets of our layers: every convolution and linear layer takes part, with its own padding."""

import numpy as np
import paddle
import pytest
from paddle.quantization import PTQ, QAT, QuantConfig
from paddle.quantization.config import SingleLayerConfig
from paddle.quantization.observers import AbsmaxObserver
from paddle.quantization.quanters import FakeQuanterWithAbsMaxObserver

import pimm
from pimm import layers
from pimm.layers.quantize import QUANTED_LAYERS

QUANTED = tuple(QUANTED_LAYERS.values())
NETS = ["mobilenetv3_small_075", "tf_mobilenetv3_small_minimal_100", "mixnet_s", "tf_efficientnet_cc_b0_4e"]


def quantizer():
    quanter = FakeQuanterWithAbsMaxObserver(moving_rate=0.9)
    return QAT(QuantConfig(activation=quanter, weight=quanter))


def count(net, *types):
    return sum(isinstance(layer, types) for layer in net.sublayers())


@pytest.mark.parametrize("name", NETS)
def test_every_convolution_and_linear_layer_is_quantized_and_trains(name):
    paddle.seed(0)
    net = pimm.create_model(name, num_classes=5)
    quantized = quantizer().quantize(net)
    assert count(quantized, *QUANTED) == count(net, *QUANTED_LAYERS) > 30
    assert count(quantized, *QUANTED_LAYERS) == 0
    optimizer = paddle.optimizer.SGD(0.1, parameters=quantized.parameters())
    weights = [layer.weight for layer in quantized.sublayers() if isinstance(layer, QUANTED)]
    before = [weight.numpy() for weight in weights]
    loss = paddle.nn.functional.cross_entropy(quantized(paddle.rand([2, 3, 40, 33])), paddle.to_tensor([1, 3]))
    loss.backward()
    optimizer.step()
    assert np.isfinite(loss.item())
    assert sum((a != b.numpy()).any() for a, b in zip(before, weights)) > 0.9 * len(weights)


CONVOLUTIONS = [
    layers.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
    layers.Conv2d(6, 4, 1, bias=False),
    layers.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2),
    layers.Conv2dSame(6, 4, 3, stride=2),
    layers.Conv2dSame(6, 6, 5, stride=2, groups=6, bias=False),
    layers.Conv2dSame(6, 4, 4, dilation=2),
    layers.CondConv2d(6, 4, 3, stride=2, padding="same", bias=True),
    layers.CondConv2d(6, 6, 3, groups=6),
    layers.Linear(6, 3),
]


def forward(layer, x, routing):
    if isinstance(layer, (layers.CondConv2d, QUANTED_LAYERS[layers.CondConv2d])):
        return layer(x, routing)
    return layer(x if not isinstance(layer, (layers.Linear, QUANTED_LAYERS[layers.Linear])) else x.mean([2, 3]))


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 13)], ids=str)
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda layer: f"{type(layer).__name__}{list(layer.weight.shape)}")
def test_a_quantized_layer_computes_what_the_layer_does(layer, size):
    paddle.seed(1)
    x, routing = paddle.randn([2, 6, *size]), paddle.nn.functional.softmax(paddle.randn([2, 4]))
    expected = forward(layer, x, routing).numpy()
    plain = QUANTED_LAYERS[type(layer)](layer, SingleLayerConfig(None, None))
    np.testing.assert_array_equal(forward(plain, x, routing).numpy(), expected)
    quanter = FakeQuanterWithAbsMaxObserver(moving_rate=0.0)  # the scale is this batch's own
    rounded = forward(QUANTED_LAYERS[type(layer)](layer, SingleLayerConfig(quanter, quanter)), x, routing).numpy()
    error = np.abs(rounded - expected).max() / np.abs(expected).max()
    assert rounded.shape == expected.shape and 0 < error < 0.03


def test_quantization_after_training_keeps_the_outputs():
    paddle.seed(2)
    net = pimm.create_model("mobilenetv3_small_075", num_classes=5)
    net.eval()
    observer = AbsmaxObserver(quant_bits=8)
    quantizer, x = PTQ(QuantConfig(activation=observer, weight=observer)), paddle.randn([4, 3, 32, 32])
    observed = quantizer.quantize(net)
    assert count(observed, *QUANTED) == count(net, *QUANTED_LAYERS)
    expected = net(x).numpy()
    np.testing.assert_allclose(observed(x).numpy(), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    converted = quantizer.convert(observed)(x).numpy()
    assert 0 < np.abs(converted - expected).max() < 0.3 * np.abs(expected).max()
