"""Pretrained weights by name: from a hub on loopback, URLs, files and folders, into a model of other classes too."""

import json
import sys

import numpy as np
import paddle
import pytest
from hub_models import CLASSES, NAME, REPO, TAG, as_pickle, as_safetensors, config, drawn, expected, logits, saved
from paddle import nn

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.models import efficientnet, load_pretrained, parse_model_name, registry, safe_model_name, save_for_hf
from pimm.models.pretrained_cfg import PretrainedCfg
from pimm.torch_file import BFLOAT16
from pimm.utils.serialization import save_arrays

CREATE = {
    "by name and tag": lambda **kwargs: pimm.create_model(f"{NAME}.{TAG}", pretrained=True, **kwargs),
    "by name": lambda **kwargs: pimm.create_model(NAME, pretrained=True, **kwargs),
    "by entry point": lambda **kwargs: pimm.model_entrypoint(NAME)(pretrained=True, **kwargs),
}


@pytest.fixture
def published(hub):
    hub.add(REPO, {"model.safetensors": as_safetensors(drawn()), "README.md": b"A model."})
    return hub


@pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)
def test_weights_by_name(published, create, tmp_path):
    net = create(cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(logits(net), expected(1000))
    assert net.num_classes == 1000 and net.default_cfg["hf_hub_id"] == REPO
    assert (tmp_path / "cache" / "models--timm--mnasnet_small.lamb_in1k" / "snapshots").is_dir()
    assert published.downloads() == 1
    create(cache_dir=tmp_path / "cache")
    assert published.downloads() == 1


def test_without_pretrained_nothing_is_asked(published):
    pimm.create_model(f"{NAME}.{TAG}")
    assert published.asked == []


def test_other_classes_begin_anew(published, caplog):
    net = pimm.create_model(NAME, pretrained=True, num_classes=3)
    assert "the classifier begins anew, with 3 classes in place of 1000" in caplog.text
    assert net.classifier.weight.shape == [1280, 3] and 0 < abs(net.classifier.weight.numpy()).max() < 1
    np.testing.assert_array_equal(net.conv_head.weight.numpy(), drawn()["conv_head.weight"])
    headless = pimm.create_model(NAME, pretrained=True, num_classes=0)
    assert "the classifier of 1000 classes is left out" in caplog.text
    weight, bias = (drawn()[f"classifier.{kind}"] for kind in ("weight", "bias"))
    np.testing.assert_allclose(logits(headless) @ weight.T + bias, expected(1000), rtol=1e-4, atol=1e-4)


def test_what_comes_before_the_classifier_goes_with_it(tmp_path):
    save_for_hf(pimm.create_model("efficientvit_m0"), tmp_path)  # its head is a batch norm and a linear layer
    whole, other, headless = (
        pimm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=count) for count in (None, 3, 0)
    )
    names = whole.state_dict().keys() - headless.state_dict().keys()
    parts = {"bn": ("weight", "bias", "_mean", "_variance"), "linear": ("weight", "bias")}
    assert names == {f"head.{part}.{name}" for part in parts for name in parts[part]}
    np.testing.assert_array_equal(other.head.bn.weight.numpy(), whole.head.bn.weight.numpy())


@pytest.mark.parametrize("channels", [1, 5])
def test_other_image_channels_adapt_the_first_convolution(published, channels):
    net = pimm.create_model(NAME, pretrained=True, in_chans=channels)
    weight = drawn()["conv_stem.weight"]
    wanted = weight.sum(1, keepdims=True) if channels == 1 else weight[:, [0, 1, 2, 0, 1]] * np.float32(3 / 5)
    np.testing.assert_allclose(net.conv_stem.weight.numpy(), wanted, rtol=1e-6)


