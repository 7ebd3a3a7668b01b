"""Compare the interface of every model with that of timm's model of the same name, in timm 1.x.

The tests are skipped without torch and timm. Both nets get the same weights; what timm computes in float64 is the
reference, and what its own float32 differs by is the tolerance.
"""

import numpy as np
import paddle
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", minversion="1.0", exc_type=ImportError)

import golden  # noqa: E402
from test_timm_models import LARGEST_ERROR, WITH_WEIGHTS, weights_of  # noqa: E402

import pimm  # noqa: E402
from pimm.models import load_torch_arrays, torch_names  # noqa: E402

SIZE = 64  # of the images
MODULES = ("efficientnet", "mobilenetv3")
NAMES = pimm.list_models(module=MODULES)
COMMON = [name for name in NAMES if timm.is_model(name)]
SOME = ["efficientnet_cc_b0_4e", "mixnet_s", "mnasnet_100", "mobilenetv2_100", "tf_mobilenetv3_small_100"]


def images():
    return golden.inputs((1, 3, SIZE, SIZE))


def create_pair(name, **kwargs):
    """Return timm's net and ours, with the same weights."""
    theirs = timm.create_model(name, **WITH_WEIGHTS.get(name, {}), **kwargs).eval()
    state = weights_of(theirs, 1.0)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    ours = pimm.create_model(name, **kwargs)
    ours.eval()
    load_torch_arrays(ours, state)
    return theirs, ours


@torch.no_grad()
def assert_agrees(theirs, ours, compute):
    """Compare what ``compute(net, images)`` returns, an array or a list of arrays."""
    single = listed(compute(theirs.float(), torch.tensor(images())))
    double = listed(compute(theirs.double(), torch.tensor(images()).double()))
    theirs.float()
    with paddle.no_grad():
        found = listed(compute(ours, paddle.to_tensor(images())))
    assert len(found) == len(double) > 0
    for mine, rounded, exact in zip(found, single, double):
        error = (rounded.double() - exact).abs().max() / exact.abs().max()
        tolerance = max(10 * error.item(), LARGEST_ERROR) * exact.abs().max().item()
        assert list(mine.shape) == list(exact.shape)
        np.testing.assert_allclose(mine.numpy(), exact.numpy(), rtol=0, atol=tolerance)


def listed(found):
    if isinstance(found, dict):
        return list(found.values())
    if not isinstance(found, (list, tuple)):
        return [found]
    return [tensor for each in found for tensor in listed(each)]


def assert_same_description(theirs, ours):
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    assert ours.feature_info.module_name() == theirs.feature_info.module_name()
    keys = ("num_chs", "reduction", "module", "stage", "index")
    assert ours.feature_info.get_dicts(keys) == theirs.feature_info.get_dicts(keys)


def test_almost_all_models_are_compared():
    assert len(COMMON) > 0.9 * len(NAMES), sorted(set(NAMES) - set(COMMON))


@pytest.mark.parametrize("name", COMMON)
def test_values(name):
    """Compare features, head and feature maps, with all the arguments that choose them."""
    theirs, ours = create_pair(name)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    assert ours.num_classes == theirs.num_classes
    assert ours.group_matcher(True).keys() == theirs.group_matcher(True).keys()
    assert_agrees(theirs, ours, all_outputs)
    assert_agrees(
        theirs, ours, lambda net, x: net.forward_intermediates(x, [1, -2], stop_early=True, intermediates_only=True)
    )
    assert ours.prune_intermediate_layers([0, -2]) == theirs.prune_intermediate_layers([0, -2])
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    assert_agrees(theirs, ours, lambda net, x: net.forward_intermediates(x, 1))


def all_outputs(net, x):
    features = net.forward_features(x)
    head = [net.forward_head(features, pre_logits=True), net.forward_head(features)]
    return [features, *head, net.forward_intermediates(x)]


