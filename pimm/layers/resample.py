"""Resize tables of numbers, such as position embeddings and kernels, as PyTorch's interpolation does.

Paddle's bicubic interpolation has no low-pass filter for smaller results, as PyTorch's ``antialias`` is. Resizing is
linear in rows and in columns, so that two small matrices do it, and gradients need nothing of their own.
"""

import functools

import numpy as np
import paddle


def _cubic(x, a):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x, _):
    return np.maximum(1 - np.abs(x), 0.0)


_FILTERS = {"bicubic": (_cubic, 2), "bilinear": (_triangle, 1)}  # and the filter's radius


@functools.lru_cache(maxsize=256)
def resize_matrix(old, new, interpolation="bicubic", antialias=True):
    """Return the matrix [new, old] of float64 that resizes a column of numbers.

    Args:
        old: how many numbers there are.
        new: how many there shall be.
        interpolation: ``bicubic`` or ``bilinear``.
        antialias: whether to filter as Pillow and PyTorch's ``antialias`` do.
    """
    function, radius = _FILTERS[interpolation]
    scale = old / new
    if not antialias:
        places = scale * (np.arange(new) + 0.5) - 0.5
        places = np.maximum(places, 0) if interpolation == "bilinear" else places
        matrix = np.zeros((new, old))
        for offset in range(1 - radius, radius + 1):
            taken = np.floor(places) + offset
            weights = function(places - taken, -0.75)
            np.add.at(matrix, (np.arange(new), np.clip(taken, 0, old - 1).astype(int)), weights)
        return matrix
    wide = max(scale, 1.0)
    centers = scale * (np.arange(new)[:, None] + 0.5)
    first, last = np.floor(centers - radius * wide + 0.5), np.floor(centers + radius * wide + 0.5)
    columns = np.arange(old)[None]
    weights = function((columns - centers + 0.5) / wide, -0.5) * ((columns >= first) & (columns < last))
    return weights / weights.sum(1, keepdims=True)


def resize(x, size, interpolation="bicubic", antialias=True):
    """Resize images [N, C, H, W] to a height and a width; arguments as those of `resize_matrix`."""
    rows, columns = (
        paddle.to_tensor(resize_matrix(int(old), int(new), interpolation, antialias).astype("float32"))
        for old, new in zip(x.shape[2:], size)
    )
    return paddle.matmul(paddle.matmul(rows, x.astype("float32")), columns, transpose_y=True).astype(x.dtype)
