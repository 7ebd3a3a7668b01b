"""Windows of feature maps that need not be multiples of them."""

import paddle.nn.functional as F

from pimm.layers.helpers import to_pair

__all__ = ["join_windows", "split_windows"]


def split_windows(x, size):
    """Return the windows of feature maps, and how many there are in an image.

    Args:
        x: feature maps, [N, H, W, C]; zeros are added below and at the right to fill the last windows.
        size: height and width of a window, or one number for both.

    Returns:
        windows [N * rows * columns, height, width, C], and (rows, columns).
    """
    height, width, channels = x.shape[1:]
    high, wide = to_pair(size)
    rows, columns = -(-height // high), -(-width // wide)
    if rows * high != height or columns * wide != width:
        x = F.pad(x, [0, columns * wide - width, 0, rows * high - height], data_format="NHWC")
    x = x.reshape([-1, rows, high, columns, wide, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, high, wide, channels]), (rows, columns)


def join_windows(windows, grid):
    """Return the feature maps [N, rows * height, columns * width, C] of windows, the reverse of `split_windows`.

    Args:
        windows: [N * rows * columns, height, width, C].
        grid: (rows, columns).
    """
    (rows, columns), (high, wide, channels) = grid, windows.shape[1:]
    x = windows.reshape([-1, rows, columns, high, wide, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, rows * high, columns * wide, channels])
