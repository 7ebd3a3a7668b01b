"""DropBlock: dropout of squares of pixels (https://arxiv.org/abs/1810.12890)."""

import paddle
import paddle.nn.functional as F
from paddle import nn


def drop_block_2d(
    x,
    drop_prob=0.1,
    block_size=7,
    gamma_scale=1.0,
    with_noise=False,
    couple_channels=True,
    scale_by_keep=True,
):
    """Set squares of images to zero at random. The numbers are drawn from Paddle's generator.

    Args:
        x: images, [N, C, H, W].
        drop_prob: share of pixels that become zero, about.
        block_size: height and width of a square, at most those of the images.
        gamma_scale: factor of the probability.
        with_noise: whether the squares become normal noise in place of zeros; then nothing is scaled.
        couple_channels: whether the squares are the same in all channels.
        scale_by_keep: whether the other pixels are scaled so that the mean is kept.
    """
    batch, channels, height, width = x.shape
    kernel = (min(block_size, height), min(block_size, width))
    centres = (height - kernel[0] + 1) * (width - kernel[1] + 1)
    gamma = gamma_scale * drop_prob * height * width / (kernel[0] * kernel[1]) / centres
    with paddle.no_grad():
        draws = paddle.rand([batch, 1 if couple_channels else channels, height, width], "float32")
        dropped = (draws < gamma).astype("float32")
        # A maximum over a window of even size is one pixel too large; the first is left out
        dropped = F.max_pool2d(dropped, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
        dropped = dropped[:, :, (kernel[0] + 1) % 2 :, (kernel[1] + 1) % 2 :]
        kept = 1.0 - dropped
        noise = dropped * paddle.randn(dropped.shape) if with_noise else None
        if scale_by_keep and not with_noise:
            kept = kept * (kept.size / (kept.sum() + 1e-7))
    x = x * kept.astype(x.dtype)
    return x if noise is None else x + noise.astype(x.dtype)


class DropBlock2d(nn.Layer):
    """Layer of `drop_block_2d`, which does nothing out of training."""

    def __init__(
        self,
        drop_prob=0.1,
        block_size=7,
        gamma_scale=1.0,
        with_noise=False,
        couple_channels=True,
        scale_by_keep=True,
    ):
        super().__init__()
        self.drop_prob = drop_prob
        self.settings = {
            "block_size": block_size,
            "gamma_scale": gamma_scale,
            "with_noise": with_noise,
            "couple_channels": couple_channels,
            "scale_by_keep": scale_by_keep,
        }

    def forward(self, x):
        if not self.training or not self.drop_prob:
            return x
        return drop_block_2d(x, self.drop_prob, **self.settings)
