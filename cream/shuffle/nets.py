"""Single Path One-Shot's search space of ShuffleNetV2 blocks, its supernet, and the child nets found in it.

Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling (https://arxiv.org/abs/1904.00420).
Names in the state dicts are those of the weights that the authors released, which NNI's example uses too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.counting import CONVOLUTION_RULES
from cream.shuffle.blocks import ShuffleBlock, copy_first
from cream.space import Arch, SearchSpace, format_arch
from cream.supernet import Choices, SuperNet
from pimm.layers import BatchNorm2d, Conv2d, Linear, SelectAdaptivePool2d
from pimm.models.features import Stage, limit_strides, stage_features
from pimm.models.interface import ImageModel
from pimm.optim.layer_groups import MATCH_PREV_GROUP

STEM_SIZE = 16
NUM_FEATURES = 1024
DEPTHS = (4, 4, 8, 4)  # blocks of each stage; the first block of a stage halves the size of the image
CHANNELS = (64, 160, 320, 640)
# The convolutions of a block's main branch in order, pointwise (p) or depthwise (d), and the depthwise kernels.
OPERATIONS = (("pdp", 3), ("pdp", 5), ("pdp", 7), ("dpdpdp", 3))
PLAIN = (1.0,)  # ratios of a space that searches operations alone
CHANNEL_RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # ratios of a space that searches channels too
SPOS_ARCH: Arch = ((2, 1, 0, 1), (2, 0, 2, 0), (2, 0, 2, 3, 0, 0, 0, 0), (3, 2, 3, 3))  # the net that the authors found
BN_BIAS = 1e-4  # initial bias of batch norms that have one


def shuffle_space(ratios: Sequence[float] = PLAIN, depths: Sequence[int] = DEPTHS) -> SearchSpace:
    """Build the space of all paths: each block is one of four operations, with one of ``ratios``.

    Choice ``operation * len(ratios) + i`` is that operation with ``ratios[i]``.

    Args:
        ratios: the channels inside a block, relative to half of the channels of its output.
        depths: the number of blocks of each stage.
    """
    count = len(OPERATIONS) * len(ratios)
    return SearchSpace(
        choices=tuple((count,) * depth for depth in depths),
        keeps_shape=tuple((False,) * depth for depth in depths),
    )


class ShuffleChoices(Choices):
    """The operations of one position, each with one of several numbers of inner channels.

    Args:
        blocks: one block for each operation, with as many inner channels as the largest of ``widths``.
        widths: inner channels in the order of the ratios; choice ``operation * len(widths) + i`` has ``widths[i]``.
    """

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
    """Yield the input channels, output channels and stride of each block, in forward order."""
    in_chs = STEM_SIZE
    for depth, out_chs in zip(depths, channels):
        for position in range(depth):
            yield in_chs, out_chs, 2 if position == 0 else 1
            in_chs = out_chs


def widths_inside(out_chs: int, ratios: Sequence[float]) -> list[int]:
    """List the inner channels of a block for each ratio, rounded down."""
    return [int(out_chs // 2 * ratio) for ratio in ratios]


class ShuffleNetV2(nn.Layer):
    """The first convolution, the blocks and the head that the supernet and a child net have in common.

    Args:
        features: the layers of the blocks, in forward order.
        channels: channels of the last block's output.
        num_classes: number of logits.
        in_chans: channels of an image.
        drop_rate: probability of dropout before the classifier.
        affine: whether batch norms have weight and bias.
    """

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
        self.classifier = self.create_classifier(NUM_FEATURES, num_classes) if num_classes else nn.Identity()
        self._init_weights()

    def create_classifier(self, num_features: int, num_classes: int) -> nn.Layer:
        """Create the last layer."""
        return nn.Sequential(Linear(num_features, num_classes, bias=False))

    def _init_weights(self) -> None:
        """Draw the initial values as the authors' code does."""
        for name, layer in self.named_sublayers():
            if isinstance(layer, nn.Conv2D):
                deviation = 0.01 if name.startswith("first_conv") else 1.0 / layer.weight.shape[1]
                nn.initializer.Normal(0.0, deviation)(layer.weight)
            elif isinstance(layer, nn.Linear):
                nn.initializer.Normal(0.0, 0.01)(layer.weight)
            elif isinstance(layer, nn.BatchNorm2D) and layer.bias is not None:
                nn.initializer.Constant(BN_BIAS)(layer.bias)

    def stem(self, x: Tensor) -> Tensor:
        """Compute the input of the first block from images."""
        return self.first_conv(x)  # [N, 16, H/2, W/2]

    def final(self, x: Tensor) -> Tensor:
        """Compute the output of the last convolution from that of the last block."""
        return self.conv_last(x)  # [N, 1024, H/32, W/32]

    def head(self, x: Tensor) -> Tensor:
        """Compute the logits from the output of the last block."""
        x = self.global_pool(self.final(x)).flatten(1)  # [N, 1024]
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        return self.classifier(x)  # [N, num_classes]


# The blocks and operations of stride 1, which use no projection branch, though NNI's nets hold weights of one.
_UNUSED = [
    (block, operation)
    for block, (_, _, stride) in enumerate(positions())
    for operation in range(len(OPERATIONS))
    if stride == 1
]


