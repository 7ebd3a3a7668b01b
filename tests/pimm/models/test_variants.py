"""Weights of TensorFlow's variant of a model are told from PyTorch's, where a file says which they are."""

import logging

import golden
import pytest
from torch_bytes import save_zip

import pimm
from cream.convert.convert import from_torch, net_of_file
from pimm.errors import ConfigError
from pimm.models.torch_names import torch_names
from pimm.models.torch_weights import rename_table

NAMES = ("mobilenetv3_small_075", "tf_mobilenetv3_small_075")
MESSAGE = "its weights are of {}, which pads and prepares images differently; {} loses accuracy with them"


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if "loses accuracy" in record.getMessage()]


def state_of(name):
    return golden.state(torch_names(pimm.create_model(name, num_classes=2)))


@pytest.mark.parametrize("given", NAMES)
@pytest.mark.parametrize("taken", NAMES)
def test_the_name_in_a_checkpoint_tells_the_variant(given, taken, tmp_path, warnings):
    save_zip(tmp_path / "a.pth", {"arch": given, "state_dict": state_of(given)})
    pimm.create_model(taken, num_classes=2, checkpoint_path=str(tmp_path / "a.pth"))
    expected = [] if given == taken else [f"{tmp_path / 'a.pth'}: {MESSAGE.format(given, taken)}"]
    assert warnings() == expected
    from_torch(tmp_path / "a.pth", tmp_path / "a.pdparams", taken)
    assert len(warnings()) == 2 * len(expected)
    from_torch(tmp_path / "a.pth", tmp_path / "b.pdparams")
    pimm.create_model(taken, num_classes=2, checkpoint_path=str(tmp_path / "b.pdparams"))
    assert warnings()[2 * len(expected) :] == [line.replace("a.pth", "b.pdparams") for line in expected]


def foreign_state(name):
    """Return weights under the names of efficientnet_pytorch."""
    model = pimm.create_model(name, num_classes=2)
    table = {own: foreign for foreign, own in rename_table(model).items() if own is not None}
    renamed = []
    for full, shape in torch_names(model):
        own = next(own for own in sorted(table, key=len, reverse=True) if full.startswith(f"{own}."))
        renamed.append((table[own] + full[len(own) :], shape))
    return golden.state(renamed)


def test_names_of_efficientnet_pytorch_tell_the_variant(tmp_path, warnings):
    save_zip(tmp_path / "a.pth", foreign_state("efficientnet_lite0"))
    assert net_of_file(tmp_path / "a.pth").name == "tf_efficientnet_lite0"
    pimm.create_model("tf_efficientnet_lite0", num_classes=2, checkpoint_path=str(tmp_path / "a.pth"))
    assert warnings() == []
    pimm.create_model("efficientnet_lite0", num_classes=2, checkpoint_path=str(tmp_path / "a.pth"))
    told = MESSAGE.format("tf_efficientnet_lite0", "efficientnet_lite0")
    assert warnings() == [f"{tmp_path / 'a.pth'}: {told}"]


def test_weights_that_tell_nothing_load_without_a_warning(tmp_path, warnings):
    for content in (state_of(NAMES[0]), {"arch": "resnet50", "state_dict": state_of(NAMES[0])}):
        save_zip(tmp_path / "a.pth", content)
        for name in NAMES:
            pimm.create_model(name, num_classes=2, checkpoint_path=str(tmp_path / "a.pth"))
    assert warnings() == []


@pytest.mark.parametrize("file", ["{}-0aa007d2.pth", "{}.pth.tar", "{}.in1k.pth", "{}_0aa007d2.pth"])
@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_decides_between_variants(file, name, tmp_path):
    save_zip(tmp_path / file.format(name), state_of(NAMES[0]))
    assert net_of_file(tmp_path / file.format(name)).name == name


def test_a_name_of_a_file_that_is_no_candidate_decides_nothing(tmp_path):
    save_zip(tmp_path / "mobilenetv2_100-0aa007d2.pth", state_of(NAMES[0]))
    with pytest.raises(ConfigError, match="say with --model which of them was trained"):
        net_of_file(tmp_path / "mobilenetv2_100-0aa007d2.pth")
