"""Stochastic depth."""

import paddle
from paddle import nn


def drop_path(x, drop_prob=0.0, training=False):
    """Zero ``x`` [N, ...] for whole images with probability ``drop_prob``, and scale the others to keep the mean.

    Stochastic depth (https://arxiv.org/abs/1603.09382), for the branch beside a shortcut. Draws from Paddle's
    generator.
    """
    if drop_prob == 0.0 or not training:
        return x
    keep_prob = 1.0 - drop_prob
    draws = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype)
    return x * (paddle.floor(draws + keep_prob) / keep_prob)


class DropPath(nn.Layer):
    """Layer of `drop_path`."""

    def __init__(self, drop_prob=0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return drop_path(x, self.drop_prob, self.training)