class ShuffleSuperNet(ShuffleNetV2, SuperNet):
    """The net that holds all paths of ``shuffle_space(ratios, depths)``, with shared weights.

    Blocks have the inner channels of the largest ratio, and smaller ratios use the first of those (section 3.4 of the
    paper). Batch norms have neither weight nor bias. Names in the state dict are ``features.BLOCK.OPERATION``.

    Args:
        num_classes: number of logits.
        ratios: inner channels of a block, relative to half of the channels of its output.
        in_chans: channels of an image.
        drop_rate: probability of dropout before the classifier.
        depths: number of blocks of each stage.
        channels: output channels of each stage.
    """

    default_cfg = {"first_conv": "first_conv.0", "classifier": "classifier.0"}
    torch_renames = {
        # NNI's first versions had one more part in these names.
        **{f"features.{block}.choices": f"features.{block}" for block in range(sum(DEPTHS))},
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
        """The positions, [stage][position]; the state dict numbers them through, without stages."""
        features = iter(self.features)
        return [list(islice(features, len(stage))) for stage in self.space.choices]

    def shared_layers(self) -> Iterator[nn.Layer]:
        """Yield the layers with weights of stem and head."""
        yield from (self.first_conv, self.conv_last, self.classifier)


def _choices(in_chs: int, out_chs: int, stride: int, ratios: Sequence[float]) -> ShuffleChoices:
    """Build the operations of a position of the supernet."""
    widths = widths_inside(out_chs, ratios)
    blocks = [ShuffleBlock(in_chs, max(widths), out_chs, *operation, stride, False) for operation in OPERATIONS]
    return ShuffleChoices(blocks, widths)


# How names of nets of the two published spaces begin.
_SPACES = {(PLAIN, DEPTHS, CHANNELS): "spos", (CHANNEL_RATIOS, DEPTHS, CHANNELS): "spos-channels"}


class ShuffleNet(ShuffleNetV2, ImageModel):
    """The net of one path of ``shuffle_space(ratios, depths)``, whose batch norms have weight and bias.

    Names in the state dict are ``features.BLOCK``.

    Args:
        arch: the path.
        num_classes, ratios, in_chans, drop_rate, depths, channels: as in ``ShuffleSuperNet``.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32; None for no limit.

    Raises:
        ConfigError: ``arch`` is not a path of the space.
    """

    torch_renames = {f"features.{block}.branch_proj": None for block, _ in _UNUSED}
    stages_name = "features"
    final_layers = ("conv_last",)

    def __init__(
        self,
        arch: Arch = SPOS_ARCH,
        num_classes: int = 1000,
        ratios: Sequence[float] = PLAIN,
        in_chans: int = 3,
        drop_rate: float = 0.1,
        depths: Sequence[int] = DEPTHS,
        channels: Sequence[int] = CHANNELS,
        output_stride: int | None = None,
    ):
        shuffle_space(ratios, depths).check(arch)
        choices = (choice for stage in arch for choice in stage)
        blocks = list(positions(depths, channels))
        placed = list(limit_strides((stride for _, _, stride in blocks), output_stride))
        super().__init__(
            (
                _block(*block, choice, ratios, dilation, keeps_size=stride < block[2])
                for block, choice, (stride, dilation, _) in zip(blocks, choices, placed)
            ),
            channels[-1],
            num_classes,
            in_chans,
            drop_rate,
            affine=True,
        )
        self.arch = arch
        space = _SPACES.get((tuple(ratios), tuple(depths), tuple(channels)))
        self.model_name = f"{space}-{format_arch(arch)}" if space else None  # as convert-weights --model takes it
        self.num_features = self.head_hidden_size = NUM_FEATURES
        self.feature_info = stage_features(
            Stage(True, STEM_SIZE, 2),
            [Stage(block[2] > 1, block[1], reduction) for block, (_, _, reduction) in zip(blocks, placed)],
            "first_conv",
            "features",
        )

    def group_matcher(self, coarse: bool = False) -> dict:
        """Return the patterns for ``group_with_matcher`` by block, for stages too, which names do not tell."""
        return {"stem": r"^first_conv", "blocks": [(r"^features\.(\d+)", None), (r"conv_last", MATCH_PREV_GROUP)]}

    def inherit(self, net: ShuffleSuperNet) -> None:
        """Copy the weights of this path from a supernet of the same space.

        The supernet's batch norms have neither weight nor bias, so those of this net become 1 and 0.
        """
        for layer in self.sublayers():
            if isinstance(layer, BatchNorm2d):
                nn.initializer.Constant(1.0)(layer.weight)
                nn.initializer.Constant(0.0)(layer.bias)
        sources = [net.first_conv, *net.active_blocks(self.arch), net.conv_last, net.classifier]
        targets = [self.first_conv, *self.features, self.conv_last, self.classifier]
        for source, target in zip(sources, targets):
            copy_first(source, target)


def _block(
    in_chs: int,
    out_chs: int,
    stride: int,
    choice: int,
    ratios: Sequence[float],
    dilation: int,
    keeps_size: bool,
) -> ShuffleBlock:
    """Build the block of one choice, for a net of a single path."""
    operation, ratio = divmod(choice, len(ratios))
    width = widths_inside(out_chs, ratios)[ratio]
    return ShuffleBlock(in_chs, width, out_chs, *OPERATIONS[operation], stride, True, dilation, keeps_size)
