"""Coordinates, frequencies and sines of position embeddings, with timm's names and arguments.

Patches are in the order of rows.
"""

import math

import paddle

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_GRID_TYPES = ("index", "pixel", "centered")
_GRID_INDEXING = ("ij", "xy")
_SIZE_OF_GRID = {
    "separate": lambda sizes: sizes,
    "min": lambda sizes: [min(sizes)] * 2,
    "max": lambda sizes: [max(sizes)] * 2,
}


def pixel_freq_bands(num_bands, max_freq=224.0, linear_bands=True):
    """Return frequencies for coordinates from -1 to 1, from pi to ``max_freq / 2 * pi``.

    Args:
        num_bands: how many.
        max_freq: the resolution in pixels that the last frequency resolves.
        linear_bands: whether frequencies are at equal distances; otherwise their logarithms are.
    """
    if linear_bands:
        return paddle.linspace(1.0, max_freq / 2, num_bands, dtype="float32") * math.pi
    return 2 ** paddle.linspace(0.0, math.log2(max_freq) - 1, num_bands, dtype="float32") * math.pi


def freq_bands(num_bands, temperature=10000.0, step=2):
    """Return the frequencies ``temperature ** (-i / num_bands)`` of ``i = 0, step, 2 * step, ... < num_bands``."""
    exponents = paddle.arange(0, num_bands, step, dtype="float32") / num_bands
    return 1.0 / (temperature**exponents)


def patch_grid(
    feat_shape, grid_type="index", ref_feat_shape=None, grid_offset=0.0, grid_indexing="ij", normalize_coords="separate"
):
    """Return the coordinates of the patches, [H * W, 2] in the order of rows.

    Args:
        feat_shape: rows and columns of patches, (H, W).
        grid_type: ``index``: 0, 1, ... plus ``grid_offset``; ``pixel``: from -1 to 1, both included; ``centered``: the
            middles of patches of an image from -1 to 1, plus twice ``grid_offset`` patches, as in DINOv3.
        ref_feat_shape: rows and columns that the coordinates are scaled to, those of a net before it was made larger.
        grid_offset: added to indices.
        grid_indexing: order of the two coordinates: ``ij`` is (row, column), ``xy`` is (column, row).
        normalize_coords: what a ``centered`` coordinate is divided by: ``separate`` (rows by H, columns by W), ``min``
            or ``max`` of both.

    Raises:
        ConfigError: for other words.
    """
    check_word("grid_type", grid_type, _GRID_TYPES)
    check_word("grid_indexing", grid_indexing, _GRID_INDEXING)
    check_word("normalize_coords", normalize_coords, _SIZE_OF_GRID)
    if grid_type == "pixel":
        axes = [paddle.linspace(-1.0, 1.0, size, dtype="float32") for size in feat_shape]
    elif grid_type == "centered":
        divisors = _SIZE_OF_GRID[normalize_coords](list(feat_shape))
        axes = [
            (paddle.arange(size, dtype="float32") + (0.5 + grid_offset)) / divisor
            for size, divisor in zip(feat_shape, divisors)
        ]
    else:
        axes = [paddle.arange(size, dtype="float32") + grid_offset for size in feat_shape]
    if ref_feat_shape is not None:
        axes = [axis / size * ref for axis, size, ref in zip(axes, feat_shape, ref_feat_shape)]
    rows, columns = paddle.meshgrid(*axes)
    coordinates = (rows, columns) if grid_indexing == "ij" else (columns, rows)
    grid = paddle.stack(coordinates, axis=-1).reshape([-1, 2])
    return 2.0 * grid - 1.0 if grid_type == "centered" else grid


def check_word(name, value, valid):
    """Raise a `ConfigError` that lists the valid words, if ``value`` is none of them."""
    if value not in valid:
        raise ConfigError(f"{name} is {value!r:.80}; valid are {', '.join(valid)}{did_you_mean(value, valid)}")


def apply_rot_embed_cat(x, emb, half=False):
    """Rotate pairs of channels by the angles of an embedding, in its type, and return the type of ``x``.

    Args:
        x: queries or keys, [..., N, dim].
        emb: sines and cosines of N patches, [..., N, 2 * dim].
        half: whether channel i is paired with channel ``i + dim / 2``; otherwise each even channel with the next one.
    """
    sin, cos = emb.chunk(2, axis=-1)
    values = x.astype(emb.dtype)
    if half:
        first, second = values.chunk(2, axis=-1)
        turned = paddle.concat([-second, first], axis=-1)
    else:
        even, odd = values.unflatten(-1, [-1, 2]).unbind(-1)
        turned = paddle.stack([-odd, even], axis=-1).flatten(-2)
    return (values * cos + turned * sin).astype(x.dtype)


def apply_keep_indices_nlc(x, pos_embed, keep_indices):
    """Return the embeddings of the patches that an image keeps: [N, ..., kept, 2 * dim] for each of the N images.

    Args:
        x: the tokens, of which the number of images is taken.
        pos_embed: embeddings of all patches, [..., patches, 2 * dim], the same for each image.
        keep_indices: numbers of the kept patches, [N, kept].
    """
    kept = paddle.index_select(pos_embed, keep_indices.flatten(), axis=-2)  # [..., N * kept, 2 * dim]
    kept = kept.unflatten(-2, [x.shape[0], -1])
    return paddle.moveaxis(kept, -3, 0)


def sin_cos(angles, rotate_half=False):
    """Return sines and cosines of angles, each for both channels of a pair: [..., n] becomes [..., 4 * n].

    Args:
        angles: an angle for each pair of channels.
        rotate_half: order of the channels, as ``half`` of `apply_rot_embed_cat`.
    """
    both = (angles.sin(), angles.cos())
    if rotate_half:
        return paddle.concat([each for each in both for _ in range(2)], axis=-1)
    return paddle.concat([each.repeat_interleave(2, axis=-1) for each in both], axis=-1)