def test_features_have_the_weights(published):
    net = pimm.create_model(NAME, pretrained=True, features_only=True, out_indices=(1, 2))
    np.testing.assert_array_equal(net.conv_stem.weight.numpy(), drawn()["conv_stem.weight"])


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:", "HF-HUB:"])
def test_a_model_with_its_settings(hub, prefix):
    hub.add("me/net", saved())
    net = pimm.create_model(f"{prefix}me/net", pretrained=True)
    np.testing.assert_array_equal(logits(net), expected(CLASSES))
    cfg = net.default_cfg
    assert (cfg["input_size"], cfg["mean"], cfg["crop_pct"]) == ((3, 64, 64), (0.5, 0.4, 0.3), 0.9)
    assert (cfg["num_classes"], cfg["architecture"], cfg["hf_hub_id"]) == (CLASSES, NAME, "me/net")
    assert pimm.create_model(f"{prefix}me/net").num_classes == CLASSES


def test_revisions(hub):
    hub.add("me/net", saved())
    other = {name: value + 1 if value.ndim == 4 else value for name, value in drawn(CLASSES).items()}
    commit = hub.add("me/net", {**saved(), "model.safetensors": as_safetensors(other)}, "v2")
    for revision in ("v2", commit):
        net = pimm.create_model(f"hf-hub:me/net@{revision}", pretrained=True)
        np.testing.assert_array_equal(net.conv_head.weight.numpy(), other["conv_head.weight"])
    with pytest.raises(CheckpointError, match=r"cannot get config.json of me/net from .*: it has no revision v3$"):
        pimm.create_model("hf-hub:me/net@v3")


def test_saved_arguments_are_defaults(hub):
    files = saved(model_args={"in_chans": 1, "global_pool": "avgmax", "drop_rate": 0.2})
    hub.add("me/grey", {**files, "model.safetensors": as_safetensors(drawn(CLASSES, 1))})
    net = pimm.create_model("hf-hub:me/grey", pretrained=True)
    assert (net.in_chans, net.global_pool.pool_type, net.drop_rate) == (1, "avgmax", 0.2)
    assert net.default_cfg["input_size"] == (1, 64, 64)
    other = pimm.create_model("hf-hub:me/grey", pretrained=True, in_chans=2, global_pool="max")
    assert (other.in_chans, other.global_pool.pool_type) == (2, "max")
    np.testing.assert_allclose(other.conv_stem.weight.numpy()[:, 1], drawn(CLASSES, 1)["conv_stem.weight"][:, 0] / 2)


def test_the_first_form_of_settings(hub):
    first = {**json.loads(config())["pretrained_cfg"], "architecture": NAME, "num_features": 1280, "labels": ["a", "b"]}
    hub.add("me/old", {**saved(), "config.json": json.dumps(first).encode()})
    net = pimm.create_model("hf-hub:me/old", pretrained=True)
    assert net.num_classes == CLASSES and net.default_cfg["label_names"] == ("a", "b")


def write_folder(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


PICKLE = ("pytorch_model.bin", as_pickle)
WEIGHTS = [
    {"model.safetensors": as_safetensors, "pytorch_model.bin": lambda _: b"worse"},
    {"pytorch_model.bin": as_pickle},
    {"open_clip_model.safetensors": as_safetensors, "open_clip_pytorch_model.bin": lambda _: b"worse"},
    {"open_clip_pytorch_model.bin": as_pickle},
]


@pytest.mark.parametrize("files", WEIGHTS, ids=lambda files: next(iter(files)))
def test_names_of_files(hub, tmp_path, files):
    content = {"config.json": config(), **{name: make(drawn(CLASSES)) for name, make in files.items()}}
    hub.add("me/net", content)
    folder = write_folder(tmp_path / "folder", content)
    for name in ("hf-hub:me/net", f"local-dir:{folder}"):
        np.testing.assert_array_equal(logits(pimm.create_model(name, pretrained=True)), expected(CLASSES))


@pytest.mark.parametrize("filename", ["best.bin", "nets/best.safetensors"])
def test_the_file_that_the_settings_name(hub, filename):
    hub.add("me/net", {"nets/best.safetensors": as_safetensors(drawn()), "best.safetensors": as_safetensors(drawn())})
    overlay = {"hf_hub_id": "me/net", "hf_hub_filename": filename}
    net = pimm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay)
    np.testing.assert_array_equal(net.conv_head.weight.numpy(), drawn()["conv_head.weight"])
    asked = [path.rpartition("/")[2] for method, path, _ in hub.asked if method == "HEAD" and "resolve" in path]
    assert asked == ["best.safetensors"]


