"""Models saved in timm's form, and pushed to a hub on loopback."""

import json

import numpy as np
import paddle
import pytest
from hub_models import CLASSES, NAME, TAG, drawn, expected, logits

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.models import load_torch_arrays, push_to_hf_hub, save_for_hf, save_for_hub
from pimm.torch_file import load_torch
from pimm.utils.safetensors_file import read_safetensors


@pytest.fixture
def net():
    net = pimm.create_model(f"{NAME}.{TAG}", num_classes=CLASSES, drop_rate=0.1)
    load_torch_arrays(net, drawn(CLASSES))
    return net


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def test_what_is_saved(net, tmp_path):
    save_for_hub(net, tmp_path / "new" / "net")
    found = read_safetensors(tmp_path / "new" / "net" / "model.safetensors")
    assert found.metadata == {"format": "pt"} and list(found.arrays) == list(drawn(CLASSES))
    for name, value in drawn(CLASSES).items():  # Linear is not transposed, and counters of batches are there
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)
    config = settings(tmp_path / "new" / "net")
    assert config.pop("pretrained_cfg") == {
        **{"tag": TAG, "custom_load": False, "num_classes": CLASSES, "license": "apache-2.0"},
        **{"input_size": [3, 224, 224], "fixed_input_size": False, "pool_size": [7, 7], "interpolation": "bicubic"},
        **{"crop_pct": 0.875, "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        **{"first_conv": "conv_stem", "classifier": "classifier"},
    }
    assert config == {
        "architecture": NAME,
        "num_classes": CLASSES,
        "num_features": 1280,
        "global_pool": "avg",
        "model_args": {"num_classes": CLASSES, "in_chans": 3, "global_pool": "avg"},
    }


FORMS = {True: {"model.safetensors"}, False: {"pytorch_model.bin"}, "both": {"model.safetensors", "pytorch_model.bin"}}


@pytest.mark.parametrize(("safe", "names"), FORMS.items())
def test_it_is_loaded_again(net, tmp_path, safe, names):
    save_for_hf(net, tmp_path, safe_serialization=safe)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", *names}
    np.testing.assert_array_equal(
        logits(pimm.create_model(f"local-dir:{tmp_path}", pretrained=True)), expected(CLASSES)
    )
    if safe is not True:
        held = load_torch(tmp_path / "pytorch_model.bin")
        np.testing.assert_array_equal(held["classifier.weight"], drawn(CLASSES)["classifier.weight"])


def test_the_net_as_it_is_now(tmp_path):
    net = pimm.create_model(NAME, in_chans=1, bn_eps=0.01, drop_path_rate=0.2, num_classes=CLASSES)
    net.reset_classifier(4, "max")
    save_for_hf(net, tmp_path, {"label_names": ["a", "b", "c", "d"], "pretrained_cfg": {"crop_pct": 1.0}})
    config = settings(tmp_path)
    assert config["model_args"] == {"in_chans": 1, "bn_eps": 0.01, "num_classes": 4, "global_pool": "max"}
    assert config["pretrained_cfg"]["input_size"] == [1, 224, 224] and config["pretrained_cfg"]["crop_pct"] == 1
    assert (config["num_classes"], config["label_names"]) == (4, ["a", "b", "c", "d"])
    found = pimm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert (found.in_chans, found.num_classes, found.bn1._epsilon) == (1, 4, 0.01)
    assert (found.global_pool.pool_type, found.default_cfg["label_names"]) == ("max", ("a", "b", "c", "d"))
    images = paddle.ones([1, 1, 32, 32])
    for each in (net, found):
        each.eval()
    np.testing.assert_array_equal(net(images).numpy(), found(images).numpy())


def test_names_of_other_classes_go(tmp_path, net):
    net.pretrained_cfg = {**net.pretrained_cfg, "label_names": ("a", "b"), "label_offset": 1, "hf_hub_id": "me/net"}
    save_for_hf(net, tmp_path)
    assert not {"label_names", "label_offset", "hf_hub_id", "url"} & settings(tmp_path)["pretrained_cfg"].keys()


def test_a_failure_leaves_the_settings_that_were_there(net, tmp_path):
    save_for_hf(net, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    mistakes = {
        "num_classes must be that of the model, 7": {"model_config": {"num_classes": 3}},
        "in_chans must be that of the model, 3": {"model_args": {"in_chans": 1}},
        "cannot hold the settings or arguments of the model: Object of type type": {"model_args": {"act_layer": dict}},
        "safe_serialization is 'all'; valid are True, False and 'both'": {"safe_serialization": "all"},
    }
    for message, arguments in mistakes.items():
        with pytest.raises(ConfigError, match=message):
            save_for_hf(net, tmp_path, **arguments)
    for other in (paddle.nn.Linear(2, 2), pimm.create_model(NAME, features_only=True)):
        with pytest.raises(ConfigError, match="has no settings to save: only whole nets of create_model have"):
            save_for_hf(other, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(CheckpointError, match=r"cannot create .*config.json/net: "):
        save_for_hf(net, tmp_path / "config.json" / "net")


def test_a_model_is_pushed(hub, net):
    card = {"license": "mit", "tags": ["fashion"], "details": {"Images": "28 pixels"}, "citation": ["one", "two"]}
    info = push_to_hf_hub(net, "me/net", "First weights", token="hf_x", model_card=card, safe_serialization=True)
    ((repo, branch, header, files),) = hub.commits
    assert (repo, branch, header["summary"]) == ("me/net", "main", "First weights")
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert files["README.md"].decode() == (
        "---\ntags:\n- fashion\npipeline_tag: image-classification\nlibrary_name: timm\nlicense: mit\n---\n"
        "# Model card for net\n\n## Model Details\n- **Images:** 28 pixels\n\n## Citation\none\ntwo\n"
    )
    assert info.commit_url.startswith(f"{hub.url}/me/net/commit/")
    np.testing.assert_array_equal(logits(pimm.create_model("hf-hub:me/net", pretrained=True)), expected(CLASSES))
    push_to_hf_hub(net, "me/net", token="hf_x")  # which leaves the README as it is
    assert set(hub.commits[1][3]) == {"config.json", "model.safetensors", "pytorch_model.bin"}


def test_a_push_that_fails(hub, net):
    hub.faults["commit"] = [403]
    with pytest.raises(CheckpointError, match=r"^cannot upload to me/net: HfHubHTTPError: .*403") as caught:
        push_to_hf_hub(net, "me/net", token="hf_x")
    assert "\n" not in str(caught.value) and hub.commits == []
    with pytest.raises(ConfigError, match="model_card has no entry 'licence'; did you mean license"):
        push_to_hf_hub(net, "me/net", model_card={"licence": "mit"})
    with pytest.raises(ConfigError, match="'me/my net' names no model of the hub; valid is ORG/NAME"):
        push_to_hf_hub(net, "me/my net", token="hf_x")
