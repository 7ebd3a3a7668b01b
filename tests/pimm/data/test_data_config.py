"""A model's data settings under today's arguments of timm."""

import pytest

from pimm.data import create_transform, resolve_data_config, resolve_model_data_config
from pimm.errors import ConfigError

OWN = {"input_size": (3, 64, 64), "crop_pct": 0.8, "test_input_size": (3, 96, 96), "test_crop_pct": 1.0}


class Model:
    default_cfg = OWN


@pytest.mark.parametrize(
    "options, size, crop_pct",
    [
        ({}, (3, 64, 64), 0.8),
        ({"use_test_size": True}, (3, 96, 96), 1.0),
        ({"pretrained_cfg": {"crop_pct": 0.7}}, (3, 224, 224), 0.7),
        ({"args": {"in_chans": 1, "img_size": 32, "crop_pct": 0.5, "mean": (0.5,), "std": (0.5,)}}, (1, 32, 32), 0.5),
        ({"args": {"input_size": [3, 48, 32], "crop_mode": "squash"}}, (3, 48, 32), 0.8),
    ],
)
def test_the_model_first(options, size, crop_pct):
    config = resolve_model_data_config(Model(), **options)
    assert (config["input_size"], config["crop_pct"]) == (size, crop_pct)
    assert config["crop_mode"] == options.get("args", {}).get("crop_mode", "center")
    assert config == resolve_data_config(model=Model(), **options)
    assert callable(create_transform(**config))


def test_the_old_name_of_a_models_settings():
    assert resolve_data_config({}, default_cfg=OWN) == resolve_data_config({}, OWN)


def test_other_channels_than_the_models():
    model = type("Model", (), {"default_cfg": {"input_size": (3, 64, 64), "mean": (0.1, 0.2, 0.6), "std": (1, 2, 3)}})
    config = resolve_model_data_config(model, {"in_chans": 1})
    assert config["input_size"] == (1, 64, 64)
    assert (config["mean"], config["std"]) == ((pytest.approx(0.3),), (2.0,))
    assert resolve_model_data_config(model, {"in_chans": 4})["std"] == (2.0,) * 4
    with pytest.raises(ConfigError, match="2 values for 4 channels"):
        resolve_model_data_config(model, {"in_chans": 4, "mean": [0.5, 0.5]})
