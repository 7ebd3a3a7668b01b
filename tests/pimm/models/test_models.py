"""Model families against timm, the registry, classifiers, and models as arguments make them."""

import copy
import os

import golden
import numpy as np
import paddle
import pytest
from tiny_net import tiny

import pimm
from pimm import layers, models
from pimm.errors import ConfigError
from pimm.models import registry
from pimm.models.efficientnet import EfficientNet
from pimm.models.mobilenetv3 import MobileNetV3

LARGE = 6e6  # parameters from which the models that are not required are built only with PIMM_EVERY_MODEL=1
REQUIRED = [
    *(f"efficientnet_b{size}" for size in range(5)),
    *(f"efficientnet_lite{size}" for size in range(5)),
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
]
MODELS = golden.facts("timm_models")["models"]
REFERENCE = [
    name
    for name, entry in MODELS.items()
    if pimm.is_model(name) and (name in REQUIRED or entry["num_params"] < LARGE or os.environ.get("PIMM_EVERY_MODEL"))
]


def test_required_models_have_a_reference():
    assert set(REQUIRED) <= set(REFERENCE)


def reference_run(name, dtype="float32"):
    """Return a model with the reference's weights, its features before the last pooling, and its logits [1000]."""
    entry = MODELS[name]
    model = pimm.create_model(name)
    model.to(dtype=dtype)
    model.eval()
    models.load_torch_arrays(model, golden.state(entry["names_shapes"], gain=entry["gain"]))
    with paddle.no_grad():
        images = paddle.to_tensor(golden.inputs((1, *entry["default_cfg"]["input_size"])).astype(dtype))
        features, logits = model.forward_features(images).numpy(), model(images)[0].numpy()
    return model, features, logits


def assert_values(features, logits, expected, entry, tolerance):
    np.testing.assert_allclose(logits[:16], expected["logits16"], rtol=0, atol=tolerance * np.abs(logits).max())
    assert logits.sum() == pytest.approx(expected["sum"], rel=0, abs=tolerance * expected["abs_sum"])
    assert np.abs(logits).sum() == pytest.approx(expected["abs_sum"], rel=tolerance)
    assert list(features.shape) == entry["features"]["shape"]
    deviation = entry["features"]["std"]
    assert features.std() == pytest.approx(deviation, rel=max(5e-6, tolerance))
    assert features.mean() == pytest.approx(entry["features"]["mean"], rel=0, abs=max(5e-6, tolerance) * deviation)


# In float32, the order of sums changes the logits by more than three times timm's own error.
NOISY = ("efficientnet_b3",)


@pytest.mark.parametrize("name", REFERENCE)
def test_model(name):
    entry = MODELS[name]
    model, features, logits = reference_run(name, "float64" if name in NOISY else "float32")
    found = [[key, list(shape)] for key, shape in models.torch_names(model)]
    in_order = pimm.models.is_model_in_modules(name, ("efficientnet", "mobilenetv3"))
    assert found == entry["names_shapes"] if in_order else sorted(found) == sorted(entry["names_shapes"])
    assert sum(p.size for p in model.parameters() if not p.stop_gradient) == entry["num_params"]
    tolerance = max(1e-5, 3 * entry["f32_f64_rel"])
    for expected in (entry, entry["f64"]):
        assert_values(features, logits, expected, entry, tolerance)


# One of each family, small ones.
DOUBLE = (
    "efficientnet_lite0",
    "mobilenetv2_035",
    "mobilenetv3_small_075",
    "mnasnet_small",
    "semnasnet_050",
    "mixnet_s",
)


@pytest.mark.parametrize("name", DOUBLE)
def test_model_in_double_precision(name):
    """All but what Paddle's kernels keep in float32, such as epsilons and the slope of a hard sigmoid, is exact."""
    entry = MODELS[name]
    _, features, logits = reference_run(name, "float64")
    assert_values(features, logits, entry["f64"], entry, 1e-6)


