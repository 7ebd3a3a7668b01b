"""ResNets of selective kernels (https://arxiv.org/abs/1903.06586), with the names, state names and numbers of timm.

In ResNets each kernel takes a part of the channels, which the paper's nets do not.
"""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, ConvNormAct, SelectiveKernel, create_attn, zeros_
from pimm.models.registry import register_variants
from pimm.models.resnet import ResNet
from pimm.models.resnet_blocks import ResidualBlock


class SelectiveKernelBasic(ResidualBlock):
    """A selective convolution and one of 3x3 pixels beside a shortcut.

    Arguments are those of `pimm.models.resnet_blocks.BasicBlock`, and this one.

    Args:
        sk_kwargs: further arguments of the `SelectiveKernel`.

    Raises:
        ConfigError: for another cardinality than 1, or another base width than 64.
    """

    last_act = "act"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        cardinality=1,
        base_width=64,
        sk_kwargs=None,
        reduce_first=1,
        dilation=1,
        first_dilation=None,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        attn_layer=None,
        aa_layer=None,
        drop_block=None,
        drop_path=None,
    ):
        super().__init__()
        if (cardinality, base_width) != (1, 64):
            raise ConfigError(f"a basic block has cardinality 1 and base_width 64, not {cardinality} and {base_width}")
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        first_planes, outplanes = planes // reduce_first, planes * self.expansion
        self.conv1 = SelectiveKernel(
            inplanes,
            first_planes,
            stride=stride,
            dilation=first_dilation or dilation,
            aa_layer=aa_layer,
            drop_layer=drop_block,
            **layers,
            **(sk_kwargs or {}),
        )
        self.conv2 = ConvNormAct(first_planes, outplanes, 3, dilation=dilation, apply_act=False, **layers)
        self.se = create_attn(attn_layer, outplanes)
        self.act = act_layer()
        self.downsample, self.drop_path = downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        return self.conv2(self.conv1(x))

    def zero_init_last(self):
        """Let the branch begin as 0."""
        zeros_(self.conv2.bn.weight)


class SelectiveKernelBottleneck(ResidualBlock):
    """A selective convolution between two of one pixel, beside a shortcut.

    Arguments are those of `pimm.models.resnet_blocks.Bottleneck`, and this one.

    Args:
        sk_kwargs: further arguments of the `SelectiveKernel`.
    """

    expansion = 4
    last_act = "act"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        cardinality=1,
        base_width=64,
        sk_kwargs=None,
        reduce_first=1,
        dilation=1,
        first_dilation=None,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        attn_layer=None,
        aa_layer=None,
        drop_block=None,
        drop_path=None,
    ):
        super().__init__()
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        width = int(planes * (base_width / 64)) * cardinality
        first_planes, outplanes = width // reduce_first, planes * self.expansion
        self.conv1 = ConvNormAct(inplanes, first_planes, 1, **layers)
        self.conv2 = SelectiveKernel(
            first_planes,
            width,
            stride=stride,
            dilation=first_dilation or dilation,
            groups=cardinality,
            aa_layer=aa_layer,
            drop_layer=drop_block,
            **layers,
            **(sk_kwargs or {}),
        )
        self.conv3 = ConvNormAct(width, outplanes, 1, apply_act=False, **layers)
        self.se = create_attn(attn_layer, outplanes)
        self.act = act_layer()
        self.downsample, self.drop_path = downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        return self.conv3(self.conv2(self.conv1(x)))

    def zero_init_last(self):
        """Let the branch begin as 0."""
        zeros_(self.conv3.bn.weight)


def _variant(block, layers, sk_kwargs, **kwargs):
    return {"block": block, "layers": layers, "block_args": {"sk_kwargs": sk_kwargs}, "zero_init_last": False, **kwargs}


_SPLIT = {"split_input": True}
_SPLIT_BASIC = {"rd_ratio": 1 / 8, "rd_divisor": 16, "split_input": True}
_WHOLE = {"rd_ratio": 1 / 16, "rd_divisor": 32, "split_input": False}
_DEEP = {"stem_width": 32, "stem_type": "deep", "avg_down": True}

VARIANTS = {
    "skresnet18": _variant(SelectiveKernelBasic, (2, 2, 2, 2), _SPLIT_BASIC),
    "skresnet34": _variant(SelectiveKernelBasic, (3, 4, 6, 3), _SPLIT_BASIC),
    "skresnet50": _variant(SelectiveKernelBottleneck, (3, 4, 6, 3), _SPLIT),
    "skresnet50d": _variant(SelectiveKernelBottleneck, (3, 4, 6, 3), _SPLIT, **_DEEP),
    "skresnext50_32x4d": _variant(SelectiveKernelBottleneck, (3, 4, 6, 3), _WHOLE, cardinality=32, base_width=4),
}


def _create(variant, **kwargs):
    return ResNet(**{**variant, **kwargs})


register_variants(VARIANTS, _create)
