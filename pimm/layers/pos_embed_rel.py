"""Relative position biases of attention, with timm's names and arguments.

A bias is added to the attention of each pair of places of a window. It depends on their distance in rows and columns.
"""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.linear import Linear
from pimm.layers.resample import resize


def num_relative_distances(window_size, class_token=False):
    """Return how many distances the places of a window have, and three more with a class token.

    Args:
        window_size: height and width of the window.
        class_token: whether a class token comes before the places.
    """
    return (2 * window_size[0] - 1) * (2 * window_size[1] - 1) + 3 * bool(class_token)


def gen_relative_position_index(window_size, class_token=False):
    """Return the number of the distance of each pair of places, an array [area, area] of int64.

    Args:
        window_size: height and width of the window.
        class_token: whether a class token comes before the places: the last three numbers are then the bias of
            the token to a place, of a place to the token, and of the token to itself, as in BEiT.
    """
    height, width = window_size
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).reshape(2, -1)
    rows, columns = places[:, :, None] - places[:, None, :]
    index = (rows + height - 1) * (2 * width - 1) + columns + width - 1
    if class_token:
        first = num_relative_distances(window_size)
        index = np.pad(index, ((1, 0), (1, 0)))
        index[0, :], index[:, 0], index[0, 0] = first, first + 1, first + 2
    return index.astype(np.int64)


def gen_relative_log_coords(win_size, pretrained_win_size=(0, 0), mode="swin"):
    """Return the logarithms of all distances in a window, an array [2 * height - 1, 2 * width - 1, 2] of float32.

    Args:
        win_size: height and width of the window.
        pretrained_win_size: the window that distances are divided by, (0, 0) for ``win_size``; for ``swin`` alone.
        mode: ``swin`` as in Swin v2 (https://arxiv.org/abs/2111.09883), with distances scaled to 8 and logarithms of
            base 8; ``cr`` for natural logarithms of distances in places.
    """
    axes = [np.arange(-(size - 1), size, dtype=np.float32) for size in win_size]
    coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    if mode == "cr":
        return np.sign(coords) * np.log1p(np.abs(coords))
    size = np.asarray(pretrained_win_size if pretrained_win_size[0] > 0 else win_size, np.float32)
    coords = coords / (size - 1) * np.float32(8)
    return (np.sign(coords) * np.log2(np.abs(coords) + 1) / np.float32(math.log2(8))).astype(np.float32)


class RelPosBias(nn.Layer):
    """Add a learnt bias for each head and distance to attention, [N, num_heads, area, area], as Swin does.

    Args:
        window_size: height and width of the window.
        num_heads: heads of attention.
        prefix_tokens: 1 if a class token comes before the places, else 0.
    """

    def __init__(self, window_size, num_heads, prefix_tokens=0):
        super().__init__()
        self.prefix_tokens, self.num_heads = prefix_tokens, num_heads
        self.relative_position_bias_table = self.create_parameter(
            [num_relative_distances(window_size, prefix_tokens), num_heads],
            default_initializer=nn.initializer.TruncatedNormal(std=0.02, a=-2.0, b=2.0),
        )
        self._set_index(tuple(window_size))

    def _set_index(self, window_size):
        self.window_size = window_size
        self.area = window_size[0] * window_size[1] + self.prefix_tokens
        index = paddle.to_tensor(gen_relative_position_index(window_size, self.prefix_tokens > 0).reshape(-1))
        self.register_buffer("relative_position_index", index, persistable=False)

    def set_window_size(self, window_size):
        """Make the biases those of another window, (height, width); the table is resampled."""
        if tuple(window_size) != self.window_size:
            shape = [num_relative_distances(window_size, self.prefix_tokens), self.num_heads]
            resize_bias_table(self, window_size, shape)
            self._set_index(tuple(window_size))

    def get_bias(self):
        """Return the bias, [1, num_heads, area, area]."""
        return bias_of_pairs(self.relative_position_bias_table, self.relative_position_index, self.area)

    def forward(self, attn, shared_rel_pos=None):
        return attn + self.get_bias()


def bias_of_pairs(table, index, area):
    """Return the bias of each pair of places, [1, num_heads, area, area].

    Args:
        table: bias of each distance and head, [distances, num_heads].
        index: number of the distance of each pair, [area * area].
        area: number of places, of the class token too.
    """
    pairs = paddle.index_select(table, index, axis=0)  # [area * area, num_heads]
    return pairs.transpose([1, 0]).reshape([1, table.shape[1], area, area])


