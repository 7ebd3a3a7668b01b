"""Context of the whole image for each channel: GCNet's and Gather-Excite."""

import functools
import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d, create_conv2d
from pimm.layers.create_act import create_act_layer, get_act_layer
from pimm.layers.helpers import global_avg_pool2d
from pimm.layers.layer_norm import LayerNorm2d
from pimm.layers.mlp import ConvMlp
from pimm.layers.norm import BatchNorm2d
from pimm.layers.se_module import pooled, reduced_channels
from pimm.layers.weight_init import zeros_


class GlobalContext(nn.Layer):
    """Scale channels by a gate, or add to them, what two convolutions make of the attended mean of all pixels.

    See GCNet, https://arxiv.org/abs/1904.11492.

    Args:
        channels: channels of the images.
        use_attn: whether the mean is weighted by a softmax over the pixels.
        fuse_add: whether the context is added.
        fuse_scale: whether the context makes a gate.
        init_last_zero: ignored; the added context always begins with weights of 0.
        rd_ratio: hidden channels, as a share of ``channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        act_layer: class or name of the activation between the convolutions.
        gate_layer: class or name of the activation that makes the gate.
    """

    def __init__(
        self,
        channels,
        use_attn=True,
        fuse_add=False,
        fuse_scale=True,
        init_last_zero=False,
        rd_ratio=1 / 8,
        rd_channels=None,
        rd_divisor=1,
        act_layer=nn.ReLU,
        gate_layer="sigmoid",
    ):
        super().__init__()
        rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor)
        mlp = functools.partial(ConvMlp, channels, rd_channels, act_layer=get_act_layer(act_layer))
        self.conv_attn = Conv2d(channels, 1, 1) if use_attn else None
        self.mlp_add = mlp(norm_layer=LayerNorm2d) if fuse_add else None
        self.mlp_scale = mlp(norm_layer=LayerNorm2d) if fuse_scale else None
        self.gate = create_act_layer(gate_layer)
        if use_attn:
            nn.initializer.Normal(0.0, math.sqrt(2 / channels))(self.conv_attn.weight)
        if fuse_add:
            zeros_(self.mlp_add.fc2.weight)

    def forward(self, x):  # [N, C, H, W]
        context = self.context(x)  # [N, C, 1, 1]
        if self.mlp_scale is not None:
            x = x * self.gate(self.mlp_scale(context))
        return x if self.mlp_add is None else x + self.mlp_add(context)

    def context(self, x):
        """Return the mean of all pixels, [N, C, 1, 1], each of them as much as the attention says."""
        if self.conv_attn is None:
            return global_avg_pool2d(x)
        attention = F.softmax(self.conv_attn(x).flatten(2), axis=-1)  # [N, 1, H * W]
        return paddle.matmul(x.flatten(2), attention, transpose_y=True).unsqueeze(3)


class GatherExcite(nn.Layer):
    """Gates of pixels from a neighbourhood of ``extent`` times the resolution, or of channels from all pixels.

    See https://arxiv.org/abs/1810.12348.

    Args:
        channels: channels of the images.
        feat_size: height and width of the images, for ``extra_params`` with extent 0.
        extra_params: whether convolutions gather the neighbourhood, in place of pooling.
        extent: 0 for all pixels, or a power of two.
        use_mlp: whether two convolutions follow the gathering.
        rd_ratio: hidden channels, as a share of ``channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        add_maxpool: whether maxima count as much as means.
        act_layer: class or name of the activations.
        norm_layer: class of the normalisation after the gathering convolutions; None for none.
        gate_layer: class or name of the activation that makes the gate.

    Raises:
        ConfigError: for an odd extent, and if ``feat_size`` is missing.
    """

    def __init__(
        self,
        channels,
        feat_size=None,
        extra_params=False,
        extent=0,
        use_mlp=True,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=1,
        add_maxpool=False,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        gate_layer="sigmoid",
    ):
        super().__init__()
        if extent % 2 or (extra_params and extent == 0 and feat_size is None):
            raise ConfigError("gather-excite needs an even extent, and with extra_params and extent 0 a feat_size")
        self.extent, self.add_maxpool = extent, add_maxpool
        act_layer = get_act_layer(act_layer)
        self.gather = _gather(channels, feat_size, extent, act_layer, norm_layer) if extra_params else None
        rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor)
        self.mlp = ConvMlp(channels, rd_channels, act_layer=act_layer) if use_mlp else nn.Identity()
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate = self.mlp(self.gathered(x))
        if self.extent:
            gate = F.interpolate(gate, size=x.shape[2:])
        return x * self.gate(gate)

    def gathered(self, x):
        """Return the neighbourhoods' means, [N, C, H / extent, W / extent], or [N, C, 1, 1] for extent 0."""
        if self.gather is not None:
            return self.gather(x)
        if self.extent == 0:
            return pooled(x, self.add_maxpool)
        window = (2 * self.extent - 1, self.extent, self.extent - 1)  # kernel, stride, padding
        mean = F.avg_pool2d(x, *window, exclusive=True)
        return 0.5 * mean + 0.5 * F.max_pool2d(x, *window) if self.add_maxpool else mean


def _gather(channels, feat_size, extent, act_layer, norm_layer):
    gather = nn.Sequential()
    count = int(math.log2(extent)) if extent else 1
    for number in range(1, count + 1):
        kernel, stride, padding = (3, 2, "") if extent else (feat_size, 1, 0)
        conv = create_conv2d(channels, channels, kernel, stride=stride, padding=padding, depthwise=True)
        gather.add_sublayer(f"conv{number}", conv)
        if norm_layer:
            gather.add_sublayer(f"norm{number}", norm_layer(channels))
        if number < count:
            gather.add_sublayer(f"act{number}", act_layer())
    return gather