OLD = golden.facts("timm_0_1_20")["default_cfgs"]
TODAY = {name: entry["default_cfg"] for name, entry in MODELS.items()}
# The fields in which today's timm, which the models follow, differs from timm 0.1.20.
CHANGED = {
    "efficientnet_b1": {"crop_pct", "mean", "std"},
    "efficientnet_b2": {"input_size", "pool_size"},
    "efficientnet_b3": {"input_size", "pool_size", "crop_pct"},
    "efficientnet_b4": {"input_size", "pool_size", "crop_pct"},
    "efficientnet_b5": {"input_size", "pool_size", "crop_pct"},
    "mobilenetv3_small_075": {"interpolation"},
    "mobilenetv3_small_100": {"interpolation"},
    "tf_efficientnet_b8": {"mean", "std"},
}


@pytest.mark.parametrize("name", sorted(name for name in {*OLD, *TODAY} if pimm.is_model(name)))
def test_default_cfg(name):
    """Every field is that of today's timm, and of timm 0.1.20 wherever that has not changed or the model is older."""
    with paddle.LazyGuard():
        model = pimm.create_model(name)
    cfg = model.default_cfg
    assert model.pretrained_cfg is cfg
    found = {field: list(value) if isinstance(value, tuple) else value for field, value in cfg.items()}
    assert (found["architecture"], found["crop_mode"]) == (name, "squash" if name == "efficientnet_b5" else "center")
    assert (found["custom_load"], found["fixed_input_size"]) == (name.startswith("vit"), "patch" in name)
    for source in (OLD, TODAY):
        expected = source.get(name, {})
        differs = {field for field, value in expected.items() if found[field] != value}
        assert differs == (CHANGED.get(name, set()) if source is OLD else set())


def test_tensorflow_variants_pad_and_normalise_as_there():
    model = pimm.create_model("tf_efficientnet_b0", num_classes=2)
    assert isinstance(model.conv_stem, layers.Conv2dSame)
    assert model.bn1._epsilon == 1e-3
    with_own = pimm.create_model("tf_efficientnet_b0", num_classes=2, bn_eps=1e-4, pad_type="")
    assert not isinstance(with_own.conv_stem, layers.Conv2dSame)
    assert with_own.bn1._epsilon == 1e-4


def test_cond_conv_variants():
    model = pimm.create_model("efficientnet_cc_b0_4e", num_classes=2)
    assert [stage[0].conv_dw.num_experts for stage in list(model.blocks)[4:]] == [4, 4, 4]
    assert model(paddle.ones([2, 3, 32, 32])).shape == [2, 2]


def test_create_model_arguments():
    model = pimm.create_model(
        "mobilenetv3_small_075",
        num_classes=7,
        in_chans=1,
        drop_rate=0.3,
        drop_connect_rate=0.2,
        bn_momentum=0.2,
        bn_eps=None,
        global_pool="avgmax",
    )
    assert model(paddle.ones([2, 1, 32, 32])).shape == [2, 7]
    assert model.drop_rate == 0.3
    assert model.blocks[-2][-1].drop_path_rate == pytest.approx(0.2 * 10 / 12)
    assert model.bn1._momentum == pytest.approx(0.8)
    assert model.global_pool.pool_type == "avgmax"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "efficientnet_b00"}, "did you mean efficientnet_b0"),
        ({"model_name": "zzz"}, "list_models"),
        ({"model_name": "mnasnet_050", "pretrained": True}, "no pretrained weights .* checkpoint_path"),
    ],
)
def test_create_model_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        pimm.create_model(**arguments)


def test_registry(monkeypatch):
    monkeypatch.setattr(registry, "_entrypoints", dict(registry._entrypoints))

    def net_10():
        pass

    def net_9():
        pass

    for fn in (net_10, net_9):
        assert pimm.register_model(fn) is fn
    assert pimm.model_entrypoint("net_9") is net_9
    assert pimm.list_models("net_*") == ["net_9", "net_10"]
    assert pimm.list_models(module="test_models") == ["net_9", "net_10"]
    assert set(pimm.list_models()) > {"net_9", *REQUIRED}
    assert pimm.list_models("*small*", module="mobilenetv3")[0] == "mobilenetv3_small_050"
    assert not pimm.is_model("net_11")
    with pytest.raises(ConfigError, match="two models are called 'net_9'"):
        pimm.register_model(net_9)


