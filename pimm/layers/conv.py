"""Two-dimensional convolutions: plain, with TensorFlow's 'same' padding, of mixed kernels, of conditional experts.

Arguments, names in the state and initial values, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), are PyTorch's and timm's.
`pimm.ops` computes convolutions of one channel a group and those with a kernel of one pixel, which is fast on a CPU.
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.helpers import to_pair
from pimm.layers.padding import get_padding_value, same_padding
from pimm.ops import depthwise_conv2d, patches_conv2d, pointwise_conv2d, takes_patches
from pimm.ops.geometry import check_geometry, four_sides


def _uniform(fan_in):
    bound = 1 / math.sqrt(fan_in)
    return nn.initializer.Uniform(-bound, bound)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve images in the way that is fastest for these sizes.

    Args:
        x: images, [N, C, H, W].
        weight: filters, [O, C / groups, kernel height, kernel width].
        bias: [O], or None.
        stride: a number or (height, width).
        padding: a number, (height, width) or (top, bottom, left, right).
        dilation: a number or (height, width).
        groups: groups of channels that do not mix.

    Raises:
        ConfigError: if these sizes give no output.
    """
    if groups > 1 and list(weight.shape[:2]) == [groups, 1]:
        return depthwise_conv2d(x, weight, bias, stride, padding, dilation)
    if groups == 1 and list(weight.shape[2:]) == [1, 1] and _nothing_but(1, stride) and _nothing_but(0, padding):
        return pointwise_conv2d(x, weight, bias)
    if paddle.in_dynamic_mode() and x.ndim == 4:
        sizes = tuple(x.shape[2:]), tuple(weight.shape[2:])
        check_geometry(*sizes, to_pair(stride), four_sides(padding), to_pair(dilation))
    if groups == 1 and takes_patches(x, weight):
        return patches_conv2d(x, weight, bias, to_pair(stride), four_sides(padding), to_pair(dilation))
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def conv2d_same(x, weight, bias=None, stride=(1, 1), dilation=(1, 1), groups=1):
    """Convolve as `conv2d` does, with TensorFlow's 'same' padding for this size; stride and dilation are pairs."""
    if not paddle.in_dynamic_mode() and dilation == (1, 1):  # an exported model takes images of any size
        return F.conv2d(x, weight, bias, stride, "SAME", groups=groups)
    padding = same_padding(x.shape[2:], weight.shape[2:], stride, dilation)
    return conv2d(x, weight, bias, stride, padding, dilation, groups)


def _nothing_but(value, sizes):
    return sizes == value if isinstance(sizes, int) else all(size == value for size in sizes)


class Conv2d(nn.Conv2D):
    """`paddle.nn.Conv2D` with PyTorch's arguments, attributes and initial values."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        init = _uniform(in_channels // groups * math.prod(to_pair(kernel_size)))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            weight_attr=init,
            bias_attr=init if bias else False,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = to_pair(kernel_size)
        self.stride = to_pair(stride)
        self.padding = to_pair(padding)
        self.dilation = to_pair(dilation)
        self.groups = groups

    def forward(self, x):
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2dSame(Conv2d):
    """`Conv2d` with TensorFlow's 'same' padding, computed from the size of each input; ``padding`` is ignored."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)

    def forward(self, x):
        return conv2d_same(x, self.weight, self.bias, self.stride, self.dilation, self.groups)


def _create_conv2d_pad(in_channels, out_channels, kernel_size, padding="", bias=False, **kwargs):
    padding, dynamic = get_padding_value(
        padding, kernel_size, stride=kwargs.get("stride", 1), dilation=kwargs.get("dilation", 1)
    )
    layer = Conv2dSame if dynamic else Conv2d
    return layer(in_channels, out_channels, kernel_size, padding=padding, bias=bias, **kwargs)


