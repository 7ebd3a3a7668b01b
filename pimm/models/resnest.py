"""ResNeSt, ResNets with split attention (https://arxiv.org/abs/2004.08955), with the names and numbers of timm."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, SplitAttn
from pimm.models.registry import register_variants
from pimm.models.resnet import ResNet
from pimm.models.resnet_blocks import ResidualBlock


class ResNestBottleneck(ResidualBlock):
    """A bottleneck with split attention, in which average pooling may have the stride.

    Arguments are those of `pimm.models.resnet_blocks.Bottleneck`, and these. Stochastic depth drops the branch, as
    everywhere; timm's drops the shortcut of blocks with a stride.

    Args:
        radix: number of splits; 0 for a convolution without attention.
        avd: whether average pooling has the stride.
        avd_first: whether the pooling comes before the convolution with attention.
        is_first: whether there is pooling even without a stride.

    Raises:
        ConfigError: for ``reduce_first``, ``attn_layer`` and ``aa_layer``, which the block does not have.
    """

    expansion = 4
    last_norm, last_act = "bn3", "act3"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        radix=1,
        cardinality=1,
        base_width=64,
        avd=False,
        avd_first=False,
        is_first=False,
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
        if reduce_first != 1 or attn_layer is not None or aa_layer is not None:
            raise ConfigError("blocks of ResNeSt take no block_reduce_first, attn_layer or aa_layer")
        width = int(planes * (base_width / 64)) * cardinality
        outplanes, first_dilation = planes * self.expansion, first_dilation or dilation
        pooled = avd and (stride > 1 or is_first)
        pool = nn.AvgPool2D(3, stride, 1, exclusive=False) if pooled else None
        geometry = (3, 1 if pooled else stride, first_dilation, first_dilation, cardinality)
        self.conv1 = Conv2d(inplanes, width, 1, bias=False)
        self.bn1 = norm_layer(width)
        self.act1 = act_layer()
        self.avd_first = pool if avd_first else None
        if radix:
            self.conv2 = SplitAttn(width, width, *geometry, radix=radix, norm_layer=norm_layer, drop_layer=drop_block)
            self.bn2, self.drop_block, self.act2 = nn.Identity(), nn.Identity(), nn.Identity()
        else:
            self.conv2 = Conv2d(width, width, *geometry, bias=False)
            self.bn2 = norm_layer(width)
            self.drop_block = drop_block() if drop_block else nn.Identity()
            self.act2 = act_layer()
        self.avd_last = None if avd_first else pool
        self.conv3 = Conv2d(width, outplanes, 1, bias=False)
        self.bn3 = norm_layer(outplanes)
        self.act3 = act_layer()
        self.se, self.downsample, self.drop_path = None, downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = x if self.avd_first is None else self.avd_first(x)
        x = self.act2(self.drop_block(self.bn2(self.conv2(x))))
        x = x if self.avd_last is None else self.avd_last(x)
        return self.bn3(self.conv3(x))


def _variant(layers, stem_width, radix=2, avd_first=False, **kwargs):
    blocks = {
        "block": ResNestBottleneck,
        "layers": layers,
        "block_args": {"radix": radix, "avd": True, "avd_first": avd_first},
    }
    return {**blocks, "stem_type": "deep", "stem_width": stem_width, "avg_down": True, **kwargs}


VARIANTS = {
    "resnest14d": _variant((1, 1, 1, 1), 32),
    "resnest26d": _variant((2, 2, 2, 2), 32),
    "resnest50d": _variant((3, 4, 6, 3), 32),
    "resnest101e": _variant((3, 4, 23, 3), 64),
    "resnest200e": _variant((3, 24, 36, 3), 64),
    "resnest269e": _variant((3, 30, 48, 8), 64),
    "resnest50d_4s2x40d": _variant((3, 4, 6, 3), 32, 4, True, base_width=40, cardinality=2),
    "resnest50d_1s4x24d": _variant((3, 4, 6, 3), 32, 1, True, base_width=24, cardinality=4),
}


def _create(variant, **kwargs):
    return ResNet(**{**variant, **kwargs})


register_variants(VARIANTS, _create)
