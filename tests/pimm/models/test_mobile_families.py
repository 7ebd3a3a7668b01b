"""What single families of mobile nets have of their own."""

import golden
import numpy as np
import paddle
import pytest

import pimm
from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d
from pimm.models import load_torch_arrays, torch_names
from pimm.models.efficientvit_mit import LiteMLA
from pimm.models.ghostnet import GhostBottleneckV3, checkpoint_filter_fn
from pimm.models.hrnet import HighResolutionNet, Stage
from pimm.models.reparameterize import reparameterize_model
from pimm.models.repghost import RepGhostBottleneck


def drawn(net):
    load_torch_arrays(net, golden.state(torch_names(net)))
    net.eval()
    return net


@pytest.mark.parametrize("stride", [1, 2])
def test_branches_of_ghostnet_become_one_convolution(stride):
    block = drawn(GhostBottleneckV3(8, 16, 12, 5, stride, se_ratio=0.25, gated=True))
    x = paddle.to_tensor(golden.inputs((2, 8, 8, 8)))
    fused = reparameterize_model(paddle.nn.Sequential(block))
    expected = block(x).numpy()
    np.testing.assert_allclose(fused(x).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    names = [name for name, _ in torch_names(fused)]
    assert not [name for name in names if "rpr" in name]
    assert ("0.conv_dw.weight" in names) == (stride == 2)


def test_branches_of_repghost_become_one_convolution():
    block = drawn(RepGhostBottleneck(8, 16, 12, 5, 2, 0.25))
    x = paddle.to_tensor(golden.inputs((2, 8, 8, 8)))
    fused = reparameterize_model(paddle.nn.Sequential(block))
    expected = block(x).numpy()
    np.testing.assert_allclose(fused(x).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not [name for name, _ in torch_names(fused) if "fusion" in name]


def test_names_of_the_authors_of_ghostnet():
    state = {"blocks.0.0.ghost1.primary_rpr_conv.0.bn.weight": 1, "bn1.bias": 2, "conv_head.total_ops": 3}
    assert checkpoint_filter_fn(state, None) == {
        "blocks.0.0.ghost1.primary_rpr_conv.0.bn1.weight": 1,
        "bn1.bias": 2,
    }


def test_pruned_net_has_the_channels_of_its_list():
    with paddle.LazyGuard():
        net = pimm.create_model("efficientnet_b1_pruned", num_classes=7, in_chans=4, global_pool="catavgmax")
    shapes = dict(torch_names(net))
    assert shapes["conv_stem.weight"] == (32, 4, 3, 3)
    assert shapes["blocks.1.1.conv_pw.weight"] == (62, 12, 1, 1)
    assert net.blocks[1][1].conv_dw.groups == 62
    assert net.feature_info[1]["num_chs"] == 12
    assert shapes["classifier.weight"] == (7, 2 * net.num_features)


def small_hrnet(**kwargs):
    cfg = [Stage(1, 1, (8,)), *(Stage(1, 1, (4, 8, 16, 32)[:count]) for count in (2, 3, 4))]
    return HighResolutionNet(cfg, **kwargs)


def test_branches_of_hrnet():
    x = paddle.to_tensor(golden.inputs((1, 3, 64, 64)))
    net = drawn(small_hrnet(head=""))
    branches = net(x)
    assert [branch.shape for branch in branches] == [[1, 4, 16, 16], [1, 8, 8, 8], [1, 16, 4, 4], [1, 32, 2, 2]]
    assert [info["num_chs"] for info in net.feature_info] == [64, 4, 8, 16, 32]
    wide = drawn(small_hrnet(head="incre"))
    maps = wide.forward_intermediates(x, intermediates_only=True)
    assert [found.shape[1] for found in maps] == [64, 128, 256, 512, 1024]


def test_hrnet_cut_short():
    x = paddle.to_tensor(golden.inputs((1, 3, 64, 64)))
    net = drawn(small_hrnet(num_classes=5))
    assert net(x).shape == [1, 5]
    expected = net.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    assert net.prune_intermediate_layers([0, 2]) == [0, 2]
    found = net.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert net.prune_intermediate_layers([0]) == [0]
    np.testing.assert_array_equal(net.forward_features(x).numpy(), expected[0].numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 16}, "HRNet cannot be dilated"),
        ({"head": "wide"}, "head is 'wide'; valid are classification"),
    ],
)
def test_hrnet_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        small_hrnet(**arguments)


def test_hrnet_has_no_recomputation():
    with pytest.raises(ConfigError, match="cannot compute activations again"):
        small_hrnet().set_grad_checkpointing()


def test_attention_of_efficientvit_sums_in_float32():
    """Equal keys give the mean of the values, even of half precision, whose sums over all pixels would overflow."""
    attention = LiteMLA(8, 8, BatchNorm2d)
    query = paddle.full([1, 1, 4096, 8], 100.0, "float16")
    value = paddle.arange(4096, dtype="float32").reshape([1, 1, 4096, 1]).expand([1, 1, 4096, 8]).astype("float16")
    found = attention._attend(query, query, value).numpy()
    np.testing.assert_allclose(found, np.full_like(found, value.astype("float32").mean().item()), rtol=1e-5)
