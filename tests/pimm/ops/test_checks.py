"""What the operators refuse: shapes, types, sizes and gradients that would lead a kernel out of its tensors."""

import re

import numpy as np
import paddle
import pytest
from ops_cases import draw

from pimm import layers
from pimm.errors import ConfigError
from pimm.layers.conv import conv2d
from pimm.ops import (
    batch_norm,
    cpu_backend,
    depthwise_conv2d,
    global_avg_pool2d,
    pointwise_conv2d,
    scale_channels,
    swish,
)
from pimm.ops.backend import run_operator

LARGE = 2**31 - 1


def depthwise(
    x=(2, 3, 5, 5), weight=(3, 1, 3, 3), stride=1, padding=(0, 0, 0, 0), dilation=1, isa=None, dtype="float32"
):
    tensors = draw(*x), draw(*weight, dtype=dtype)
    isa = cpu_backend() if isa is None else isa
    return run_operator("pimm_depthwise_conv2d", tensors, stride, list(padding), dilation, isa, True, True)


def norm(x=(2, 3, 5, 5), weight=(3,), bias=(3,), dtype="float32", isa=None):
    tensors = draw(*x), draw(*weight), draw(*bias, dtype=dtype)
    return run_operator("pimm_batch_norm", tensors, 1e-5, False, cpu_backend() if isa is None else isa)


def pointwise(x=(2, 3, 5, 5), weight=(4, 3, 1, 1), dtype="float32"):
    cpu_backend()  # loads the operators
    return run_operator("pimm_pointwise_conv2d", (draw(*x), draw(*weight, dtype=dtype)), True, True)


def dense(x=(2, 3, 1, 1), weight=(4, 3, 1, 1), bias=(4,), dtype="float32"):
    cpu_backend()
    return run_operator("pimm_dense", (draw(*x), draw(*weight, dtype=dtype), draw(*bias)))


