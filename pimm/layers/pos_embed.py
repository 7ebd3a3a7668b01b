"""Resize absolute position embeddings, under timm's names."""

import math

import paddle

from pimm.layers.resample import resize


def resample_abs_pos_embed(
    posemb, new_size, old_size=None, num_prefix_tokens=1, interpolation="bicubic", antialias=True
):
    """Return position embeddings for another grid of patches.

    Args:
        posemb: the embeddings [1, tokens, C], those of class tokens and the like first.
        new_size: rows and columns of the new grid.
        old_size: rows and columns of the grid that they are of; None for a square.
        num_prefix_tokens: how many tokens come before the grid; they stay.
        interpolation: ``bicubic`` or ``bilinear``.
        antialias: whether to filter what becomes smaller.
    """
    count = posemb.shape[1] - num_prefix_tokens
    old_size = old_size or (math.isqrt(count),) * 2
    if tuple(old_size) == tuple(new_size):
        return posemb
    prefix, grid = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    grid = grid.reshape([1, *old_size, -1]).transpose([0, 3, 1, 2])
    grid = resize(grid, new_size, interpolation, antialias).flatten(2).transpose([0, 2, 1])
    return paddle.concat([prefix, grid], axis=1) if num_prefix_tokens else grid


def resample_abs_pos_embed_nhwc(posemb, new_size, interpolation="bicubic", antialias=True):
    """Return position embeddings [1, H, W, C] for another height and width; arguments as `resample_abs_pos_embed`."""
    if list(posemb.shape[1:3]) == list(new_size):
        return posemb
    return resize(posemb.transpose([0, 3, 1, 2]), new_size, interpolation, antialias).transpose([0, 2, 3, 1])
