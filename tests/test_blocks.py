"""Blocks and builder against timm 0.1.20."""

import golden
import numpy as np
import paddle
import pytest

from pimm import layers
from pimm.models import efficientnet_blocks, load_torch_arrays, torch_names

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
