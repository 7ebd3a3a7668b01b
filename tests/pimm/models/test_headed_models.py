"""Feature maps, heads and dilation of the nets whose layer ``head`` pools and classifies, on small nets."""

import numpy as np
import paddle
import pytest
from paddle import nn

from pimm.errors import ConfigError
from pimm.models.byobnet_net import ByoBlockCfg, ByobNet, ByoModelCfg
from pimm.models.nfnet import NfCfg, NormFreeNet
from pimm.models.regnet import RegNet, RegNetCfg, stage_shapes

REGNET = RegNetCfg(6, 8, 8.0, 2.0, 8)
BYOB = ByoModelCfg(tuple(ByoBlockCfg("bottle", 1, width, gs=4, br=0.5) for width in (8, 16, 24, 32)), stem_pool="")
NFNET = NfCfg((1, 1, 1, 1), (8, 16, 24, 32), group_size=4, stem_chs=16)


def images(size=64):
    paddle.seed(0)
    return paddle.randn([2, 3, size, size])


def small(kind, **kwargs):
    paddle.seed(0)
    net = {
        RegNet: RegNet(REGNET, **kwargs),
        ByobNet: ByobNet(BYOB, **kwargs),
        NormFreeNet: NormFreeNet(NFNET, **kwargs),
    }
    net[kind].eval()
    return net[kind]


KINDS = pytest.mark.parametrize("kind", [RegNet, ByobNet, NormFreeNet])


def test_widths_of_a_regnet():
    """Those of regnetx_002, as its paper's authors have them."""
    assert stage_shapes(RegNetCfg(13, 24, 36.44, 2.49, 8)) == [(24, 8, 1), (56, 8, 1), (152, 8, 4), (368, 8, 7)]


@KINDS
def test_feature_maps_have_the_described_shapes(kind):
    net = small(kind)
    features, found = net.forward_intermediates(images())
    described = [[2, info["num_chs"], 64 // info["reduction"], 64 // info["reduction"]] for info in net.feature_info]
    assert [each.shape for each in found] == described
    np.testing.assert_array_equal(features.numpy(), net.forward_features(images()).numpy())


@KINDS
@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_keeps_the_size_and_the_weights(kind, stride):
    net = small(kind, output_stride=stride)
    assert net.forward_features(images()).shape[2:] == [64 // stride] * 2
    assert list(net.state_dict()) == list(small(kind).state_dict())


@KINDS
def test_a_shortened_net_returns_the_same_feature_maps(kind):
    net = small(kind)
    expected = net.forward_intermediates(images(), intermediates_only=True)[1]
    assert net.prune_intermediate_layers([1]) == [1] and net.num_classes == 0
    np.testing.assert_array_equal(
        net.forward_intermediates(images(), [1], intermediates_only=True)[0].numpy(), expected
    )
    assert net(images()).shape == expected.shape
    assert net.num_features == net.head_hidden_size == net.feature_info[1]["num_chs"]


@KINDS
def test_classifiers_are_replaced(kind):
    net = small(kind)
    net.reset_classifier(3)
    assert net(images()).shape == [2, 3] and net.get_classifier() is net.head.fc
    net.reset_classifier(0, "catavgmax")
    assert net(images()).shape == [2, 2 * net.num_features] == [2, net.head_hidden_size]
    np.testing.assert_array_equal(net(images()).numpy(), net.forward_head(net.forward_features(images()), True).numpy())


def test_a_block_without_normalisation_begins_as_its_shortcut():
    net = small(NormFreeNet)
    block = net.stages[0][0]
    x = paddle.randn([2, 16, 8, 8])
    expected = block.downsample(nn.functional.silu(x) * block.beta)
    np.testing.assert_allclose(block(x).numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"head_type": "mpl"},
        {"stem_type": "tired"},
        {"stem_pool": "min"},
        {"head_type": "attn_abs"},
        {"downsample": "max"},
    ],
)
def test_byobnet_refuses(kwargs):
    with pytest.raises(ConfigError):
        ByobNet(BYOB, **kwargs)


@pytest.mark.parametrize("kwargs", [{"act_layer": "mish"}, {"stem_type": "deep"}])
def test_nfnet_refuses(kwargs):
    with pytest.raises(ConfigError):
        NormFreeNet(NFNET, **kwargs)
