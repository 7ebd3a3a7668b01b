"""Windows of Swin transformers and grids of MaxViT, by closed forms."""

import numpy as np
import paddle
import pytest

from pimm.layers.windows import split_windows
from pimm.models.maxxvit_attention import join_grids, split_grids
from pimm.models.swin_transformer_v2 import relative_coords_table
from pimm.models.swin_windows import (
    patch_merging_input,
    scaled_window_sizes,
    shift_mask,
    stage_window_sizes,
    window_sizes_by_ratio,
)


@pytest.mark.parametrize("size, window, shift", [((8, 12), (4, 4), (2, 2)), ((6, 6), (3, 6), (1, 0))])
def test_pixels_that_a_shift_brought_together_do_not_attend(size, window, shift):
    """Two pixels of a window attend to each other if rolling did not move just one of them across the edge."""
    rows, columns = np.meshgrid(*map(np.arange, size), indexing="ij")
    crossed = 2 * (rows < shift[0]) + (columns < shift[1])  # after rolling back, at the upper or left edge
    rolled = np.roll(crossed, [-side for side in shift], axis=(0, 1))
    windows = split_windows(paddle.to_tensor(rolled[None, ..., None]), window)[0].flatten(1).numpy()
    apart = windows[:, :, None] != windows[:, None, :]
    np.testing.assert_array_equal(shift_mask(size, window, shift).numpy(), np.where(apart, -100.0, 0.0))


def test_window_sizes_of_stages():
    assert stage_window_sizes(7, 2) == ((7, 7), (7, 7))
    assert stage_window_sizes((7, 8), 2) == ((7, 8), (7, 8))
    assert stage_window_sizes([(3, 5), 4], 2) == ((3, 5), (4, 4))
    assert window_sizes_by_ratio((56, 40), (8, 100), 2) == ((7, 5), (1, 1))
    assert scaled_window_sizes(((7, 7), (8, 8)), (28, 56), (56, 56)) == ((3, 7), (4, 8))


def test_merged_patches_are_columns_of_pixels():
    x = paddle.arange(15, dtype="float32").reshape([1, 3, 5, 1])
    merged = patch_merging_input(x)
    assert merged.shape == [1, 2, 3, 4]
    np.testing.assert_array_equal(merged[0, 0, 1].numpy(), [2, 7, 3, 8])
    np.testing.assert_array_equal(merged[0, 1, 2].numpy(), [14, 0, 0, 0])  # what is missing is 0


def test_grids_hold_pixels_at_even_distances():
    x = paddle.arange(24, dtype="float32").reshape([1, 4, 6, 1])
    grids, count = split_grids(x, (2, 3))
    assert count == (2, 2) and grids.shape == [4, 2, 3, 1]
    np.testing.assert_array_equal(grids[1].flatten().numpy(), [1, 3, 5, 13, 15, 17])
    np.testing.assert_array_equal(join_grids(grids, count).numpy(), x.numpy())


def test_relative_positions_are_logarithms_of_the_share_of_the_largest_distance():
    table = relative_coords_table((3, 2), (0, 0))
    assert table.shape == (5, 3, 2)
    np.testing.assert_allclose(table[:, 0, 0], [-np.log2(9) / 3, -np.log2(5) / 3, 0, np.log2(5) / 3, np.log2(9) / 3])
    np.testing.assert_allclose(table[0, :, 1], [-np.log2(9) / 3, 0, np.log2(9) / 3], rtol=1e-6)
    trained = relative_coords_table((3, 2), (5, 5))
    np.testing.assert_allclose(trained[4, 0, 0], np.log2(5) / 3, rtol=1e-6)
