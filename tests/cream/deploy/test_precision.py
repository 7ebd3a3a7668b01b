"""Exports that compute less exactly: folded batch norm, FP16, BF16 and INT8."""

import dataclasses
import os

import numpy as np
import paddle
import pytest
import tiny
from exports import IMAGES, awakened, draw_images
from image_files import pack
from paddle import nn

from cream.deploy import command, export
from cream.deploy.backends import EagerNet, OnnxNet
from cream.deploy.photographs import Accuracy, Photographs, draw_photographs, measure_accuracy
from cream.deploy.settings import read_settings
from cream.deploy.source import open_source
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from cream.shuffle.nets import SPOS_ARCH, ShuffleNet
from pimm import create_model
from pimm.engine.fold import Folded, fold_batch_norms
from pimm.errors import ConfigError, DataError
from pimm.layers import BatchNorm2d, BatchNormAct2d, Conv2d

CLASSES = tuple("abcdefghij")

# The number of batch norms that stay, of all: those after mixed kernels, or after kernels that depend on the image.
FOLDED = {
    "cream-14": (lambda: ChildNet(CHILD_NETS[14].arch, 10), 0),
    "spos": (lambda: ShuffleNet(SPOS_ARCH, 10), 0),
    "tf_efficientnet_lite0": (lambda: create_model("tf_efficientnet_lite0", num_classes=10), 0),
    "mixnet_s": (lambda: create_model("mixnet_s", num_classes=10), 34),
    "tf_efficientnet_cc_b0_4e": (lambda: create_model("tf_efficientnet_cc_b0_4e", num_classes=10), 24),
}


def count(net, kind):
    return sum(isinstance(layer, kind) for layer in net.sublayers())


