"""Where the EdgeTPU variants and MobileNet V3 differ between timm 1.x and timm 0.1.20."""

import golden
import numpy as np
import paddle
import pytest

import pimm
from pimm import models
from pimm.errors import ConfigError
from pimm.models.efficientnet_blocks import EdgeResidual

VERSIONS = golden.facts("timm_versions")
OPTIONS = {"1.x": {}, "0.1.20": {"stride_in_expansion": False}}
TOLERANCE = 2e-5


def logits_of(name, **options):
    model = pimm.create_model(name, **options)
    model.eval()
    models.load_torch_arrays(model, golden.state(models.torch_names(model), gain=VERSIONS["gain"]))
    with paddle.no_grad():
        images = paddle.to_tensor(golden.inputs((2, 3, VERSIONS["size"], VERSIONS["size"])))
        return model(images)[0].numpy()


@pytest.mark.parametrize("version", OPTIONS)
def test_tensorflow_edge_nets_of_both_versions(version):
    expected = VERSIONS["logits16"]["tf_efficientnet_es"]
    logits = logits_of("tf_efficientnet_es", **OPTIONS[version])
    np.testing.assert_allclose(logits[:16], expected[version], rtol=0, atol=TOLERANCE * np.abs(logits).max())
    gap = np.abs(np.subtract(*expected.values())).max()
    assert gap > 100 * TOLERANCE * np.abs(logits).max()


@pytest.mark.parametrize(
    "name", [f"{prefix}efficientnet_{size}" for prefix in ("", "tf_") for size in ("es", "em", "el")]
)
@pytest.mark.parametrize("in_expansion", [True, False])
def test_the_stride_of_every_edge_net(name, in_expansion):
    with paddle.LazyGuard():
        model = pimm.create_model(name, **({} if in_expansion else {"stride_in_expansion": False}))
    blocks = [layer for layer in model.sublayers() if isinstance(layer, EdgeResidual)]
    strides = [(block.conv_exp.stride[0], block.conv_pwl.stride[0]) for block in blocks]
    firsts = {0, len(model.blocks[0]), len(model.blocks[0]) + len(model.blocks[1])}
    wanted = [2 if place in firsts - {0} else 1 for place in range(len(blocks))]
    assert strides == [(stride, 1) if in_expansion else (1, stride) for stride in wanted]


def test_nets_without_edge_blocks_refuse_the_option():
    with pytest.raises(ConfigError, match="option of the EdgeTPU variants"):
        pimm.create_model("efficientnet_b0", stride_in_expansion=False)


@pytest.mark.parametrize("dilation", [1, 2])
def test_where_an_edge_block_has_stride_and_dilation(dilation):
    first, last = (
        EdgeResidual(8, 16, stride=2, dilation=dilation, stride_in_expansion=where) for where in (True, False)
    )
    assert (first.conv_exp.stride, first.conv_exp.dilation) == ((2, 2), (dilation, dilation))
    assert (first.conv_pwl.stride, first.conv_pwl.dilation) == ((1, 1), (1, 1))
    assert (last.conv_exp.stride, last.conv_exp.dilation) == ((1, 1), (1, 1))
    assert (last.conv_pwl.stride, last.conv_pwl.dilation) == ((2, 2), (dilation, dilation))


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_100", "mobilenetv3_rw", "mixnet_s"])
def test_features_are_timms(name):
    entry = golden.facts("timm_models")["models"][name]
    model = pimm.create_model(name)
    model.eval()
    models.load_torch_arrays(model, golden.state(entry["names_shapes"], gain=entry["gain"]))
    with paddle.no_grad():
        maps = model.forward_features(paddle.to_tensor(golden.inputs((1, *entry["default_cfg"]["input_size"]))))
        logits = model.forward_head(maps)[0].numpy()
    assert (maps.shape, model.num_features) == (entry["features"]["shape"], entry["num_features"])
    assert maps.mean().item() == pytest.approx(entry["features"]["mean"], rel=1e-4)
    assert maps.std().item() == pytest.approx(entry["features"]["std"], rel=1e-4)
    np.testing.assert_allclose(logits[:16], entry["logits16"], rtol=0, atol=1e-5 * np.abs(logits).max())
