"""Pooling in shortcuts, where a block's input is smaller than its output's shape (ResNet-D)."""

from paddle import nn

from pimm.layers.pool import AvgPool2dSame


def downsample_pool(stride, dilation=1):
    """Return average pooling of 2x2 pixels, or the identity where neither the stride nor the dilation is above 1.

    Args:
        stride: of the block.
        dilation: of the block's first convolution; above 1 it has taken the place of the stride, and the size stays.
    """
    if stride == 1 and dilation == 1:
        return nn.Identity()
    if dilation > 1:
        return AvgPool2dSame(2, 1)
    return nn.AvgPool2D(2, stride, ceil_mode=True, exclusive=True)
