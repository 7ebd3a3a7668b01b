"""Rotary embeddings by closed forms, and by numbers that timm 1.0.31 gave for the same arguments."""

import math

import numpy as np
import paddle
import pytest

from pimm.errors import ConfigError
from pimm.layers import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
    apply_keep_indices_nlc,
    apply_rot_embed_cat,
    create_rope_embed,
)


def near(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), np.asarray(expected, np.float32), atol=atol, rtol=0)


def test_columns_and_rows_have_a_half_of_the_channels_each():
    layer = RotaryEmbeddingCat(
        4, in_pixels=False, feat_shape=[2, 2], ref_feat_shape=[4, 2], grid_offset=1.0, grid_indexing="xy"
    )
    # Columns 1 and 2; rows 1 and 2, that were made twice as many
    angles = np.array([[1, 1, 2, 2], [2, 2, 2, 2], [1, 1, 4, 4], [2, 2, 4, 4]], np.float32)
    near(layer.get_embed(), np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    assert layer.state_dict() == {}


def test_frequencies_in_pixels_and_halves():
    layer = RotaryEmbeddingCat(8, max_res=16, linear_bands=True, rotate_half=True)
    angles = math.pi * np.array([[-1, -8, -1, -8], [-1, -8, 1, 8]])
    angles = np.concatenate([angles, angles], axis=1)
    near(layer.get_embed([1, 2]), np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=3e-6)
    near(RotaryEmbeddingCat(16, max_res=32).bands / math.pi, [1, 16 ** (1 / 3), 16 ** (2 / 3), 16], atol=1e-5)


def test_dinov3_as_in_timm():
    sin = [0.0, 0.0, 0.0, 0.3090170]
    cos = [1.0, 1.0, -1.0, 0.9510565]
    minus = [0.0, 0.0, 0.0, -0.3090170]
    expected = [[*minus, *minus, *cos, *cos], [*sin, *sin, *cos, *cos]]
    near(RotaryEmbeddingDinoV3(8, feat_shape=[1, 2]).get_embed(), expected)


def test_mrope_as_in_timm():
    sin, cos = [0.0, 0.0, 0.0099998, 0.0], [1.0, 1.0, 0.99995, 1.0]
    expected = [[0.0] * 8 + [1.0] * 8, [*sin, *sin, *cos, *cos]]
    near(RotaryEmbeddingMRope(8, mrope_section=(2, 1, 1)).get_embed([1, 2]), expected)


def test_mixed_as_in_timm_and_learnt():
    layer = RotaryEmbeddingMixed(8, 1, 2, feat_shape=[2, 1])
    layer.freqs.set_value(paddle.arange(8, dtype="float32").reshape([2, 1, 2, 2]) / 4)
    found = layer.get_embed()  # [depth, heads, patches, 2 * 4]
    first, second = 1.0, 1.25  # frequencies of rows of head 0: (4, 5) / 4
    near(found[0, 0, 1], [math.sin(f) for f in (first, first, second, second)] + [0.5403023] * 2 + [0.3153224] * 2)
    near(found[0, 1, 1, 4:], [0.0707372, 0.0707372, -0.1782461, -0.1782461])
    found.sum().backward()
    assert np.abs(layer.freqs.grad.numpy()).max() > 0
    assert list(layer.state_dict()) == ["freqs"] and layer.no_weight_decay() == {"freqs"}


def test_initial_mixed_frequencies_are_orthogonal_pairs():
    freqs = RotaryEmbeddingMixed(32, 2, 2).freqs.numpy()
    np.testing.assert_allclose((freqs**2).sum(0)[1, 1], [1, 10**-0.5, 0.1, 10**-1.5] * 2, rtol=1e-5)
    np.testing.assert_allclose((freqs[..., :4] * freqs[..., 4:]).sum(0), 0, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_a_rotation_keeps_lengths_and_depends_on_the_distance_alone(half):
    emb = RotaryEmbeddingCat(16, in_pixels=False, feat_shape=[1, 6], rotate_half=half).get_embed()
    query, key = paddle.randn([1, 16]).expand([6, 16]), paddle.randn([1, 16]).expand([6, 16])
    query_turned, key_turned = (apply_rot_embed_cat(x, emb, half) for x in (query, key))
    near(query_turned.norm(axis=-1), query.norm(axis=-1).numpy(), atol=1e-5)
    products = (query_turned @ key_turned.T).numpy()
    np.testing.assert_allclose(np.diag(products, 2), products[0, 2], rtol=1e-4, atol=1e-5)
    assert np.abs(products[0, 2] - products[0, 3]) > 1e-4


def test_interleaved_pairs():
    emb = paddle.to_tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]])  # a quarter turn of the first pair alone
    near(apply_rot_embed_cat(paddle.to_tensor([[1.0, 2.0, 3.0, 4.0]]), emb), [[-2, 1, 3, 4]])
    x = paddle.to_tensor([[1.0, 2.0, 3.0, 4.0]], dtype="bfloat16")
    assert apply_rot_embed_cat(x, emb).dtype == paddle.bfloat16


def test_embeddings_of_kept_patches():
    emb = paddle.arange(12, dtype="float32").reshape([2, 3, 2])  # [depth, patches, 2]
    kept = apply_keep_indices_nlc(paddle.zeros([2, 2, 1]), emb, paddle.to_tensor([[2, 0], [1, 1]]))
    near(kept, [[[[4, 5], [0, 1]], [[10, 11], [6, 7]]], [[[2, 3], [2, 3]], [[8, 9], [8, 9]]]])


def test_other_sizes():
    layer = RotaryEmbeddingDinoV3(8, feat_shape=[2, 2])
    wanted = RotaryEmbeddingDinoV3(8).get_embed([3, 1])
    near(layer.get_embed([3, 1]), wanted)
    layer.update_feat_shape([3, 1])
    near(layer.get_embed(), wanted)


def test_noise_is_of_training_alone():
    layer = RotaryEmbeddingDinoV3(8, feat_shape=[2, 2], rescale_coords=2.0)
    layer.train()
    plain = RotaryEmbeddingDinoV3(8, feat_shape=[2, 2]).get_embed().numpy()
    assert np.abs(layer.get_embed().numpy() - plain).max() > 1e-3
    layer.eval()
    near(layer.get_embed(), plain)


@pytest.mark.parametrize(
    "rope_type, arguments, message",
    [
        ("catt", {}, "did you mean cat"),
        ("mixed", {"depth": 1, "num_heads": 5}, "multiple of 4"),
        ("cat", {"grid_indexing": "yx", "feat_shape": [2, 2]}, "valid are ij, xy"),
        ("dinov3", {"jitter_coords": 0.5}, "jitter_coords is 0.5"),
    ],
)
def test_wrong_arguments(rope_type, arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_rope_embed(rope_type, dim=32, **{"num_heads": 2, **arguments})
    with pytest.raises(ConfigError, match="needs the shape"):
        create_rope_embed("mrope", dim=32, num_heads=2).get_embed()