@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_net_computes_what_the_net_does(name):
    build, left = FOLDED[name]
    net = awakened(build())
    images = draw_images(2, 64)
    folded = fold_batch_norms(net, paddle.to_tensor(images))
    expected, logits = EagerNet(net)(images), EagerNet(folded)(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert count(folded, BatchNorm2d) == left and count(folded, Folded) == count(net, BatchNorm2d) - left > 0


def test_a_folded_layer_keeps_its_activation():
    net = nn.Sequential(Conv2d(1, 2, 1, bias=False), BatchNormAct2d(2, eps=0.0))
    net.eval()
    net[0].weight.set_value(np.float32([1, -1]).reshape([2, 1, 1, 1]))
    folded = fold_batch_norms(net, paddle.ones([1, 1, 1, 1]))
    assert count(folded, BatchNormAct2d) == 0
    np.testing.assert_array_equal(folded(paddle.full([1, 1, 1, 1], 3.0)).numpy().flatten(), [3.0, 0.0])


class OneConvolution(nn.Layer):
    """Uses one convolution twice, and one of its outputs without the batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = Conv2d(3, 3, 1, bias=False), BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv(x)


def test_a_convolution_that_is_used_twice_is_not_folded():
    net = awakened(OneConvolution())
    folded = fold_batch_norms(net, paddle.zeros([1, 3, 4, 4]))
    assert count(folded, BatchNorm2d) == 1
    np.testing.assert_array_equal(EagerNet(folded)(draw_images(2, 4)), EagerNet(net)(draw_images(2, 4)))


class BesideItsNorm(nn.Layer):
    """Uses the output of one convolution beside its batch norm too; the batch norm of the other one takes all of it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = Conv2d(3, 3, 1, bias=False), BatchNorm2d(3)
        self.last, self.last_norm = Conv2d(3, 3, 1), BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.last_norm(self.last(x + self.norm(x)))


def test_a_convolution_whose_output_is_used_beside_its_norm_is_not_folded():
    net = awakened(BesideItsNorm())
    folded = fold_batch_norms(net, paddle.zeros([1, 3, 4, 4]))
    assert type(folded.norm) is BatchNorm2d and type(folded.last_norm) is Folded
    images = draw_images(2, 4)
    np.testing.assert_allclose(EagerNet(folded)(images), EagerNet(net)(images), rtol=1e-4, atol=1e-5)


class SharedWeights(nn.Layer):
    """Has two convolutions of the same weights, each with a batch norm of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Conv2d(3, 3, 1), Conv2d(3, 3, 1)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias
        self.norm, self.last_norm = BatchNorm2d(3), BatchNorm2d(3)

    def forward(self, x):
        return self.last_norm(self.second(self.norm(self.first(x))))


def test_convolutions_that_share_weights_are_folded_each_for_itself():
    net = awakened(SharedWeights())
    folded = fold_batch_norms(net, paddle.zeros([1, 3, 4, 4]))
    assert count(folded, BatchNorm2d) == 0
    images = draw_images(2, 4)
    np.testing.assert_allclose(EagerNet(folded)(images), EagerNet(net)(images), rtol=1e-4, atol=1e-5)


def test_the_values_of_a_folded_convolution():
    net = nn.Sequential(Conv2d(1, 2, 1), BatchNorm2d(2, eps=0.0))
    for tensor, value in zip(
        (net[0].weight, net[0].bias, net[1].weight, net[1].bias, net[1]._mean, net[1]._variance),
        ([2.0, 3.0], [1.0, 0.0], [4.0, -1.0], [0.5, 0.25], [3.0, 1.0], [4.0, 0.25]),
    ):
        tensor.set_value(np.float32(value).reshape(tensor.shape))
    net.eval()
    folded = fold_batch_norms(net, paddle.zeros([1, 1, 2, 2]))
    np.testing.assert_allclose(folded[0].weight.numpy().ravel(), [2 * 4 / 2, 3 * -1 / 0.5])
    np.testing.assert_allclose(folded[0].bias.numpy(), [(1 - 3) * 4 / 2 + 0.5, (0 - 1) * -1 / 0.5 + 0.25])


def test_fp16_is_half_as_large_and_nearly_the_same(tmp_path):
    pytest.importorskip("paddle2onnx")
    net = awakened(create_model("tf_efficientnet_lite0", num_classes=10))
    settings = dataclasses.replace(IMAGES, class_names=CLASSES)
    export.export(net, settings, tmp_path / "full", onnx=True)
    difference = export.export(net, dataclasses.replace(settings, precision="fp16"), tmp_path / "half")["model.onnx"]
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("full", "half")]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    assert sorted(os.listdir(tmp_path / "half")) == ["inference.yml", "model.onnx"]
    backend, read = open_source(tmp_path / "half")
    images = draw_images(4, 64)
    expected = EagerNet(net)(images)
    assert read.precision == "fp16" and 0 < difference < 0.02 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(backend(images), expected, atol=0.02 * np.abs(expected).max())


def test_what_this_cpu_or_a_backend_lacks_is_told(tmp_path, monkeypatch, capsys):
    net = tmp_path / "net"
    monkeypatch.setattr(paddle.base.core, "supports_bfloat16", lambda: False)
    assert command.export(["cream-14", "--output", str(net), "--precision", "bf16"]) == 2
    assert "this CPU has no bfloat16: --precision bf16 needs AVX-512" in capsys.readouterr().err
    pytest.importorskip("paddle2onnx")
    assert command.export(["cream-14", "--output", str(net), "--precision", "bf16", "--onnx"]) == 2
    assert "onnxruntime has no such convolution" in capsys.readouterr().err
    assert not net.exists()


@pytest.mark.skipif(not paddle.base.core.supports_bfloat16(), reason="this CPU has no bfloat16")
def test_bf16_is_nearly_the_same(tmp_path):
    net = awakened(ChildNet(CHILD_NETS[14].arch, 10))
    settings = dataclasses.replace(IMAGES, class_names=CLASSES, precision="bf16")
    export.export(net, settings, tmp_path / "out")
    backend, _ = open_source(tmp_path / "out")
    images = draw_images(4, 64)
    expected = EagerNet(net)(images)
    error = np.abs(backend(images) - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.1


# INT8


class Brightness:
    """Stands for a net of two classes: the logits are the mean of the image and its negative."""

    def __init__(self, threshold=0.0):
        self.threshold = threshold

    def __call__(self, images):
        mean = images.mean((1, 2, 3)) - self.threshold
        return np.stack([mean, -mean], axis=1)


def test_accuracy_that_is_lost():
    images = [np.full((3, 2, 2), value, "float32") for value in (-2, -1, 0.5, 1, 2)]
    measured = measure_accuracy(Brightness(), Brightness(0.7), Photographs(images, [1, 0, 0, None, None]))
    assert measured == Accuracy(5, 80.0, 3, pytest.approx(200 / 3), pytest.approx(100 / 3))
    assert str(measured) == (
        "same class as the net on 80.0% of 5 images; top-1 66.7% before, 33.3% after, on 3 of known class"
    )
    unknown = measure_accuracy(Brightness(), Brightness(), Photographs(images, [None] * 5))
    assert str(unknown) == "same class as the net on 100.0% of 5 images"


def test_images_to_calibrate_and_to_measure_on_differ_and_have_classes(tmp_path):
    tiny.write_images(tmp_path)
    settings = dataclasses.replace(IMAGES, input_size=(3, 16, 16), class_names=tiny.CLASSES)
    pack(tmp_path / "val", tmp_path / "val.tar")
    for source in (tmp_path / "val", tmp_path / "val.tar"):
        shown, others = draw_photographs(source, settings, 6)
        assert len(shown.images) == len(others.images) == 6
        seen = [image.tobytes() for image in (*shown.images, *others.images)]
        assert len(set(seen)) == 12 and None not in shown.labels + others.labels
    again, _ = draw_photographs(tmp_path / "val.tar", settings, 6)
    assert [image.tobytes() for image in again.images] == seen[:6]
    shown, others = draw_photographs(tmp_path / "val", dataclasses.replace(settings, class_names=("a", "b")), 100)
    assert len(shown.images) == 15 and not others.images and set(shown.labels) == {None}


def test_a_folder_without_images_is_told(tmp_path):
    tiny.write_images(tmp_path)
    for path in (tmp_path / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image could be read to calibrate on"):
        draw_photographs(tmp_path / "val", IMAGES, 3)


def test_int8_is_a_quarter_as_large_and_answers_nearly_alike(tmp_path):
    pytest.importorskip("paddle2onnx")
    net = awakened(create_model("tf_efficientnet_lite0", num_classes=10))
    images = draw_images(24, 64)
    settings = dataclasses.replace(IMAGES, class_names=CLASSES, precision="int8")
    export.export(net, settings, tmp_path / "out", calibration=images[:16])
    export.export(net, dataclasses.replace(settings, precision="fp32"), tmp_path / "full", onnx=True)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("full", "out")]
    assert sizes[1] < 0.35 * sizes[0]
    expected, logits = EagerNet(net)(images[16:]), OnnxNet(tmp_path / "out")(images[16:])
    assert 0 < np.abs(logits - expected).max() < 0.25 * np.abs(expected).max()
    assert read_settings(tmp_path / "out").precision == "int8"


def test_the_command_quantizes_and_prints_the_accuracy(tmp_path, capsys):
    pytest.importorskip("paddle2onnx")
    tiny.write_images(tmp_path)
    out = tmp_path / "out"
    quantize = ["--quantize", str(tmp_path / "val"), "--quantize-images", "8"]
    assert command.export(["mobilenetv3_small_075", "--output", str(out), *quantize]) == 0
    told = capsys.readouterr()
    line = told.out.splitlines()[-1]
    assert line.startswith(f"{out}/model.onnx: INT8, calibrated on 8 images; on other images: same class as the net on")
    assert line.endswith("% of 7 images")
    assert command.predict([str(out), str(tmp_path / "val"), "--topk", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 15


def test_precision_and_quantization_exclude_each_other(tmp_path, capsys):
    wrong = ["cream-14", "--output", str(tmp_path / "o"), "--quantize", str(tmp_path), "--precision", "fp16"]
    with pytest.raises(SystemExit) as ended:
        command.export(wrong)
    assert ended.value.code == 2 and "not allowed with argument" in capsys.readouterr().err


def test_settings_without_a_precision_are_of_fp32(tmp_path):
    export.export(awakened(ChildNet(CHILD_NETS[14].arch)), IMAGES, tmp_path / "out")
    path = tmp_path / "out" / "inference.yml"
    path.write_text(path.read_text().replace("precision: fp32\n", ""))
    assert read_settings(tmp_path / "out").precision == "fp32"
    path.write_text(path.read_text() + "precision: fp8\n")
    with pytest.raises(ConfigError, match="precision is 'fp8'; must be fp32, bf16, fp16, int8"):
        read_settings(tmp_path / "out")
