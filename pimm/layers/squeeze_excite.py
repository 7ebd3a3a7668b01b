"""Channel attention."""

from paddle import nn

from pimm.layers.activations import sigmoid
from pimm.layers.conv import Conv2d
from pimm.layers.helpers import global_avg_pool2d, make_divisible


class SqueezeExcite(nn.Layer):
    """Scale each channel by a gate computed from all channels' means (https://arxiv.org/abs/1709.01507).

    The gate has ``(reduced_base_chs or in_chs) * se_ratio`` hidden channels, rounded to multiples of ``divisor``.
    """

    def __init__(
        self,
        in_chs,
        se_ratio=0.25,
        reduced_base_chs=None,
        act_layer=nn.ReLU,
        gate_fn=sigmoid,
        divisor=1,
    ):
        super().__init__()
        reduced_chs = make_divisible((reduced_base_chs or in_chs) * se_ratio, divisor)
        self.conv_reduce = Conv2d(in_chs, reduced_chs, 1)
        self.act1 = act_layer()
        self.conv_expand = Conv2d(reduced_chs, in_chs, 1)
        self.gate_fn = gate_fn

    def forward(self, x):  # [N, C, H, W]
        gate = global_avg_pool2d(x)  # [N, C, 1, 1]
        gate = self.act1(self.conv_reduce(gate))  # [N, reduced, 1, 1]
        gate = self.gate_fn(self.conv_expand(gate))  # [N, C, 1, 1]
        return x * gate
