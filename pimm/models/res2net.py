"""Res2Net and Res2NeXt (https://arxiv.org/abs/1904.01169), with the names, state names and numbers of timm."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.layers import BatchNorm2d, Conv2d, create_attn
from pimm.models.registry import register_variants
from pimm.models.resnet import ResNet
from pimm.models.resnet_blocks import ResidualBlock


class Bottle2neck(ResidualBlock):
    """A bottleneck whose channels are split; each split is convolved with what the one before it became.

    Arguments are those of `pimm.models.resnet_blocks.Bottleneck`, and these.

    Args:
        base_width: channels of a split, for 64 ``planes``.
        scale: number of splits.
        kwargs: ignored: other arguments of the net's blocks.
    """

    expansion = 4
    last_norm, last_act = "bn3", "relu"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        cardinality=1,
        base_width=26,
        scale=4,
        dilation=1,
        first_dilation=None,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        attn_layer=None,
        drop_block=None,
        drop_path=None,
        **kwargs,
    ):
        super().__init__()
        self.scale, self.is_first = scale, stride > 1 or downsample is not None
        self.width = width = int(planes * (base_width / 64)) * cardinality
        outplanes, first_dilation = planes * self.expansion, first_dilation or dilation
        self.conv1 = Conv2d(inplanes, width * scale, 1, bias=False)
        self.bn1 = norm_layer(width * scale)
        count = max(1, scale - 1)
        self.convs = nn.LayerList(
            Conv2d(width, width, 3, stride, first_dilation, first_dilation, cardinality, bias=False)
            for _ in range(count)
        )
        self.bns = nn.LayerList(norm_layer(width) for _ in range(count))
        self.drop_block = drop_block() if drop_block else nn.Identity()
        self.pool = nn.AvgPool2D(3, stride, 1, exclusive=False) if self.is_first else None
        self.conv3 = Conv2d(width * scale, outplanes, 1, bias=False)
        self.bn3 = norm_layer(outplanes)
        self.se = create_attn(attn_layer, outplanes)
        self.relu = act_layer()
        self.downsample, self.drop_path = downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        splits = paddle.split(self.relu(self.bn1(self.conv1(x))), self.scale, axis=1)
        found = []
        for split, conv, norm in zip(splits, self.convs, self.bns):
            split = split if self.is_first or not found else found[-1] + split
            found.append(self.relu(norm(conv(split))))
        if self.scale > 1:
            found.append(splits[-1] if self.pool is None else self.pool(splits[-1]))
        return self.bn3(self.conv3(self.drop_block(paddle.concat(found, axis=1))))


_BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
_DEEP = {"stem_width": 32, "stem_type": "deep", "avg_down": True}


def _variant(depth, base_width, scale, **kwargs):
    blocks = {"block": Bottle2neck, "layers": _BLOCKS[depth], "block_args": {"scale": scale}}
    return {**blocks, "base_width": base_width, **kwargs}


VARIANTS = {
    **{
        f"res2net{depth}_{width}w_{scale}s": _variant(depth, width, scale)
        for depth, width, scale in (
            *(("50", 26, 4), ("101", 26, 4), ("50", 26, 6), ("50", 26, 8), ("50", 48, 2), ("50", 14, 8)),
        )
    },
    "res2next50": _variant("50", 4, 4, cardinality=8),
    "res2net50d": _variant("50", 26, 4, **_DEEP),
    "res2net101d": _variant("101", 26, 4, **_DEEP),
}


def _create(variant, **kwargs):
    return ResNet(**{**variant, **kwargs})


register_variants(VARIANTS, _create)
