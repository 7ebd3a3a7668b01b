"""Model families against timm, the registry, and weights in and out."""

import copy
import logging
import os

import golden
import numpy as np
import paddle
import pytest

import pimm
from pimm import layers, models
from pimm.errors import CheckpointError, ConfigError
from pimm.models import registry
from pimm.models.efficientnet import EfficientNet
from pimm.models.efficientnet_builder import decode_arch_def
from pimm.models.mobilenetv3 import MobileNetV3
from pimm.optim import create_optimizer_v2, optimizer_state
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE, write_checkpoint
from pimm.utils.serialization import save_arrays
from pimm.utils.state import check_state

LARGE = 6e6  # parameters from which the models that are not required are built only with PIMM_EVERY_MODEL=1
TINY = [["ds_r1_k3_s2_c8"], ["ir_r1_k3_s2_e2_c8_se0.25"]]
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


@pytest.mark.parametrize("name", REFERENCE)
def test_model(name):
    entry = MODELS[name]
    model, features, logits = reference_run(name)
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


def tiny(model_class=EfficientNet, seed=0, **kwargs):
    model = model_class(decode_arch_def(TINY), num_classes=5, num_features=16, stem_size=8, **kwargs)
    models.load_torch_arrays(model, golden.state(models.torch_names(model), seed=seed))
    model.eval()
    return model


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


