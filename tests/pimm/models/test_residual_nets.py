"""Options of residual nets, by the numbers that timm 1.0.31 computes with the same drawn weights and images."""

from functools import partial

import golden
import numpy as np
import paddle
import pytest
from model_weights import drawn_state

from pimm.errors import ConfigError
from pimm.layers import BatchNormAct2d, GroupNormAct, create_conv2d
from pimm.layers.std_conv import StdConv2dSame
from pimm.models import load_torch_arrays, torch_names
from pimm.models.res2net import Bottle2neck
from pimm.models.resnest import ResNestBottleneck
from pimm.models.resnet import BasicBlock, Bottleneck, ResNet
from pimm.models.resnetv2 import ResNetV2
from pimm.models.sknet import SelectiveKernelBasic

_BLURRED = {"aa_layer": "blur", "replace_stem_pool": True, "stem_type": "deep_tiered", "stem_width": 16}
_DEEP = {"stem_type": "deep", "stem_width": 16}
_ECA = {"attn_layer": "eca"}
_SENET = {"down_kernel_size": 3, "block_reduce_first": 2, "cardinality": 2, "base_width": 32, **_DEEP}
_SPLIT = {"radix": 2, "avd": True}

RESNETS = [  # block, channels, further arguments, the logit of the first class, mean magnitude of maps, their sizes
    (
        Bottleneck,
        (8, 12, 16, 16),
        {"output_stride": 8, "layers": (1, 1, 2, 1)},
        [-9.31273, -9.53693],
        [0.53289, 3.5796, 2.56459, 3.2707, 4.17485],
        [32, 16, 8, 8, 8],
    ),
    (
        BasicBlock,
        (32, 48, 64, 64),
        {"avg_down": True, "output_stride": 16, **_BLURRED},
        [-4.4519, -4.69757],
        [0.53036, 0.66285, 0.62284, 1.12195, 1.47318],
        [32, 16, 8, 4, 4],
    ),
    (
        BasicBlock,
        (32, 64, 64, 96),
        {"aa_layer": "avg", "norm_layer": "groupnorm", "block_args": _ECA},
        [-0.29321, -0.54178],
        [0.39837, 0.445, 0.46026, 0.48252, 0.44152],
        [32, 16, 8, 4, 2],
    ),
    (
        Bottleneck,
        (8, 12, 16, 16),
        {"global_pool": "catavgmax", **_SENET},
        [-6.41621, -4.71397],
        [0.52259, 1.58638, 1.42342, 1.35738, 1.56312],
        [32, 16, 8, 4, 2],
    ),
    (
        SelectiveKernelBasic,
        (32, 48, 64, 64),
        {"output_stride": 16},
        [-11.03825, -10.04952],
        [0.53289, 1.69833, 2.01904, 2.73897, 3.8088],
        [32, 16, 8, 4, 4],
    ),
    (
        Bottle2neck,
        (16, 16, 24, 24),
        {"base_width": 26},
        [-16.06753, -16.9506],
        [0.53289, 3.50663, 4.79489, 5.51518, 5.89648],
        [32, 16, 8, 4, 2],
    ),
    (
        ResNestBottleneck,
        (16, 16, 24, 24),
        {"block_args": _SPLIT, "cardinality": 2},
        [-7.75371, -8.72197],
        [0.53289, 2.88929, 2.60918, 3.12835, 3.21381],
        [32, 16, 8, 4, 2],
    ),
]


