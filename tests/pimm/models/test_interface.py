"""The interface that every model has: feature maps, heads, recomputation, settings, and lists of names."""

import copy

import golden
import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

import cream  # noqa: F401  (its nets are models of pimm)
import pimm
from pimm.errors import ConfigError
from pimm.models import FeatureInfo, PretrainedCfg, get_pretrained_cfg, model_entrypoint, registry
from pimm.models.features import Stage, feature_take_indices, limit_strides, stage_features

SMALL = ["mobilenetv3_small_075", "mnasnet_small", "efficientnet_cc_b0_4e", "tf_efficientnet_es", "cream_14", "spos"]
REDUCTIONS = [2, 4, 8, 16, 32]


def images(count=1, channels=3, size=64):
    return paddle.to_tensor(golden.inputs((count, channels, size, size)))


def create(name, **kwargs):
    paddle.seed(0)
    model = pimm.create_model(name, **kwargs)
    model.eval()
    return model


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


EFFICIENT = pimm.list_models(["*lite*", "mixnet_*", "mnasnet_*", "mobilenetv2_*", "*_b0*"], module="efficientnet")


@pytest.mark.parametrize("name", [*pimm.list_models(module=["mobilenetv3", "registered"]), *SMALL, *EFFICIENT])
def test_every_mobile_model_describes_its_feature_maps(name):
    """The description is enough to build on: five maps, each half the size of the last, under names that exist."""
    with paddle.LazyGuard():
        model = model_entrypoint(name)(num_classes=2)
    info = FeatureInfo(model.feature_info, None)
    assert info.reduction() == REDUCTIONS and len(info) == 5
    layers = dict(model.named_sublayers())
    assert all(module in layers for module in info.module_name())
    cfg = model.default_cfg
    assert cfg["architecture"] == name and cfg is model.pretrained_cfg
    assert cfg["first_conv"] in layers and cfg["classifier"] in layers
    assert model.get_classifier() in (layers[cfg["classifier"]], layers[cfg["classifier"].partition(".")[0]])
    assert model.no_weight_decay() == set()
    fine, coarse = model.group_matcher(), model.group_matcher(coarse=True)
    assert set(fine) == set(coarse) == {"stem", "blocks"}