class DistanceBias(nn.Layer):
    """Attention with a learnt bias for each head and each absolute distance in rows and columns, as LeViT has it.

    A subclass calls `create_biases`, and adds `attention_bias` to attention [N, num_heads, queries, keys].
    """

    def create_biases(self, num_heads, resolution, stride=1):
        """Create the table of biases, which begin at zero, under LeViT's name.

        Args:
            num_heads: heads of attention.
            resolution: rows and columns of places, of which each is a key.
            stride: each how many rows and columns there is a query.
        """
        rows, columns = resolution
        self.attention_biases = self.create_parameter(
            [num_heads, rows * columns], default_initializer=nn.initializer.Constant(0.0)
        )
        keys = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
        queries = keys[:, ::stride, ::stride].reshape(2, -1, 1)
        distances = np.abs(queries - keys.reshape(2, 1, -1))
        index = paddle.to_tensor((distances[0] * columns + distances[1]).astype(np.int64))
        self.register_buffer("attention_bias_idxs", index, persistable=False)

    def attention_bias(self):
        """Return the bias of each pair of places, [num_heads, queries, keys]."""
        bias = paddle.index_select(self.attention_biases, self.attention_bias_idxs.flatten(), axis=1)
        return bias.reshape([-1, *self.attention_bias_idxs.shape])


class RelPosMlp(nn.Layer):
    """Add a bias to attention that a small net computes of the logarithm of the distance, as Swin v2 does.

    Args:
        window_size: height and width of the window.
        num_heads: heads of attention.
        hidden_dim: width of the net.
        prefix_tokens: tokens before the places, whose bias is 0.
        mode: ``swin`` or ``cr``, as in `gen_relative_log_coords`; with ``swin`` the bias is from 0 to 16.
        pretrained_window_size: as ``pretrained_win_size`` of `gen_relative_log_coords`.
    """

    def __init__(
        self, window_size, num_heads=8, hidden_dim=128, prefix_tokens=0, mode="cr", pretrained_window_size=(0, 0)
    ):
        super().__init__()
        self.num_heads, self.pretrained_window_size = num_heads, pretrained_window_size
        self.prefix_tokens, self.mode = prefix_tokens, mode
        self.mlp = _DistanceMlp(hidden_dim, num_heads, bias=mode != "swin")
        self.set_window_size(window_size)

    def set_window_size(self, window_size):
        """Make the biases those of another window, (height, width)."""
        self.window_size, self.window_area = tuple(window_size), window_size[0] * window_size[1]
        index = paddle.to_tensor(gen_relative_position_index(window_size).reshape(-1))
        self.register_buffer("relative_position_index", index, persistable=False)
        coords = paddle.to_tensor(gen_relative_log_coords(window_size, self.pretrained_window_size, self.mode))
        self.register_buffer("rel_coords_log", coords, persistable=False)

    def get_bias(self):
        """Return the bias, [1, num_heads, area, area], of the prefix tokens too."""
        table = self.mlp(self.rel_coords_log).reshape([-1, self.num_heads])
        bias = bias_of_pairs(table, self.relative_position_index, self.window_area)
        if self.mode == "swin":
            bias = 16 * F.sigmoid(bias)
        if self.prefix_tokens:
            bias = F.pad(bias, [self.prefix_tokens, 0, self.prefix_tokens, 0])
        return bias

    def forward(self, attn, shared_rel_pos=None):
        return attn + self.get_bias()


class _DistanceMlp(nn.Layer):
    """Compute the biases of all heads of the two coordinates of distances."""

    def __init__(self, hidden_dim, num_heads, bias):
        super().__init__()
        self.fc1 = Linear(2, hidden_dim)
        self.fc2 = Linear(hidden_dim, num_heads, bias=bias)

    def forward(self, coords):
        return self.fc2(F.dropout(F.relu(self.fc1(coords)), 0.125, training=self.training))


class RelPosBiasTf(nn.Layer):
    """Add a learnt bias to attention, kept by rows and columns of distance as TensorFlow's MaxViT does.

    Args:
        window_size: height and width of the window.
        num_heads: heads of attention.
        prefix_tokens: must be 0 or 1; the bias of the token is not learnt.
    """

    def __init__(self, window_size, num_heads, prefix_tokens=0):
        super().__init__()
        height, width = window_size
        self.num_heads = num_heads
        self.relative_position_bias_table = self.create_parameter(
            [num_heads, 2 * height - 1, 2 * width - 1], default_initializer=nn.initializer.Normal(std=0.02)
        )
        self._set_index(tuple(window_size))

    def _set_index(self, window_size):
        self.window_size = window_size
        index = paddle.to_tensor(gen_relative_position_index(window_size).reshape(-1))
        self.register_buffer("relative_position_index", index, persistable=False)

    def set_window_size(self, window_size):
        """Make the biases those of another window, (height, width); the table is resampled."""
        if tuple(window_size) != self.window_size:
            height, width = window_size
            resize_bias_table(self, window_size, [self.num_heads, 2 * height - 1, 2 * width - 1])
            self._set_index(tuple(window_size))

    def get_bias(self):
        """Return the bias, [num_heads, area, area]."""
        area = self.window_size[0] * self.window_size[1]
        # A key right of or below the query has the larger index here, and the smaller one in Swin's tables
        table = self.relative_position_bias_table.flatten(1).flip(1).transpose([1, 0])
        return bias_of_pairs(table, self.relative_position_index, area)[0]

    def forward(self, attn, shared_rel_pos=None):
        return attn + self.get_bias()


