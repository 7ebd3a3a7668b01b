"""Blocks and builder against timm 0.1.20."""

import golden
import numpy as np
import paddle
import pytest

from pimm import layers
from pimm.errors import ConfigError
from pimm.models import efficientnet_blocks, load_torch_arrays, torch_names
from pimm.models.efficientnet_blocks import resolve_bn_args, resolve_se_args, round_channels
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def, efficientnet_init_weights

ACTIVATIONS = {
    "relu": paddle.nn.ReLU,
    "swish": layers.Swish,
    "hswish": layers.HardSwish,
}
MODULES = ("ConvBnAct", "DepthwiseSeparableConv", "InvertedResidual", "EdgeResidual", "CondConvResidual")
BLOCKS = [name for name in golden.facts("blocks") if name.startswith(MODULES)]


def build(entry):
    config = dict(entry["config"], act_layer=ACTIVATIONS[entry["config"]["act"]])
    del config["act"]
    if config.get("se_kwargs"):
        config["se_kwargs"] = dict(config["se_kwargs"], act_layer=paddle.nn.ReLU, gate_fn=layers.hard_sigmoid)
    return getattr(efficientnet_blocks, entry["module"])(**config)


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name):
    entry, expected = golden.facts("blocks")[name], golden.arrays("blocks")
    block = build(entry)
    assert [[key, list(shape)] for key, shape in torch_names(block)] == entry["names_shapes"]
    load_torch_arrays(block, golden.state(entry["names_shapes"], gain=entry["gain"]))
    x = paddle.to_tensor(golden.inputs(entry["input"]), stop_gradient=False)

    block.eval()
    np.testing.assert_allclose(block(x).numpy(), expected[f"{name}/eval"], rtol=1e-4, atol=1e-5)

    block.train()
    out = block(x)
    np.testing.assert_allclose(out.numpy(), expected[f"{name}/train"], rtol=1e-4, atol=2e-5)
    (out * paddle.to_tensor(golden.inputs(entry["out_shape"], stream=12360))).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected[f"{name}/train_grad_x"], rtol=1e-3, atol=1e-4)
    norm = getattr(block, entry["last_bn"])
    np.testing.assert_allclose(norm._mean.numpy(), expected[f"{name}/train_last_bn_mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm._variance.numpy(), expected[f"{name}/train_last_bn_var"], rtol=1e-5)


@pytest.mark.parametrize("drop_path_rate", [0.0, 1 - 1e-6])
def test_stochastic_depth_leaves_the_shortcut(drop_path_rate):
    block = efficientnet_blocks.InvertedResidual(8, 8, drop_path_rate=drop_path_rate)
    x = paddle.to_tensor(golden.inputs((4, 8, 5, 5)))
    with layers.frozen_batch_norm_statistics():
        branch = (block(x) - x).numpy()
    assert (np.abs(branch).max() > 0.1) == (drop_path_rate == 0)


def test_round_channels():
    for channels, multiplier, expected in golden.facts("blocks")["round_channels"]:
        assert round_channels(channels, multiplier) == expected
    assert round_channels(20, multiplier=None) == 20
    assert round_channels(24, 0.5, divisor=4, channel_min=16) == 16


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, {}),
        ({"bn_tf": True}, {"momentum": pytest.approx(0.01), "eps": 1e-3}),
        ({"bn_tf": True, "bn_eps": 1e-4}, {"momentum": pytest.approx(0.01), "eps": 1e-4}),
        ({"bn_momentum": 0.2, "bn_eps": None}, {"momentum": 0.2}),
    ],
)
def test_resolve_bn_args(kwargs, expected):
    kwargs["drop_rate"] = 0.1
    assert resolve_bn_args(kwargs) == expected
    assert kwargs == {"drop_rate": 0.1}


def test_resolve_se_args():
    own, given = paddle.nn.ReLU, layers.Swish
    assert resolve_se_args(None, 24, own) == {
        "gate_fn": layers.sigmoid,
        "act_layer": own,
        "divisor": 1,
        "reduced_base_chs": 24,
    }
    asked = {"act_layer": given, "reduce_mid": True, "divisor": 8, "gate_fn": layers.hard_sigmoid}
    expected = {"act_layer": given, "divisor": 8, "gate_fn": layers.hard_sigmoid}
    assert resolve_se_args(asked, 24, own) == expected


