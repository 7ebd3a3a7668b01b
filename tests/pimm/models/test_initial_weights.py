"""Weights of another number of classes or image channels start a training, and nothing else."""

import logging

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from pimm.errors import CheckpointError
from pimm.models import (
    adapt_input_conv,
    create_model,
    load_checkpoint,
    load_initial_weights,
    torch_names,
)
from pimm.models.torch_names import to_torch_arrays
from pimm.torch_file import save_torch
from pimm.utils import save_arrays
from pimm.utils.bfloat16 import BFLOAT16

NAME = "mobilenetv3_small_075"
HEAD = ("classifier.weight", "classifier.bias")
STEM = "conv_stem.weight"


def state(net):
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def distinct(net):
    """The net with another value everywhere: fresh batch norms are all alike."""
    rng = np.random.default_rng(0)
    for tensor in net.state_dict().values():
        tensor.set_value(rng.uniform(0.5, 1.5, tensor.shape).astype("float32"))
    return net


@pytest.fixture(scope="module")
def source():
    return distinct(create_model(NAME, num_classes=7))


@pytest.fixture(scope="module")
def files(source, tmp_path_factory):
    """The same weights with Paddle's names, in a file of PyTorch's, and as safetensors."""
    folder = tmp_path_factory.mktemp("weights")
    save_arrays(folder / "w.pdparams", state(source))
    arrays = to_torch_arrays(source, state(source))
    save_torch(folder / "w.pth.tar", {"state_dict": {f"module.{name}": value for name, value in arrays.items()}})
    save_file(arrays, folder / "w.safetensors")
    return {path.suffix: path for path in folder.iterdir()}


@pytest.mark.parametrize("ending", (".pdparams", ".tar", ".safetensors"))
@pytest.mark.parametrize("chans", (1, 4))
def test_a_model_takes_weights_of_other_classes_and_channels(source, files, ending, chans, caplog):
    theirs = state(source)
    with caplog.at_level(logging.WARNING):
        net = create_model(NAME, num_classes=10, in_chans=chans, checkpoint_path=files[ending])
    ours = state(net)
    differing = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert differing == {*HEAD, STEM}
    for name in ours.keys() - differing:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    stem = theirs[STEM]
    wanted = stem.sum(axis=1, keepdims=True) if chans == 1 else stem[:, [0, 1, 2, 0]] * np.float32(3 / 4)
    np.testing.assert_allclose(ours[STEM], wanted, rtol=1e-6)
    assert ours["classifier.bias"].shape == (10,) and not ours["classifier.bias"].any()  # as a new one
    (line,) = [record.message for record in caplog.records]
    assert "begins anew, with 10 classes in place of 7" in line and f"from 3 to {chans} image channels" in line
    grey = paddle.rand([1, 1, 32, 32])
    if chans == 4:  # images of equal channels look as before
        np.testing.assert_allclose(
            *(n.eval().forward_features(grey.tile([1, c, 1, 1])).numpy() for n, c in ((net, 4), (source, 3))), rtol=1e-3
        )


def test_what_fits_is_loaded_whole_and_in_silence(source, files, caplog):
    net = create_model(NAME, num_classes=7, in_chans=3, checkpoint_path=files[".pdparams"])
    np.testing.assert_equal(state(net), state(source))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_new_classifier_although_it_fits(source, files):
    net = create_model(NAME, num_classes=7)
    fresh = state(net)
    load_initial_weights(net, files[".tar"], new_classifier=True)
    loaded = state(net)
    for name in loaded:
        wanted = fresh if name in HEAD else state(source)
        np.testing.assert_array_equal(loaded[name], wanted[name], err_msg=name)


def test_a_net_without_classifier_leaves_it_out(source, files, caplog):
    net = create_model(NAME, num_classes=0, checkpoint_path=files[".tar"])
    assert "the classifier of 7 classes is left out" in caplog.text
    wanted = state(source)
    np.testing.assert_equal(state(net), {name: wanted[name] for name in wanted if name not in HEAD})


def test_weights_without_classifier_begin_a_new_one(source, tmp_path):
    arrays = {name: value for name, value in state(source).items() if name not in HEAD}
    save_arrays(tmp_path / "w.pdparams", arrays)
    loaded = state(create_model(NAME, num_classes=5, checkpoint_path=tmp_path / "w.pdparams"))
    np.testing.assert_equal({name: loaded[name] for name in arrays}, arrays)


@pytest.mark.parametrize("name", ("mobilenetv3_small_100", "mobilenetv2_100"))
def test_another_net_is_refused(files, name):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        create_model(name, num_classes=10, in_chans=1, checkpoint_path=files[".tar"])


def test_only_what_is_named_adapts(files):
    with pytest.raises(CheckpointError, match=r"classifier.weight \[\w+, \w+\], the model has"):
        create_model(NAME, checkpoint_path=files[".pdparams"])  # asks for no number: a model as it was trained
    with pytest.raises(CheckpointError, match=r"classifier.weight"):
        create_model(NAME, in_chans=1, checkpoint_path=files[".pdparams"])
    with pytest.raises(CheckpointError, match=r"1 difference: shape differs: conv_stem.weight"):
        load_initial_weights(create_model(NAME, in_chans=1), files[".tar"], adapted=("num_classes",))
    with pytest.raises(CheckpointError, match=r"classifier.weight"):
        load_checkpoint(create_model(NAME, num_classes=10), files[".tar"])


def test_every_model_names_its_stem_and_classifier(tmp_path):
    """Some families once, by the number of their stems' channels and classes."""
    names = ["mobilenetv3_small_050", "mobilenetv2_035", "mnasnet_small", "lcnet_035", "mobilenetv4_conv_small_035"]
    for name in (*names, "resnet10t", "test_vit", "test_convnext", "cream_14", "spos"):
        net = create_model(name, num_classes=3, in_chans=2)
        save_arrays(tmp_path / "w.pdparams", state(net))
        other = create_model(name, num_classes=4, in_chans=3, checkpoint_path=tmp_path / "w.pdparams")
        first, second = dict(torch_names(net)), dict(torch_names(other))
        assert len([n for n in first if first[n] != second[n]]) in (2, 3), name


RAMP = np.arange(2 * 3 * 1 * 2, dtype=np.float32).reshape(2, 3, 1, 2)


def test_the_adapted_convolution_by_value():
    assert adapt_input_conv(3, RAMP) is RAMP
    np.testing.assert_array_equal(adapt_input_conv(1, RAMP), [[[[6, 9]]], [[[24, 27]]]])
    two = adapt_input_conv(2, RAMP)
    np.testing.assert_array_equal(two, RAMP[:, :2] * 1.5)
    np.testing.assert_allclose(adapt_input_conv(7, RAMP), RAMP[:, [0, 1, 2, 0, 1, 2, 0]] * 3 / 7, rtol=1e-6)
    np.testing.assert_array_equal(adapt_input_conv(3, two, base_chans=2), two[:, [0, 1, 0]] * np.float32(2 / 3))


@pytest.mark.parametrize("dtype", (np.dtype(np.uint16), BFLOAT16))
def test_bfloat16_is_summed_as_numbers(dtype):
    bits = (RAMP.view(np.uint32) >> 16).astype(dtype)
    np.testing.assert_array_equal(adapt_input_conv(1, bits), RAMP.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("shape", ((2, 3), (2, 4, 1, 1)))
def test_a_weight_of_another_shape_is_refused(shape):
    with pytest.raises(CheckpointError, match="cannot be adapted from 3 to 1 channels"):
        adapt_input_conv(1, np.zeros(shape, np.float32))
