"""Blurring before a stride, against aliasing (https://arxiv.org/abs/1904.11486)."""

import functools
import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import conv2d
from pimm.layers.padding import get_padding
from pimm.messages import did_you_mean


class BlurPool2d(nn.Layer):
    """Blur images [N, C, H, W] with a binomial filter, and keep each ``stride``-th pixel.

    Args:
        channels: channels of the images; None for any number.
        filt_size: height and width of the filter.
        stride: a number.
        pad_mode: how images are padded: ``reflect``, ``replicate`` or ``constant``.

    Raises:
        ConfigError: if the filter has only one pixel.
    """

    def __init__(self, channels=None, filt_size=3, stride=2, pad_mode="reflect"):
        super().__init__()
        if filt_size < 2:
            raise ConfigError(f"filt_size of a blur is {filt_size}; must be at least 2")
        self.channels, self.filt_size, self.stride, self.pad_mode = channels, filt_size, stride, pad_mode
        self.padding = [get_padding(filt_size, stride)] * 4
        row = np.array([math.comb(filt_size - 1, k) for k in range(filt_size)], np.float32) / 2 ** (filt_size - 1)
        filt = np.tile(np.outer(row, row), (channels or 1, 1, 1, 1))
        self.register_buffer("filt", paddle.to_tensor(filt), persistable=False)

    def forward(self, x):
        x = F.pad(x, self.padding, mode=self.pad_mode)
        filt = self.filt.astype(x.dtype)
        if self.channels is None:
            filt = filt.expand([x.shape[1], 1, self.filt_size, self.filt_size])
        return conv2d(x, filt, None, self.stride, 0, 1, filt.shape[0])


def _avg_pool(channels, stride):
    return nn.AvgPool2D(stride)


_AA_LAYERS = {
    "avg": _avg_pool,
    "avgpool": _avg_pool,
    "blur": BlurPool2d,
    "blurpool": BlurPool2d,
    "blurpc": functools.partial(BlurPool2d, pad_mode="constant"),
}


def get_aa_layer(aa_layer):
    """Return what creates the anti-aliasing layers, ``create(channels=..., stride=...)``, None for none.

    Args:
        aa_layer: ``avg``, ``blur``, ``blurpc`` (padding with zeros), what creates the layers itself, ``""`` or None.

    Raises:
        ConfigError: for another word.
    """
    if not aa_layer or callable(aa_layer):
        return aa_layer or None
    key = aa_layer.lower().replace("_", "").replace("-", "")
    if key not in _AA_LAYERS:
        hint = did_you_mean(key, _AA_LAYERS) or f"; valid are {', '.join(_AA_LAYERS)}"
        raise ConfigError(f"unknown anti-aliasing layer {aa_layer!r:.60}{hint}")
    return _AA_LAYERS[key]


def create_aa(aa_layer, channels=None, stride=2, enable=True, noop=nn.Identity):
    """Create an anti-aliasing layer.

    Args:
        aa_layer: as in `get_aa_layer`.
        channels: channels of the images.
        stride: a number.
        enable: whether there is one.
        noop: class of the layer where there is none; None to return None.

    Raises:
        ConfigError: for an unknown word.
    """
    layer = get_aa_layer(aa_layer)
    if layer is None or not enable:
        return noop() if noop else None
    if layer is nn.AvgPool2D:
        layer = _avg_pool
    return layer(channels=channels, stride=stride)