IR = {
    "block_type": "ir",
    "dw_kernel_size": 3,
    "exp_kernel_size": 1,
    "pw_kernel_size": 1,
    "out_chs": 24,
    "exp_ratio": 4.0,
    "se_ratio": None,
    "stride": 2,
    "act_layer": None,
    "noskip": False,
}
DS = {
    "block_type": "ds",
    "dw_kernel_size": 5,
    "pw_kernel_size": 1,
    "out_chs": 16,
    "se_ratio": None,
    "stride": 1,
    "act_layer": None,
    "pw_act": False,
    "noskip": False,
}
ER = {
    "block_type": "er",
    "exp_kernel_size": 3,
    "pw_kernel_size": 1,
    "out_chs": 32,
    "exp_ratio": 8.0,
    "fake_in_chs": 0,
    "se_ratio": None,
    "stride": 2,
    "act_layer": None,
    "noskip": False,
}
CN = {"block_type": "cn", "kernel_size": 1, "out_chs": 320, "stride": 1, "act_layer": None}
BLOCK_STRINGS = {
    "ir_r1_k3_s2_e4_c24": IR,
    "ir_k3_c24_e4_s2_r1": IR,
    "ir_r1_k3_s2_e4_c24_se0.25_nsw_noskip": {**IR, "se_ratio": 0.25, "act_layer": layers.Swish, "noskip": True},
    "ir_r1_k3.5_a1.1_p1.1_s2_e4.5_c24_nhs": {
        **IR,
        "dw_kernel_size": [3, 5],
        "exp_kernel_size": [1, 1],
        "pw_kernel_size": [1, 1],
        "exp_ratio": 4.5,
        "act_layer": layers.HardSwish,
    },
    "ir_r1_k3_s2_e4_c24_cc4": {**IR, "num_experts": 4},
    "ds_r1_k5_s1_e1_c16": DS,
    "ds_r1_k5_s1_c16_nre": {**DS, "act_layer": paddle.nn.ReLU},
    "dsa_r1_k5_s1_c16_nr6": {
        **DS,
        "block_type": "dsa",
        "pw_act": True,
        "noskip": True,
        "act_layer": paddle.nn.ReLU6,
    },
    "er_r1_k3_s2_e8_c32": ER,
    "er_r1_k3_s2_e8_c32_fc24_noskip": {**ER, "fake_in_chs": 24, "noskip": True},
    "cn_r1_k1_s1_c320_se0.25": CN,
}


@pytest.mark.parametrize("block_string", BLOCK_STRINGS)
def test_block_string(block_string):
    assert decode_arch_def([[block_string]]) == [[BLOCK_STRINGS[block_string]]]


@pytest.mark.parametrize(
    ("block_string", "message"),
    [
        ("irr_r1_k3_s1_e1_c8", "unknown block type 'irr'; valid are ir"),
        ("ir_r1_k3_s1_c8", "lacks e"),
        ("ir_k3_s1_e1_c8", "lacks r"),
        ("ir_r1_k3_s1_e1_c8_sw0.25", "unknown option 'sw'"),
        ("ir_r1_k3_s1_e1_c8_nsv", "unknown activation 'sv'; valid are re, r6"),
        ("ir_r1_k3_s1_e1_c8_skip", "'skip' is neither"),
        ("ir_r1_kx_s1_e1_c8", "'kx' is neither"),
    ],
)
def test_bad_block_string(block_string, message):
    with pytest.raises(ConfigError, match=message):
        decode_arch_def([[block_string]])


@pytest.mark.parametrize(
    ("repeats", "multiplier", "truncation", "expected"),
    [
        ((2,), 1.1, "ceil", (3,)),
        ((4,), 1.1, "round", (4,)),
        ((1, 2), 1.0, "ceil", (1, 2)),
        ((1, 3), 1.4, "ceil", (2, 4)),  # six shared out from the end: 3 of 4 are 4 (4.5 to even), the rest 2
        ((1, 1, 2), 1.8, "ceil", (2, 2, 4)),
        ((1,), 0.2, "round", (1,)),
    ],
)
def test_depth_multiplier(repeats, multiplier, truncation, expected):
    stage = [f"ds_r{repeat}_k3_s1_c{8 * (index + 1)}" for index, repeat in enumerate(repeats)]
    (blocks,) = decode_arch_def([stage], multiplier, truncation)
    channels = [block["out_chs"] for block in blocks]
    assert tuple(channels.count(8 * (index + 1)) for index in range(len(repeats))) == expected