@pytest.mark.parametrize("name", ["model.pth", "any.safetensors", "any.pth.tar"])
def test_other_names_in_a_folder(tmp_path, name):
    make = as_safetensors if name.endswith("s") else as_pickle
    folder = write_folder(tmp_path / "net", {"config.json": config(), name: make(drawn(CLASSES))})
    np.testing.assert_array_equal(logits(pimm.create_model(f"local-dir:{folder}", pretrained=True)), expected(CLASSES))


def test_other_sources(hub, tmp_path):
    net = pimm.create_model(NAME)
    save_arrays(tmp_path / "net.pdparams", net.state_dict())
    (tmp_path / "net.pth").write_bytes(as_pickle({"state_dict": drawn(), "epoch": 3}))
    hub.plain["net.pth"] = as_pickle(drawn())
    sources = {
        "file": str(tmp_path / "net.pth"),
        "url": f"{hub.url}/files/net.pth",
        "state_dict": {name: paddle.to_tensor(value) for name, value in drawn().items()},
    }
    for source, value in sources.items():
        overlay = {"hf_hub_id": None, source: value}
        found = pimm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay)
        np.testing.assert_array_equal(logits(found), expected(1000), err_msg=source)
    overlay = {"file": str(tmp_path / "net.pdparams")}  # comes before the hub
    for classes in (1000, 4):
        found = pimm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes)
        np.testing.assert_array_equal(found.conv_head.weight.numpy(), net.conv_head.weight.numpy())


def test_weights_are_taken_out_of_what_holds_them(tmp_path):
    held = {f"module.{name}": value for name, value in drawn().items()}
    for content in ({"model_ema": held, "model": {"a": np.zeros(1)}}, {"state_dict": held}, held):
        (tmp_path / "net.pth").write_bytes(as_pickle(content))
        net = pimm.create_model(NAME)
        load_pretrained(net, {"file": str(tmp_path / "net.pth"), "classifier": "classifier"})
        np.testing.assert_array_equal(logits(net), expected(1000))


