"""Layers and parameters that are frozen by patterns, and rates of the rest."""

import copy

import numpy as np
import paddle
import pytest
from model_weights import weights

from pimm.errors import ConfigError
from pimm.models import create_model
from pimm.optim import create_optimizer_v2, group_lrs
from pimm.utils import freeze_matching

NAME = "mobilenetv3_small_075"


@pytest.fixture
def net():
    paddle.seed(0)
    return create_model(NAME, num_classes=3)


def learning(net):
    return {name for name, param in net.named_parameters() if not param.stop_gradient}


def moved(net, before):
    """The names of what a training step changes, statistics included."""
    optimizer = create_optimizer_v2(net, "sgd", lr=1.0, momentum=0.0)
    net.train()
    net(paddle.rand([4, 3, 32, 32])).square().sum().backward()
    optimizer.step()
    return {name for name, value in net.state_dict().items() if not np.array_equal(value.numpy(), before[name])}


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["conv_stem"], ("conv_stem.",)),
        (["bn1"], ("bn1.",)),
        (["bn1.*"], ("bn1.",)),
        (["blocks.[0-2]", "bn1*"], ("blocks.0.", "blocks.1.", "blocks.2.", "bn1.")),
        (["blocks", "blocks.0.0.bn1"], ("blocks.",)),
        (["*.se"], None),
        (["*.weight"], None),
    ],
)
def test_what_fits_stays_and_the_rest_learns(net, patterns, frozen):
    before, could = weights(net), learning(net)
    freeze_matching(net, patterns)
    now = learning(net)
    if frozen is None:
        frozen = tuple(could - now)
        assert all(".se." in name if patterns == ["*.se"] else name.endswith(".weight") for name in frozen) and frozen
    assert now == {name for name in could if not name.startswith(frozen)}
    changed = moved(net, before)
    assert not {name for name in changed if name.startswith(frozen)}
    statistics = {name for name in before if name.endswith("._mean") and not name.startswith(frozen)}
    assert statistics <= changed and changed & now
    assert set(before) == set(net.state_dict())


def test_a_parameter_of_a_batch_norm_leaves_its_statistics(net):
    before = weights(net)
    freeze_matching(net, ["bn1.weight"])
    changed = moved(net, before)
    assert "bn1.weight" not in changed and {"bn1.bias", "bn1._mean", "bn1._variance"} <= changed


def test_a_frozen_net_computes_the_same_and_copies(net):
    images = paddle.rand([2, 3, 32, 32])
    wanted = net.eval()(images).numpy()
    freeze_matching(net, ["b*"])
    np.testing.assert_allclose(net(images).numpy(), wanted, atol=1e-5)
    twin = copy.deepcopy(net)
    np.testing.assert_allclose(twin(images).numpy(), wanted, atol=1e-5)
    np.testing.assert_equal(weights(twin), weights(net))


@pytest.mark.parametrize(
    ("pattern", "hint"), [("conv_stm", "; did you mean conv_stem"), ("block.0", "; did you mean blocks.0"), ("xyz", "")]
)
def test_a_pattern_that_fits_nothing_is_an_error(net, pattern, hint):
    with pytest.raises(ConfigError) as caught:
        freeze_matching(net, ["bn1", pattern])
    assert f"has a name like {pattern!r}{hint}" in str(caught.value)
    assert not [param for name, param in net.named_parameters() if name == "bn1.weight" and param.stop_gradient]


def rates(net, **options):
    """The rate of each parameter at lr 1."""
    optimizer = create_optimizer_v2(net, "sgd", lr=1.0, **options)
    groups = zip(optimizer._param_groups, group_lrs(optimizer))
    names = {param.name: name for name, param in net.named_parameters()}
    return {names[param.name]: rate for group, rate in groups for param in group["params"]}


def test_the_body_has_its_own_rate(net):
    head = {"classifier.weight", "classifier.bias"}
    plain = rates(net, backbone_lr_scale=0.1)
    assert plain == pytest.approx({name: 1.0 if name in head else 0.1 for name in learning(net)})
    decayed, both = rates(net, layer_decay=0.5), rates(net, layer_decay=0.5, backbone_lr_scale=0.1)
    assert both == pytest.approx({name: decayed[name] * (1.0 if name in head else 0.1) for name in decayed})
    assert decayed["classifier.weight"] == 1.0 and decayed["blocks.5.0.conv.weight"] == 0.5
    assert decayed["conv_stem.weight"] == min(decayed.values()) < 0.01


def test_decay_is_kept_in_both_parts(net):
    optimizer = create_optimizer_v2(net, "sgd", lr=1.0, weight_decay=0.3, backbone_lr_scale=0.1)
    found = {
        (group["weight_decay"], group["lr_scale"]): sum(param.ndim > 1 for param in group["params"]) > 0
        for group in optimizer._param_groups
    }
    assert found == {(0.0, 1.0): False, (0.0, 0.1): False, (0.3, 1.0): True, (0.3, 0.1): True}


def test_without_a_classifier_there_is_no_body():
    with pytest.raises(ConfigError, match="has no classifier, whose rate could differ"):
        create_optimizer_v2(create_model(NAME, num_classes=0), "sgd", lr=1.0, backbone_lr_scale=0.1)
