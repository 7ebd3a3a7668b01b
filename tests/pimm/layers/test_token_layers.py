"""Layers of vision transformers by value: against formulas in numpy, and numbers that PyTorch's interpolation gave."""

import numpy as np
import paddle
import pytest

from pimm import layers
from pimm.errors import ConfigError
from pimm.layers.resample import resize_matrix

draw = np.random.default_rng(0).standard_normal


def array(*shape):
    return draw(shape).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def apply(layer, x):
    layer.eval()
    with paddle.no_grad():
        return layer(paddle.to_tensor(x)).numpy()


def randomize(layer):
    for value in layer.parameters():
        value.set_value(array(*value.shape))
    return {name: value.numpy() for name, value in layer.named_parameters()}


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_attention_is_the_mean_of_values_by_softmax():
    q, k, v = array(2, 3, 4, 8), array(2, 3, 5, 8), array(2, 3, 5, 8)
    tensors = [paddle.to_tensor(each) for each in (q, k, v)]
    scores = q @ k.swapaxes(-1, -2)
    assert_close(layers.attend(*tensors).numpy(), softmax(scores * 8**-0.5) @ v)
    bias = array(3, 4, 5)
    assert_close(layers.attend(*tensors, 0.3, paddle.to_tensor(bias)).numpy(), softmax(scores * 0.3 + bias) @ v)
    allowed = np.array([True, False, True, True, False])
    masked = layers.attend(*tensors, bias=paddle.to_tensor(allowed)).numpy()
    assert_close(masked, softmax(scores[..., allowed] * 8**-0.5) @ v[:, :, allowed])
    causal = layers.attend(tensors[1], tensors[1], tensors[2], is_causal=True).numpy()
    assert_close(causal[:, :, 0], v[:, :, 0])
    assert_close(
        causal[:, :, 1], (softmax(k[:, :, 1:2] @ k[:, :, :2].swapaxes(-1, -2) * 8**-0.5) @ v[:, :, :2])[:, :, 0]
    )


def test_attention_layer_by_its_parts():
    layer = layers.Attention(6, num_heads=2, qkv_bias=True, gated=True)
    of, x = randomize(layer), array(2, 5, 6)
    qkv = (x @ of["qkv.weight"] + of["qkv.bias"]).reshape(2, 5, 3, 2, 3).transpose(2, 0, 3, 1, 4)
    found = (softmax(qkv[0] @ qkv[1].swapaxes(-1, -2) / np.sqrt(3)) @ qkv[2]).transpose(0, 2, 1, 3).reshape(2, 5, 6)
    found /= 1 + np.exp(-(x @ of["gate.weight"] + of["gate.bias"]))
    assert_close(apply(layer, x), found @ of["proj.weight"] + of["proj.bias"])
    with pytest.raises(ConfigError, match="6 channels do not divide into 4 heads"):
        layers.Attention(6, num_heads=4)
    with pytest.raises(ConfigError, match="norm_layer"):
        layers.Attention(6, num_heads=2, qk_norm=True)


def test_attention_dropout_keeps_the_mean_in_training():
    paddle.seed(0)
    q, v = paddle.zeros([1, 1, 1, 4]), paddle.ones([1, 1, 2000, 4])
    found = layers.attend(q, paddle.zeros_like(v), v, dropout=0.5).mean()
    assert 0.9 < float(found) < 1.1


@pytest.mark.parametrize("name", ["LayerNorm", "RmsNorm", "SimpleNorm"])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("fp32", ["", "Fp32"])
def test_normalisations(name, two, fp32):
    layer = layers.get_norm_layer(f"{name}{'2d' * two}{fp32}")(6, eps=1e-3)
    of, x = randomize(layer), array(2, 3, 4, 6)
    centred = x - x.mean(-1, keepdims=True)
    size = {"LayerNorm": x.var(-1), "RmsNorm": (x**2).mean(-1), "SimpleNorm": x.var(-1, ddof=1)}[name][..., None]
    expected = (centred if name == "LayerNorm" else x) / np.sqrt(size + 1e-3) * of["weight"] + of.get("bias", 0)
    if two:
        x, expected = x.transpose(0, 3, 1, 2), expected.transpose(0, 3, 1, 2)
    assert_close(apply(layer, x), expected)
    half = layer(paddle.to_tensor(x).astype("float16")) if fp32 else None
    assert half is None or half.dtype == paddle.float16


