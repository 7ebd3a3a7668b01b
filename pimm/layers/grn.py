"""Global response normalisation (https://arxiv.org/abs/2301.00808)."""

from paddle import nn


class GlobalResponseNorm(nn.Layer):
    """Multiply each channel by its norm over the image, relative to the mean norm, beside a shortcut.

    Args:
        dim: number of channels.
        eps: added to the mean norm.
        channels_last: whether images are [N, H, W, dim] instead of [N, dim, H, W].
    """

    def __init__(self, dim, eps=1e-6, channels_last=True):
        super().__init__()
        self.eps = eps
        self.pixel_axes, self.channel_axis = ((1, 2), -1) if channels_last else ((2, 3), 1)
        self.shape = [1, 1, 1, -1] if channels_last else [1, -1, 1, 1]
        zero = nn.initializer.Constant(0.0)
        self.weight = self.create_parameter([dim], default_initializer=zero)
        self.bias = self.create_parameter([dim], is_bias=True, default_initializer=zero)

    def forward(self, x):
        norms = x.square().sum(self.pixel_axes, keepdim=True).sqrt()
        relative = norms / (norms.mean(self.channel_axis, keepdim=True) + self.eps)
        return x + self.bias.reshape(self.shape) + self.weight.reshape(self.shape) * (x * relative)