@pytest.mark.parametrize("name", SMALL)
@paddle.no_grad()
def test_values_agree_with_each_other(name):
    model, x = create(name, num_classes=3), images()
    features = model.forward_features(x)
    assert features.shape == [1, model.num_features, 2, 2]
    assert model.forward_head(features, pre_logits=True).shape == [1, model.head_hidden_size]
    assert_equal([model.forward_head(features)], [model(x)])
    final, maps = model.forward_intermediates(x)
    assert_equal([final], [features])
    assert [found.shape[1:] for found in maps] == [
        [info["num_chs"], 64 // info["reduction"], 64 // info["reduction"]] for info in model.feature_info
    ]
    last, some = model.forward_intermediates(x, [-4, 0], stop_early=True)
    assert_equal([last, *some], [maps[1], maps[0], maps[1]])
    assert_equal(model.forward_intermediates(x, 2, intermediates_only=True), maps[-2:])
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    for kind, prefix in (("list", ""), ("dict", ""), ("getter", "model.")):
        net = create(name, features_only=True, out_indices=(-2, 1), feature_cls=kind)
        kept = {key: state[key[len(prefix) :]] for key in net.state_dict()}
        assert all(key.startswith(prefix) for key in kept) and len(kept) < len(state)
        net.set_state_dict(kept)
        found = net(x)
        assert_equal(list(found.values()) if kind == "dict" else found, [maps[1], maps[3]])
        assert kind != "dict" or list(found) == ["1", "-2"]
        assert net.feature_info.channels() == [model.feature_info[3]["num_chs"], model.feature_info[1]["num_chs"]]
        assert not {"num_classes", "classifier"} & set(net.default_cfg)


@paddle.no_grad()
def test_a_net_of_features_is_copied_and_changed_as_a_whole():
    net = create("mobilenetv3_small_075", features_only=True, out_indices=(0, 1))
    other = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.set_value(parameter * 2)
    assert np.abs(net(images())[0].numpy() - other(images())[0].numpy()).max() > 0
    net.act1 = nn.ReLU()
    assert type(net.model.act1) is nn.ReLU
    net.train()
    assert net.model.training and net.blocks[0].training
    net.eval()
    assert not net.model.training


@pytest.mark.parametrize("name", SMALL)
@paddle.no_grad()
def test_pruned_models_return_their_last_feature_maps(name):
    model, x = create(name), images()
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert model.prune_intermediate_layers([1, -3]) == [1, 2]
    assert model.num_features == model.head_hidden_size == maps[2].shape[1]
    assert_equal([model(x)], [maps[2]])
    model.reset_classifier(4, "avg")
    assert model(x).shape == [1, 4]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@paddle.no_grad()
def test_output_stride(name, output_stride):
    net = create(name, features_only=True, output_stride=output_stride)
    found = net(images())
    assert net.feature_info.reduction() == [min(each, output_stride) for each in REDUCTIONS]
    assert [64 // each.shape[-1] for each in found] == net.feature_info.reduction()


def test_dilation_keeps_what_blocks_see():
    assert list(limit_strides([1, 2, 2, 1, 2], 8)) == [(1, 1, 2), (2, 1, 4), (2, 1, 8), (1, 1, 8), (1, 1, 8)]
    assert list(limit_strides([2, 2, 1], 4)) == [(2, 1, 4), (1, 1, 4), (1, 2, 4)]
    assert list(limit_strides([2] * 6, None))[-1] == (2, 1, 128)
    with pytest.raises(ConfigError, match="output_stride is 7; valid are 8, 16 and 32"):
        list(limit_strides([2], 7))


def test_a_dilated_net_computes_the_plain_one_at_each_second_pixel():
    """Without padding's influence both nets see the same pixels: compare the middle of large images."""
    plain, dense = create("spos"), create("spos", output_stride=16)
    dense.set_state_dict(plain.state_dict())
    x = images(size=416)
    with paddle.no_grad():
        sparse, found = (net.forward_intermediates(x, [4], intermediates_only=True)[0] for net in (plain, dense))
    middle = slice(6, 7)
    np.testing.assert_allclose(
        found[:, :, ::2, ::2][:, :, middle, middle].numpy(), sparse[:, :, middle, middle].numpy(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("indices", "expected"), [(None, [0, 1, 2]), (1, [2]), (2, [1, 2]), ([0, -1], [0, 2]), ((-3,), [0])]
)
def test_choice_of_feature_maps(indices, expected):
    assert feature_take_indices(3, indices) == (expected, max(expected))


@pytest.mark.parametrize("indices", [0, 4, [3], [-4], [], [0.5], 1.0, "ab", {0}])
def test_feature_maps_that_there_are_not(indices):
    with pytest.raises(ConfigError, match="feature map"):
        feature_take_indices(3, indices)


def test_description_of_feature_maps():
    stages = [Stage(False, 8, 2), Stage(True, 16, 4), Stage(False, 24, 4), Stage(True, 32, 8)]
    found = stage_features(Stage(True, 4, 2), stages)
    assert [(each["module"], each["num_chs"], each["reduction"], each["stage"]) for each in found] == [
        ("blocks.0", 8, 2, 1),
        ("blocks.2", 24, 4, 3),
        ("blocks.3", 32, 8, 4),
    ]
    info = FeatureInfo(found, (0, -1))
    assert (info.channels(), info.reduction(), info.module_name()) == ([8, 32], [2, 8], ["blocks.0", "blocks.3"])
    assert info.get_dicts(["index", "stage"]) == [{"index": 0, "stage": 1}, {"index": 2, "stage": 4}]
    assert info.channels(1) == 24 and info.channels([1, 2]) == [24, 32] and info[1]["module"] == "blocks.2"
    assert info.from_other(1).channels() == [32]


@pytest.mark.parametrize("name", ["mobilenetv3_small_075", "mnasnet_small", "spos", "cream_14"])
def test_pooling_and_classifier(name):
    model, x = create(name, num_classes=0, global_pool="") if name != "spos" else create(name, num_classes=0), images()
    model.reset_classifier(0, "")
    with paddle.no_grad():
        maps = model(x)
        assert maps.shape[2:] == [2, 2] and maps.shape[1] == model.head_hidden_size
        model.reset_classifier(0, "max")
        if not model.head_layers:
            np.testing.assert_array_equal(model(x).numpy(), maps.numpy().max((2, 3)))
        model.reset_classifier(5)
        assert model(x).shape == [1, 5] and model.global_pool.pool_type == "max" and not model.classifier.training
    with pytest.raises(ConfigError, match="without pooling"):
        model.reset_classifier(5, "")


def gradients(model, recomputed):
    """Return loss, gradients, state and how often the first block ran, of one training step."""
    model.set_grad_checkpointing(recomputed)
    model.train()
    paddle.seed(5)
    calls = []
    block = model.features[1] if hasattr(model, "features") else model.blocks[1][0]
    hook = block.register_forward_pre_hook(lambda *_: calls.append(1))
    for parameter in model.parameters():
        parameter.clear_gradient(False)
    loss = F.cross_entropy(model(images(4)), paddle.to_tensor([0, 1, 2, 0]))
    loss.backward()
    hook.remove()
    found = {name: None if p.grad is None else p.grad.numpy() for name, p in model.named_parameters()}
    return loss.item(), found, {key: value.numpy() for key, value in model.state_dict().items()}, len(calls)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_recomputation_changes_nothing(name, frozen):
    """Loss, gradients and running statistics are the same numbers, with dropout, and behind a frozen stem too."""
    drop_path = {} if name == "spos" else {"drop_path_rate": 0.3}
    model = create(name, num_classes=3, drop_rate=0.3, **drop_path)
    if frozen:
        for layer in [model.first_conv] if name == "spos" else [model.conv_stem, model.bn1]:
            for parameter in layer.parameters():
                parameter.stop_gradient = True
    start = {key: value.numpy() for key, value in model.state_dict().items()}
    loss, expected, state, calls = gradients(model, False)
    model.set_state_dict(start)
    again, found, state_again, calls_again = gradients(model, True)
    assert (calls, calls_again) == (1, 2) and loss == again
    assert any(np.abs(value).max() > 0 for value in expected.values() if value is not None)
    for mine, theirs in ((found, expected), (state_again, state)):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            np.testing.assert_array_equal(mine[key], value, err_msg=key)


def test_settings_by_name_and_overlay():
    cfg = get_pretrained_cfg("tf_efficientnet_lite1")
    assert (cfg.input_size, cfg.mean, cfg.architecture) == ((3, 240, 240), (0.5,) * 3, "tf_efficientnet_lite1")
    assert pimm.models.get_pretrained_cfg_value("cream_14", "input_size") == (3, 64, 64)
    model = create("mnasnet_small", pretrained_cfg_overlay={"num_classes": 4, "input_size": (1, 32, 32)})
    assert (model.num_classes, model.conv_stem.weight.shape[1]) == (4, 1)
    assert model.default_cfg["input_size"] == (1, 32, 32) and model.default_cfg["crop_pct"] == 0.875
    other = create("mnasnet_small", num_classes=3, pretrained_cfg={"crop_pct": 1.0, "num_classes": 9})
    assert (other.num_classes, other.default_cfg["num_classes"], other.default_cfg["crop_pct"]) == (3, 9, 1.0)
    assert other.default_cfg["first_conv"] is None and other.default_cfg["architecture"] == "mnasnet_small"
    assert create("mnasnet_small", pretrained_cfg=PretrainedCfg(num_classes=2)).num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pretrained_cfg_overlay": {"crop_pc": 1}},
            "pretrained_cfg_overlay has no field 'crop_pc'; did you mean crop",
        ),
        ({"pretrained_cfg": "a1"}, "mnasnet_small has no tag 'a1'"),
        ({"features_only": True, "feature_cls": "dicts"}, "valid are list, dict, getter"),
        ({"features_only": True, "out_indices": (5,)}, "there is no feature map 5"),
        ({"output_stride": 12}, "valid are 8, 16 and 32"),
        ({"global_pool": ""}, "without pooling"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        pimm.create_model("mnasnet_small", **arguments)


def test_lists_of_names(monkeypatch):
    found = pimm.list_models(["mnas*", "spnas*"], exclude_filters="*_1*")
    assert found == ["mnasnet_050", "mnasnet_075", "mnasnet_small"]
    assert "tf_mobilenetv3_small_100" in pimm.list_models(module=["mobilenetv3", "registered"])
    assert pimm.list_models(module=["registered"], exclude_filters=["tf_*", "mob*"]) == [
        *(f"cream_{mflops}" for mflops in (14, 43, 114, 287, 481, 604)),
        "spos",
    ]
    assert pimm.list_models("mnasnet_*", pretrained=True) == ["mnasnet_100.rmsp_in1k", "mnasnet_small.lamb_in1k"]
    assert pimm.models.is_model_pretrained("mnasnet_small") and not pimm.models.is_model_pretrained("mnasnet_050")
    assert pimm.models.is_model_pretrained("mnasnet_small.lamb_in1k") and not pimm.models.is_model_pretrained("spos")
    assert {"efficientnet", "mobilenetv3", "registered"} <= set(pimm.models.list_modules())
    assert pimm.models.is_model_in_modules("spos", "registered")
    assert pimm.is_model("mnasnet_small.any_tag") and not pimm.is_model("mnasnet")
    monkeypatch.setattr(registry, "_entrypoints", dict(registry._entrypoints))
    monkeypatch.setattr(registry, "_cfgs", {**registry._cfgs})

    def plain(pretrained=False, **kwargs):
        return nn.Linear(2, 2)

    pimm.register_model(plain)
    assert "plain" in pimm.list_models() and "plain" not in pimm.list_models(name_matches_cfg=True)
    assert get_pretrained_cfg("plain") is None
    with pytest.raises(ConfigError, match="Linear has no forward_intermediates"):
        pimm.create_model("plain", features_only=True)
    registry._register_cfgs("plain", {"a1": PretrainedCfg(hf_hub_id="timm/"), "b2": PretrainedCfg(crop_pct=0.5)})
    assert pimm.list_models("pl*", include_tags=True) == ["plain.a1", "plain.b2"]
    assert pimm.models.list_pretrained("pl*") == ["plain.a1"] and pimm.models.is_model_pretrained("plain.a1")
    assert get_pretrained_cfg("plain").tag == "a1" and get_pretrained_cfg("plain.b2").crop_pct == 0.5
    assert pimm.create_model("plain.b2").default_cfg["crop_pct"] == 0.5
    assert list(pimm.models.get_arch_pretrained_cfgs("plain")) == ["plain.a1", "plain.b2"]
    with pytest.raises(ConfigError, match="no tag 'b3'; valid are a1"):
        pimm.create_model("plain.b3")


def test_models_are_functions_of_their_modules_too():
    from pimm.models import resnet10t
    from pimm.models.resnet import resnet10t as of_module

    assert resnet10t is of_module is model_entrypoint("resnet10t")
    assert resnet10t(num_classes=2).num_classes == 2
    assert pimm.get_pretrained_cfg("timm/resnet10t.c3_in1k".partition("/")[2]).tag == "c3_in1k"
    with pytest.raises(AttributeError, match="has no attribute 'resnet9t'"):
        _ = pimm.models.resnet9t


def test_the_beginning_of_a_name_is_enough_for_a_hint():
    for given, near in (("vit_tiny", "vit_tiny_patch16_224, "), ("swin_tiny", "swin_tiny_patch4_window7_224")):
        with pytest.raises(ConfigError, match=f"unknown model '{given}'; did you mean {near}"):
            pimm.create_model(given)


def test_names_as_on_the_hub_are_known():
    with paddle.LazyGuard():
        assert pimm.create_model("timm/test_vit.r160_in1k").default_cfg["tag"] == "r160_in1k"
    with pytest.raises(ConfigError, match="has no source; valid are hf-hub"):
        pimm.create_model("other/test_vit")
