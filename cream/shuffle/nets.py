"""Single Path One-Shot's search space of ShuffleNetV2 blocks, its supernet, and the nets found in it.

Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling (https://arxiv.org/abs/1904.00420).
State names are those of the authors' released weights, which NNI's example shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.counting import CONVOLUTION_RULES
from cream.space import Arch, SearchSpace
from cream.supernet import Choices, SuperNet
from pimm.layers import BatchNorm2d, Conv2d, Linear, SelectAdaptivePool2d
from pimm.layers.conv import conv2d

STEM_SIZE = 16
NUM_FEATURES = 1024
DEPTHS = (4, 4, 8, 4)  # blocks of each stage; the first halves the image
CHANNELS = (64, 160, 320, 640)
# Convolutions of a block's main branch in order, pointwise or depthwise, and the kernel of the depthwise ones.
OPERATIONS = (("pdp", 3), ("pdp", 5), ("pdp", 7), ("dpdpdp", 3))
PLAIN = (1.0,)  # ratios of a space that searches operations alone
CHANNEL_RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # and of one that searches channels too
SPOS_ARCH: Arch = ((2, 1, 0, 1), (2, 0, 2, 0), (2, 0, 2, 3, 0, 0, 0, 0), (3, 2, 3, 3))  # what the authors found
BN_BIAS = 1e-4


def shuffle_space(ratios: Sequence[float] = PLAIN, depths: Sequence[int] = DEPTHS) -> SearchSpace:
    """All paths: at each block one of four operations, and one of ``ratios`` for the channels inside it.

    Choice ``operation * len(ratios) + i`` is that operation with ``ratios[i]``; stages have ``depths`` blocks.
    """
    count = len(OPERATIONS) * len(ratios)
    return SearchSpace(
        choices=tuple((count,) * depth for depth in depths),
        keeps_shape=tuple((False,) * depth for depth in depths),
    )


class Branch(nn.Sequential):
    """Convolutions with their batch norms, and a ReLU after each pointwise one.

    ``sequence`` names them: ``p`` is pointwise, ``d`` depthwise; the first depthwise one has the stride. Between the
    first pointwise convolution and the last are ``mid_chs`` channels, or the first ``width`` of them.
    """

    def __init__(self, sequence: str, kernel: int, in_chs: int, mid_chs: int, out_chs: int, stride: int, affine: bool):
        layers: list[nn.Layer] = []
        chs = in_chs
        for index, kind in enumerate(sequence):
            if kind == "d":
                conv = Conv2d(chs, chs, kernel, stride, kernel // 2, groups=chs, bias=False)
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
    """The convolution of the channels that x has, by the first part of the weight, to the first ``width``."""
    in_chs = x.shape[1]
    if conv.groups > 1:
        return conv2d(x, conv.weight[:in_chs], None, conv.stride, conv.padding, groups=in_chs)
    return conv2d(x, conv.weight[:width, :in_chs])


class ShuffleBlock(nn.Layer):
    """Half of the channels, or at stride 2 a projection of all, beside what the main branch makes of the rest.

    ShuffleNetV2's unit and, with sequence ``dpdpdp``, the Xception variant; ``forward(x, width)`` takes only the
    first ``width`` of the ``mid_chs`` channels inside the main branch.
    """

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, sequence: str, kernel: int, stride: int, affine: bool):
        super().__init__()
        self.arguments = (in_chs, out_chs, sequence, kernel, stride, affine)
        self.stride = stride
        side = in_chs if stride == 2 else in_chs // 2
        self.branch_main = Branch(sequence, kernel, side, mid_chs, out_chs - side, stride, affine)
        if stride == 2:
            self.branch_proj = Branch("dp", kernel, side, side, side, stride, affine)

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        if self.stride == 2:
            kept = self.branch_proj(x)
        else:
            kept, x = _unshuffle(x)
        return paddle.concat([kept, self.branch_main(x, width)], axis=1)

    def narrowed(self, width: int) -> ShuffleBlock:
        """A block that computes what ``forward(x, width)`` does: itself, or one with a copy of the weights it takes."""
        if width == self.branch_main.mid_chs:
            return self
        in_chs, out_chs, *others = self.arguments
        block = ShuffleBlock(in_chs, width, out_chs, *others)
        copy_first(self, block)
        return block


def _unshuffle(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd channels."""  # a stride would do, but its gradient is seven times as slow on a CPU
    _, channels, height, width = x.shape
    even, odd = x.reshape([-1, channels // 2, 2, height, width]).unbind(axis=2)
    return even, odd


@paddle.no_grad()
def copy_first(source: nn.Layer, target: nn.Layer) -> None:
    """Sets each weight and statistic of ``target`` to the beginning of ``source``'s, along each of its axes.

    Where ``source`` has no such weight the target's stays.
    """
    values = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in values:
            tensor.set_value(values[name][tuple(slice(size) for size in tensor.shape)])


class ShuffleChoices(Choices):
    """The operations of one position, each with as many channels inside as the largest of ``widths``."""

    def __init__(self, blocks: Sequence[ShuffleBlock], widths: Sequence[int]):
        super().__init__(blocks)
        self.widths = widths

    def forward(self, x: Tensor, choice: int) -> Tensor:
        operation, ratio = divmod(choice, len(self.widths))
        return self[operation](x, self.widths[ratio])

    def operation(self, choice: int) -> ShuffleBlock:
        return self[choice // len(self.widths)]

    def standalone(self, choice: int) -> ShuffleBlock:
        return self.operation(choice).narrowed(self.widths[choice % len(self.widths)])

    def extra_repr(self) -> str:
        return f"widths={self.widths}"


def positions(depths: Sequence[int] = DEPTHS, channels: Sequence[int] = CHANNELS) -> Iterator[tuple[int, int, int]]:
    """Channels in, channels out and stride of each block, in forward order."""
    in_chs = STEM_SIZE
    for depth, out_chs in zip(depths, channels):
        for position in range(depth):
            yield in_chs, out_chs, 2 if position == 0 else 1
            in_chs = out_chs


def widths_inside(out_chs: int, ratios: Sequence[float]) -> list[int]:
    """Channels inside a block by ratio, rounded down."""
    return [int(out_chs // 2 * ratio) for ratio in ratios]


class ShuffleNetV2(nn.Layer):
    """First convolution, ``features`` that end in ``channels`` channels, and head of a supernet or a fixed net."""

    cost_rules = CONVOLUTION_RULES

    def __init__(
        self,
        features: Iterable[nn.Layer],
        channels: int,
        num_classes: int,
        in_chans: int,
        drop_rate: float,
        affine: bool,
    ):
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.first_conv = nn.Sequential(
            Conv2d(in_chans, STEM_SIZE, 3, 2, 1, bias=False), BatchNorm2d(STEM_SIZE, affine=affine), nn.ReLU()
        )
        self.features = nn.LayerList(features)
        self.conv_last = nn.Sequential(
            Conv2d(channels, NUM_FEATURES, 1, bias=False), BatchNorm2d(NUM_FEATURES, affine=affine), nn.ReLU()
        )
        self.global_pool = SelectAdaptivePool2d()
        self.classifier = nn.Sequential(Linear(NUM_FEATURES, num_classes, bias=False))
        self._init_weights()

    def _init_weights(self) -> None:
        """Draws initial values as the authors do."""
        for name, layer in self.named_sublayers():
            if isinstance(layer, nn.Conv2D):
                deviation = 0.01 if name.startswith("first_conv") else 1.0 / layer.weight.shape[1]
                nn.initializer.Normal(0.0, deviation)(layer.weight)
            elif isinstance(layer, nn.Linear):
                nn.initializer.Normal(0.0, 0.01)(layer.weight)
            elif isinstance(layer, nn.BatchNorm2D) and layer.bias is not None:
                nn.initializer.Constant(BN_BIAS)(layer.bias)

    def stem(self, x: Tensor) -> Tensor:
        return self.first_conv(x)  # [N, 16, H/2, W/2]

    def head(self, x: Tensor) -> Tensor:
        x = self.global_pool(self.conv_last(x)).flatten(1)  # [N, 1024]
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        return self.classifier(x)  # [N, num_classes]


# Blocks and operations whose projection is never used; NNI's nets have one all the same.
_UNUSED = [
    (block, operation)
    for block, (_, _, stride) in enumerate(positions())
    for operation in range(len(OPERATIONS))
    if stride == 1
]


class ShuffleSuperNet(ShuffleNetV2, SuperNet):
    """All nets of ``shuffle_space(ratios)`` in one, sharing the weights of the blocks they share.

    A block has the channels of the largest ratio, and smaller ratios use the first of them (section 3.4 of the paper).
    Its batch norm has no weights of its own. State names are ``features.BLOCK.OPERATION``.
    """

    torch_renames = {
        **{f"features.{block}.choices": f"features.{block}" for block in range(sum(DEPTHS))},  # as NNI did at first
        **{f"features.{block}.{operation}.branch_proj": None for block, operation in _UNUSED},
    }

    def __init__(
        self,
        num_classes: int = 1000,
        ratios: Sequence[float] = PLAIN,
        in_chans: int = 3,
        drop_rate: float = 0.1,
        depths: Sequence[int] = DEPTHS,
        channels: Sequence[int] = CHANNELS,
    ):
        super().__init__(
            (_choices(*position, ratios) for position in positions(depths, channels)),
            channels[-1],
            num_classes,
            in_chans,
            drop_rate,
            affine=False,
        )
        self.space = shuffle_space(ratios, depths)

    @property
    def blocks(self) -> list[list[Choices]]:
        features = iter(self.features)
        return [list(islice(features, len(stage))) for stage in self.space.choices]

    def shared_layers(self) -> Iterator[nn.Layer]:
        yield from (self.first_conv, self.conv_last, self.classifier)


def _choices(in_chs: int, out_chs: int, stride: int, ratios: Sequence[float]) -> ShuffleChoices:
    widths = widths_inside(out_chs, ratios)
    blocks = [ShuffleBlock(in_chs, max(widths), out_chs, *operation, stride, False) for operation in OPERATIONS]
    return ShuffleChoices(blocks, widths)


class ShuffleNet(ShuffleNetV2):
    """The net of one path of ``shuffle_space(ratios)``; its batch norm has weights. State names: ``features.BLOCK``."""

    torch_renames = {f"features.{block}.branch_proj": None for block, _ in _UNUSED}

    def __init__(
        self,
        arch: Arch = SPOS_ARCH,
        num_classes: int = 1000,
        ratios: Sequence[float] = PLAIN,
        in_chans: int = 3,
        drop_rate: float = 0.1,
        depths: Sequence[int] = DEPTHS,
        channels: Sequence[int] = CHANNELS,
    ):
        shuffle_space(ratios, depths).check(arch)
        choices = (choice for stage in arch for choice in stage)
        super().__init__(
            (_block(*position, choice, ratios) for position, choice in zip(positions(depths, channels), choices)),
            channels[-1],
            num_classes,
            in_chans,
            drop_rate,
            affine=True,
        )
        self.arch = arch

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.features:
            x = block(x)
        return self.head(x)

    def inherit(self, net: ShuffleSuperNet) -> None:
        """Takes over the weights of a supernet of the same space; the weights of batch norm become those of none."""
        for layer in self.sublayers():
            if isinstance(layer, BatchNorm2d):
                nn.initializer.Constant(1.0)(layer.weight)
                nn.initializer.Constant(0.0)(layer.bias)
        for own, theirs in zip(self.features, net.active_blocks(self.arch)):
            copy_first(theirs, own)
        for own, theirs in ((self.first_conv, net.first_conv), (self.conv_last, net.conv_last)):
            copy_first(theirs, own)
        copy_first(net.classifier, self.classifier)


def _block(in_chs: int, out_chs: int, stride: int, choice: int, ratios: Sequence[float]) -> ShuffleBlock:
    operation, ratio = divmod(choice, len(ratios))
    return ShuffleBlock(in_chs, widths_inside(out_chs, ratios)[ratio], out_chs, *OPERATIONS[operation], stride, True)