class MixedConv2d(nn.LayerList):
    """Convolution whose channel groups have kernels of different sizes (MixConv, https://arxiv.org/abs/1907.09595).

    ``kernel_size`` lists the kernel of each group. Channels are split evenly, and the first group takes the remainder.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size=3, stride=1, padding="", dilation=1, depthwise=False, **kwargs
    ):
        kernels = kernel_size if isinstance(kernel_size, list) else [kernel_size]
        in_splits = _split_channels(in_channels, len(kernels))
        out_splits = _split_channels(out_channels, len(kernels))
        super().__init__(
            _create_conv2d_pad(
                ins, outs, kernel, padding, stride=stride, dilation=dilation, groups=outs if depthwise else 1, **kwargs
            )
            for kernel, ins, outs in zip(kernels, in_splits, out_splits)
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.splits = in_splits

    def forward(self, x):
        parts = paddle.split(x, self.splits, axis=1)
        return paddle.concat([conv(part) for conv, part in zip(self, parts)], axis=1)


def _split_channels(channels, groups):
    size = channels // groups
    return [channels - size * (groups - 1)] + [size] * (groups - 1)


class CondConv2d(nn.Layer):
    """Convolution whose kernel is a mixture of experts, another for each image (https://arxiv.org/abs/1904.04971).

    ``forward(x, routing_weights)`` takes images [N, C, H, W] and the experts' shares [N, num_experts]. The state holds
    the flattened kernel of one expert a row, [num_experts, O * C / groups * kernel height * kernel width].
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=3,
        stride=1,
        padding="",
        dilation=1,
        groups=1,
        bias=False,
        num_experts=4,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = to_pair(kernel_size)
        self.stride = to_pair(stride)
        self.padding, self.dynamic_padding = get_padding_value(padding, kernel_size, stride=stride, dilation=dilation)
        self.dilation = to_pair(dilation)
        self.groups = groups
        self.num_experts = num_experts
        self.weight_shape = (out_channels, in_channels // groups, *self.kernel_size)
        init = _uniform(math.prod(self.weight_shape[1:]))
        self.weight = self.create_parameter([num_experts, math.prod(self.weight_shape)], default_initializer=init)
        self.bias = self.create_parameter([num_experts, out_channels], default_initializer=init) if bias else None

    def forward(self, x, routing_weights):
        return self.convolve(x, routing_weights, self.weight)

    def convolve(self, x, routing_weights, weight):
        """Convolve each image with its mixture of the experts' kernels ``weight``, which has the layer's own shape."""
        if not paddle.in_dynamic_mode():
            return self._convolve_any_number(x, routing_weights, weight)
        batch, channels, height, width = x.shape
        outs, *kernel_shape = self.weight_shape
        weight = paddle.matmul(routing_weights, weight).reshape([batch * outs, *kernel_shape])
        bias = None if self.bias is None else paddle.matmul(routing_weights, self.bias).flatten()
        padding = self.padding
        if self.dynamic_padding:
            padding = same_padding((height, width), self.kernel_size, self.stride, self.dilation)
        # The images of a batch become groups of channels of one image, so that each image meets its own kernel
        x = x.reshape([1, batch * channels, height, width])
        x = conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups * batch)
        return x.reshape([batch, outs, *x.shape[2:]])

    def _convolve_any_number(self, x, routing_weights, weight):
        """Mix the experts' outputs instead of their kernels: an exported model does not know the number of images."""
        out = 0 if self.bias is None else paddle.matmul(routing_weights, self.bias).unsqueeze([2, 3])
        for expert in range(weight.shape[0]):
            kernel, share = weight[expert].reshape(self.weight_shape), routing_weights[:, expert]
            if self.dynamic_padding:
                part = conv2d_same(x, kernel, None, self.stride, self.dilation, self.groups)
            else:
                part = conv2d(x, kernel, None, self.stride, self.padding, self.dilation, self.groups)
            out = out + share.reshape([-1, 1, 1, 1]) * part
        return out


def create_conv2d(in_chs, out_chs, kernel_size, **kwargs):
    """Create the convolution that fits the arguments, as timm does; without a bias unless ``bias=True``.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: a number, (height, width), or a list of numbers for `MixedConv2d`.
        kwargs: ``groups`` of channels; ``depthwise=True`` makes every channel a group of its own. ``num_experts`` above
            0 makes a `CondConv2d`. ``padding`` chooses between `Conv2d` and `Conv2dSame` (see `get_padding_value`). The
            layer takes the rest.

    Raises:
        ConfigError: for mixed kernels together with experts, or with groups of several channels.
    """
    num_experts, groups = kwargs.pop("num_experts", 0), kwargs.pop("groups", 1)
    depthwise = kwargs.pop("depthwise", False) or groups == in_chs > 1
    if isinstance(kernel_size, list):
        if num_experts:
            raise ConfigError(f"mixed kernels {kernel_size} and {num_experts} experts cannot be combined")
        if groups > 1 and not depthwise:
            raise ConfigError(f"mixed kernels {kernel_size} take 1 or {in_chs} groups, not {groups}")
        return MixedConv2d(in_chs, out_chs, kernel_size, depthwise=depthwise, **kwargs)
    groups = in_chs if depthwise else groups
    if num_experts:
        return CondConv2d(in_chs, out_chs, kernel_size, groups=groups, num_experts=num_experts, **kwargs)
    return _create_conv2d_pad(in_chs, out_chs, kernel_size, groups=groups, **kwargs)
