"""The types of blocks that a search space may offer, and the settings that each type has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from paddle import Tensor, nn

from pimm.layers import BatchNorm2d, Conv2d, HardSwish, Swish, create_conv2d
from pimm.models.efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, EdgeResidual, InvertedResidual

ACTIVATIONS = {"swish": Swish, "hard_swish": HardSwish, "relu": nn.ReLU, "relu6": nn.ReLU6}


class ResidualUnit(nn.Layer):
    """The bottleneck of ResNet (https://arxiv.org/abs/1512.03385): 1x1, KxK and 1x1 convolutions and a shortcut.

    The shortcut is a 1x1 convolution if stride or channels change the shape. As in the official search space,
    convolutions have a bias and activations are ReLU.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: side of the middle convolution's kernel.
        stride: stride of the middle convolution and of the shortcut.
        dilation: dilation of the middle convolution.
        reduction: ``out_chs`` divided by the channels of the first two convolutions.
        norm_kwargs: further arguments of the batch norms.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        reduction: int = 4,
        norm_kwargs: Mapping[str, float] | None = None,
    ):
        super().__init__()
        norm_kwargs = norm_kwargs or {}
        mid_chs = max(out_chs // reduction, 1)
        padding = dilation * (kernel_size - 1) // 2
        self.conv1 = Conv2d(in_chs, mid_chs, 1)
        self.bn1 = BatchNorm2d(mid_chs, **norm_kwargs)
        self.conv2 = Conv2d(mid_chs, mid_chs, kernel_size, stride, padding, dilation)
        self.bn2 = BatchNorm2d(mid_chs, **norm_kwargs)
        self.conv3 = Conv2d(mid_chs, out_chs, 1)
        self.bn3 = BatchNorm2d(out_chs, **norm_kwargs)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_chs != out_chs:
            self.downsample = nn.Sequential(
                Conv2d(in_chs, out_chs, 1, stride),
                BatchNorm2d(out_chs, **norm_kwargs),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))  # [N, mid, H, W]
        x = self.relu(self.bn2(self.conv2(x)))  # [N, mid, H / stride, W / stride]
        return self.relu(self.bn3(self.conv3(x)) + shortcut)  # [N, out, H / stride, W / stride]


class Identity(nn.Layer):
    """The identity; where the shape changes, a 1x1 convolution and batch norm without activation (NAS-Bench-Macro).

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: stride of the convolution.
        norm_kwargs: further arguments of the batch norm.
    """

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, norm_kwargs: Mapping[str, float] | None = None):
        super().__init__()
        self.keeps_shape = stride == 1 and in_chs == out_chs
        if not self.keeps_shape:
            self.conv = create_conv2d(in_chs, out_chs, 1, stride=stride)
            self.bn1 = BatchNorm2d(out_chs, **(norm_kwargs or {}))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.keeps_shape else self.bn1(self.conv(x))  # [N, out, H / stride, W / stride]


class BlockType(NamedTuple):
    """The layer of a block type, and where the arguments of that layer come from.

    ``fields`` maps a field of ``cream.mobile.space.Operation`` to the argument that takes its value. ``options`` names
    the arguments whose values all blocks of a net share, or take from the net.
    """

    layer: type
    fields: Mapping[str, str]
    options: tuple[str, ...]


_MOBILE = ("act_layer", "norm_kwargs", "se_kwargs", "drop_path_rate")
BLOCKS = {
    "ir": BlockType(
        InvertedResidual,
        {"kernel": "dw_kernel_size", "expansion": "exp_ratio", "se": "se_ratio", "dilation": "dilation"},
        _MOBILE,
    ),
    "ds": BlockType(
        DepthwiseSeparableConv, {"kernel": "dw_kernel_size", "se": "se_ratio", "dilation": "dilation"}, _MOBILE
    ),
    "er": BlockType(EdgeResidual, {"kernel": "exp_kernel_size", "expansion": "exp_ratio", "se": "se_ratio"}, _MOBILE),
    "cn": BlockType(ConvBnAct, {"kernel": "kernel_size", "dilation": "dilation"}, ("act_layer", "norm_kwargs")),
    "ru": BlockType(
        ResidualUnit,
        {"kernel": "kernel_size", "reduction": "reduction", "dilation": "dilation"},
        ("norm_kwargs",),
    ),
    "id": BlockType(Identity, {}, ("norm_kwargs",)),
}