def patches(x=(2, 3, 5, 5), kernel=(3, 3), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    cpu_backend()
    return run_operator("pimm_patches", (draw(*x),), *map(list, (kernel, stride, padding, dilation)))


def factors(x=(2, 3, 5, 5), by=(2, 3, 1, 1), dtype="float32", isa=None):
    return run_operator(
        "pimm_scale_channels", (draw(*x), draw(*by, dtype=dtype)), cpu_backend() if isa is None else isa
    )


def means(x=(2, 3, 5, 5), isa=None):
    return run_operator("pimm_map_means", (draw(*x),), cpu_backend() if isa is None else isa)


REFUSED = [  # operator, what is wrong with its arguments, what the error says
    (depthwise, {"x": (2, 5, 5)}, "X has shape [2, 5, 5] and must have [N, C, H, W]"),
    (depthwise, {"x": (0, 3, 5, 5)}, "X must be a dense tensor of float32 or float64 on the CPU, and not empty"),
    (depthwise, {"weight": (4, 1, 3, 3)}, "Weight has shape [4, 1, 3, 3] and must have [3, 1, 3, 3]"),
    (depthwise, {"weight": (3, 2, 3, 3)}, "Weight has shape [3, 2, 3, 3]"),
    (depthwise, {"weight": (3, 1, 9)}, "Weight has shape [3, 1, 9]"),
    (depthwise, {"weight": (3, 1, 0, 3)}, "Weight must be a dense tensor"),
    (depthwise, {"dtype": "float64"}, "Weight must have the type of X"),
    (depthwise, {"dtype": "int32"}, "Weight must be a dense tensor of float32 or float64"),
    (depthwise, {"stride": 3}, "the stride is 3"),
    (depthwise, {"stride": 0}, "the stride is 0"),
    (depthwise, {"dilation": 0}, "the dilation is 0"),
    (depthwise, {"dilation": LARGE}, "the kernel is larger than the padded image"),
    (depthwise, {"weight": (3, 1, 7, 3)}, "the kernel is larger than the padded image"),
    (depthwise, {"padding": (0, -1, 0, 0)}, "none of them negative"),
    (depthwise, {"padding": (1, 1)}, "four numbers"),
    (depthwise, {"padding": [LARGE] * 4}, "is too large"),
    (depthwise, {"padding": [0, LARGE, 0, 0]}, "is too large"),
    (depthwise, {"padding": [20000] * 4}, "is too large"),
    (depthwise, {"padding": [20000] * 4, "stride": 2}, "is too large"),
    (depthwise, {"padding": [LARGE] * 4, "dilation": LARGE}, "is too large"),
    (depthwise, {"isa": "neon"}, "no instruction set 'neon'"),
    (norm, {"x": (2, 16, 4, 4)}, "Weight has shape [3] and must have [16]"),
    (norm, {"bias": (2,)}, "Bias has shape [2] and must have [3]"),
    (norm, {"weight": (3, 1)}, "Weight has shape [3, 1]"),
    (norm, {"weight": ()}, "Weight has shape []"),
    (norm, {"x": (2, 3, 0, 5)}, "X must be a dense tensor of float32 or float64 on the CPU, and not empty"),
    (norm, {"x": (2, 3)}, "X has shape [2, 3]"),
    (norm, {"dtype": "float64"}, "Bias must have the type of X"),
    (pointwise, {"x": (2, 5, 5)}, "X has shape [2, 5, 5]"),
    (pointwise, {"weight": (4, 2, 1, 1)}, "Weight has shape [4, 2, 1, 1] and must have [4, 3, 1, 1]"),
    (pointwise, {"weight": (4, 3, 3, 3)}, "Weight has shape [4, 3, 3, 3]"),
    (pointwise, {"weight": (4, 3)}, "Weight has shape [4, 3] and must have [O, C, 1, 1]"),
    (pointwise, {"dtype": "float64"}, "Weight must have the type of X"),
    (dense, {"x": (2, 3)}, "X has shape [2, 3]"),
    (dense, {"x": (2, 3, 2, 1)}, "X has shape [2, 3, 2, 1] and must have [2, 3, 1, 1]"),
    (dense, {"weight": (4, 2, 1, 1)}, "Weight has shape [4, 2, 1, 1] and must have [4, 3, 1, 1]"),
    (dense, {"weight": (4, 3)}, "Weight has shape [4, 3] and must have [O, C, 1, 1]"),
    (dense, {"bias": (3,)}, "Bias has shape [3] and must have [4]"),
    (dense, {"dtype": "float64"}, "Weight must have the type of X"),
    (patches, {"x": (2, 5, 5)}, "X has shape [2, 5, 5]"),
    (patches, {"kernel": (3,)}, "must have 2 numbers each"),
    (patches, {"padding": (1, 1)}, "and padding 4"),
    (patches, {"padding": (0, 0, -1, 0)}, "padding must not be negative"),
    (patches, {"padding": (0, LARGE, 0, 0)}, "must not be negative nor more than"),
    (patches, {"stride": (1, 0)}, "must be positive"),
    (patches, {"dilation": (0, 1)}, "must be positive"),
    (patches, {"kernel": (6, 3)}, "a kernel of 6 pixels does not fit into a padded image of 5"),
    (patches, {"dilation": (1, LARGE)}, "does not fit"),
    (patches, {"padding": (4096, 4096, 4096, 4096), "kernel": (2048, 2048)}, "numbers are too many"),
    (norm, {"isa": ""}, "no instruction set ''"),
    (means, {"isa": ""}, "no instruction set ''"),
    (means, {"x": (2, 3, 5)}, "X has shape [2, 3, 5]"),
    (means, {"x": (2, 3, 0, 5)}, "and not empty"),
    (factors, {"x": (2, 3, 5)}, "X has shape [2, 3, 5]"),
    (factors, {"by": (2, 3)}, "Factors has shape [2, 3] and must have [2, 3, 1, 1]"),
    (factors, {"by": (3, 2, 1, 1)}, "Factors has shape [3, 2, 1, 1]"),
    (factors, {"dtype": "float64"}, "Factors must have the type of X"),
    (factors, {"isa": "mmx"}, "no instruction set 'mmx'"),
]


@pytest.mark.parametrize(
    ("operator", "arguments", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", str(value)[-40:])
)
def test_an_operator_refuses_what_its_kernel_cannot_take(operator, arguments, message):
    operator()
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        operator(**arguments)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool"])
def test_swish_refuses_other_types(dtype):
    x = paddle.ones([4]).astype(dtype)
    with pytest.raises(ValueError, match="X must be a dense tensor of float32 or float64 on the CPU"):
        run_operator("pimm_swish", (x,), cpu_backend())


FUNCTIONS = {
    "depthwise": lambda x: depthwise_conv2d(x, draw(3, 1, 3, 3), padding=1),
    "pointwise": lambda x: pointwise_conv2d(x, draw(4, 3, 1, 1)),
    "batch_norm": lambda x: batch_norm(x, draw(3), draw(3))[0],
    "batch_norm and swish": lambda x: batch_norm(x, draw(3), draw(3), then_swish=True)[0],
    "swish": swish,
    "factors": lambda x: scale_channels(x, draw(2, 3, 1, 1)),
    "means": global_avg_pool2d,
    "dense": lambda x: pointwise_conv2d(x[:, :, :1, :1], draw(4, 3, 1, 1), draw(4)),
}


@pytest.mark.parametrize("gradient", [(2, 3, 5, 6), (2, 3, 25), (2, 3, 5), (1,)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_of_another_shape_is_refused(name, gradient):
    x = draw(2, 3, 5, 5)
    with pytest.raises((OSError, ValueError), match="shape"):
        paddle.grad(FUNCTIONS[name](x), [x], draw(*gradient))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 16, 4, 4), (2, 4, 4, 4), (2, 1, 4, 4), (2, 8, 4), (8,)], ids=str)
def test_a_batch_norm_refuses_images_of_other_channels_as_paddles_does(shape, training, affine):
    for layer in (paddle.nn.BatchNorm2D(8), layers.BatchNorm2d(8, affine=affine)):
        layer.train() if training else layer.eval()
        with pytest.raises(ValueError, match=r"shape|Shape|4D"):
            layer(paddle.rand(shape))
    np.testing.assert_array_equal([layer._mean.numpy(), layer._variance.numpy()], [[0] * 8, [1] * 8])


@pytest.mark.parametrize(("weight", "bias"), [(8, 5), (5, 8), (5, 5), (1, 1), (8, 1)])
def test_a_batch_norm_refuses_weights_of_another_length(weight, bias):
    with pytest.raises(ValueError, match=r"shape of (scale|bias) must equal"):
        batch_norm(draw(2, 8, 4, 4), draw(weight), draw(bias))


OTHER_TYPES = [("float32", "float64"), ("float64", "float32")]


@pytest.mark.parametrize(("dtype", "other"), OTHER_TYPES)
def test_tensors_of_two_types_are_an_error_as_in_paddle(dtype, other):
    x = draw(2, 8, 4, 4, dtype=dtype)
    with pytest.raises(ValueError, match="type"):
        batch_norm(x, draw(8, dtype=other), draw(8, dtype=other))
    with pytest.raises(ValueError, match="type"):
        depthwise_conv2d(x, draw(8, 1, 3, 3, dtype=other))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("groups", ["depthwise", "plain"])
@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((5, 5), {"padding": LARGE}, "padding of a convolution is"),
        ((1, 1), {"padding": 20000}, "from 0 to 4096"),
        ((5, 5), {"padding": [0, 2**40, 0, 0]}, "padding of a convolution is"),
        ((5, 5), {"padding": -1}, "padding of a convolution is"),
        ((5, 5), {"padding": (1, 1, 1)}, "padding of a convolution is"),
        ((5, 5), {"padding": 1.5}, "padding of a convolution is"),
        ((5, 5), {"padding": "same"}, "padding of a convolution is"),
        ((5, 5), {"stride": 0}, "stride of a convolution is"),
        ((5, 5), {"stride": 2**31}, "stride of a convolution is"),
        ((5, 5), {"stride": (1,)}, "stride of a convolution is"),
        ((5, 5), {"dilation": 0}, "dilation of a convolution is"),
        ((5, 5), {"dilation": -LARGE}, "dilation of a convolution is"),
        ((5, 5), {"dilation": LARGE}, "does not fit into an image of 5x5, padded to 5x5"),
        ((2, 9), {}, "a kernel of 3x3 pixels (with its dilation) does not fit into an image of 2x9, padded to 2x9"),
        ((0, 5), {"padding": 3}, "does not fit into an image of 0x5"),
    ],
    ids=str,
)
def test_a_convolution_without_an_output_is_one_line(size, options, message, channels, groups):
    x = draw(2, channels, *size)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        if groups == "depthwise":
            depthwise_conv2d(x, draw(channels, 1, 3, 3), **options)
        else:
            conv2d(x, draw(4, channels, 3, 3), **options)
    assert len(str(caught.value)) < 400