@pytest.mark.parametrize("model_class", [EfficientNet, MobileNetV3])
def test_classifier(model_class):
    model = tiny(model_class)
    x = paddle.to_tensor(golden.inputs((2, 3, 32, 32)))
    maps = model.forward_features(x)
    assert maps.shape == [2, model.num_features, *maps.shape[2:]]
    features = model.forward_head(maps, pre_logits=True)
    assert features.shape == [2, 16] and model.head_hidden_size == 16
    np.testing.assert_allclose(model(x).numpy(), model.get_classifier()(features).numpy(), rtol=1e-4, atol=1e-6)
    model.reset_classifier(3)
    assert model.get_classifier().weight.shape == [16, 3]
    model.reset_classifier(0)
    np.testing.assert_allclose(model(x).numpy(), features.numpy(), rtol=1e-4, atol=1e-6)


def test_pooling_can_double_the_features():
    model = tiny(EfficientNet)
    model.reset_classifier(3, global_pool="catavgmax")
    assert model(paddle.ones([1, 3, 32, 32])).shape == [1, 3]
    assert tiny(MobileNetV3, global_pool="catavgmax")(paddle.ones([1, 3, 32, 32])).shape == [1, 5]
    with pytest.raises(ConfigError, match="from avg to catavgmax"):
        tiny(MobileNetV3).reset_classifier(3, global_pool="catavgmax")


def test_dropout_acts_in_training_alone():
    model = tiny(drop_rate=0.5)
    x = paddle.to_tensor(golden.inputs((2, 3, 32, 32)))
    np.testing.assert_array_equal(model(x).numpy(), model(x).numpy())
    model.train()
    assert np.abs(model(x).numpy() - model(x).numpy()).max() > 1e-3


@pytest.mark.parametrize("pad_type", ["", "same"])
@pytest.mark.parametrize("model_class", [EfficientNet, MobileNetV3])
def test_export_takes_images_of_any_size(model_class, pad_type, tmp_path):
    model = tiny(model_class, pad_type=pad_type)
    paddle.jit.save(model, str(tmp_path / "net"), input_spec=[paddle.static.InputSpec([None, 3, None, None])])
    exported = paddle.jit.load(str(tmp_path / "net"))
    for shape in ((1, 3, 32, 32), (2, 3, 37, 44)):
        x = paddle.to_tensor(golden.inputs(shape))
        np.testing.assert_allclose(exported(x).numpy(), model(x).numpy(), rtol=1e-4, atol=1e-6)


def test_models_can_be_copied():
    model = tiny()
    twin = copy.deepcopy(model)
    x = paddle.to_tensor(golden.inputs((1, 3, 32, 32)))
    np.testing.assert_array_equal(twin(x).numpy(), model(x).numpy())


NAMES = {
    "pimm.models.efficientnet_blocks": (
        "ConvBnAct DepthwiseSeparableConv InvertedResidual SqueezeExcite drop_path make_divisible round_channels"
    ),
    "pimm.models.activations": "hard_sigmoid Swish",
    "pimm.models.layers.activations": "hard_sigmoid hard_swish swish sigmoid HardSwish Swish Mish",
    "pimm.models.layers": "create_conv2d SelectAdaptivePool2d drop_path DropPath get_padding Conv2dSame MixedConv2d",
    "pimm.models": "create_conv2d SelectAdaptivePool2D resume_checkpoint create_model load_checkpoint",
}


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in NAMES.items() for name in names.split()])
def test_import_names(module, name):
    found = getattr(__import__(module, fromlist=[name]), name)
    assert found is getattr(layers, name, found)
