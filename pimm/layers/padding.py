"""Sizes of padding for convolutions and pooling: PyTorch's symmetric padding, TensorFlow's 'same', or none."""

import paddle.nn.functional as F

from pimm.errors import ConfigError


def get_padding(kernel_size, stride=1, dilation=1, **_):
    """Return the symmetric padding, which keeps an image's size at stride 1 for odd kernels."""
    return ((stride - 1) + dilation * (kernel_size - 1)) // 2


def get_same_padding(x, k, s, d):
    """Return the sum of both sides' 'same' padding, for size ``x``, kernel ``k``, stride ``s`` and dilation ``d``."""
    return max((-(-x // s) - 1) * s + (k - 1) * d + 1 - x, 0)


def is_static_pad(kernel_size, stride=1, dilation=1, **_):
    """Return whether 'same' padding is symmetric and independent of the input's size."""
    return stride == 1 and (dilation * (kernel_size - 1)) % 2 == 0


def same_padding(size, kernel_size, stride, dilation=(1, 1)):
    """Return ``[top, bottom, left, right]`` of 'same' padding; every argument is a pair (height, width)."""
    total = [get_same_padding(*axis) for axis in zip(size, kernel_size, stride, dilation)]
    return [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2]


def pad_same(x, k, s, d=(1, 1), value=0.0):
    """Pad images with a value as 'same' padding asks for.

    Args:
        x: images, [N, C, H, W].
        k: height and width of the kernel.
        s: stride, (height, width).
        d: dilation, (height, width).
        value: of the new pixels.
    """
    top, bottom, left, right = same_padding(x.shape[2:], k, s, d)
    return F.pad(x, [left, right, top, bottom], value=value) if top + bottom + left + right else x


def get_padding_value(padding, kernel_size, **kwargs):
    """Return the padding in numbers, and whether 'same' padding depends on the input's size and is left for later.

    Args:
        padding: a number or numbers, ``'same'``, ``'valid'``, or ``''`` for symmetric padding.
        kernel_size: a number or (height, width).
        kwargs: ``stride`` and ``dilation``, as numbers.

    Raises:
        ConfigError: if ``padding`` is another word.
    """
    if not isinstance(padding, str):
        return padding, False
    kind = padding.lower()
    if kind not in ("", "same", "valid"):
        raise ConfigError(f"unknown padding {padding!r:.80}; valid are 'same', 'valid', '' and numbers")
    if kind == "valid":
        return 0, False
    if kind == "same" and not is_static_pad(kernel_size, **kwargs):
        return 0, True
    return get_padding(kernel_size, **kwargs), False
