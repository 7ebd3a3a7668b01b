"""Squeeze-and-excitation."""

from paddle import nn

from pimm.layers.activations import sigmoid
from pimm.layers.conv import Conv2d
from pimm.layers.helpers import global_avg_pool2d, make_divisible
from pimm.ops import scale_channels


class SqueezeExcite(nn.Layer):
    """Scaling of each channel by a gate, computed from the means of all channels (https://arxiv.org/abs/1709.01507).

    Args:
        in_chs: channels of the input.
        se_ratio: hidden channels of the gate, as a share of ``reduced_base_chs``.
        reduced_base_chs: None for ``in_chs``.
        act_layer: class of the activation between the gate's two convolutions.
        gate_fn: function that makes the gate of the second convolution's output.
        divisor: of which the number of hidden channels is a multiple.
        round_limit: the least share of the hidden channels that rounding keeps.
    """

    def __init__(
        self,
        in_chs,
        se_ratio=0.25,
        reduced_base_chs=None,
        act_layer=nn.ReLU,
        gate_fn=sigmoid,
        divisor=1,
        round_limit=0.9,
    ):
        super().__init__()
        reduced_chs = make_divisible((reduced_base_chs or in_chs) * se_ratio, divisor, round_limit=round_limit)
        self.conv_reduce = Conv2d(in_chs, reduced_chs, 1)
        self.act1 = act_layer()
        self.conv_expand = Conv2d(reduced_chs, in_chs, 1)
        self.gate_fn = gate_fn

    def forward(self, x):  # [N, C, H, W]
        gate = global_avg_pool2d(x)  # [N, C, 1, 1]
        gate = self.act1(self.conv_reduce(gate))  # [N, reduced, 1, 1]
        gate = self.gate_fn(self.conv_expand(gate))  # [N, C, 1, 1]
        return scale_channels(x, gate)
