"""Stochastic depth."""

import numpy as np
import paddle
from paddle import nn

from pimm.errors import ConfigError


def drop_path(x, drop_prob=0.0, training=False):
    """Set whole images to zero at random, and scale the others so that the mean is kept.

    This is stochastic depth (https://arxiv.org/abs/1603.09382), for the branch beside a shortcut. The numbers are drawn
    from Paddle's generator.

    Args:
        x: images, [N, ...].
        drop_prob: probability of an image to become zero.
        training: without it, ``x`` is returned as it is.

    Raises:
        ConfigError: the probability is not from 0 to 1.
    """
    if not 0.0 <= drop_prob <= 1.0:
        raise ConfigError(f"the probability of leaving out a block must be from 0 to 1, got {drop_prob}")
    if drop_prob == 0.0 or not training:
        return x
    keep_prob = 1.0 - drop_prob
    draws = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype)
    return x * (paddle.floor(draws + keep_prob) / (keep_prob or 1.0))  # of probability 1 nothing is left to scale


def calculate_drop_path_rates(drop_path_rate, depths, stagewise=False):
    """Return the rates of stochastic depth of blocks, which grow linearly from 0 to ``drop_path_rate``.

    Args:
        drop_path_rate: the rate of the last block.
        depths: how many blocks there are, or a list of how many each stage has.
        stagewise: whether the result is a list of rates for each stage.
    """
    total = depths if isinstance(depths, int) else sum(depths)
    rates = np.linspace(0.0, drop_path_rate, total).tolist()
    if not stagewise:
        return rates
    ends = np.cumsum(depths).tolist()
    return [rates[end - depth : end] for depth, end in zip(depths, ends)]


class DropPath(nn.Layer):
    """Layer of `drop_path`."""

    def __init__(self, drop_prob=0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return drop_path(x, self.drop_prob, self.training)