def test_decode_keeps_ends_and_scales_experts():
    arch_def = [["ds_r1_k3_s1_c8"], ["ir_r2_k3_s2_e1_c8_cc4"], ["ds_r1_k3_s1_c8"]]
    stages = decode_arch_def(arch_def, depth_multiplier=2.0, experts_multiplier=2, fix_first_last=True)
    assert [len(stage) for stage in stages] == [1, 4, 1]
    assert [block["num_experts"] for block in stages[1]] == [8] * 4


def test_builder_places_blocks():
    block_args = decode_arch_def([["ds_r2_k3_s2_c8"], ["ir_r2_k3_s2_e2_c12_nre"], ["er_r1_k3_s2_e2_c16_fc16"]])
    before = [[dict(arguments) for arguments in stage] for stage in block_args]
    builder = EfficientNetBuilder(2.0, output_stride=8, act_layer=layers.Swish, drop_path_rate=0.5)
    stages = builder(8, block_args)
    assert block_args == before
    blocks = [block for stage in stages for block in stage]
    assert builder.in_chs == 32
    assert [block.drop_path_rate for block in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [type(block.act1) for block in blocks[1:3]] == [layers.Swish, paddle.nn.ReLU]
    # strides 2 (stem), 4, 8; from there on dilation grows instead, with the block after
    assert [block.conv_dw.stride for block in blocks[:4]] == [(2, 2), (1, 1), (2, 2), (1, 1)]
    assert [block.conv_dw.dilation for block in blocks[:4]] == [(1, 1)] * 4
    assert blocks[4].conv_pwl.stride == (1, 1)
    assert blocks[4].conv_exp.out_channels == 64


def test_builder_turns_strides_into_dilation():
    block_args = decode_arch_def([["ds_r2_k3_s2_c8"], ["ds_r2_k3_s2_c8"]])
    stages = EfficientNetBuilder(output_stride=2, act_layer=layers.Swish)(8, block_args)
    placed = [(block.conv_dw.stride, block.conv_dw.dilation) for stage in stages for block in stage]
    assert placed == [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (2, 2)), ((1, 1), (4, 4))]


INITIAL = [  # (layer, its name, standard deviation of a normal or bound of a uniform distribution)
    (layers.Conv2d(16, 64, 3), "conv", (2 / (9 * 64)) ** 0.5, None),
    (layers.Conv2d(512, 512, 3, groups=512), "conv_dw", (2 / 9) ** 0.5, None),
    (layers.CondConv2d(16, 64, 3, num_experts=4), "conv_pw", (2 / (9 * 64)) ** 0.5, None),
    (layers.CondConv2d(128, 128, 3, num_experts=4, groups=128), "conv_dw", (2 / 9) ** 0.5, None),
    (layers.Linear(64, 100), "classifier", None, 0.1),
    (layers.Linear(56, 44), "routing_fn", None, 0.1),
]


@pytest.mark.parametrize(("layer", "name", "std", "bound"), INITIAL)
def test_initial_values(layer, name, std, bound):
    paddle.seed(0)
    net = paddle.nn.Layer()
    net.add_sublayer(name, layer)
    efficientnet_init_weights(net)
    values = layer.weight.numpy()
    assert values.std() == pytest.approx(std or bound / 3**0.5, rel=0.04)
    assert abs(values.mean()) < 4 * values.std() / values.size**0.5
    assert bound is None or 0.98 * bound < np.abs(values).max() <= bound
    assert layer.bias is None or not layer.bias.numpy().any()


def test_initial_values_of_batch_norm():
    norm = layers.BatchNorm2d(4)
    norm.weight.set_value(np.zeros(4, np.float32))
    norm.bias.set_value(np.ones(4, np.float32))
    efficientnet_init_weights(norm)
    np.testing.assert_array_equal([norm.weight.numpy(), norm.bias.numpy()], [[1] * 4, [0] * 4])