def resize_bias_table(layer, window_size, shape):
    """Resample the ``relative_position_bias_table`` of a layer, which is of its ``window_size``, for another window.

    Args:
        layer: the layer.
        window_size: height and width of the other window.
        shape: the shape of the new table.
    """
    table = layer.relative_position_bias_table
    resized = resize_rel_pos_bias_table(table.numpy(), window_size, tuple(shape), layer.window_size)
    parameter = layer.create_parameter(shape, dtype=table.dtype, default_initializer=nn.initializer.Assign(resized))
    parameter.stop_gradient = table.stop_gradient
    layer.relative_position_bias_table = parameter


def resize_rel_pos_bias_table(rel_pos_bias, new_window_size, new_bias_shape, old_window_size=None):
    """Return a table of biases for another window, interpolated so that near distances keep their resolution.

    The distances of the old table are spread in geometric progression over the new window, as BEiT's fine-tuning does;
    between them the bias is linear.

    Args:
        rel_pos_bias: an array of the biases [distances, num_heads], of which those of a class token are kept, or
            [num_heads, rows, columns].
        new_window_size: height and width of the new window.
        new_bias_shape: shape of the new table.
        old_window_size: height and width of the old window; None for a square one, or else for the new one.

    Raises:
        ConfigError: if the table fits no window.
    """
    new = tuple(2 * size - 1 for size in new_window_size)
    if rel_pos_bias.ndim == 3:
        old, extra, values = rel_pos_bias.shape[1:], None, rel_pos_bias
    else:
        count = rel_pos_bias.shape[0] - (new_bias_shape[0] - new[0] * new[1])
        old = _distances(count, new, old_window_size)
        values, extra = rel_pos_bias[:count], rel_pos_bias[count:]
        values = values.T.reshape(-1, *old)
    if tuple(old) == new:
        return rel_pos_bias
    for axis in (1, 2):
        values = _spread(values.astype(np.float32), axis, new[axis - 1])
    if extra is not None:
        values = np.concatenate([values.reshape(values.shape[0], -1).T, extra])
    return values.astype(rel_pos_bias.dtype)


def _distances(count, new, old_window_size):
    """Return the number of distances in rows and in columns of an old table of ``count`` biases."""
    side = math.isqrt(count)
    if old_window_size is not None:
        old = tuple(2 * size - 1 for size in old_window_size)
    else:
        old = (side, side) if side * side == count else new
    if old[0] * old[1] != count:
        raise ConfigError(f"{count} relative position biases fit no square window: give old_window_size")
    return old


def _spread(values, axis, size):
    """Interpolate from distances in geometric progression to ``size`` distances in places, along an axis."""
    half = values.shape[axis] // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio**half) / (1 - ratio) > size // 2 else (ratio, high)
    steps = np.cumsum([1.0, *(ratio ** np.arange(1, half))]) if half else np.zeros(0)
    known = np.concatenate([-steps[::-1], [0.0], steps])
    wanted = np.arange(-(size // 2), size // 2 + 1)
    return np.apply_along_axis(lambda line: np.interp(wanted, known, line), axis, values).astype(np.float32)


def resize_rel_pos_bias_table_levit(biases, count):
    """Return tables of biases of absolute distances for another number of places.

    Args:
        biases: an array [num_heads, places] of a square window.
        count: places of the new window, which is square.
    """
    heads, places = biases.shape
    if places == count:
        return biases
    old, new = math.isqrt(places), math.isqrt(count)
    maps = paddle.to_tensor(biases.reshape(1, heads, old, old).astype(np.float32))
    return resize(maps, (new, new)).numpy().reshape(heads, count).astype(biases.dtype)


def resize_distance_biases(state_dict, model):
    """Return weights whose tables of `DistanceBias` fit the net, without the tables of indices that old weights hold.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the net.
    """
    wanted = dict(model.named_parameters())
    return {
        name: resize_rel_pos_bias_table_levit(value, wanted[name].shape[1])
        if name.endswith("attention_biases") and name in wanted
        else value
        for name, value in state_dict.items()
        if not name.endswith("attention_bias_idxs")
    }
