import numpy as np
import paddle
import pytest
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import AttentionPool2d, BatchNorm1d, BatchNorm2d, Conv2d
from pimm.layers.downsample import downsample_pool
from pimm.layers.fuse import conv_with, fuse_norm, identity_kernel, pad_kernel


def settled(norm):
    paddle.seed(0)
    for value in (norm._mean, norm._variance, norm.weight, norm.bias):
        value.set_value(paddle.rand(value.shape) + 0.2)
    norm.eval()
    return norm


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups"), [(3, 1, 1, 1), (3, 2, 1, 2), (1, 2, 1, 4), (5, 1, 2, 4)]
)
def test_a_convolution_with_batch_norm_becomes_a_convolution(kernel, stride, dilation, groups):
    padding = dilation * (kernel - 1) // 2
    conv, norm = Conv2d(4, 8, kernel, stride, padding, dilation, groups), settled(BatchNorm2d(8))
    x = paddle.randn([2, 4, 9, 8])
    fused = conv_with(*fuse_norm(conv.weight, norm, conv.bias), stride, dilation, groups)
    np.testing.assert_allclose(fused(x).numpy(), norm(conv(x)).numpy(), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_identity_is_a_convolution(groups):
    x = paddle.randn([2, 6, 5, 4])
    fused = conv_with(identity_kernel(6, groups, 3), paddle.zeros([6]), groups=groups)
    np.testing.assert_array_equal(fused(x).numpy(), x.numpy())


def test_padded_filters_have_the_same_values_in_the_middle():
    kernel = pad_kernel(paddle.ones([2, 1, 1, 3]), (3, 5))
    expected = np.zeros((2, 1, 3, 5), "float32")
    expected[:, :, 1, 1:4] = 1
    np.testing.assert_array_equal(kernel.numpy(), expected)


def test_batch_norm_of_rows():
    norm, x = BatchNorm1d(3), paddle.randn([16, 3]) * 2 + 1
    out = norm(x).numpy()
    np.testing.assert_allclose(out, (x.numpy() - x.numpy().mean(0)) / np.sqrt(x.numpy().var(0) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(norm._mean.numpy(), 0.1 * x.numpy().mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm._variance.numpy(), 0.9 + 0.1 * x.numpy().var(0, ddof=1), rtol=1e-5)


def test_pooling_in_shortcuts():
    x = paddle.arange(15, dtype="float32").reshape([1, 1, 3, 5])
    assert isinstance(downsample_pool(1), nn.Identity)
    np.testing.assert_array_equal(downsample_pool(2)(x).numpy()[0, 0], [[3, 5, 6.5], [10.5, 12.5, 14]])
    assert downsample_pool(1, dilation=2)(x).shape == x.shape


def attention_by_hand(layer, tokens):
    """Return softmax(q k' / sqrt(head_dim)) v of all heads, in numpy, before the projection."""
    q, k, v = (
        (tokens @ getattr(layer, name).weight.numpy() + getattr(layer, name).bias.numpy())
        .reshape(*tokens.shape[:2], layer.num_heads, layer.head_dim)
        .transpose(0, 2, 1, 3)
        for name in ("q", "k", "v")
    )
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(layer.head_dim))
    out = (scores / scores.sum(-1, keepdims=True)) @ v
    return out.transpose(0, 2, 1, 3).reshape(*tokens.shape[:2], -1)


def test_attention_pooling():
    layer = AttentionPool2d(6, feat_size=(2, 3), out_features=5, embed_dim=8, num_heads=2, qkv_separate=True)
    x = paddle.randn([2, 6, 2, 3])
    pixels = x.numpy().reshape(2, 6, 6).transpose(0, 2, 1)
    tokens = np.concatenate([pixels.mean(1, keepdims=True), pixels], 1) + layer.pos_embed.numpy()
    hidden = attention_by_hand(layer, tokens)
    logits = hidden @ layer.proj.weight.numpy() + layer.proj.bias.numpy()
    np.testing.assert_allclose(layer(x).numpy(), logits[:, 0], atol=1e-5)
    np.testing.assert_allclose(layer(x, pre_logits=True).numpy(), hidden[:, 0], atol=1e-5)
    layer.reset(4, "")
    assert layer(x).shape == [2, 4, 2, 3]
    layer.reset(0)
    np.testing.assert_allclose(layer(x).numpy(), hidden[:, 1:].transpose(0, 2, 1).reshape(2, 8, 2, 3), atol=1e-5)
    assert AttentionPool2d(64, 2, class_token=True)(paddle.randn([1, 64, 3, 4])).shape == [1, 64]


@pytest.mark.parametrize("kwargs", [{"pool_type": "avg"}, {"num_heads": 5}])
def test_attention_pooling_refuses(kwargs):
    with pytest.raises(ConfigError):
        AttentionPool2d(64, 7, **kwargs)