def test_a_first_class_that_the_data_set_does_not_have_goes(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(as_safetensors(drawn(CLASSES + 1)))
    cfg = {"file": str(tmp_path / "net.safetensors"), "num_classes": CLASSES, "label_offset": 1}
    net = pimm.create_model(NAME, num_classes=CLASSES, pretrained=True, pretrained_cfg_overlay=cfg)
    np.testing.assert_array_equal(net.classifier.bias.numpy(), drawn(CLASSES + 1)["classifier.bias"][1:])
    np.testing.assert_array_equal(net.classifier.weight.numpy().T, drawn(CLASSES + 1)["classifier.weight"][1:])


def test_the_module_of_a_model_filters_its_weights(published, monkeypatch):
    published.add(REPO, {"model.safetensors": as_safetensors({f"old.{n}": v for n, v in drawn().items()})})
    seen = []

    def checkpoint_filter_fn(state_dict, model):
        seen.append(model.pretrained_cfg["hf_hub_id"])
        return {name.replace("old.", "", 1): value for name, value in state_dict.items()}

    monkeypatch.setattr(efficientnet, "checkpoint_filter_fn", checkpoint_filter_fn, raising=False)
    np.testing.assert_array_equal(logits(pimm.create_model(NAME, pretrained=True)), expected(1000))
    assert seen == [REPO]


def test_filters_compute_in_numpy(tmp_path):
    bits = {
        name: (value.view(np.uint32) >> 16).astype(BFLOAT16) if value.dtype == np.float32 else value
        for name, value in drawn().items()
    }
    table = {"index": np.arange(3)}  # of whole numbers, as transformers have them
    (tmp_path / "net.safetensors").write_bytes(as_safetensors({**bits, **table}))

    def twice(state_dict, model):
        assert np.array_equal(state_dict.pop("index"), table["index"])
        return {**state_dict, "conv_stem.weight": state_dict["conv_stem.weight"] * 2}

    net = pimm.create_model(NAME)
    load_pretrained(net, {"file": str(tmp_path / "net.safetensors")}, filter_fn=twice)
    wanted = (drawn()["conv_stem.weight"].view(np.uint32) >> 16 << 16).view(np.float32)
    np.testing.assert_array_equal(net.conv_stem.weight.numpy(), 2 * wanted)


def test_what_does_not_fit(published, caplog):
    arrays = drawn()
    arrays["stem.weight"] = arrays.pop("conv_stem.weight")
    published.add(REPO, {"model.safetensors": as_safetensors(arrays)})
    wanted = r"2 differences: missing: conv_stem.weight \[8, 3, 3, 3\]; left over: stem.weight \[8, 3, 3, 3\]"
    with pytest.raises(CheckpointError, match=f"^{REPO}: .*{wanted}"):
        pimm.create_model(NAME, pretrained=True)
    net = pimm.create_model(NAME, pretrained=True, pretrained_strict=False)
    np.testing.assert_array_equal(net.conv_head.weight.numpy(), drawn()["conv_head.weight"])
    assert "the model keeps its own ['conv_stem.weight'] and leaves ['stem.weight']" in caplog.text


def test_classes_of_the_weights_must_be_those_of_the_settings(published):
    published.add(REPO, {"model.safetensors": as_safetensors(drawn(12))})
    with pytest.raises(CheckpointError, match=r"shape differs: classifier.weight \[12, 1280\], the model has \[1000"):
        pimm.create_model(NAME, pretrained=True)


def test_a_tag_without_weights_names_those_with_some(monkeypatch):
    cfgs = {"a1": PretrainedCfg(hf_hub_id="timm/"), "b2": PretrainedCfg(), "c3": PretrainedCfg(url="http://x/y")}
    monkeypatch.setattr(registry, "_cfgs", dict(registry._cfgs))
    registry._register_cfgs(NAME, cfgs)
    message = f"no pretrained weights of {NAME}.b2; there are some of {NAME}.a1, {NAME}.c3; files .* by checkpoint_path"
    for create in (
        pimm.create_model,
        lambda name, **kwargs: pimm.model_entrypoint(NAME)(pretrained_cfg="b2", **kwargs),
    ):
        with pytest.raises(ConfigError, match=message):
            create(f"{NAME}.b2", pretrained=True)
    assert pimm.models.list_pretrained(f"{NAME}*") == [f"{NAME}.a1", f"{NAME}.c3"]
    assert pimm.models.is_model_pretrained(NAME) and not pimm.models.is_model_pretrained(f"{NAME}.b2")


def test_functions_of_others(hub, monkeypatch):
    """A function that another package registers loads its weights itself, unless its settings name them."""
    monkeypatch.setattr(registry, "_entrypoints", dict(registry._entrypoints))
    monkeypatch.setattr(registry, "_cfgs", dict(registry._cfgs))
    asked = []

    def theirs(pretrained=False, num_classes=1000, **kwargs):
        asked.append(pretrained)
        net = nn.Linear(2, num_classes)
        net.num_classes = num_classes
        return net

    pimm.register_model(theirs)
    pimm.create_model("theirs", pretrained=True)
    hub.add(
        "me/theirs", {"model.safetensors": as_safetensors({"weight": np.ones((4, 2), "f4"), "bias": np.ones(4, "f4")})}
    )
    cfg = {"hf_hub_id": "me/theirs", "num_classes": 4}
    net = pimm.create_model("theirs", pretrained=True, pretrained_cfg=cfg)
    assert asked == [True, False] and net.weight.numpy().min() == 1


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    for create in (lambda: pimm.create_model(NAME, pretrained=True), lambda: pimm.create_model("hf-hub:me/net")):
        with pytest.raises(ConfigError, match=r"need huggingface_hub: pip install 'cream-paddle\[hub\]'$"):
            create()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other/mnasnet_small", "no source; valid are hf-hub:ORG/NAME .* and local-dir:PATH"),
        ("C:\\nets\\mine", "no source"),
        ("ftp:me/net", "'ftp:me/net' names no model; valid are hf-hub:ORG/NAME, local-dir:PATH"),
        ("hf-hub:", "names no model"),
        ("hf-hub:me/net@a@b", "names no model of the hub; valid is ORG/NAME or ORG/NAME@REVISION"),
        ("hf-hub:me/my net", "names no model of the hub; valid is ORG/NAME"),
    ],
)
def test_wrong_names(hub, name, message):
    with pytest.raises(ConfigError, match=message):
        pimm.create_model(name)
    assert hub.asked == []


