"""Windows of Swin transformers: their sizes, attention in them, shifted windows and the masks of these.

Feature maps are [N, H, W, C]; sizes are (height, width).
"""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import DropPath, Mlp, to_pair
from pimm.layers.windows import join_windows, split_windows

_LARGEST_SCALE = math.log(100.0)
_MASKED = -100.0  # added to the attention between pixels that were not neighbours before the shift


def stage_window_sizes(window_size, num_stages):
    """Return the window size of each stage.

    Args:
        window_size: a number, (height, width), or a list of one of these for each stage.
        num_stages: the number of stages.

    Raises:
        ConfigError: for another number of sizes, and for sizes below 1.
    """
    is_list = isinstance(window_size, (list, tuple))
    if not is_list or (len(window_size) == 2 and not isinstance(window_size[0], (list, tuple))):
        window_size = [window_size] * num_stages
    sizes = tuple(to_pair(size) for size in window_size)
    if len(sizes) != num_stages or any(side < 1 for size in sizes for side in size):
        raise ConfigError(f"window_size is {window_size!r:.80}; must be positive, one size or {num_stages}")
    return sizes


def window_sizes_by_ratio(grid_size, window_ratio, num_stages):
    """Return the window size of each stage as a fraction of the grid of patches.

    Args:
        grid_size: patches of an image.
        window_ratio: windows along each side of the grid, a number or one for each stage.
        num_stages: the number of stages.

    Raises:
        ConfigError: for another number of ratios, and for ratios below 1.
    """
    ratios = tuple(window_ratio) if isinstance(window_ratio, (list, tuple)) else (window_ratio,) * num_stages
    if len(ratios) != num_stages or any(ratio < 1 for ratio in ratios):
        raise ConfigError(f"window_ratio is {window_ratio!r:.80}; must be positive, one number or {num_stages}")
    return tuple(tuple(max(1, side // ratio) for side in grid_size) for ratio in ratios)


def scaled_window_sizes(window_sizes, grid_size, reference_grid):
    """Return window sizes that are to ``grid_size`` as the given ones are to ``reference_grid``."""
    return tuple(
        tuple(max(1, side * new // old) for side, new, old in zip(size, grid_size, reference_grid))
        for size in window_sizes
    )


def shift_mask(size, window_size, shift_size):
    """Return what is added to the attention inside of shifted windows, [windows, area, area].

    Rolling an image brings rows and columns from opposite edges into one window; they do not attend to each other.

    Args:
        size: of the feature map, a multiple of the window size.
        window_size: size of the windows.
        shift_size: by how many pixels the windows are shifted.
    """
    regions = [_regions(*axis) for axis in zip(size, window_size, shift_size)]
    regions = 3 * regions[0].reshape([1, -1, 1, 1]) + regions[1].reshape([1, 1, -1, 1])
    regions = split_windows(regions, window_size)[0].flatten(1)  # [windows, area]
    return _MASKED * (regions.unsqueeze(1) != regions.unsqueeze(2)).astype("float32")


def _regions(size, window, shift):
    """Number the parts of an axis that were neighbours before the shift."""
    position = paddle.arange(size)
    if not shift:
        return paddle.zeros_like(position)
    return (position >= size - window).astype("int64") + (position >= size - shift).astype("int64")


def add_bias(attention, bias, mask=None):
    """Return the attention in windows [N * windows, heads, area, area] with a bias and the mask of shifted windows.

    Args:
        attention: the products of queries and keys.
        bias: numbers for each pair of positions, [heads, area, area].
        mask: as `shift_mask` returns it, or None.
    """
    if mask is None:
        return attention + bias
    by_window = attention.reshape([-1, mask.shape[0], *attention.shape[1:]])
    return (by_window + (bias + mask.unsqueeze(1).astype(bias.dtype))).reshape([-1, *attention.shape[1:]])


def cosine_attention(q, k, v, logit_scale, bias, mask, dropout):
    """Return the attention by the cosines of queries and keys, [N * windows, area, channels].

    Args:
        q, k, v: queries, keys and values, [N * windows, heads, area, channels of a head].
        logit_scale: logarithm of the factor of the cosines, at most 100, [heads, 1, 1].
        bias: numbers for each pair of positions, [heads, area, area].
        mask: as `shift_mask` returns it, or None.
        dropout: layer of dropout.
    """
    attention = paddle.matmul(F.normalize(q, axis=-1), F.normalize(k, axis=-1), transpose_y=True)
    attention = attention * logit_scale.clip(max=_LARGEST_SCALE).exp()
    attention = dropout(F.softmax(add_bias(attention, bias, mask), axis=-1))
    return paddle.matmul(attention, v).transpose([0, 2, 1, 3]).flatten(2)


class WindowBlock(nn.Layer):
    """Attention inside of windows, which may be shifted, and two fully connected layers; the base of both versions.

    A subclass creates ``attn``, ``norm1`` and ``norm2``, and says in `forward` where the normalisation is.

    Args:
        input_resolution: size of the feature maps, for which the windows are made.
        window_size: size of the windows; smaller where the feature map is smaller, but with ``always_partition``.
        shift_size: by how many pixels the windows are shifted; 0 where the feature map is one window.
        always_partition: whether windows stay as large as they are in feature maps that are smaller.
        dynamic_mask: whether the mask is computed for the size of each feature map.
        drop_path: stochastic depth.
    """

    def __init__(self, input_resolution, window_size, shift_size, always_partition, dynamic_mask, drop_path):
        super().__init__()
        self.input_resolution = to_pair(input_resolution)
        self.target_shift_size = to_pair(shift_size)
        self.always_partition, self.dynamic_mask = always_partition, dynamic_mask
        self._set_window(to_pair(window_size), self.target_shift_size)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def _create_mlp(self, dim, mlp_ratio, act_layer, drop):
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)

    def _set_window(self, window_size, shift_size):
        if not self.always_partition:
            sizes = list(zip(self.input_resolution, window_size, shift_size))
            shift_size = tuple(0 if side <= window else shift for side, window, shift in sizes)
            window_size = tuple(min(side, window) for side, window, _ in sizes)
        self.window_size, self.shift_size = window_size, shift_size
        mask = None
        if any(shift_size) and not self.dynamic_mask:
            mask = shift_mask(self._padded(self.input_resolution), window_size, shift_size)
        self.register_buffer("attn_mask", mask, persistable=False)

    def _padded(self, size):
        return [-(-side // window) * window for side, window in zip(size, self.window_size)]

    def set_input_size(self, feat_size, window_size, always_partition=None):
        """Make windows for feature maps of another size.

        Args:
            feat_size: size of the feature maps.
            window_size: size of the windows.
            always_partition: as in the constructor; None keeps it.
        """
        self.input_resolution = feat_size
        if always_partition is not None:
            self.always_partition = always_partition
        window_size = to_pair(window_size)
        shifted = any(self.target_shift_size)
        self._set_window(window_size, tuple(side // 2 for side in window_size) if shifted else (0, 0))
        self.attn.set_window_size(self.window_size)

    def _attend(self, x):
        """Return the attention inside of windows of feature maps [N, H, W, C]."""
        height, width, channels = x.shape[1:]
        if any(self.shift_size):
            x = paddle.roll(x, [-side for side in self.shift_size], axis=[1, 2])
        mask = self.attn_mask
        if any(self.shift_size) and self.dynamic_mask:
            mask = shift_mask(self._padded((height, width)), self.window_size, self.shift_size)
        windows, grid = split_windows(x, self.window_size)
        windows = self.attn(windows.flatten(1, 2), mask).reshape([-1, *self.window_size, channels])
        x = join_windows(windows, grid)[:, :height, :width]
        return paddle.roll(x, list(self.shift_size), axis=[1, 2]) if any(self.shift_size) else x


def patch_merging_input(x):
    """Return four neighbouring pixels side by side: [N, H, W, C] becomes [N, H / 2, W / 2, 4 C], rounded up."""
    height, width, channels = x.shape[1:]
    if height % 2 or width % 2:
        x = F.pad(x, [0, 0, 0, height % 2, 0, width % 2, 0, 0])
    x = x.reshape([-1, (height + 1) // 2, 2, (width + 1) // 2, 2, channels])
    return x.transpose([0, 1, 3, 4, 2, 5]).flatten(3)
