"""The blocks of ShuffleNetV2 (https://arxiv.org/abs/1807.11164), in the variants that Single Path One-Shot searches."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from pimm.layers import BatchNorm2d, Conv2d
from pimm.layers.conv import conv2d


class Branch(nn.Sequential):
    """A branch of a ShuffleNetV2 block: convolutions, each with a batch norm, and a ReLU after each pointwise one.

    ``forward(x, width)`` uses the first ``width`` of the ``mid_chs`` inner channels alone.

    Args:
        sequence: the convolutions in order, ``p`` for a pointwise one and ``d`` for a depthwise one.
        kernel: side of the depthwise kernels.
        in_chs: channels of the input.
        mid_chs: channels between the first pointwise convolution and the last.
        out_chs: channels of the output.
        stride: stride of the first depthwise convolution.
        affine: whether batch norms have weight and bias.
        dilation: dilation of the depthwise convolutions.
    """

    def __init__(
        self,
        sequence: str,
        kernel: int,
        in_chs: int,
        mid_chs: int,
        out_chs: int,
        stride: int,
        affine: bool,
        dilation: int = 1,
    ):
        layers: list[nn.Layer] = []
        chs = in_chs
        for index, kind in enumerate(sequence):
            if kind == "d":
                padding = dilation * (kernel // 2)
                conv = Conv2d(chs, chs, kernel, stride, padding, dilation, groups=chs, bias=False)
                layers += [conv, BatchNorm2d(chs, affine=affine)]
                stride = 1
            else:
                width = out_chs if index == len(sequence) - 1 else mid_chs
                layers += [Conv2d(chs, width, 1, bias=False), BatchNorm2d(width, affine=affine), nn.ReLU()]
                chs = width
        super().__init__(*layers)
        self.mid_chs, self.out_conv = mid_chs, len(layers) - 3

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        if width is None or width == self.mid_chs:
            return super().forward(x)
        for index, layer in enumerate(self):
            if isinstance(layer, Conv2d):
                x = _convolve(layer, x, layer.out_channels if index == self.out_conv else width)
            elif isinstance(layer, BatchNorm2d):
                x = layer(x, x.shape[1])
            else:
                x = layer(x)
        return x


def _convolve(conv: Conv2d, x: Tensor, width: int) -> Tensor:
    """Compute the first ``width`` output channels with the part of the weight that fits the channels of ``x``."""
    in_chs = x.shape[1]
    if conv.groups > 1:
        return conv2d(x, conv.weight[:in_chs], None, conv.stride, conv.padding, groups=in_chs)
    return conv2d(x, conv.weight[:width, :in_chs])


class ShuffleBlock(nn.Layer):
    """The unit of ShuffleNetV2 and, with the sequence ``dpdpdp``, its Xception variant.

    At stride 1 the even channels pass unchanged and the main branch transforms the odd ones. At stride 2 both branches,
    projection and main, transform all channels. The outputs are concatenated. ``forward(x, width)`` uses the first
    ``width`` of the ``mid_chs`` inner channels of the main branch alone.

    Args:
        in_chs: channels of the input.
        mid_chs: inner channels of the main branch.
        out_chs: channels of the output.
        sequence: convolutions of the main branch, as ``Branch`` takes them.
        kernel: side of the depthwise kernels.
        stride: 1 or 2.
        affine: whether batch norms have weight and bias.
        dilation: dilation of the depthwise convolutions.
        keeps_size: whether a block of stride 2 leaves out the stride, and does all else.
    """

    def __init__(
        self,
        in_chs: int,
        mid_chs: int,
        out_chs: int,
        sequence: str,
        kernel: int,
        stride: int,
        affine: bool,
        dilation: int = 1,
        keeps_size: bool = False,
    ):
        super().__init__()
        self.arguments = (in_chs, out_chs, sequence, kernel, stride, affine)
        self.stride = stride
        side = in_chs if stride == 2 else in_chs // 2
        placed = (1 if keeps_size else stride, affine, dilation)
        self.branch_main = Branch(sequence, kernel, side, mid_chs, out_chs - side, *placed)
        if stride == 2:
            self.branch_proj = Branch("dp", kernel, side, side, side, *placed)

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        if self.stride == 2:
            shortcut = self.branch_proj(x)
        else:
            shortcut, x = _unshuffle(x)
        return paddle.concat([shortcut, self.branch_main(x, width)], axis=1)

    def narrowed(self, width: int) -> ShuffleBlock:
        """Return a block that computes ``forward(x, width)`` and has no more inner channels than ``width``.

        It is this block if it has no more itself, and else a new one with copies of the weights.
        """
        if width == self.branch_main.mid_chs:
            return self
        in_chs, out_chs, *further = self.arguments
        block = ShuffleBlock(in_chs, width, out_chs, *further)
        copy_first(self, block)
        return block


def _unshuffle(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split the even channels from the odd ones."""
    # Slices with a step of 2 would do, but their gradient is seven times as slow on a CPU.
    _, channels, height, width = x.shape
    even, odd = x.reshape([-1, channels // 2, 2, height, width]).unbind(axis=2)
    return even, odd


@paddle.no_grad()
def copy_first(source: nn.Layer, target: nn.Layer) -> None:
    """Copy weights and batch-norm statistics by name, along each axis as many values as ``target`` has.

    Tensors of ``target`` that ``source`` does not have stay as they are.
    """
    values = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in values:
            tensor.set_value(values[name][tuple(slice(size) for size in tensor.shape)])
