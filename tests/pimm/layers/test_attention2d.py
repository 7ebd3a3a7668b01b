"""Attention between pixels gives what timm's gives, and refuses heads that do not fit."""

import golden
import numpy as np
import paddle
import pytest

from pimm.errors import ConfigError
from pimm.layers import Attention2d, MultiQueryAttention2d
from pimm.models import load_torch_arrays, torch_names

TIMMS = {  # layer, arguments, and of timm 1.0.31's output row 3 of channel 2 of the second image
    "multi-query": (
        MultiQueryAttention2d,
        {"dim": 8, "num_heads": 2, "key_dim": 4, "value_dim": 6},
        [0.080751, -0.046735, -0.053743, -0.127073, 0.061722],
    ),
    "smaller-keys": (
        MultiQueryAttention2d,
        {"dim": 8, "dim_out": 12, "num_heads": 4, "kv_stride": 2, "use_bias": True},
        [0.013355, -1.238376, -0.359908, -0.845888, -1.111396],
    ),
    "multi-head": (
        Attention2d,
        {"dim": 8, "num_heads": 2},
        [-0.125385, 0.115401, -0.0735, 0.012657, 0.048793],
    ),
    "head-first": (
        Attention2d,
        {"dim": 8, "dim_out": 12, "num_heads": 4, "bias": False, "expand_first": True, "head_first": True},
        [0.225427, -0.554348, 0.367153, -0.320594, -0.739801],
    ),
}


@pytest.mark.parametrize("name", TIMMS)
def test_outputs_are_timms(name):
    layer, arguments, expected = TIMMS[name]
    attention = layer(**arguments)
    load_torch_arrays(attention, golden.state(torch_names(attention)))
    attention.eval()
    found = attention(paddle.to_tensor(golden.inputs((2, 8, 6, 5))))
    assert found.shape == [2, arguments.get("dim_out", 8), 6, 5]
    np.testing.assert_allclose(found[1, 2, 3].numpy(), expected, rtol=0, atol=2e-6)


def test_one_head_of_equal_keys_gives_the_mean():
    """Where all keys are equal, every pixel gets the mean of the values."""
    attention = MultiQueryAttention2d(4, num_heads=1)
    attention.key.proj.weight.set_value(paddle.zeros_like(attention.key.proj.weight))
    attention.eval()
    x = paddle.to_tensor(golden.inputs((1, 4, 3, 3)))
    mean = attention.output.proj(attention.value(x).mean(axis=[2, 3], keepdim=True))
    np.testing.assert_allclose(attention(x).numpy(), mean.expand([1, 4, 3, 3]).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", [MultiQueryAttention2d, Attention2d])
def test_dropout_of_the_weights_acts_in_training_alone(layer):
    paddle.seed(0)
    attention = layer(8, num_heads=2, attn_drop=0.5)
    x = paddle.to_tensor(golden.inputs((2, 8, 4, 4)))
    attention.train()
    assert not np.array_equal(attention(x).numpy(), attention(x).numpy())
    attention.eval()
    np.testing.assert_array_equal(attention(x).numpy(), attention(x).numpy())


def test_initial_weights_of_the_projections():
    paddle.seed(0)
    attention = MultiQueryAttention2d(64, num_heads=4, kv_stride=2)
    weight = attention.output.proj.weight.numpy()
    bound = (6 / (64 + 64)) ** 0.5
    assert 0.98 * bound < np.abs(weight).max() <= bound


def test_heads_must_share_the_channels():
    with pytest.raises(ConfigError, match="3 heads cannot share 8 channels evenly"):
        Attention2d(8, num_heads=3)