def _check(net, logits, magnitudes, sizes):
    net.eval()
    load_torch_arrays(net, drawn_state(net, torch_names(net), 1.3))
    images = paddle.to_tensor(golden.inputs((2, 3, 64, 64)))
    with paddle.no_grad():
        found, (_, maps) = net(images).numpy()[:, 0], net.forward_intermediates(images)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([each.abs().mean().item() for each in maps], magnitudes, rtol=1e-4)
    assert [each.shape[-1] for each in maps] == sizes
    assert [64 // size for size in sizes] == [info["reduction"] for info in net.feature_info]
    assert [each.shape[1] for each in maps] == [info["num_chs"] for info in net.feature_info]


@pytest.mark.parametrize(("block", "channels", "kwargs", "logits", "magnitudes", "sizes"), RESNETS)
def test_a_resnet_computes_what_timm_does(block, channels, kwargs, logits, magnitudes, sizes):
    layers = kwargs.get("layers", (1, 1, 1, 1))
    _check(ResNet(block, channels=channels, num_classes=10, **{**kwargs, "layers": layers}), logits, magnitudes, sizes)


_GROUPS = partial(GroupNormAct, num_groups=8)
_SAME = partial(StdConv2dSame, eps=1e-8)
_PREACT_BASIC = {"basic": True, "bottle_ratio": 1.0, "norm_layer": BatchNormAct2d, "conv_layer": create_conv2d}

RESNETS_V2 = [  # arguments, and as above; the last number is the magnitude of the last map after the last normalisation
    (
        {"preact": False, "stem_type": "same", "conv_layer": _SAME, "norm_layer": _GROUPS},
        [-0.2933, -1.41414],
        [0.39403, 0.5672, 0.59559, 0.56118, 0.54809],
        [32, 16, 8, 4, 2],
        0.54809,
    ),
    (
        {"stem_type": "fixed", "output_stride": 16, "norm_layer": _GROUPS},
        [-0.06072, -0.48335],
        [9.41282, 3.35237, 3.32958, 3.79459, 4.50274],
        [32, 16, 8, 4, 4],
        0.37877,
    ),
    (
        {"stem_type": "deep", "avg_down": True, "output_stride": 8, **_PREACT_BASIC},
        [0.10556, 0.08849],
        [0.7114, 1.73266, 2.95239, 3.13396, 2.96462],
        [32, 16, 8, 8, 8],
        1.51144,
    ),
]


@pytest.mark.parametrize(("kwargs", "logits", "magnitudes", "sizes", "normalised"), RESNETS_V2)
@paddle.no_grad()
def test_a_resnetv2_computes_what_timm_does(kwargs, logits, magnitudes, sizes, normalised):
    net = ResNetV2((1, 1, 1, 1), channels=(32, 64, 64, 96), num_classes=10, stem_chs=32, **kwargs)
    _check(net, logits, magnitudes, sizes)
    images = paddle.to_tensor(golden.inputs((2, 3, 64, 64)))
    *_, last = net.forward_intermediates(images, norm=True, intermediates_only=True)
    assert last.abs().mean().item() == pytest.approx(normalised, rel=1e-4)


def test_the_last_normalisation_of_each_branch_begins_as_zero_unless_it_is_told_otherwise():
    for zero in (True, False):
        net = ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2, zero_init_last=zero)
        assert {float(stage[0].bn2.weight.abs().max().item()) for stage in (net.layer1, net.layer4)} == {1.0 - zero}


def test_drop_block_acts_in_the_last_two_stages():
    net = ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2, drop_block_rate=0.1)
    found = [getattr(net, f"layer{number}")[0].drop_block for number in (1, 2, 3, 4)]
    assert [getattr(layer, "settings", {}).get("block_size") for layer in found] == [None, None, 5, 3]


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: ResNet(BasicBlock, (1, 1, 1, 1), cardinality=2), "cardinality 1 and base_width 64"),
        (lambda: ResNet(ResNestBottleneck, (1, 1, 1, 1), aa_layer="avg"), "take no block_reduce_first"),
        (lambda: ResNetV2((1, 1, 1, 1), stem_type="deeper"), "valid are fixed, same"),
        (lambda: ResNetV2((1, 1, 1, 1), basic=True, preact=False), "preact must be true"),
    ],
)
def test_wrong_arguments_are_explained(create, message):
    with pytest.raises(ConfigError, match=message):
        create()
