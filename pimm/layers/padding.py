"""How much a convolution or a pooling pads: PyTorch's symmetric way, TensorFlow's 'same', or none."""

import paddle.nn.functional as F

from pimm.errors import ConfigError


def get_padding(kernel_size, stride=1, dilation=1, **_):
    """Symmetric padding that keeps the size at stride 1 for odd kernels."""
    return ((stride - 1) + dilation * (kernel_size - 1)) // 2


def get_same_padding(x, k, s, d):
    """Total 'same' padding of one axis: size ``x``, kernel ``k``, stride ``s``, dilation ``d``."""
    return max((-(-x // s) - 1) * s + (k - 1) * d + 1 - x, 0)


def is_static_pad(kernel_size, stride=1, dilation=1, **_):
    """Whether 'same' padding is symmetric and independent of the input's size."""
    return stride == 1 and (dilation * (kernel_size - 1)) % 2 == 0


def same_padding(size, kernel_size, stride, dilation=(1, 1)):
    """``[top, bottom, left, right]`` of 'same' padding for an image of ``size`` (height, width); pairs throughout."""
    total = [get_same_padding(*axis) for axis in zip(size, kernel_size, stride, dilation)]
    return [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2]


def pad_same(x, k, s, d=(1, 1), value=0.0):
    """``x`` [N, C, H, W] padded with ``value`` as 'same' padding wants it; kernel, stride and dilation are pairs."""
    top, bottom, left, right = same_padding(x.shape[2:], k, s, d)
    return F.pad(x, [left, right, top, bottom], value=value) if top + bottom + left + right else x


def get_padding_value(padding, kernel_size, **kwargs):
    """Resolve ``padding`` (a number, ``'same'``, ``'valid'`` or ``''`` for symmetric) for a kernel.

    Returns ``(padding, dynamic)``; ``dynamic`` means that 'same' padding depends on the input's size.
    """
    if not isinstance(padding, str):
        return padding, False
    kind = padding.lower()
    if kind not in ("", "same", "valid"):
        raise ConfigError(f"unknown padding {padding!r}; valid are 'same', 'valid', '' and numbers")
    if kind == "valid":
        return 0, False
    if kind == "same" and not is_static_pad(kernel_size, **kwargs):
        return 0, True
    return get_padding(kernel_size, **kwargs), False
