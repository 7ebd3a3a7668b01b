"""Windows of feature maps that need not be multiples of them."""

import paddle.nn.functional as F

__all__ = ["join_windows", "split_windows"]


def split_windows(x, size):
    """Return the square windows of feature maps, and how many there are in an image.

    Args:
        x: feature maps, [N, H, W, C]; zeros are added below and at the right to fill the last windows.
        size: rows, and columns, of a window.

    Returns:
        windows [N * rows * columns, size, size, C], and (rows, columns).
    """
    height, width, channels = x.shape[1:]
    rows, columns = -(-height // size), -(-width // size)
    if (rows * size, columns * size) != (height, width):
        x = F.pad(x, [0, 0, 0, rows * size - height, 0, columns * size - width, 0, 0])
    x = x.reshape([-1, rows, size, columns, size, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, size, size, channels]), (rows, columns)


def join_windows(windows, grid):
    """Return the feature maps [N, rows * size, columns * size, C] of windows, the reverse of `split_windows`.

    Args:
        windows: [N * rows * columns, size, size, C].
        grid: (rows, columns).
    """
    (rows, columns), (size, channels) = grid, windows.shape[2:]
    x = windows.reshape([-1, rows, columns, size, size, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, rows * size, columns * size, channels])