def test_names_of_normalisations():
    assert layers.get_norm_layer("group_norm1") is layers.GroupNorm1 and layers.get_norm_layer("") is None
    assert layers.get_norm_layer(layers.LayerNorm) is layers.LayerNorm
    assert layers.create_norm_layer("rmsnorm", 3).weight.shape == [3]
    with pytest.raises(ConfigError, match="unknown normalisation 'layrnorm'; did you mean layernorm"):
        layers.get_norm_layer("layrnorm")


@pytest.mark.parametrize("channels_last", [True, False])
def test_global_response_norm(channels_last):
    layer, x = layers.GlobalResponseNorm(4, channels_last=channels_last), array(2, 3, 5, 4)
    assert_close(apply(layer, x if channels_last else x.transpose(0, 3, 1, 2)).sum(), x.sum())  # at first the identity
    of = randomize(layer)
    norms = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = x + of["weight"] * x * norms / (norms.mean(-1, keepdims=True) + 1e-6) + of["bias"]
    found = apply(layer, x if channels_last else x.transpose(0, 3, 1, 2))
    assert_close(found if channels_last else found.transpose(0, 2, 3, 1), expected)


def test_perceptrons_with_gates():
    x = array(2, 3, 4)
    layer = layers.GluMlp(4, 6, 5)
    of = randomize(layer)
    first, gate = np.split(x @ of["fc1.weight"] + of["fc1.bias"], 2, -1)
    assert_close(apply(layer, x), first / (1 + np.exp(-gate)) @ of["fc2.weight"] + of["fc2.bias"])
    layer = layers.SwiGLU(4, 6, align_to=4)
    of = randomize(layer)
    assert of["fc1_g.weight"].shape == (4, 8)
    gate = x @ of["fc1_g.weight"] + of["fc1_g.bias"]
    hidden = gate / (1 + np.exp(-gate)) * (x @ of["fc1_x.weight"] + of["fc1_x.bias"])
    assert_close(apply(layer, x), hidden @ of["fc2.weight"] + of["fc2.bias"])
    with pytest.raises(ConfigError, match="5 is odd"):
        layers.GluMlp(4, 5)


COLUMN = np.array([1.0, -2.0, 4.0, 8.0, 0.0])
RESIZED = {
    (3, True, "bicubic"): [-0.553846, 3.767442, 3.630769],
    (3, True, "bilinear"): [-0.285714, 3.555556, 3.428572],
    (3, False, "bicubic"): [-0.277777, 4.0, 2.740741],
    (3, False, "bilinear"): [0.0, 4.0, 2.666668],
    (8, True, "bicubic"): [1.215867, -0.486471, -1.86853, 1.970581, 5.800537, 8.083252, 3.359744, -0.575646],
    (8, True, "bilinear"): [1.0, -0.3125, -1.625, 2.125, 5.25, 7.75, 3.5, 0.0],
    (8, False, "bicubic"): [1.278503, -0.773926, -1.836487, 1.651672, 6.236938, 8.147339, 3.761475, -0.742676],
    (8, False, "bilinear"): [1.0, -0.3125, -1.625, 2.125, 5.25, 7.75, 3.5, 0.0],
}


@pytest.mark.parametrize(("new", "antialias", "interpolation"), RESIZED)
def test_resizing_is_that_of_pytorch(new, antialias, interpolation):
    found = resize_matrix(5, new, interpolation, antialias) @ COLUMN
    np.testing.assert_allclose(found, RESIZED[new, antialias, interpolation], atol=2e-6)


def test_position_embeddings_for_another_grid():
    table = paddle.to_tensor(array(1, 10, 4))
    assert layers.resample_abs_pos_embed(table, (3, 3)) is table
    found = layers.resample_abs_pos_embed(table, (5, 2)).numpy()
    assert_close(found[:, :1], table[:, :1].numpy())
    grid = table[0, 1:].numpy().reshape(3, 3, 4)
    expected = np.einsum("ij,jkc,lk->ilc", resize_matrix(3, 5), grid, resize_matrix(3, 2)).reshape(1, 10, 4)
    assert_close(found[:, 1:], expected)
    wide = layers.resample_abs_pos_embed_nhwc(paddle.to_tensor(grid[None]), (5, 2)).numpy()
    assert_close(wide.reshape(1, 10, 4), expected)


def test_kernels_for_other_patches_see_resized_images_alike():
    kernels = array(3, 2, 4, 4)
    found = layers.resample_patch_embed(kernels, (8, 8))
    image = array(2, 4, 4)
    rows = resize_matrix(4, 8)
    larger = np.einsum("ij,cjk,lk->cil", rows, image, rows)
    assert_close(np.einsum("ochw,chw->o", found, larger), np.einsum("ochw,chw->o", kernels, image))
    assert layers.resample_patch_embed(paddle.to_tensor(kernels), (8, 8)).shape == [3, 2, 8, 8]