def test_a_stride_beyond_the_image_leaves_one_output():
    x, weight = draw(1, 3, 5, 5), draw(3, 1, 3, 3)
    out = depthwise_conv2d(x, weight, stride=LARGE)
    np.testing.assert_allclose(out.numpy(), depthwise_conv2d(x, weight)[:, :, :1, :1].numpy(), rtol=1e-5, atol=1e-5)


def test_the_largest_padding_is_all_zeros_around_the_image():
    x, weight = draw(1, 1, 1, 1), draw(1, 1, 3, 3)
    out = depthwise_conv2d(x, weight, padding=(4096, 1)).numpy()
    assert out.shape == (1, 1, 8191, 1) and np.count_nonzero(out) == 3
    np.testing.assert_allclose(out[0, 0, 4094:4097, 0], (x * weight[0, 0, ::-1, 1]).numpy()[0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (8,)], ids=str)
@pytest.mark.parametrize(("function", "weight"), [(depthwise_conv2d, (4, 1, 3, 3)), (pointwise_conv2d, (4, 4, 1, 1))])
def test_a_bias_has_one_value_for_each_filter(function, weight, shape):
    with pytest.raises(ConfigError, match=r"bias of a convolution has shape .*; it must be \[4\]"):
        function(draw(2, 4, 5, 5), draw(*weight), draw(*shape))


@pytest.mark.parametrize("weight", [(4, 2, 1, 1), (4, 3, 1), (4, 3)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 5)], ids=str)
def test_a_pointwise_convolution_refuses_other_channels(size, weight):
    with pytest.raises(ValueError, match=r"shape|dimension"):
        pointwise_conv2d(draw(2, 3, *size), draw(*weight))


@pytest.mark.parametrize("shapes", [((), (3, 1, 3, 3)), ((3, 5, 5), (3, 1, 3, 3)), ((2, 3, 5, 5), (3, 9))])
def test_a_depthwise_convolution_takes_four_dimensions(shapes):
    with pytest.raises(ConfigError, match=r"takes \[N, C, H, W\] and \[C, 1, height, width\], not"):
        depthwise_conv2d(*(draw(*shape) for shape in shapes))
