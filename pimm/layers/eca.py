"""Efficient channel attention: a convolution over the means of neighbouring channels (https://arxiv.org/abs/1910.03151)."""

import math

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.create_act import create_act_layer
from pimm.layers.helpers import global_avg_pool2d
from pimm.layers.se_module import reduced_channels


class _Conv1d(nn.Conv1D):
    """`paddle.nn.Conv1D` with PyTorch's initial values."""

    def __init__(self, in_channels, out_channels, kernel_size, padding=0, bias=True):
        bound = 1 / math.sqrt(in_channels * kernel_size)
        init = nn.initializer.Uniform(-bound, bound)
        attrs = {"weight_attr": init, "bias_attr": init if bias else False}
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, **attrs)


def _kernel_size(channels, kernel_size, gamma, beta):
    if channels is not None:
        size = int(abs(math.log2(channels) + beta) / gamma)
        kernel_size = max(size if size % 2 else size + 1, 3)
    if kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size of a channel attention is {kernel_size}; must be odd")
    return kernel_size


class EcaModule(nn.Layer):
    """Gates of channels, each from the means of the channels beside it.

    Args:
        channels: channels of the images, which tell the size of the kernel; None to take ``kernel_size``.
        kernel_size: how many channels a gate depends on.
        gamma: the kernel has (log2(channels) + beta) / gamma channels, made odd, and at least 3.
        beta: see ``gamma``.
        act_layer: class or name of the activation between the convolutions of ``use_mlp``.
        gate_layer: class or name of the activation that makes the gate.
        rd_ratio: hidden channels of ``use_mlp``, as a share of ``channels``.
        rd_channels: hidden channels of ``use_mlp``, in place of the share.
        rd_divisor: of which the number of hidden channels is a multiple.
        use_mlp: whether there are two convolutions.

    Raises:
        ConfigError: for an even kernel.
    """

    def __init__(
        self,
        channels=None,
        kernel_size=3,
        gamma=2,
        beta=1,
        act_layer=None,
        gate_layer="sigmoid",
        rd_ratio=1 / 8,
        rd_channels=None,
        rd_divisor=8,
        use_mlp=False,
    ):
        super().__init__()
        kernel_size = _kernel_size(channels, kernel_size, gamma, beta)
        padding = (kernel_size - 1) // 2
        if use_mlp:
            rd_channels = reduced_channels(channels, rd_ratio, rd_channels, rd_divisor, round_limit=0.9)
            self.conv = _Conv1d(1, rd_channels, 1)
            self.act = create_act_layer(act_layer or nn.ReLU)
            self.conv2 = _Conv1d(rd_channels, 1, kernel_size, padding)
        else:
            self.conv = _Conv1d(1, 1, kernel_size, padding, bias=False)
            self.act = self.conv2 = None
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate = self.conv(global_avg_pool2d(x).flatten(1).unsqueeze(1))
        if self.conv2 is not None:
            gate = self.conv2(self.act(gate))
        return x * self.gate(gate).transpose([0, 2, 1]).unsqueeze(3)


class CecaModule(nn.Layer):
    """`EcaModule` whose channels form a circle, in place of zeros before the first and after the last.

    Args:
        channels: as in `EcaModule`.
        kernel_size: as in `EcaModule`.
        gamma: as in `EcaModule`.
        beta: as in `EcaModule`.
        act_layer: if there is one, the convolution has a bias; it is not applied.
        gate_layer: as in `EcaModule`.

    Raises:
        ConfigError: for an even kernel.
    """

    def __init__(self, channels=None, kernel_size=3, gamma=2, beta=1, act_layer=None, gate_layer="sigmoid"):
        super().__init__()
        kernel_size = _kernel_size(channels, kernel_size, gamma, beta)
        self.padding = (kernel_size - 1) // 2
        self.conv = _Conv1d(1, 1, kernel_size, bias=act_layer is not None)
        self.gate = create_act_layer(gate_layer)

    def forward(self, x):  # [N, C, H, W]
        gate, pad = global_avg_pool2d(x).flatten(1), self.padding
        gate = paddle.concat([gate[:, -pad:], gate, gate[:, :pad]], axis=1)
        gate = self.conv(gate.unsqueeze(1))
        return x * self.gate(gate).transpose([0, 2, 1]).unsqueeze(3)