@pytest.mark.parametrize("name", COMMON)
def test_features_only(name):
    theirs, ours = create_pair(name, features_only=True)
    assert_same_description(theirs, ours)
    assert set(ours.default_cfg) <= set(theirs.default_cfg) | {"crop_mode"}
    assert_agrees(theirs, ours, lambda net, x: net(x))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride(name, output_stride):
    theirs, ours = create_pair(name, features_only=True, output_stride=output_stride)
    assert_same_description(theirs, ours)
    assert max(ours.feature_info.reduction()) == output_stride
    assert_agrees(theirs, ours, lambda net, x: net(x))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("out_indices", [(1, 2), (-1,), (0, -2)])
@pytest.mark.parametrize("feature_cls", ["list", "dict", "getter"])
def test_feature_classes(name, out_indices, feature_cls):
    """Compare each kind of net of features; timm keeps the layers behind the last feature map in one of them."""
    of_class = {"feature_cls": "getter"} if feature_cls == "getter" else {}
    theirs = timm.create_model(name, features_only=True, out_indices=out_indices, **of_class).eval()
    ours = pimm.create_model(name, features_only=True, feature_cls=feature_cls, out_indices=out_indices)
    ours.eval()
    state = weights_of(theirs, 1.0)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    needed = {key: state.pop(key) for key in torch_names_of(ours)}
    load_torch_arrays(ours, needed)
    assert not state or feature_cls != "getter"
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert_agrees(theirs, ours, lambda net, x: net(x))
    if feature_cls == "dict":
        with paddle.no_grad():
            assert set(ours(paddle.to_tensor(images()))) == set(map(str, out_indices))


def torch_names_of(net):
    return [name for name, _ in torch_names(net)]


@pytest.mark.parametrize("name", SOME)
def test_pooling_and_classifier(name):
    theirs, ours = create_pair(name, num_classes=0, global_pool="")
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    assert_agrees(theirs, ours, lambda net, x: net(x))
    theirs, ours = create_pair(name, num_classes=7, global_pool="avgmax")
    assert_agrees(theirs, ours, lambda net, x: net(x))
    for net in (theirs, ours):
        net.reset_classifier(0)
    assert_agrees(theirs, ours, lambda net, x: net(x))
    for net in (theirs, ours):
        net.reset_classifier(0, "max")
    assert_agrees(theirs, ours, lambda net, x: net(x))


@pytest.mark.parametrize("name", NAMES)
def test_settings(name):
    """Compare what create_model makes of settings that are given."""
    if name not in COMMON:
        pytest.skip("timm has no such model")
    overlay = {"num_classes": 3, "crop_pct": 0.7, "input_size": (1, 96, 96)}
    ours = pimm.create_model(name, pretrained_cfg_overlay=overlay)
    assert ours.num_classes == 3 and ours.conv_stem.weight.shape[1] == 1
    theirs = timm.models.get_pretrained_cfg(name)
    for field in ("first_conv", "classifier", "num_classes", "architecture"):
        assert getattr(pimm.models.get_pretrained_cfg(name), field) == getattr(theirs, field)
    assert {field: ours.pretrained_cfg[field] for field in overlay} == overlay


@pytest.mark.parametrize(
    "arguments",
    [
        {"filter": "*b0*"},
        {"filter": ["mnas*", "*lite*"], "exclude_filters": "tf_*"},
        {"exclude_filters": ["*b?", "mob*"], "module": "efficientnet"},
        {"filter": "tf_*", "module": ["mobilenetv3", "efficientnet"], "name_matches_cfg": True},
    ],
)
def test_list_models(arguments):
    expected = [name for name in timm.list_models(**arguments) if name in NAMES]
    found = [name for name in pimm.list_models(**arguments) if name in COMMON]
    assert found == expected and len(found) > 3


def test_old_names_are_those_of_timm():
    for module in pimm.models.list_modules():
        if module in timm.models.list_modules():
            assert pimm.models.get_deprecated_models(module) == timm.models.get_deprecated_models(module)
