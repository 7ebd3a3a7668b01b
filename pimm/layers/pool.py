"""Pooling: global with a choice of kinds, and windowed with TensorFlow's 'same' padding."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.helpers import global_avg_pool2d, to_pair
from pimm.layers.padding import get_padding_value, pad_same


def _avg(x, output_size):
    return global_avg_pool2d(x) if to_pair(output_size) == (1, 1) else F.adaptive_avg_pool2d(x, output_size)


def _avgmax(x, output_size):
    return 0.5 * (_avg(x, output_size) + F.adaptive_max_pool2d(x, output_size))


def _catavgmax(x, output_size):
    return paddle.concat([_avg(x, output_size), F.adaptive_max_pool2d(x, output_size)], axis=1)


def _unpooled(x, output_size):
    return x


_ADAPTIVE_POOLS = {  # name: (function, output channels per input channel)
    "": (_unpooled, 1),
    "avg": (_avg, 1),
    "max": (F.adaptive_max_pool2d, 1),
    "avgmax": (_avgmax, 1),
    "catavgmax": (_catavgmax, 2),
}


def _global_mean(x, axes, keepdim):
    return x.mean(axes, keepdim=keepdim)


def _global_max(x, axes, keepdim):
    return x.amax(axes, keepdim=keepdim)


def _global_avgmax(x, axes, keepdim):
    return 0.5 * (x.mean(axes, keepdim=keepdim) + x.amax(axes, keepdim=keepdim))


def _global_catavgmax(x, axes, keepdim):
    return paddle.concat([x.mean(axes, keepdim=keepdim), x.amax(axes, keepdim=keepdim)], axis=-1)


_CHANNELS_LAST = {  # name: function of images [N, H, W, C]
    "": lambda x, axes, keepdim: x,
    "avg": _global_mean,
    "max": _global_max,
    "avgmax": _global_avgmax,
    "catavgmax": _global_catavgmax,
}


class SelectAdaptivePool2d(nn.Layer):
    """Pooling of images to a given size.

    Args:
        output_size: a number or (height, width); 1 for images [N, H, W, C].
        pool_type: ``avg``, ``max``, ``avgmax`` for the mean of both, ``catavgmax`` for both side by side, or ``""`` for
            none. ``fast`` may come before the word, or stand for ``avg``; it changes nothing here.
        flatten: whether the result is [N, C] in place of [N, C, 1, 1].
        input_fmt: order of axes, ``NCHW`` or ``NHWC``.

    Raises:
        ConfigError: if ``pool_type`` or ``input_fmt`` is another word, and for another ``output_size`` with ``NHWC``.
    """

    def __init__(self, output_size=1, pool_type="avg", flatten=False, input_fmt="NCHW"):
        super().__init__()
        pool_type = pool_type or ""
        self.kind = (pool_type[len("fast") :] or "avg") if pool_type.startswith("fast") else pool_type
        if self.kind not in _ADAPTIVE_POOLS:
            valid = ", ".join(filter(None, _ADAPTIVE_POOLS))
            raise ConfigError(f"unknown pooling {pool_type!r:.80}; valid are {valid}, and '' for none")
        if input_fmt not in ("NCHW", "NHWC") or (input_fmt == "NHWC" and output_size != 1):
            raise ConfigError(
                f"pooling takes images NCHW, or to a size of 1 NHWC, not {input_fmt!r:.60} to {output_size}"
            )
        self.output_size = output_size
        self.pool_type = pool_type
        self.flatten = flatten
        self.input_fmt = input_fmt

    def forward(self, x):
        if self.input_fmt == "NHWC":
            x = _CHANNELS_LAST[self.kind](x, [1, 2], keepdim=not self.flatten)
        else:
            x = _ADAPTIVE_POOLS[self.kind][0](x, self.output_size)
        return x.flatten(1) if self.flatten and x.ndim > 2 else x

    def feat_mult(self):
        """Return the number of output channels for each input channel."""
        return _ADAPTIVE_POOLS[self.kind][1]

    def is_identity(self):
        """Return whether there is no pooling."""
        return not self.pool_type

    def extra_repr(self):
        return f"output_size={self.output_size}, pool_type={self.pool_type}, flatten={self.flatten}"


SelectAdaptivePool2D = SelectAdaptivePool2d  # in Paddle's spelling


class AvgPool2dSame(nn.Layer):
    """Average pooling with 'same' padding, whose zeros count in the average."""

    def __init__(self, kernel_size, stride=None):
        super().__init__()
        self.kernel_size = to_pair(kernel_size)
        self.stride = to_pair(stride or kernel_size)

    def forward(self, x):
        return F.avg_pool2d(pad_same(x, self.kernel_size, self.stride), self.kernel_size, self.stride)


class MaxPool2dSame(nn.Layer):
    """Maximum pooling with 'same' padding."""

    def __init__(self, kernel_size, stride=None):
        super().__init__()
        self.kernel_size = to_pair(kernel_size)
        self.stride = to_pair(stride or kernel_size)

    def forward(self, x):
        x = pad_same(x, self.kernel_size, self.stride, value=-float("inf"))
        return F.max_pool2d(x, self.kernel_size, self.stride)


def _avg_pool(kernel_size, stride, padding, count_include_pad=True):
    return nn.AvgPool2D(kernel_size, stride, padding, exclusive=not count_include_pad)


_POOLS = {  # name: (with fixed padding, with 'same' padding)
    "avg": (_avg_pool, AvgPool2dSame),
    "max": (nn.MaxPool2D, MaxPool2dSame),
}


def create_pool2d(pool_type, kernel_size, stride=None, padding="", **kwargs):
    """Create a pooling layer.

    Args:
        pool_type: ``avg`` or ``max``.
        kernel_size: a number or (height, width).
        stride: a number or (height, width); None for the size of the kernel.
        padding: as in `get_padding_value`.
        kwargs: ``count_include_pad``, by default true, for average pooling with fixed padding.

    Raises:
        ConfigError: if ``pool_type`` is another word.
    """
    if pool_type not in _POOLS:
        raise ConfigError(f"unknown pooling {pool_type!r:.80}; valid are {', '.join(_POOLS)}")
    stride = stride or kernel_size
    padding, dynamic = get_padding_value(padding, kernel_size, stride=stride)
    fixed, same = _POOLS[pool_type]
    return same(kernel_size, stride) if dynamic else fixed(kernel_size, stride, padding, **kwargs)
