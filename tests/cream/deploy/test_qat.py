"""Nets of Paddle's quantization-aware training, exported with the scales that the training found."""

import dataclasses
import os

import numpy as np
import paddle
import pytest
from exports import IMAGES
from paddle.quantization import QAT, QuantConfig
from paddle.quantization.quanters import FakeQuanterWithAbsMaxObserver

from cream.deploy.backends import EagerNet, OnnxNet
from cream.deploy.qat import export_qat, without_quanters
from cream.deploy.settings import read_settings
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from pimm import create_model
from pimm.errors import ConfigError
from pimm.layers import QUANTED_LAYERS

SETTINGS = dataclasses.replace(IMAGES, class_names=tuple("abcde"))


def quantized(net, every_type=False):
    """Return the net after `QAT.quantize`, of convolutions and linear layers alone or of layers of every type."""
    quanter = FakeQuanterWithAbsMaxObserver(moving_rate=0.9)
    if every_type:
        return QAT(QuantConfig(activation=quanter, weight=quanter)).quantize(net)
    config = QuantConfig(activation=None, weight=None)
    config.add_type_config(list(QUANTED_LAYERS), activation=quanter, weight=quanter)
    return QAT(config).quantize(net)


def draw_batch(count=8):
    labels = paddle.randint(0, 5, [count])
    return paddle.randn([count, 3, 64, 64]) + labels.reshape([-1, 1, 1, 1]).astype("float32"), labels


def trained(net, steps=12):
    """Train the net a little, so that its scales, its weights and its batch norms are those of a training."""
    # At a rate of 0.05, some logits grow to hundreds, and the last bit of any operator decides whether they do
    optimizer = paddle.optimizer.SGD(0.01, parameters=net.parameters())
    for _ in range(steps):
        images, labels = draw_batch()
        paddle.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    net.eval()
    return net


@pytest.mark.parametrize("every_type", [False, True])
def test_a_trained_net_is_exported_with_its_scales(every_type, tmp_path):
    """The roundings are the training's; but a number between two steps may go either way, and what follows from it."""
    pytest.importorskip("paddle2onnx")
    paddle.seed(0)
    net = trained(quantized(ChildNet(CHILD_NETS[14].arch, 5), every_type))
    difference = export_qat(net, SETTINGS, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["inference.yml", "model.onnx"]
    assert read_settings(tmp_path / "out").precision == "int8"
    images = draw_batch(32)[0].numpy()
    expected, logits = EagerNet(net)(images), OnnxNet(tmp_path / "out")(images)
    plain = EagerNet(without_quanters(net)[0])(images)
    rounding = np.abs(plain - expected).max()
    errors = np.abs(logits - expected).max(axis=1)
    assert difference < 1.0 and errors.max() < 2 * rounding + 1e-4
    if not every_type:
        assert np.median(errors) < 0.5 * np.median(np.abs(plain - expected).max(axis=1))


def test_the_weights_of_the_file_are_int8(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("paddle2onnx")
    net = trained(quantized(create_model("tf_mobilenetv3_small_075", num_classes=5)), steps=4)
    export_qat(net, SETTINGS, tmp_path / "out")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    rounded = [each for each in model.graph.initializer if each.name.endswith(".int8")]
    assert (
        len(layers) == len(rounded) == sum(isinstance(each, tuple(QUANTED_LAYERS.values())) for each in net.sublayers())
    )
    makers = {output: node for node in model.graph.node for output in node.output}
    assert {makers[name].op_type for node in layers for name in node.input[:2]} == {"DequantizeLinear"}
    values = [onnx.numpy_helper.to_array(each) for each in rounded]
    assert {value.dtype for value in values} == {np.dtype("int8")}
    assert all(np.abs(value.astype(int)).max() >= 60 for value in values)  # the scales fit the weights


def test_nets_that_cannot_be_exported_are_told(tmp_path):
    pytest.importorskip("paddle2onnx")
    with pytest.raises(ConfigError, match=r"no layer of this net is quantized: it must be what Paddle's QAT\.quantize"):
        export_qat(create_model("mobilenetv3_small_075", num_classes=5), SETTINGS, tmp_path / "out")
    with pytest.raises(ConfigError, match="is a CondConv2d, whose kernel is another for each image"):
        export_qat(quantized(create_model("efficientnet_cc_b0_4e", num_classes=5)), SETTINGS, tmp_path / "out")
    config = QuantConfig(activation=None, weight=None)
    config.add_type_config(list(QUANTED_LAYERS), weight=FakeQuanterWithAbsMaxObserver())
    only_weights = QAT(config).quantize(ChildNet(CHILD_NETS[14].arch, 5))
    with pytest.raises(ConfigError, match="lacks the scale of its input or its weight: QuantConfig must name both"):
        export_qat(only_weights, SETTINGS, tmp_path / "out")
    assert not (tmp_path / "out").exists()