def test_names():
    assert parse_model_name("resnet50.a1_in1k") == (None, "resnet50.a1_in1k")
    assert parse_model_name("hf_hub:timm/resnet50@main") == ("hf-hub", "timm/resnet50@main")
    assert parse_model_name("local-dir:C:\\nets") == ("local-dir", "C:\\nets")
    assert safe_model_name("hf-hub:timm/vit_tiny.augreg") == "timm_vit_tiny_augreg"
    assert safe_model_name("hf-hub:timm/vit", remove_source=False) == "hf_hub_timm_vit"


CONFIGS = {
    "no JSON": (b"{", "config.json of {} is no JSON: "),
    "no object": (b"[]", "config.json of {} is no object of JSON"),
    "no name": (b"{}", "config.json of {} names no architecture"),
    "another's": (config(architecture="mnasnet_smal"), "config.json of {}: unknown model 'mnasnet_smal'; did you mean"),
    "argument": (config(model_args={"heads": 3}), "config.json of {}: model_args do not fit: .*'heads'"),
    "value": (config(model_args={"drop_path_rate": "much"}), "config.json of {}: model_args do not fit: "),
    "arguments": (config(model_args=[3]), "config.json of {}: pretrained_cfg and model_args must be objects"),
    "size": (config(pretrained_cfg={"input_size": 64}), "config.json of {}: its image sizes cannot be used"),
    "channels": (config(model_args={"in_chans": "3"}), "config.json of {}: its image sizes cannot be used"),
    "classes": (config(num_classes=-1), "num_classes is -1"),
    "classes in words": (config(num_classes="5"), "config.json of {}: num_classes is '5'"),
    "offset": (config(pretrained_cfg={"label_offset": "x"}), "config.json of {}: label_offset is 'x'"),
    "no pixels": (
        config(pretrained_cfg={"input_size": [3, 0, 64]}),
        "config.json of {}: its image sizes cannot be used",
    ),
    "size of text": (config(model_args={"img_size": "x"}), "config.json of {}: model_args do not fit: img_size is 'x'"),
    "large": (b" " * (17 << 20), "config.json of {} has more than 16,777,216 bytes"),
}


@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS)
def test_wrong_settings(hub, tmp_path, content, message):
    folder = write_folder(tmp_path / "net", {"config.json": content})
    with pytest.raises((CheckpointError, ConfigError), match=message.replace("{}", str(folder))) as caught:
        pimm.create_model(f"local-dir:{folder}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_unknown_settings_are_named(hub, caplog):
    settings = {**json.loads(config())["pretrained_cfg"], "crop_shape": "round"}
    hub.add("me/new", {**saved(), "config.json": config(pretrained_cfg=settings)})
    pimm.create_model("hf-hub:me/new")
    assert "config.json of me/new: settings of these names are not known here: crop_shape" in caplog.text


def test_folders_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none/config.json: No such file"):
        pimm.create_model(f"local-dir:{tmp_path}/none")
    folder = write_folder(tmp_path / "net", {"config.json": config()})
    with pytest.raises(
        CheckpointError, match=r"net has no weights: no model.safetensors, pytorch_model.bin and no file"
    ):
        pimm.create_model(f"local-dir:{folder}", pretrained=True)
    (folder / "model.safetensors").write_bytes(as_safetensors(drawn(CLASSES))[:5000])
    with pytest.raises(CheckpointError, match=r"model.safetensors is no safetensors file that can be read"):
        pimm.create_model(f"local-dir:{folder}", pretrained=True)
    with pytest.raises(ConfigError, match="has settings of its own: pretrained_cfg cannot be given"):
        pimm.create_model(f"local-dir:{folder}", pretrained_cfg={"num_classes": 3})
