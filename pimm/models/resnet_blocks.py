"""The residual blocks of ResNets, and what stands in their shortcuts."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, create_aa, create_attn, get_padding, zeros_
from pimm.layers.downsample import downsample_pool


class ResidualBlock(nn.Layer):
    """Add the output of a branch to the shortcut, and apply an activation.

    A block sets ``se``, ``drop_path`` and ``downsample``, each of which may be None, and names its last layers.
    """

    expansion = 1
    last_norm = last_act = ""

    def branch(self, x):
        """Return the output of the convolutions."""
        raise NotImplementedError

    def zero_init_last(self):
        """Let the branch begin as 0, by the weight of its last normalisation."""
        weight = getattr(getattr(self, self.last_norm), "weight", None)
        if weight is not None:
            zeros_(weight)

    def forward(self, x):
        branch = self.branch(x)
        if self.se is not None:
            branch = self.se(branch)
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        shortcut = x if self.downsample is None else self.downsample(x)
        return getattr(self, self.last_act)(branch + shortcut)


class BasicBlock(ResidualBlock):
    """Two convolutions of 3x3 pixels beside a shortcut (https://arxiv.org/abs/1512.03385).

    Args:
        inplanes: channels of the input.
        planes: channels of the output, as a share of ``expansion``.
        stride: of the first convolution.
        downsample: layer in the shortcut; None for none.
        cardinality: only 1.
        base_width: only 64.
        reduce_first: by which the channels between the convolutions are divided.
        dilation: of the second convolution.
        first_dilation: of the first convolution; None for ``dilation``.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
        attn_layer: attention at the end of the branch, as in `pimm.layers.get_attn`.
        aa_layer: blur that has the stride, as in `pimm.layers.get_aa_layer`.
        drop_block: class of a layer in the branch that drops pixels.
        drop_path: layer of stochastic depth; None for none.

    Raises:
        ConfigError: for another cardinality or base width.
    """

    last_norm, last_act = "bn2", "act2"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        cardinality=1,
        base_width=64,
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
            raise ConfigError(f"a BasicBlock has cardinality 1 and base_width 64, not {cardinality} and {base_width}")
        first_planes, outplanes = planes // reduce_first, planes * self.expansion
        first_dilation = first_dilation or dilation
        use_aa = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1 = Conv2d(
            inplanes, first_planes, 3, 1 if use_aa else stride, first_dilation, first_dilation, bias=False
        )
        self.bn1 = norm_layer(first_planes)
        self.drop_block = drop_block() if drop_block else nn.Identity()
        self.act1 = act_layer()
        self.aa = create_aa(aa_layer, first_planes, stride, enable=use_aa)
        self.conv2 = Conv2d(first_planes, outplanes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = norm_layer(outplanes)
        self.se = create_attn(attn_layer, outplanes)
        self.act2 = act_layer()
        self.downsample, self.drop_path = downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """Convolutions of 1x1, 3x3 and 1x1 pixels beside a shortcut; the second has the stride.

    Arguments are those of `BasicBlock`, except for these.

    Args:
        cardinality: groups of the second convolution (https://arxiv.org/abs/1611.05431).
        base_width: channels of a group, for 64 ``planes``.
    """

    expansion = 4
    last_norm, last_act = "bn3", "act3"

    def __init__(
        self,
        inplanes,
        planes,
        stride=1,
        downsample=None,
        cardinality=1,
        base_width=64,
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
        width = int(planes * (base_width / 64)) * cardinality
        first_planes, outplanes = width // reduce_first, planes * self.expansion
        first_dilation = first_dilation or dilation
        use_aa = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1 = Conv2d(inplanes, first_planes, 1, bias=False)
        self.bn1 = norm_layer(first_planes)
        self.act1 = act_layer()
        self.conv2 = Conv2d(
            first_planes, width, 3, 1 if use_aa else stride, first_dilation, first_dilation, cardinality, bias=False
        )
        self.bn2 = norm_layer(width)
        self.drop_block = drop_block() if drop_block else nn.Identity()
        self.act2 = act_layer()
        self.aa = create_aa(aa_layer, width, stride, enable=use_aa)
        self.conv3 = Conv2d(width, outplanes, 1, bias=False)
        self.bn3 = norm_layer(outplanes)
        self.se = create_attn(attn_layer, outplanes)
        self.act3 = act_layer()
        self.downsample, self.drop_path = downsample, drop_path

    def branch(self, x):
        """Return the output of the convolutions."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))
        return self.bn3(self.conv3(x))


def downsample_conv(
    in_channels, out_channels, kernel_size, stride=1, dilation=1, first_dilation=None, norm_layer=BatchNorm2d
):
    """Create a shortcut of a convolution and a normalisation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the convolution, where there is a stride or a dilation; else the kernel has one pixel.
        stride: of the block.
        dilation: of the block.
        first_dilation: of the block's first convolution; None for ``dilation``.
        norm_layer: class of the normalisation.
    """
    kernel_size = 1 if stride == dilation == 1 else kernel_size
    dilation = (first_dilation or dilation) if kernel_size > 1 else 1
    padding = get_padding(kernel_size, stride, dilation)
    return nn.Sequential(
        Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        norm_layer(out_channels),
    )


def downsample_avg(
    in_channels, out_channels, kernel_size, stride=1, dilation=1, first_dilation=None, norm_layer=BatchNorm2d
):
    """Create a shortcut of average pooling, a convolution of one pixel and a normalisation.

    Arguments are those of `downsample_conv`; ``kernel_size`` and ``first_dilation`` are ignored.
    """
    return nn.Sequential(
        downsample_pool(stride, dilation),
        Conv2d(in_channels, out_channels, 1, bias=False),
        norm_layer(out_channels),
    )
