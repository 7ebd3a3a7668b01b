"""Gates of rows and of columns, each computed of the means over the other axis; names and arguments are timm's.

Arguments that several of them share, beside those of `pimm.layers.se_module.SEModule`:

    se_factor: factor of ``rd_ratio``, which gives as many parameters as squeeze-and-excitation has.
    bias: whether the layers have a bias.
    kernel_size: length of the convolutions along rows and columns.
    has_skip: whether the input is added to the result.
"""

import paddle
from paddle import nn

from pimm.layers.activations import Swish
from pimm.layers.conv import Conv2d
from pimm.layers.create_act import create_act_layer
from pimm.layers.layer_norm import GroupNorm1
from pimm.layers.linear import Linear
from pimm.layers.norm import BatchNorm2d
from pimm.layers.se_module import reduced_channels


def _strips(x):
    """Return the means of rows, [N, C, H, 1], and of columns, [N, C, 1, W]."""
    return x.mean(3, keepdim=True), x.mean(2, keepdim=True)


def _strip_convs(channels, kernel_size, bias):
    """Return the convolutions of single channels along columns and along rows."""
    half = kernel_size // 2
    return (
        Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=bias)
        for kernel, padding in (((kernel_size, 1), (half, 0)), ((1, kernel_size), (0, half)))
    )


class CoordAttn(nn.Layer):
    """Coordinate attention (https://arxiv.org/abs/2103.02907): rows and columns share the hidden channels."""

    def __init__(
        self,
        channels,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=8,
        se_factor=2 / 3,
        bias=False,
        act_layer=nn.Hardswish,
        norm_layer=BatchNorm2d,
        gate_layer="sigmoid",
        has_skip=False,
    ):
        super().__init__()
        self.has_skip = has_skip
        rd_channels = reduced_channels(channels, rd_ratio * se_factor, rd_channels, rd_divisor)
        self.conv1 = Conv2d(channels, rd_channels, 1, bias=bias)
        self.bn1 = norm_layer(rd_channels) if norm_layer else nn.Identity()
        self.act = create_act_layer(act_layer)
        self.conv_h = Conv2d(rd_channels, channels, 1, bias=bias)
        self.conv_w = Conv2d(rd_channels, channels, 1, bias=bias)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):
        rows, columns = _strips(x)
        hidden = paddle.concat([rows, columns.transpose([0, 1, 3, 2])], axis=2)
        hidden = self.act(self.bn1(self.conv1(hidden)))  # [N, hidden, H + W, 1]
        rows, columns = paddle.split(hidden, [x.shape[2], x.shape[3]], axis=2)
        columns = columns.transpose([0, 1, 3, 2])
        out = x * self.gate(self.conv_w(columns)) * self.gate(self.conv_h(rows))
        return out + x if self.has_skip else out


class SimpleCoordAttn(nn.Layer):
    """Coordinate attention of linear layers, whose gate is that of the sum of rows and columns."""

    def __init__(
        self,
        channels,
        rd_ratio=0.25,
        rd_channels=None,
        rd_divisor=8,
        se_factor=2 / 3,
        bias=True,
        act_layer=Swish,
        gate_layer="sigmoid",
        has_skip=False,
    ):
        super().__init__()
        self.has_skip = has_skip
        rd_channels = reduced_channels(channels, rd_ratio * se_factor, rd_channels, rd_divisor)
        self.fc1 = Linear(channels, rd_channels, bias=bias)
        self.act = create_act_layer(act_layer)
        self.fc_h = Linear(rd_channels, channels, bias=bias)
        self.fc_w = Linear(rd_channels, channels, bias=bias)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):
        rows, columns = (self.act(self.fc1(x.mean(axis).transpose([0, 2, 1]))) for axis in (3, 2))
        rows = self.fc_h(rows).transpose([0, 2, 1]).unsqueeze(-1)  # [N, C, H, 1]
        columns = self.fc_w(columns).transpose([0, 2, 1]).unsqueeze(-2)  # [N, C, 1, W]
        out = x * self.gate(rows + columns)
        return out + x if self.has_skip else out


class EfficientLocalAttn(nn.Layer):
    """Gates of rows and columns by convolutions along them, without hidden channels (https://arxiv.org/abs/2403.01123).

    Args:
        act_layer: class of the activation after the normalisation.
        norm_layer: class of the normalisation after the convolutions, or None. The other arguments are those that this
            module names.
    """

    def __init__(
        self,
        channels,
        kernel_size=7,
        bias=False,
        act_layer=Swish,
        gate_layer="sigmoid",
        norm_layer=GroupNorm1,
        has_skip=False,
    ):
        super().__init__()
        self.has_skip = has_skip
        self.conv_h, self.conv_w = _strip_convs(channels, kernel_size, bias)
        self.norm_h = norm_layer(channels) if norm_layer else nn.Identity()
        self.norm_w = norm_layer(channels) if norm_layer else nn.Identity()
        self.act = create_act_layer(act_layer)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):
        rows, columns = _strips(x)
        rows = self.gate(self.act(self.norm_h(self.conv_h(rows))))
        columns = self.gate(self.act(self.norm_w(self.conv_w(columns))))
        out = x * rows * columns
        return out + x if self.has_skip else out


class StripAttn(nn.Layer):
    """Gate of the sum of rows and columns, after convolutions along them with ``use_conv``; ``_`` is ignored."""

    def __init__(self, channels, use_conv=True, kernel_size=3, bias=False, gate_layer="sigmoid", has_skip=False, **_):
        super().__init__()
        self.has_skip = has_skip
        convs = _strip_convs(channels, kernel_size, bias) if use_conv else (nn.Identity(), nn.Identity())
        self.conv_h, self.conv_w = convs
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):
        rows, columns = _strips(x)
        out = x * self.gate(self.conv_h(rows) + self.conv_w(columns))
        return out + x if self.has_skip else out
