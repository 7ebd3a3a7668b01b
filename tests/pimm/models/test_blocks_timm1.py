"""Blocks and options of blocks that came with timm 1.x."""

from functools import partial

import golden
import numpy as np
import paddle
import pytest

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, EvoNorm2dS0, GroupNormAct, Swish
from pimm.models import load_torch_arrays, torch_names
from pimm.models.efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    create_norm,
    num_groups,
    round_channels,
)
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def
from pimm.models.efficientnet_universal import MobileAttention, UniversalInvertedResidual

_WIDE = {"in_chs": 8, "out_chs": 8, "exp_ratio": 2.0}
_ATTENTION = {"in_chs": 8, "out_chs": 8, "num_heads": 2}
TIMMS = {  # block, arguments, and of timm 1.0.31's output the last row of channel 2 of the second image
    "all depthwise": (
        UniversalInvertedResidual,
        {**_WIDE, "dw_kernel_size_start": 3, "dw_kernel_size_mid": 5, "layer_scale_init_value": 0.5},
        [1.188283, 0.652211, -2.461305, -0.542907, -0.387622, -0.08211],
    ),
    "depthwise last": (
        UniversalInvertedResidual,
        {
            **_WIDE,
            "out_chs": 16,
            "dw_kernel_size_mid": 0,
            "dw_kernel_size_end": 3,
            "stride": 2,
            "layer_scale_init_value": None,
        },
        [0.789335, 1.939701, -2.902534],
    ),
    "blur": (
        UniversalInvertedResidual,
        {**_WIDE, "out_chs": 16, "dw_kernel_size_start": 3, "stride": 2, "aa_layer": "blurpc"},
        [0.312329, 0.368356, 0.415018],
    ),
    "one key": (
        MobileAttention,
        {**_ATTENTION, "key_dim": 4, "value_dim": 4, "use_multi_query": True, "kv_stride": 2},
        [0.937574, 1.83937, -2.372411, -1.289024, 0.928435, 0.848461],
    ),
    "many keys": (
        MobileAttention,
        _ATTENTION,
        [0.553578, 0.052294, -3.281525, -1.140554, -0.984351, -1.062304],
    ),
    "space to depth": (
        DepthwiseSeparableConv,
        {"in_chs": 8, "out_chs": 16, "s2d": True},
        [0.264288, -0.733715, -0.070485],
    ),
    "groups": (
        InvertedResidual,
        {**_WIDE, "group_size": 4, "norm_layer": partial(GroupNormAct, group_size=4)},
        [0.390678, -0.687908, -3.202135, -0.728731, -1.414671, -0.900093],
    ),
    "EvoNorm": (
        EdgeResidual,
        {**_WIDE, "group_size": 8, "norm_layer": partial(EvoNorm2dS0, group_size=4)},
        [1.149266, -0.633732, -2.932651, -0.717849, -1.315122, -0.348086],
    ),
    "shortcut": (
        ConvBnAct,
        {"in_chs": 8, "out_chs": 8, "kernel_size": 3, "skip": True},
        [1.104245, 0.264652, -3.02346, -0.992829, -0.843152, -0.799155],
    ),
}


@pytest.mark.parametrize("name", TIMMS)
def test_outputs_are_timms(name):
    block, arguments, expected = TIMMS[name]
    net = block(**arguments)
    load_torch_arrays(net, golden.state(torch_names(net)))
    net.eval()
    found = net(paddle.to_tensor(golden.inputs((2, 8, 6, 6))))
    np.testing.assert_allclose(found[1, 2, -1].numpy(), expected, rtol=0, atol=3e-6)


def test_universal_block_needs_a_depthwise_convolution_for_a_stride():
    with pytest.raises(ConfigError, match="stride 2 needs a depthwise convolution"):
        UniversalInvertedResidual(8, 8, dw_kernel_size_mid=0, stride=2)


def test_groups_of_channels():
    assert [num_groups(size, 24) for size in (None, 0, 1, 8)] == [1, 1, 24, 3]
    with pytest.raises(ConfigError, match="24 channels cannot be divided into groups of 16"):
        num_groups(16, 24)


def test_rounding_of_channels_with_another_limit():
    """35 becomes 32, the nearest multiple of 8, unless that is too small a share of it."""
    assert [round_channels(35, round_limit=limit) for limit in (0.0, 0.9, 0.95)] == [32, 32, 40]


