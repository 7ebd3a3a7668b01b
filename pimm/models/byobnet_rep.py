"""Blocks of parallel convolutions that become one convolution for inference: RepVGG's and MobileOne's."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.layers import BatchNorm2d, DropPath
from pimm.layers.fuse import conv_with, sum_branches
from pimm.models.byobnet_blocks import num_groups


class RepBlock(nn.Layer):
    """Apply the sum of parallel branches, a gate and an activation.

    The branches are a batch norm ``identity``, where the shape stays, and convolutions with batch norm. A kind of block
    defines `create_convs`, `convs` and ``branch_names``. After `reparameterize` the layer ``reparam_conv`` takes the
    place of the branches.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: of the largest convolution.
        stride: of the block.
        dilation: that of the block's first convolution, and that of the blocks after it.
        bottle_ratio: not used by these blocks.
        group_size: channels of a group; 0 for no groups.
        downsample: not used by these blocks.
        layers: the `pimm.models.byobnet_blocks.LayerFn`.
        drop_block: creates a layer that drops areas of feature maps, or None.
        drop_path_rate: stochastic depth.
        kwargs: arguments of the kind of block's `create_convs`.
    """

    branch_names: tuple = ()

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        stride=1,
        dilation=(1, 1),
        bottle_ratio=1.0,
        group_size=None,
        downsample="",
        layers=None,
        drop_block=None,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        self.groups = num_groups(group_size, in_chs)
        self.in_chs, self.kernel_size, self.stride, self.dilation = in_chs, kernel_size, stride, dilation[0]
        self.reparam_conv = None
        keeps_shape = in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]
        self.identity = layers.norm_act(out_chs, apply_act=False) if keeps_shape else None

        def conv(kernel_size, **kwargs):
            return layers.conv_norm_act(
                in_chs, out_chs, kernel_size, stride=stride, groups=self.groups, apply_act=False, **kwargs
            )

        self.create_convs(conv, kernel_size, dilation[0], drop_block, **kwargs)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate and keeps_shape else nn.Identity()
        self.attn = layers.attn(out_chs) if layers.attn else nn.Identity()
        self.act = layers.act()

    def create_convs(self, conv, kernel_size, dilation, drop_block):
        """Set the convolutions; ``conv`` creates one from its kernel size."""
        raise NotImplementedError

    def convs(self):
        """Return the convolutions in the order of their sum, of which one has the largest kernel."""
        raise NotImplementedError

    def init_weights(self, zero_init_last=False):
        """Let the gate draw its values."""
        if hasattr(self.attn, "reset_parameters"):
            self.attn.reset_parameters()

    def forward(self, x):
        if self.reparam_conv is not None:
            return self.act(self.attn(self.reparam_conv(x)))
        first, *others = self.convs()
        out = first(x)
        for conv in others:
            out = out + conv(x)
        out = self.drop_path(out)
        if self.identity is not None:
            out = out + self.identity(x)
        return self.act(self.attn(out))

    @paddle.no_grad()
    def reparameterize(self):
        """Replace the branches by one convolution with a bias, which computes the same in evaluation mode."""
        if self.reparam_conv is not None:
            return
        kernel, bias = sum_branches(self.convs(), self.identity, self.in_chs, self.groups, self.kernel_size)
        self.reparam_conv = conv_with(kernel, bias, self.stride, self.dilation, self.groups)
        for name in self.branch_names:
            delattr(self, name)


class RepVggBlock(RepBlock):
    """Apply RepVGG's block, of a 3x3 and a 1x1 convolution (https://arxiv.org/abs/2101.03697)."""

    branch_names = ("conv_kxk", "conv_1x1", "identity", "drop_path")

    def create_convs(self, conv, kernel_size, dilation, drop_block):
        """Set the convolutions; ``conv`` creates one from its kernel size."""
        self.conv_kxk = conv(kernel_size, dilation=dilation, drop_layer=drop_block)
        self.conv_1x1 = conv(1)

    def convs(self):
        """Return the convolutions in the order of their sum."""
        return [self.conv_1x1, self.conv_kxk]

    def init_weights(self, zero_init_last=False):
        """Let the batch norms draw weights from N(0.1, 0.1) and biases from N(0, 0.1), and the gate its values."""
        for layer in self.sublayers():
            if isinstance(layer, BatchNorm2d):
                nn.initializer.Normal(0.1, 0.1)(layer.weight)
                nn.initializer.Normal(0.0, 0.1)(layer.bias)
        super().init_weights(zero_init_last)


class MobileOneBlock(RepBlock):
    """Apply MobileOne's block (https://arxiv.org/abs/2206.04040).

    ``num_conv_branches`` convolutions of the same size and, if they are not 1x1, a 1x1 convolution are added.
    """

    branch_names = ("conv_kxk", "conv_scale", "identity", "drop_path")

    def create_convs(self, conv, kernel_size, dilation, drop_block, num_conv_branches=1):
        """Set the convolutions; ``conv`` creates one from its kernel size."""
        self.conv_kxk = nn.LayerList([conv(kernel_size) for _ in range(num_conv_branches)])
        self.conv_scale = conv(1) if kernel_size > 1 else None

    def convs(self):
        """Return the convolutions in the order of their sum."""
        return [*([] if self.conv_scale is None else [self.conv_scale]), *self.conv_kxk]