def test_patches():
    layer = layers.PatchEmbed(8, 4, 3, 5)
    of, x = randomize(layer), array(2, 3, 8, 8)
    patches = x.reshape(2, 3, 2, 4, 2, 4).transpose(0, 2, 4, 1, 3, 5).reshape(2, 4, -1)
    assert_close(apply(layer, x), patches @ of["proj.weight"].reshape(5, -1).T + of["proj.bias"])
    with pytest.raises(ConfigError, match="takes images of 8x8 pixels, not of 8x12"):
        layer(paddle.zeros([1, 3, 8, 12]))
    layer.set_input_size((8, 12))
    assert layer(paddle.zeros([1, 3, 8, 12])).shape == [1, 6, 5] and layer.grid_size == (2, 3)
    loose = layers.PatchEmbed(8, 4, 3, 5, strict_img_size=False)
    with pytest.raises(ConfigError, match="8x10 pixels are no whole patches of 4x4"):
        loose(paddle.zeros([1, 3, 8, 10]))
    padded = layers.PatchEmbed(8, 4, 3, 5, strict_img_size=False, dynamic_img_pad=True, output_fmt="NHWC")
    assert padded(paddle.zeros([1, 3, 8, 10])).shape == [1, 2, 3, 5] and padded.dynamic_feat_size((8, 10)) == (2, 3)


def test_patches_are_left_out_in_training_alone():
    paddle.seed(0)
    layer = layers.PatchDropoutWithIndices(0.5, num_prefix_tokens=1, ordered=True)
    x = paddle.arange(9, dtype="float32").reshape([1, 9, 1])
    found, kept = layer(x)
    assert found.shape == [1, 5, 1] and found[0, 0] == 0
    np.testing.assert_array_equal(found[0, 1:, 0].numpy(), kept[0].numpy() + 1)
    assert (np.diff(kept[0].numpy()) > 0).all()
    layer.eval()
    assert layer(x)[0] is x
    with pytest.raises(ConfigError, match=r"got 1\.5"):
        layers.PatchDropout(1.5)


def test_pooling_by_attention():
    layer = layers.AttentionPoolLatent(4, num_heads=2, pos_embed="abs", feat_size=3, norm_layer=layers.LayerNorm)
    of, x = randomize(layer), array(2, 3, 4)
    tokens = x + of["pos_embed"]
    q = (of["latent"] @ of["q.weight"] + of["q.bias"]).reshape(1, 1, 2, 2).transpose(0, 2, 1, 3)
    k, v = (tokens @ of["kv.weight"] + of["kv.bias"]).reshape(2, 3, 2, 2, 2).transpose(2, 0, 3, 1, 4)
    pooled = (softmax(q @ k.swapaxes(-1, -2) / np.sqrt(2)) @ v).transpose(0, 2, 1, 3).reshape(2, 1, 4)
    pooled = pooled @ of["proj.weight"] + of["proj.bias"]
    rest = apply(layer.mlp, apply(layer.norm, pooled.astype("float32")))
    assert_close(apply(layer, x), (pooled + rest)[:, 0])
    with pytest.raises(ConfigError, match="feat_size"):
        layers.AttentionPoolLatent(4, num_heads=2, pos_embed="abs")


def test_rates_of_stochastic_depth_grow():
    np.testing.assert_allclose(layers.calculate_drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    staged = layers.calculate_drop_path_rates(0.3, [1, 3], stagewise=True)
    assert [len(each) for each in staged] == [1, 3] and staged[1][-1] == 0.3
    assert len(layers.calculate_drop_path_rates(0.3, [1, 3])) == 4


def test_layer_scale_and_initial_values():
    x = array(2, 3, 4, 5)
    assert_close(apply(layers.LayerScale(5, 0.5), x), x * 0.5)
    layer = layers.LayerScale2d(3)
    gamma = randomize(layer)["gamma"]
    assert_close(apply(layer, x), x * gamma[:, None, None])
    paddle.seed(0)
    value = paddle.create_parameter([20000], "float32")
    for init, std in ((layers.trunc_normal_, 0.02), (layers.trunc_normal_tf_, 0.02 * 0.8796)):
        init(value, std=0.02)
        assert abs(float(value.std()) / std - 1) < 0.03
    assert float(value.abs().max()) <= 0.04 + 1e-6
