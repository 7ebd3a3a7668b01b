"""Windows of feature maps by closed forms."""

import numpy as np
import paddle

from pimm.layers.windows import join_windows, split_windows


def test_windows_are_squares_in_the_order_of_rows():
    x = paddle.arange(24, dtype="float32").reshape([1, 4, 6, 1])
    windows, grid = split_windows(x, 2)
    assert grid == (2, 3) and windows.shape == [6, 2, 2, 1]
    np.testing.assert_array_equal(windows[4].flatten().numpy(), [14, 15, 20, 21])
    np.testing.assert_array_equal(join_windows(windows, grid).numpy(), x.numpy())


def test_the_last_windows_are_filled_with_zeros():
    x = paddle.rand([2, 3, 5, 4]) + 1
    windows, grid = split_windows(x, 4)
    assert grid == (1, 2) and windows.shape == [4, 4, 4, 4]
    joined = join_windows(windows, grid)
    np.testing.assert_array_equal(joined[:, :3, :5].numpy(), x.numpy())
    np.testing.assert_allclose(joined.sum().item(), x.sum().item(), rtol=1e-5)
