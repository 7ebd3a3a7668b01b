"""Differential attention, pooling without parameters and embeddings of feature maps, by formulas in numpy."""

import numpy as np
import paddle
import pytest

from pimm import layers
from pimm.errors import ConfigError
from pimm.models.vision_transformer_blocks import DiffParallelScalingBlock


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def randomized(layer, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    for value in layer.parameters():
        value.set_value((0.5 * draw(tuple(value.shape))).astype("float32"))
    layer.eval()
    return {name: value.numpy().astype("float64") for name, value in layer.named_parameters()}


def difference(q, k, v, of, heads, start):
    """Return the heads' results by the paper's formula, head after head."""
    factor = np.exp(of["lambda_q1"] @ of["lambda_k1"]) - np.exp(of["lambda_q2"] @ of["lambda_k2"]) + start
    size, found = v.shape[-1] // heads, []
    for head in range(heads):
        first = slice(head * size, head * size + size // 2)
        second = slice(head * size + size // 2, (head + 1) * size)
        weights = [softmax(q[:, :, s] @ k[:, :, s].swapaxes(1, 2) / np.sqrt(size / 2)) for s in (first, second)]
        x = (weights[0] - factor * weights[1]) @ v[:, :, head * size : (head + 1) * size]
        found.append(x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * of["sub_norm.weight"] * (1 - start))
    return np.concatenate(found, -1)


def test_differential_attention():
    layer = layers.DiffAttention(12, num_heads=3, qkv_bias=True, depth=2)
    of, x = randomized(layer), np.random.default_rng(1).standard_normal((2, 5, 12))
    start = 0.8 - 0.6 * np.exp(-0.6)
    assert layer.lambda_init == pytest.approx(start)
    q, k, v = np.split(x @ of["qkv.weight"] + of["qkv.bias"], 3, axis=-1)
    expected = difference(q, k, v, of, 3, start) @ of["proj.weight"] + of["proj.bias"]
    found = layer(paddle.to_tensor(x.astype("float32"))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_differential_attention_with_two_numbers():
    layer = layers.DiffAttention(8, num_heads=2, dual_lambda=True)
    assert float(layer.factor()) == pytest.approx(0.2)
    layer.lambda_a.set_value(paddle.to_tensor(0.5))
    assert float(layer.factor()) == pytest.approx(np.exp(0.5) - 1 + 0.2)


def test_differential_attention_beside_layers():
    block = DiffParallelScalingBlock(8, num_heads=2, mlp_ratio=2, depth=1)
    of, x = randomized(block), np.random.default_rng(1).standard_normal((2, 5, 8))
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    parts = (normal * of["in_norm.weight"] + of["in_norm.bias"]) @ of["in_proj.weight"]
    hidden, q, k, v = np.split(parts, [16, 24, 32], axis=-1)
    heads = difference(q, k, v, of, 2, 0.8 - 0.6 * np.exp(-0.3))
    hidden = paddle.nn.functional.gelu(paddle.to_tensor(hidden + of["mlp_bias"])).numpy()
    expected = x + np.concatenate([heads, hidden], -1) @ of["out_proj.weight"] + of["out_proj.bias"]
    found = block(paddle.to_tensor(x.astype("float32"))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pooling_by_attention_without_parameters():
    x = np.random.default_rng(0).standard_normal((2, 5, 6)).astype("float32")
    heads = x.reshape(2, 5, 2, 3).transpose(0, 2, 1, 3)
    found = softmax(heads @ heads.swapaxes(-1, -2) / np.sqrt(3)) @ heads
    found = found.transpose(0, 2, 1, 3).reshape(2, 5, 6)
    for pool, expected in (("token", found[:, 0]), ("avg", found.mean(1))):
        layer = layers.AttentionPoolPrr(6, 2, pool)
        assert layer.parameters() == []
        np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="valid are token and avg"):
        layers.AttentionPoolPrr(6, 2, "max")


def test_embedding_of_feature_maps():
    backbone = paddle.nn.Conv2D(3, 6, 4, stride=4)
    layer = layers.HybridEmbed(backbone, 16, 2, feature_ratio=4, feature_dim=6, embed_dim=5)
    images = paddle.randn([2, 3, 16, 16])
    expected = layer.proj(backbone(images)).flatten(2).transpose([0, 2, 1])
    np.testing.assert_allclose(layer(images).numpy(), expected.numpy(), rtol=1e-6)
    assert (layer.grid_size, layer.num_patches, layer.feat_ratio()) == ((2, 2), 4, 8)
    assert layer.dynamic_feat_size((32, 16)) == (4, 2)
    maps = layers.HybridEmbed(backbone, 16, 1, 4, 6, embed_dim=6, proj=False, output_fmt="NHWC")(images)
    np.testing.assert_allclose(maps.numpy(), backbone(images).transpose([0, 2, 3, 1]).numpy(), rtol=1e-6)
    with pytest.raises(ConfigError, match="no whole patches"):
        layer.set_input_size(20)
    with pytest.raises(ConfigError, match="the 6 channels"):
        layers.HybridEmbed(backbone, 16, 1, 4, 6, embed_dim=5, proj=False)
