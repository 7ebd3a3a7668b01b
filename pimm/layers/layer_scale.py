"""A learnt factor for each channel of a branch beside a shortcut (https://arxiv.org/abs/2103.17239)."""

from paddle import nn


class LayerScale(nn.Layer):
    """Multiply the channels of [..., dim] by learnt factors.

    Args:
        dim: number of channels.
        init_values: the factors at first.
        inplace: has no effect.
    """

    def __init__(self, dim, init_values=1e-5, inplace=False):
        super().__init__()
        self.init_values = init_values
        self.gamma = self.create_parameter([dim], default_initializer=nn.initializer.Constant(init_values))

    def forward(self, x):
        return x * self.gamma


class LayerScale2d(LayerScale):
    """`LayerScale` of images [N, dim, H, W]."""

    def forward(self, x):
        return x * self.gamma.reshape([1, -1, 1, 1])
