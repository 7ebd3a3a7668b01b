"""Layers of convolutional nets, by the numbers that timm 1.0.31 computes with the same drawn weights and images."""

import golden
import numpy as np
import paddle
import pytest
from model_weights import draw

from pimm import layers
from pimm.errors import ConfigError
from pimm.models import load_torch_arrays, torch_names

EXPECTED = [  # class, arguments, keywords ("bn" stands for batch norm), three numbers of the result, mean magnitude
    ("SEModule", (32,), {}, [1.38854, 1.81182, -0.4611, 0.7955]),
    ("SEModule", (32,), {"add_maxpool": True, "rd_ratio": 0.25, "bias": False}, [0.01884, 3.44287, -0.70757, 0.81191]),
    ("EffectiveSEModule", (8,), {}, [1.59177, -1.10706, 1.53097, 0.82653]),
    ("EcaModule", (64,), {}, [1.62345, -0.62545, 0.99082, 0.78648]),
    ("EcaModule", (64,), {"use_mlp": True}, [1.59466, -0.7927, 1.09307, 0.8329]),
    ("CecaModule", (256,), {}, [1.79005, 1.08565, 0.32038, 0.79637]),
    ("CbamModule", (32,), {}, [0.88201, 0.85753, -0.10961, 0.45088]),
    ("LightCbamModule", (32,), {}, [0.46096, 0.67986, -0.2942, 0.38328]),
    ("GlobalContext", (32,), {}, [1.96062, 3.20301, -0.46296, 0.84492]),
    ("GlobalContext", (32,), {"fuse_add": True, "fuse_scale": False}, [1.83394, 3.66321, -2.19268, 1.75545]),
    ("NonLocalAttn", (16,), {}, [2.69182, -4.23868, -0.57051, 2.76242]),
    ("BatNonLocalAttn", (32,), {"block_size": 4}, [6.423, 3.46017, -0.45012, 1.73924]),
    ("SplitAttn", (16,), {"norm_layer": "bn", "groups": 2}, [0.01046, 0.67734, 0.0, 1.04615]),
    ("SplitAttn", (16, 32), {"norm_layer": "bn", "radix": 1, "stride": 2}, [0.0, 0.0, 0.0, 0.48213]),
    ("SelectiveKernel", (16,), {}, [2.03342, 0.00396, 1.54868, 0.91827]),
    ("SelectiveKernel", (16, 32), {"stride": 2, "split_input": False, "groups": 4}, [0.54913, 0.0, 0.57228, 0.9547]),
    ("BlurPool2d", (8,), {}, [-0.99045, -1.11572, 0.40892, 0.6284]),
    ("BlurPool2d", (None,), {"filt_size": 5, "pad_mode": "constant"}, [-0.00884, -0.82549, 0.39937, 0.40679]),
    ("ConvNormAct", (8, 16, 3), {"stride": 2, "aa_layer": "blur"}, [0.81797, 0.83621, 1.80845, 1.15737]),
    ("GroupNormAct", (16,), {"group_size": 4}, [0.74651, 0.0, 0.0, 0.34313]),
    ("LayerNormAct2d", (16,), {}, [0.71295, 0.0, 0.0, 0.34805]),
    ("RmsNormAct2d", (16,), {}, [0.64056, 0.0, 0.0, 0.33482]),
    ("BatchNormAct2d", (16,), {}, [1.36046, 0.0, 0.0, 0.64905]),
    ("FilterResponseNormAct2d", (16,), {}, [0.62701, 0.0, 0.0, 0.328]),
    ("FilterResponseNormTlu2d", (16,), {}, [0.98202, 1.02845, 0.64048, 1.096]),
    ("EvoNorm2dB0", (64,), {}, [0.24363, -1.23073, 0.45265, 1.01946]),
    ("EvoNorm2dB1", (64,), {}, [0.08068, -1.23125, 0.31759, 0.98245]),
    ("EvoNorm2dB2", (64,), {}, [1.31405, -0.32394, 3.16304, 1.0037]),
    ("EvoNorm2dS0", (64,), {}, [0.63391, 0.03745, 1.12768, 0.41073]),
    ("EvoNorm2dS0a", (64,), {}, [0.63384, 0.03747, 1.12752, 0.41068]),
    ("EvoNorm2dS1", (64,), {}, [0.64978, -0.00498, 1.07304, 0.41225]),
    ("EvoNorm2dS1a", (64,), {}, [0.6497, -0.00494, 1.07288, 0.4122]),
    ("EvoNorm2dS2", (64,), {}, [0.64977, -0.00463, 1.07219, 0.41089]),
    ("EvoNorm2dS2a", (64,), {}, [0.64969, -0.00459, 1.07203, 0.41084]),
    ("EvoNorm2dB0", (64,), {"apply_act": False}, [1.62411, -1.46674, 2.51619, 1.61515]),
    ("EvoNorm2dS0", (64,), {"apply_act": False}, [1.62411, -1.46674, 2.51619, 1.61515]),
    ("EvoNorm2dS0a", (64,), {"apply_act": False}, [0.68153, -0.75983, 1.22052, 0.81417]),
    ("EvoNorm2dS1", (64,), {"apply_act": False}, [1.62411, -1.46674, 2.51619, 1.61515]),
    ("EvoNorm2dS2", (64,), {"apply_act": False}, [1.62411, -1.46674, 2.51619, 1.61515]),
    ("ClassifierHead", (16, 10), {}, [0.01067, -0.34641, -0.37249, 0.29128]),
    ("ClassifierHead", (16, 10, "catavgmax"), {"use_conv": True}, [-0.45356, 2.00494, 4.53865, 4.06197]),
    ("ClassifierHead", (8, 10, "avgmax"), {"input_fmt": "NHWC"}, [-4.43932, -2.97064, -3.60988, 2.28642]),
    ("NormMlpClassifierHead", (16, 10, 12), {}, [-2.19845, -0.03833, -0.41533, 0.74214]),
    ("NormMlpClassifierHead", (16, 10, 12, ""), {}, [-1.07988, 0.65635, 0.51192, 0.73734]),
    ("ClNormMlpClassifierHead", (8, 10, 12, "avgmax"), {}, [-0.51241, -0.16014, 1.91705, 0.8271]),
    ("CoordAttn", (32,), {}, [0.31581, 0.87114, -0.23504, 0.40246]),
    ("CoordAttn", (32,), {"has_skip": True}, [3.46568, 4.3313, -1.13943, 1.99027]),
    ("SimpleCoordAttn", (32,), {}, [1.17318, 2.56574, -0.65336, 0.77729]),
    ("EfficientLocalAttn", (16,), {}, [0.76863, -0.59211, -0.66972, 0.4694]),
    ("StripAttn", (16,), {}, [0.47522, -1.07678, -2.5016, 0.80236]),
    ("SeparableConvNormAct", (8, 16), {"stride": 2}, [0.0, 0.0, 1.82921, 1.20999]),
    ("SqueezeExciteCl", (8,), {}, [0.77152, -0.86867, 1.40517, 0.76909]),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "expected"), EXPECTED)
