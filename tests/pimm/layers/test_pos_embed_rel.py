"""Relative position biases by closed forms, and by numbers that timm 1.0.31 gave for the same arguments."""

import numpy as np
import paddle
import pytest
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    DistanceBias,
    RelPosBias,
    RelPosBiasTf,
    RelPosMlp,
    gen_relative_log_coords,
    gen_relative_position_index,
    resize_rel_pos_bias_table,
)
from pimm.layers.pos_embed_rel import resize_distance_biases


def test_pairs_of_equal_distance_have_one_index():
    index = gen_relative_position_index((2, 3)).reshape(2, 3, 2, 3)
    assert index[0, 0, 0, 0] == index[1, 2, 1, 2] == 7
    assert index[0, 0, 1, 2] == 0 and index[1, 2, 0, 0] == 14
    assert index[0, 0, 0, 1] == index[1, 1, 1, 2] == 6
    assert gen_relative_position_index((1, 2), class_token=True).tolist() == [[5, 3, 3], [4, 1, 0], [4, 2, 1]]


def test_bias_of_a_window():
    layer = RelPosBias((1, 2), 2, prefix_tokens=1)
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    layer.relative_position_bias_table.set_value(table)
    head = [[10, 6, 6], [8, 2, 0], [8, 4, 2]]
    expected = np.stack([np.array(head), np.array(head) + 1])[None]
    np.testing.assert_array_equal(layer.get_bias().numpy(), expected)
    np.testing.assert_array_equal(layer(paddle.ones([2, 2, 3, 3])).numpy()[1], expected[0] + 1)
    assert list(layer.state_dict()) == ["relative_position_bias_table"]


def test_tensorflow_counts_distances_the_other_way():
    layer, other = RelPosBiasTf((2, 3), 2), RelPosBias((2, 3), 2)
    table = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    layer.relative_position_bias_table.set_value(table)
    other.relative_position_bias_table.set_value(table[:, ::-1, ::-1].reshape(2, 15).T.copy())
    np.testing.assert_array_equal(layer.get_bias().numpy(), other.get_bias()[0].numpy())
    assert layer.get_bias()[1, 0, 5].item() == table[1, 2, 4]  # the last place as the first sees it


def test_logarithms_of_distances():
    swin = gen_relative_log_coords((2, 3))
    assert swin.shape == (3, 5, 2)
    np.testing.assert_allclose(swin[0, 1], [-1.0566417, -0.7739760], atol=1e-6)
    np.testing.assert_allclose(gen_relative_log_coords((2, 3), (3, 5))[0, 1], [-0.7739760, -0.5283208], atol=1e-6)
    np.testing.assert_allclose(gen_relative_log_coords((2, 3), mode="cr")[2, 0], [np.log(2), -np.log(3)], atol=1e-6)


def test_bias_of_a_net():
    layer = RelPosMlp((2, 2), 2, 4, prefix_tokens=1, mode="swin")
    layer.eval()
    for parameter in layer.parameters():
        parameter.set_value(paddle.zeros_like(parameter))
    bias = layer.get_bias().numpy()
    assert bias.shape == (1, 2, 5, 5)
    assert (bias[:, :, 1:, 1:] == 8).all() and bias.sum() == 8 * 2 * 16  # 16 * sigmoid(0), and 0 of the prefix
    assert list(layer.state_dict()) == ["mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight"]
    assert "mlp.fc2.bias" in RelPosMlp((2, 2), 2).state_dict()


def test_resized_table_as_in_timm():
    table = np.arange(28, dtype=np.float32)[:, None] ** 2  # a square window of 3, and a class token
    expected = [1, 4, 9, 12.666652, 18.999981, 27.333309, 36, 49, 64, 121, 144, 169, 256, 289, 324]
    expected += [379.333435, 419.000092, 460.666748, 441, 484, 529, 625, 676, 729]
    found = resize_rel_pos_bias_table(table, (4, 2), (24, 1))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    three = resize_rel_pos_bias_table(table[:25].reshape(1, 5, 5), (4, 2), (1, 7, 3))
    np.testing.assert_array_equal(three.reshape(-1), found[:21, 0])
    assert resize_rel_pos_bias_table(table, (3, 3), (28, 1)) is table


def test_a_table_of_no_window():
    with pytest.raises(ConfigError, match="give old_window_size"):
        resize_rel_pos_bias_table(np.zeros([15, 1], np.float32), (3, 3), (25, 1))
    found = resize_rel_pos_bias_table(np.ones([15, 1], np.float32), (3, 3), (25, 1), old_window_size=(2, 3))
    np.testing.assert_allclose(found, np.ones([25, 1]))


def test_biases_of_absolute_distances():
    layer = DistanceBias()
    layer.create_biases(2, (3, 4), stride=2)
    table = np.arange(24, dtype=np.float32).reshape(2, 12)
    layer.attention_biases.set_value(table)
    bias = layer.attention_bias().numpy().reshape(2, 2, 2, 3, 4)  # head, query, key
    assert bias.shape == (2, 2, 2, 3, 4)
    np.testing.assert_array_equal(bias[:, 0, 0].reshape(2, 12), table)
    np.testing.assert_array_equal(bias[0, 1, 1], [[10, 9, 8, 9], [6, 5, 4, 5], [2, 1, 0, 1]])
    assert list(layer.state_dict()) == ["attention_biases"]


def test_biases_of_a_larger_window():
    layer = nn.Layer()
    layer.attn = DistanceBias()
    layer.attn.create_biases(1, (4, 4))
    rows = np.arange(2, dtype=np.float32).repeat(2)[None]  # the bias is the distance in rows
    old = {"attn.attention_biases": rows, "attn.attention_bias_idxs": rows, "weight": rows}
    found = resize_distance_biases(old, layer)
    assert list(found) == ["attn.attention_biases", "weight"] and found["weight"] is rows
    expected = np.array([-0.0882, 0.2071, 0.7929, 1.0882], np.float32)  # as in timm 1.0.31
    np.testing.assert_allclose(
        found["attn.attention_biases"].reshape(4, 4), expected.repeat(4).reshape(4, 4), atol=5e-5
    )


@pytest.mark.parametrize("layer", [RelPosBias, RelPosBiasTf])
def test_a_table_is_resampled_for_another_window(layer):
    """A bias that grows evenly with the distance in columns still does, and one that is everywhere the same is kept."""
    bias = layer((2, 3), 2)
    shape = bias.relative_position_bias_table.shape
    flat = np.stack([np.full(15, 3.0), np.tile(np.arange(5.0), 3)])  # of each head
    bias.relative_position_bias_table.set_value((flat.T if len(shape) == 2 else flat).reshape(shape).astype("float32"))
    bias.set_window_size((3, 2))
    table = bias.relative_position_bias_table.numpy()
    table = table.T.reshape(2, 5, 3) if table.ndim == 2 else table
    np.testing.assert_allclose(table[0], 3.0, rtol=1e-6)
    np.testing.assert_array_equal(table[1], np.broadcast_to(table[1, :1], (5, 3)))
    assert table[1, 0, 1] == 2 and np.all(np.diff(table[1, 0]) > 0)
    assert bias(paddle.zeros([1, 2, 6, 6])).shape == [1, 2, 6, 6]


def test_a_small_net_gives_the_biases_of_another_window():
    paddle.seed(0)
    layer, other = RelPosMlp((2, 3), 2), RelPosMlp((4, 2), 2)
    other.set_state_dict(layer.state_dict())
    layer.eval(), other.eval()
    layer.set_window_size((4, 2))
    np.testing.assert_array_equal(layer.get_bias().numpy(), other.get_bias().numpy())
