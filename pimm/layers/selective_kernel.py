"""Convolutions of several kernels, and attention over them (https://arxiv.org/abs/1903.06586)."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d
from pimm.layers.conv_norm_act import ConvNormAct
from pimm.layers.helpers import global_avg_pool2d
from pimm.layers.norm import BatchNorm2d
from pimm.layers.se_module import reduced_channels


class SelectiveKernelAttn(nn.Layer):
    """Return the share of each path in each channel, [N, num_paths, channels, 1, 1], for a list of images.

    Args:
        channels: channels of the images.
        num_paths: how many images there are.
        attn_channels: hidden channels.
        act_layer: class of the activation.
        norm_layer: class of the normalisation.
    """

    def __init__(self, channels, num_paths=2, attn_channels=32, act_layer=nn.ReLU, norm_layer=BatchNorm2d):
        super().__init__()
        self.num_paths = num_paths
        self.fc_reduce = Conv2d(channels, attn_channels, 1, bias=False)
        self.bn = norm_layer(attn_channels)
        self.act = act_layer()
        self.fc_select = Conv2d(attn_channels, channels * num_paths, 1, bias=False)

    def forward(self, paths):
        x = self.act(self.bn(self.fc_reduce(global_avg_pool2d(sum(paths)))))
        x = self.fc_select(x).reshape([0, self.num_paths, -1, 1, 1])
        return F.softmax(x, axis=1)


class SelectiveKernel(nn.Layer):
    """Convolve with each kernel, and sum the results as the attention says.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; None for ``in_channels``.
        kernel_size: a list of odd numbers, or a number for two paths; None for 3 and 5.
        stride: a number.
        dilation: a number.
        groups: groups of channels of each convolution.
        rd_ratio: hidden channels of the attention, as a share of ``out_channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        keep_3x3: whether kernels above 3 become dilated kernels of 3.
        split_input: whether each path takes its part of the channels.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
        aa_layer: as in `get_aa_layer`.
        drop_layer: class of a layer between normalisation and activation.

    Raises:
        ConfigError: for even kernels and kernels below 3, and if the channels cannot be split.
    """

    def __init__(
        self,
        in_channels,
        out_channels=None,
        kernel_size=None,
        stride=1,
        dilation=1,
        groups=1,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=8,
        keep_3x3=True,
        split_input=True,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        aa_layer=None,
        drop_layer=None,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        kernels = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size or (3, 5))
        if any(kernel < 3 or kernel % 2 == 0 for kernel in kernels):
            raise ConfigError(f"kernels of a selective convolution are {kernels}; must be odd and at least 3")
        self.num_paths, self.split_input = len(kernels), split_input
        if split_input and in_channels % self.num_paths:
            raise ConfigError(f"{in_channels} channels cannot be split to {self.num_paths} paths")
        dilations = [dilation * (kernel - 1) // 2 if keep_3x3 else dilation for kernel in kernels]
        arguments = {
            "stride": stride,
            "groups": min(out_channels, groups),
            "act_layer": act_layer,
            "norm_layer": norm_layer,
            "aa_layer": aa_layer,
            "drop_layer": drop_layer,
        }
        ins = in_channels // self.num_paths if split_input else in_channels
        self.paths = nn.LayerList(
            ConvNormAct(ins, out_channels, 3 if keep_3x3 else kernel, dilation=own_dilation, **arguments)
            for kernel, own_dilation in zip(kernels, dilations)
        )
        attn_channels = reduced_channels(out_channels, rd_ratio, rd_channels, rd_divisor, round_limit=0.9)
        self.attn = SelectiveKernelAttn(out_channels, self.num_paths, attn_channels)

    def forward(self, x):  # [N, in_channels, H, W]
        parts = paddle.split(x, self.num_paths, axis=1) if self.split_input else [x] * self.num_paths
        paths = [path(part) for path, part in zip(self.paths, parts)]
        shares = self.attn(paths).unbind(1)
        return sum(path * share for path, share in zip(paths, shares))  # [N, out_channels, H', W']