def test_a_layer_computes_what_timm_does(name, args, kwargs, expected):
    if kwargs.get("norm_layer") == "bn":
        kwargs = {**kwargs, "norm_layer": layers.BatchNorm2d}
    layer = getattr(layers, name)(*args, **kwargs)
    layer.eval()
    load_torch_arrays(layer, {key: draw(key, tuple(shape), 1.3) for key, shape in torch_names(layer)})
    images = paddle.to_tensor(golden.inputs((2, args[0] or 8, 8, 8)) * 2)
    found = layer(images).numpy().ravel()
    found = [*found[[0, len(found) // 3, -1]], np.abs(found).mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1.1e-5)


def test_an_evolved_norm_moves_its_running_variance_by_the_unbiased_variance_of_the_batch():
    layer, images = layers.EvoNorm2dB0(3), paddle.to_tensor(golden.inputs((2, 3, 4, 4)))
    layer(images)
    variance = images.numpy().transpose(1, 0, 2, 3).reshape(3, -1).var(1, ddof=1)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * variance, rtol=1e-5)


def test_norm_act_with_swish_is_the_same_with_and_without_gradients():
    layer = layers.BatchNormAct2d(4, act_layer="swish")
    images = paddle.to_tensor(golden.inputs((2, 4, 3, 3)))
    with paddle.no_grad():
        fused = layer(images).numpy()
    np.testing.assert_allclose(fused, layer(images).numpy(), atol=1e-6)


def test_conversion_to_synchronized_norms_keeps_activation_and_parameters():
    layer = layers.BatchNormAct2d(4, eps=1e-3, momentum=0.2, act_layer="leaky_relu")
    net = layers.convert_sync_batchnorm(paddle.nn.Sequential(layer))
    assert type(net[0]) is layers.norm_and_act.SyncBatchNormAct2d
    assert net[0].act is layer.act and net[0].weight is layer.weight and net[0]._mean is layer._mean
    assert (net[0]._epsilon, net[0]._momentum) == (1e-3, 0.8)


def test_a_norm_of_rows_is_synchronised_too():
    norm, x = layers.BatchNorm1d(2), paddle.to_tensor([[1.0, 2.0], [3.0, 6.0]])
    sync = layers.convert_sync_batchnorm(paddle.nn.Sequential(norm))[0]
    assert isinstance(sync, layers.norm.SyncBatchNorm2d)
    np.testing.assert_allclose(sync(x).numpy(), [[-1, -1], [1, 1]], rtol=1e-4)
    np.testing.assert_allclose(sync._mean.numpy(), [0.2, 0.4], rtol=1e-6)


def _neighbours(pixels, outside):
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))