def weights(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_torch_names_of_square_linear_are_transposed():
    linear = layers.Linear(3, 3)
    value = np.arange(9, dtype=np.float32).reshape(3, 3)
    models.load_torch_arrays(linear, {"weight": value, "bias": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(linear.weight.numpy(), value.T)


def test_torch_arrays_are_checked():
    model = tiny()
    before = weights(model)
    arrays = golden.state(models.torch_names(model))
    arrays["stem.weight"] = arrays.pop("conv_stem.weight")
    arrays["bn1.bias"] = np.zeros(9, np.float32)
    arrays["classifier.weight"] = arrays["classifier.weight"].T
    with pytest.raises(CheckpointError) as error:
        models.load_torch_arrays(model, arrays)
    for text in (
        "4 differences",
        "missing: conv_stem.weight [8, 3, 3, 3]",
        "left over: stem.weight [8, 3, 3, 3]",
        "shape differs: bn1.bias [9], the model has [8]",
        "shape differs: classifier.weight [16, 5], the model has [5, 16]",
    ):
        assert text in str(error.value)
    assert_same(weights(model), before)


def test_another_net_is_told_in_one_line_with_the_first_differences():
    with pytest.raises(CheckpointError) as error:
        check_state({f"a{i}": (i,) for i in range(500)}, {"b": (1,), "a7": (8,)}, "net.pdparams")
    assert str(error.value) == (
        "net.pdparams: does not fit the model, 501 differences: missing: a0 [0]; missing: a1 [1]; missing: a2 [2]; "
        "missing: 496 more; left over: b [1]; shape differs: a7 [8], the model has [7]"
    )


def test_torch_arrays_without_batch_counters():
    model = tiny()
    arrays = golden.state(models.torch_names(model), seed=1)
    counters = [name for name in arrays if name.endswith("num_batches_tracked")]
    assert len(counters) == len([layer for layer in model.sublayers() if isinstance(layer, layers.BatchNorm2d)])
    models.load_torch_arrays(model, {name: value for name, value in arrays.items() if name not in counters})
    assert_same(weights(model), weights(tiny(seed=1)))


def test_weights_take_the_models_type():
    model, arrays = tiny(), weights(tiny(seed=1))
    halves = {name: (value.view(np.uint32) >> 16).astype(np.uint16) for name, value in arrays.items()}  # bfloat16
    models.load_state_dict_strictly(model, halves)
    truncated = {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in arrays.items()}
    assert_same(weights(model), truncated)
    models.load_state_dict_strictly(model, {name: value.astype(np.float64) for name, value in arrays.items()})
    assert_same(weights(model), arrays)


@pytest.mark.parametrize("dtype", ["complex64", "U8", "object", "uint32"])
def test_weights_of_no_usable_type_change_nothing(dtype):
    model, arrays = tiny(), weights(tiny(seed=1))
    before, last = weights(model), list(arrays)[-1]
    arrays[last] = arrays[last].astype(dtype)
    with pytest.raises(CheckpointError, match=f"the weights: {last} is of type .*must be one of .*float32"):
        models.load_state_dict_strictly(model, arrays)
    assert_same(weights(model), before)


def trained_optimizer(model):
    optimizer = create_optimizer_v2(model, "momentum", lr=0.1)
    before = weights(model)
    model(paddle.to_tensor(golden.inputs((2, 3, 32, 32)))).square().sum().backward()
    optimizer.step()
    models.load_state_dict_strictly(model, before)
    return optimizer


@pytest.fixture
def saved(tmp_path):
    """Files and checkpoint folders: weights of seed 1, averaged ones of seed 2."""
    save_arrays(tmp_path / "net.pdparams", tiny(seed=1).state_dict())
    save_arrays(tmp_path / "net.pdema", tiny(seed=2).state_dict())
    net = tiny(seed=1)
    optimizer = trained_optimizer(net)
    contents = {
        MODEL: net.state_dict(),
        EMA: tiny(seed=2).state_dict(),
        OPTIMIZER: optimizer_state(optimizer, net),
        STATE: {"rng": [1, 2]},
    }
    write_checkpoint(tmp_path / "checkpoint-3", contents, {"epoch": 3})
    write_checkpoint(tmp_path / "recovery-4-10", contents, {"epoch": 4, "batch": 10})
    return tmp_path


@pytest.mark.parametrize("where", ["net.pdparams", "checkpoint-3"])
@pytest.mark.parametrize(("use_ema", "seed"), [(False, 1), (True, 2)])
def test_load_checkpoint(saved, where, use_ema, seed):
    model = tiny()
    models.load_checkpoint(model, str(saved / where), use_ema=use_ema)
    assert_same(weights(model), weights(tiny(seed=seed)))
    assert_same(models.load_state_dict(saved / where, use_ema), weights(model))


def test_create_model_with_checkpoint(tmp_path):
    source = pimm.create_model("mobilenetv3_small_075", num_classes=2)
    paddle.save(source.state_dict(), str(tmp_path / "net.pdparams"))
    model = pimm.create_model("mobilenetv3_small_075", num_classes=2, checkpoint_path=tmp_path / "net.pdparams")
    assert_same(weights(model), weights(source))
    with pytest.raises(
        CheckpointError, match=r"net.pdparams: does not fit .*2 differences: .*classifier.weight \[1024, 2\]"
    ):
        pimm.create_model("mobilenetv3_small_075", checkpoint_path=tmp_path / "net.pdparams")
    other = pimm.create_model("mobilenetv3_small_075", num_classes=3, checkpoint_path=tmp_path / "net.pdparams")
    assert other.classifier.weight.shape == [1024, 3]  # it begins anew; all else is the file's
    np.testing.assert_array_equal(other.conv_stem.weight.numpy(), source.conv_stem.weight.numpy())


def test_load_checkpoint_leniently(saved, caplog):
    model = tiny()
    model.reset_classifier(3)
    before = weights(model)
    with caplog.at_level(logging.WARNING):
        models.load_checkpoint(model, saved / "net.pdparams", strict=False)
    expected = {**weights(tiny(seed=1)), **{name: before[name] for name in before if name.startswith("classifier")}}
    assert_same(weights(model), expected)
    assert "classifier.weight" in caplog.text
    with pytest.raises(CheckpointError, match="not one of its"):
        models.load_checkpoint(layers.Linear(2, 2), saved / "net.pdparams", strict=False)


@pytest.mark.parametrize(
    ("where", "use_ema", "message"),
    [
        ("nowhere.pdparams", False, "nowhere.pdparams"),
        ("net.pth.tar", False, r"cannot read .*net\.pth\.tar"),
        ("alone.pdparams", True, "alone.pdema"),
        ("list.pdparams", False, "holds a list"),
        ("plain-1", True, f"has no {EMA}; it holds {MODEL}"),
    ],
)
def test_load_checkpoint_refuses(tmp_path, where, use_ema, message):
    save_arrays(tmp_path / "alone.pdparams", {})
    save_arrays(tmp_path / "list.pdparams", [])
    write_checkpoint(tmp_path / "plain-1", {MODEL: {}}, {"epoch": 1})
    with pytest.raises(CheckpointError, match=message):
        models.load_checkpoint(tiny(), tmp_path / where, use_ema=use_ema)


@pytest.mark.parametrize(("where", "epoch"), [("checkpoint-3", 4), ("recovery-4-10", 4)])
def test_resume_checkpoint(saved, where, epoch):
    model = tiny()
    optimizer = create_optimizer_v2(model, "momentum", lr=0.1)
    other_state, resume_epoch = models.resume_checkpoint(model, str(saved / where), optimizer)
    assert_same(weights(model), weights(tiny(seed=1)))
    assert resume_epoch == epoch
    assert other_state["state"] == {"rng": [1, 2]}
    twin = tiny(seed=1)
    expected = optimizer_state(trained_optimizer(twin), twin)
    assert any(name.startswith("conv_stem.weight/") and value.any() for name, value in expected.items())
    assert_same(other_state["optimizer"], expected)
    assert_same(optimizer_state(optimizer, model), expected)


def test_resume_from_weights_alone(saved, caplog):
    model = tiny()
    optimizer = create_optimizer_v2(model, "momentum", lr=0.5)
    with caplog.at_level(logging.WARNING):
        assert models.resume_checkpoint(model, saved / "net.pdparams", optimizer) == ({}, None)
    assert "starts afresh" in caplog.text
    assert_same(weights(model), weights(tiny(seed=1)))


def test_resume_wants_an_optimizers_state(tmp_path):
    write_checkpoint(tmp_path / "plain-1", {MODEL: tiny().state_dict()}, {"epoch": 1})
    with pytest.raises(CheckpointError, match=f"has no {OPTIMIZER}; it holds {MODEL}"):
        models.resume_checkpoint(tiny(), tmp_path / "plain-1")


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
