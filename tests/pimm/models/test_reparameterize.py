"""Nets whose branches become single layers compute the same as before, under timm's names."""

import numpy as np
import paddle
import pytest
from paddle import nn

from pimm.models import reparameterize_model
from pimm.models.byobnet_net import ByoBlockCfg, ByobNet, ByoModelCfg
from pimm.models.fastvit import FastVit
from pimm.models.fastvit_blocks import RepConditionalPosEnc
from pimm.models.repvit import RepVit


def _byobnet(kind, **kwargs):
    blocks = tuple(ByoBlockCfg(kind, 2, width, **kwargs) for width in (8, 16))
    return ByobNet(ByoModelCfg(blocks, stem_type=kind, stem_chs=8, attn_layer="se"), num_classes=5)


NETS = {
    "repvgg": lambda: _byobnet("rep"),
    "repvgg in groups": lambda: _byobnet("rep", gs=4),
    "mobileone": lambda: _byobnet("one", gs=1, block_kwargs={"num_conv_branches": 3}),
    "mobileone 1x1": lambda: _byobnet("one", block_kwargs={"kernel_size": 1}),
    "repvit": lambda: RepVit(embed_dim=(8, 16), depth=(2, 1), num_classes=5),
    "repvit legacy": lambda: RepVit(embed_dim=(8, 16), depth=(2, 1), num_classes=5, legacy=True),
    "repvit without teacher": lambda: RepVit(embed_dim=(8,), depth=(2,), num_classes=5, distillation=False),
    "repvit features": lambda: RepVit(embed_dim=(8,), depth=(2,), num_classes=0),
    "fastvit": lambda: FastVit(
        layers=(1, 1),
        embed_dims=(8, 32),
        token_mixers=("repmixer", "attention"),
        pos_embs=(None, RepConditionalPosEnc),
        se_downsamples=(False, True),
        layer_scale_init_value=0.5,
        num_classes=5,
    ),
    "fastvit without scales": lambda: FastVit(
        layers=(1,), embed_dims=(8,), token_mixers=("repmixer",), layer_scale_init_value=None, num_classes=5
    ),
}


REPLACED = {"conv_kxk", "conv_1x1", "conv_scale", "identity", "large_conv", "small_conv", "mixer", "pos_enc"}


def settled(net):
    """Return the net in evaluation mode, with weights and statistics of batch norm that change its input."""
    paddle.seed(1)
    for norm in (layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)):
        norm._mean.set_value(paddle.randn(norm._mean.shape) * 0.3)
        norm._variance.set_value(paddle.rand(norm._variance.shape) + 0.5)
        norm.weight.set_value(paddle.rand(norm.weight.shape) + 0.5)
        norm.bias.set_value(paddle.randn(norm.bias.shape) * 0.3)
    net.eval()
    return net


@pytest.mark.parametrize("name", NETS)
def test_reparameterized_nets_compute_the_same(name):
    net, x = settled(NETS[name]()), paddle.randn([2, 3, 64, 64])
    before, state = net(x).numpy(), list(net.state_dict())
    fused = reparameterize_model(net)
    assert list(net.state_dict()) == state  # a copy was changed
    np.testing.assert_allclose(fused(x).numpy(), before, atol=2e-4 * np.abs(before).max())
    assert np.abs(before).std() > 1e-3
    assert [key for key in fused.state_dict() if REPLACED & set(key.split("."))] == []
    np.testing.assert_array_equal(reparameterize_model(fused)(x).numpy(), fused(x).numpy())


def test_the_net_itself_can_be_changed():
    net, x = settled(NETS["repvgg"]()), paddle.randn([2, 3, 32, 32])
    before = net(x).numpy()
    assert reparameterize_model(net, inplace=True) is net
    assert net.stem.reparam_conv.weight.shape == [8, 3, 3, 3] and not hasattr(net.stem, "conv_kxk")
    np.testing.assert_allclose(net(x).numpy(), before, atol=1e-4 * np.abs(before).max())


def test_repvit_fuses_itself():
    net, x = settled(NETS["repvit"]()), paddle.randn([2, 3, 32, 32])
    before = net(x).numpy()
    assert net.fuse() is net and type(net.head).__name__ == "Linear"
    np.testing.assert_allclose(net(x).numpy(), before, atol=1e-4 * np.abs(before).max())


def test_repvit_returns_both_logits_while_it_learns_from_a_teacher():
    net = settled(NETS["repvit"]())
    net.set_distilled_training()
    x = paddle.randn([2, 3, 32, 32])
    assert net(x).shape == [2, 5]
    net.train()
    assert [logits.shape for logits in net(x)] == [[2, 5], [2, 5]]