def test_drop_block_takes_out_squares_and_keeps_the_mean():
    paddle.seed(3)
    layer, images = layers.DropBlock2d(0.2, block_size=3), paddle.ones([4, 2, 16, 16])
    found = layer(images).numpy()
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    assert abs(found.mean() - 1) < 1e-4 and 0.05 < (found == 0).mean() < 0.35
    dropped = found[:, 0] == 0
    centres = _neighbours(dropped, True).all((3, 4))  # of squares of which the part inside the image is dropped
    np.testing.assert_array_equal(_neighbours(centres, False).any((3, 4)), dropped)
    layer.eval()
    np.testing.assert_array_equal(layer(images).numpy(), images.numpy())


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.get_attn("sse"), "did you mean"),
        (lambda: layers.create_aa("blurr"), "did you mean"),
        (lambda: layers.get_norm_act_layer("batchnrm"), "did you mean"),
        (lambda: layers.GroupNormAct(30, 32), "30 channels cannot be normalised in 32 groups"),
        (lambda: layers.SelectiveKernel(16, kernel_size=[4]), "must be odd"),
        (lambda: layers.NormMlpClassifierHead(8, 10, pool_type="catavgmax"), "catavgmax"),
    ],
)
def test_wrong_arguments_are_explained(create, message):
    with pytest.raises(ConfigError, match=message):
        create()


@pytest.mark.parametrize("hidden", [None, 12])
def test_a_head_without_pooling_classifies_each_place_as_before(hidden):
    head = layers.NormMlpClassifierHead(8, 5, hidden, norm_layer=lambda channels: paddle.nn.Identity())
    head.eval()
    images = paddle.to_tensor(golden.inputs((2, 8, 1, 1)))
    before = head(images, pre_logits=True).numpy()
    head.reset(7, "")
    np.testing.assert_allclose(head(images, pre_logits=True).numpy().reshape(before.shape), before, atol=1e-6)
    assert head(images).shape == [2, 7, 1, 1]
