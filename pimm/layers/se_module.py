"""Gates of channels from the means of all channels, under timm's names."""

from paddle import nn

from pimm.layers.conv import Conv2d
from pimm.layers.create_act import create_act_layer
from pimm.layers.helpers import global_avg_pool2d, make_divisible
from pimm.layers.linear import Linear


def reduced_channels(channels, rd_ratio, rd_channels=None, rd_divisor=8, round_limit=0.0):
    """Return the hidden channels of a gate: ``rd_channels`` if given, else ``rd_ratio`` of ``channels``, rounded."""
    return rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=round_limit)


def pooled(x, add_maxpool=False):
    """Return the mean of each channel, [N, C, 1, 1], or with ``add_maxpool`` the mean of that and of the maximum."""
    mean = global_avg_pool2d(x)
    return 0.5 * mean + 0.5 * x.amax([2, 3], keepdim=True) if add_maxpool else mean


class SEModule(nn.Layer):
    """Squeeze-and-excitation (https://arxiv.org/abs/1709.01507).

    Args:
        channels: channels of the images.
        rd_ratio: hidden channels of the gate, as a share of ``channels``.
        rd_channels: hidden channels, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        add_maxpool: whether the maximum of a channel counts as much as its mean.
        bias: whether the two convolutions have biases.
        act_layer: class or name of the activation between the convolutions.
        norm_layer: class of the normalisation between the convolutions; None for none.
        gate_layer: class or name of the activation that makes the gate.
    """

    def __init__(
        self,
        channels,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=8,
        add_maxpool=False,
        bias=True,
        act_layer=nn.ReLU,
        norm_layer=None,
        gate_layer="sigmoid",
    ):
        super().__init__()
        self.add_maxpool = add_maxpool
        rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor)
        self.fc1 = Conv2d(channels, rd_channels, 1, bias=bias)
        self.bn = norm_layer(rd_channels) if norm_layer else nn.Identity()
        self.act = create_act_layer(act_layer)
        self.fc2 = Conv2d(rd_channels, channels, 1, bias=bias)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate = self.act(self.bn(self.fc1(pooled(x, self.add_maxpool))))
        return x * self.gate(self.fc2(gate))


class EffectiveSEModule(nn.Layer):
    """Squeeze-and-excitation with a single convolution (https://arxiv.org/abs/1911.06667).

    Args:
        channels: channels of the images.
        add_maxpool: whether the maximum of a channel counts as much as its mean.
        gate_layer: class or name of the activation that makes the gate.
        kwargs: ignored, so that a net can exchange its gates.
    """

    def __init__(self, channels, add_maxpool=False, gate_layer="hard_sigmoid", **kwargs):
        super().__init__()
        self.add_maxpool = add_maxpool
        self.fc = Conv2d(channels, channels, 1)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        return x * self.gate(self.fc(pooled(x, self.add_maxpool)))


class SqueezeExciteCl(nn.Layer):
    """`SEModule` for images [N, H, W, C], of linear layers; arguments as there."""

    def __init__(
        self,
        channels,
        rd_ratio=1 / 16,
        rd_channels=None,
        rd_divisor=8,
        bias=True,
        act_layer=nn.ReLU,
        gate_layer="sigmoid",
    ):
        super().__init__()
        rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor)
        self.fc1 = Linear(channels, rd_channels, bias=bias)
        self.act = create_act_layer(act_layer)
        self.fc2 = Linear(rd_channels, channels, bias=bias)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, H, W, C]
        gate = self.act(self.fc1(x.mean([1, 2], keepdim=True)))
        return x * self.gate(self.fc2(gate))
