"""Turn convolutions with batch norm, or the sum of several, into one convolution for inference."""

import paddle
import paddle.nn.functional as F

from pimm.layers.conv import Conv2d
from pimm.layers.helpers import to_pair
from pimm.layers.linear import Linear
from pimm.layers.padding import get_padding


def fuse_norm(kernel, norm, bias=None):
    """Return the kernel and the bias of a convolution that does what a convolution and a batch norm after it do.

    Args:
        kernel: filters, [O, C / groups, kernel height, kernel width].
        norm: the batch norm.
        bias: [O], or None.
    """
    scale, shift = norm_scale(norm)
    return kernel * scale.reshape([-1, 1, 1, 1]), shift if bias is None else bias * scale + shift


def norm_scale(norm):
    """Return the factor and the summand of each channel that a batch norm applies in evaluation mode."""
    scale = (norm._variance + norm._epsilon).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm._mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def identity_kernel(channels, groups, kernel_size):
    """Return the filters of a convolution that returns its input, [C, C / groups, kernel height, kernel width]."""
    width = channels // groups
    kernel = F.one_hot(paddle.arange(channels) % width, width).reshape([channels, width, 1, 1])
    return pad_kernel(kernel, kernel_size)


def pad_kernel(kernel, kernel_size):
    """Return filters with zeros around them, so that they have a larger size, (height, width); sizes are odd."""
    rows, columns = ((size - own) // 2 for size, own in zip(to_pair(kernel_size), kernel.shape[2:]))
    return F.pad(kernel, [columns, columns, rows, rows]) if rows or columns else kernel


def sum_branches(branches, identity, channels, groups, kernel_size):
    """Return the kernel and the bias of a convolution that does what parallel branches do.

    Args:
        branches: layers with a convolution ``conv`` and a batch norm ``bn``.
        identity: the batch norm of a branch without a convolution, or None.
        channels: channels of the input.
        groups: groups of channels that do not mix.
        kernel_size: of the largest convolution.
    """
    fused = [fuse_norm(pad_kernel(branch.conv.weight, kernel_size), branch.bn) for branch in branches]
    if identity is not None:
        fused.append(fuse_norm(identity_kernel(channels, groups, kernel_size), identity))
    kernels, biases = zip(*fused)
    return sum(kernels), sum(biases)


def conv_with(kernel, bias, stride=1, dilation=1, groups=1, padding=None):
    """Return a convolution with these values; without ``padding`` it keeps the size at stride 1."""
    outs, ins, *size = kernel.shape
    stride, dilation = to_pair(stride), to_pair(dilation)
    if padding is None:
        padding = tuple(get_padding(*axis) for axis in zip(size, stride, dilation))
    conv = Conv2d(ins * groups, outs, size, stride, padding, dilation, groups)
    conv.weight.set_value(kernel)
    conv.bias.set_value(bias)
    return conv


def linear_with(weight, bias):
    """Return a fully connected layer with these values; the weight is [in_features, out_features]."""
    layer = Linear(*weight.shape)
    layer.weight.set_value(weight)
    layer.bias.set_value(bias)
    return layer