def test_a_norm_with_an_activation_gets_it_as_an_argument():
    norm, act = create_norm(8, partial(GroupNormAct, group_size=4), {"eps": 1e-3}, Swish)
    assert (type(norm.act), norm._epsilon, type(act)) == (Swish, 1e-3, paddle.nn.Identity)
    norm, act = create_norm(8, BatchNorm2d, {"eps": 1e-3}, Swish)
    assert (type(norm), norm._epsilon, type(act)) == (BatchNorm2d, 1e-3, Swish)
    norm, act = create_norm(8, "groupnorm1")
    assert (type(norm.act), type(act)) == (paddle.nn.Identity, paddle.nn.Identity)


BLOCK_STRINGS = {
    "cn_r1_k3_s1_c16_skip": {"block_type": "cn", "kernel_size": 3, "skip": True},
    "uir_r1_a3_k0_s1_e4_c16": {
        "block_type": "uir",
        "dw_kernel_size_start": 3,
        "dw_kernel_size_mid": 0,
        "dw_kernel_size_end": 0,
        "exp_ratio": 4.0,
        "se_ratio": None,
        "noskip": False,
    },
    "mqa_r1_k3_h4_s1_v2_d64_c16": {
        "block_type": "mqa",
        "dw_kernel_size": 3,
        "num_heads": 4,
        "kv_stride": 2,
        "key_dim": 64,
        "value_dim": 64,
        "noskip": False,
    },
    "er_r1_k3_s1_e4_gs64_c16": {
        "block_type": "er",
        "exp_kernel_size": 3,
        "pw_kernel_size": 1,
        "exp_ratio": 4.0,
        "fake_in_chs": 0,
        "se_ratio": None,
        "group_size": 64,
        "noskip": False,
    },
}


@pytest.mark.parametrize("block_string", BLOCK_STRINGS)
def test_block_string(block_string):
    expected = {"stride": 1, "out_chs": 16, "act_layer": None, **BLOCK_STRINGS[block_string]}
    assert decode_arch_def([[block_string]]) == [[expected]]


def test_attention_needs_heads():
    with pytest.raises(ConfigError, match="lacks h"):
        decode_arch_def([["mqa_r1_k3_s1_d64_c16"]])


def test_depth_and_group_size_of_each_stage():
    arch_def = [["ds_r1_k3_s1_c8"], ["er_r2_k3_s1_e2_c8_gs4"]]
    stages = decode_arch_def(arch_def, depth_multiplier=(2.0, 1.5), group_size=2)
    assert [[block["group_size"] for block in stage] for stage in stages] == [[2, 2], [4, 4, 4]]


def test_space_to_depth_widens_blocks_up_to_the_next_stride():
    block_args = decode_arch_def([["ds_r2_k5_s1_c8_se0.25_d1"], ["er_r2_k3_s2_e4_c12_se0.25"], ["ir_r1_k3_s2_e2_c16"]])
    builder = EfficientNetBuilder(act_layer=Swish)
    first, second, third, fourth, last = (block for stage in builder(8, block_args) for block in stage)
    assert (first.conv_s2d.stride, first.conv_dw.stride, first.conv_dw.kernel_size) == ((2, 2), (1, 1), (3, 3))
    assert (first.conv_pw.out_channels, second.conv_s2d, second.conv_pw.out_channels) == (32, None, 32)
    assert (third.conv_exp.stride, third.conv_exp.out_channels, third.conv_pwl.out_channels) == ((1, 1), 32, 16)
    assert (first.se.conv_reduce.out_channels, third.se.conv_reduce.out_channels) == (2, 8)
    assert (fourth.conv_exp.out_channels, last.conv_dw.stride) == (64, (2, 2))
    assert [(info["module"], info["reduction"], info["num_chs"]) for info in builder.features] == [
        ("bn1", 2, 8),
        ("blocks.1", 4, 16),
        ("blocks.2", 8, 16),
    ]


def test_a_gate_by_name_has_its_share_of_the_input():
    block_args = decode_arch_def([["ir_r1_k3_s1_e4_c8_se0.25"]])
    (stage,) = EfficientNetBuilder(act_layer=Swish, se_layer="gc")(16, block_args)
    gate = stage[0].se
    assert gate.mlp_scale.fc1.out_channels == 4  # a quarter of the block's input, not of the gated 64
