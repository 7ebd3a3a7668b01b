"""Supernets of mobile blocks, the nets found in them, and how deep Cream's own space is for a range of FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
from paddle import Tensor, nn
from paddle.nn import functional as F

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, SelectAdaptivePool2d, create_conv2d, hard_sigmoid, norm_act
from pimm.models import load_state_dict_strictly
from pimm.models.efficientnet_builder import efficientnet_init_weights

from .blocks import ACTIVATIONS, BLOCKS
from .flops import SEARCH_RULES, THOP_RULES
from .meta import MetaMatching
from .mobile_space import MobileSpace, Operation, Position, SpaceSpec, mobile_space
from .space import SKIP, Arch
from .supernet import Choices, SuperNet

SE_KWARGS = {"act_layer": nn.ReLU, "gate_fn": hard_sigmoid, "reduce_mid": True, "divisor": 8}

# Millions of multiply-adds at 224 pixels of the six operations, [stage][first block or a further one][operation].
OPERATION_MFLOPS = (
    (
        (21.828704, 32.669328, 25.039968, 37.486224, 29.856864, 44.711568),
        (18.820752, 28.16048, 23.637648, 35.385824, 30.862992, 46.22384),
    ),
    (
        (11.808656, 17.68624, 13.01288, 19.492576, 14.819216, 22.20208),
        (11.86712, 17.780848, 13.87416, 20.791408, 16.88472, 25.307248),
    ),
    (
        (8.198, 12.292848, 8.69976, 13.045488, 9.4524, 14.174448),
        (10.99632, 16.5172, 11.99984, 18.02248, 13.50512, 20.2804),
    ),
    (
        (12.006112, 18.028752, 13.009632, 19.534032, 14.514912, 21.791952),
        (15.61632, 23.46096, 16.820544, 25.267296, 18.62688, 27.9768),
    ),
    (
        (11.307456, 17.007072, 11.608512, 17.458656, 12.060096, 18.136032),
        (15.292416, 23.1504, 15.894528, 24.053568, 16.797696, 25.40832),
    ),
)
# The order in which stages get a further block as the FLOPs range rises: to four blocks each as the official code
# does, and beyond, where the official code gives up but the published net of 604 MFLOPs lies.
SHARED_MFLOPS = 14.9  # stem, first and last stage, and head: no part of what the official code compares
GROWTH = (2, 2, 3, 3, 4, 4, 1, 0, 2, 3, 4, 1, 1, 0, 0)
FURTHER_GROWTH = (2, 3, 4, 1, 0, 3, 4, 2, 1, 0)


def _path_mflops(depths: Sequence[int], of_stage: Callable[[Sequence[float]], float]) -> float:
    """Cost of the searched stages at 224 pixels when each block costs ``of_stage`` of its operations."""
    return sum(
        of_stage(first) + (depth - 1) * of_stage(further) for depth, (first, further) in zip(depths, OPERATION_MFLOPS)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def fit_to_flops(minimum: float, maximum: float, resolution: int | None = None) -> tuple[tuple[int, ...], int]:
    """Depths of the five searched stages and the image size, for a range of MFLOPs.

    As the official code: images shrink in steps of 32 pixels until the cheapest path of one block a stage fits (the
    range is rescaled at every step), or stages grow until the dearest path reaches the range. Where it refuses,
    because even four blocks a stage stay below ``minimum``, stages grow on until the average path reaches it.
    Of a given ``resolution`` only the depths are fitted. Raises ConfigError where no size or depth fits.
    """
    depths, size = [1] * len(OPERATION_MFLOPS), 7
    least = _path_mflops(depths, min)
    scale = (224 / resolution) ** 2 if resolution else 1.0  # all costs here are those of 224 pixels
    if least > maximum and not resolution:
        wanted = 0.0
        fitted = maximum
        while least > fitted and size > 1:
            size -= 1
            fitted *= 7 / size
        if size < 2:
            smallest = (SHARED_MFLOPS + least) * (2 / 7) ** 2
            raise ConfigError(
                f"SUPERNET.FLOPS_MAXIMUM={maximum:g} MFLOPs is out of reach: "
                f"the smallest net, on 64-pixel images, takes about {smallest:.0f}"
            )
    else:
        wanted, fitted = minimum * scale, maximum * scale
    for stage in GROWTH:
        deeper = [depth + (index == stage) for index, depth in enumerate(depths)]
        if _path_mflops(depths, max) >= wanted and _path_mflops(deeper, max) > fitted:
            break
        depths = deeper
    if _path_mflops(depths, max) < wanted:
        depths = _grow_further(depths, minimum, scale)
    return tuple(depths), resolution or size * 32


def _grow_further(depths: list[int], minimum: float, scale: float) -> list[int]:
    for stage in FURTHER_GROWTH:
        if SHARED_MFLOPS + _path_mflops(depths, _mean) >= minimum * scale:
            break
        depths = [depth + (index == stage) for index, depth in enumerate(depths)]
    most = (SHARED_MFLOPS + _path_mflops(depths, max)) / scale
    if most < minimum:
        raise ConfigError(
            f"SUPERNET.FLOPS_MINIMUM={minimum:g} MFLOPs is out of reach: the deepest space ends at {most:.0f}"
        )
    return depths


def make_block(operation: Operation, position: Position, **options) -> nn.Layer:
    """One block in its place; of the net's ``options`` it gets those that its type takes."""
    kind = BLOCKS[operation.block]
    own = {argument: getattr(operation, name) for name, argument in kind.fields.items()}
    shared = {name: options[name] for name in kind.options}
    return kind.layer(in_chs=position.in_chs, out_chs=position.out_chs, stride=position.stride, **own, **shared)


class MobileNet(nn.Layer):
    """Stem, stages of blocks and head of a supernet or a child net; ``make_position`` says what stands in a place."""

    def __init__(
        self,
        spec: SpaceSpec,
        positions: Sequence[Sequence[Position]],
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        norm_kwargs: dict | None = None,
    ):
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        norm_kwargs, act_layer = norm_kwargs or {}, ACTIVATIONS[spec.activation]
        options = {"act_layer": act_layer, "norm_kwargs": norm_kwargs, "se_kwargs": SE_KWARGS}
        rates = iter(np.linspace(0, drop_path_rate, sum(map(len, positions)), endpoint=False).tolist())
        self.conv_stem = create_conv2d(in_chans, spec.stem, 3, stride=spec.stem_stride)
        self.bn1 = BatchNorm2d(spec.stem, **norm_kwargs)
        self.act1 = act_layer()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*(self.make_position(place, drop_path_rate=next(rates), **options) for place in stage))
                for stage in positions
            )
        )
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        features = spec.stages[-1].channels * self.global_pool.feat_mult()
        self.conv_head = create_conv2d(features, spec.head, 1, bias=True)
        self.act2 = act_layer()
        self.classifier = nn.Linear(spec.head, num_classes)
        efficientnet_init_weights(self)

    @staticmethod
    def make_position(position: Position, **options) -> nn.Layer:
        """The block in a place that knows one operation."""
        (operation,) = position.operations
        return make_block(operation, position, **options)

    def stem(self, x: Tensor) -> Tensor:
        return norm_act(self.conv_stem(x), self.bn1, self.act1)  # [N, stem, H / stride, W / stride]

    def head(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv_head(self.global_pool(x))).flatten(1)  # [N, head]
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        return self.classifier(x)  # [N, num_classes]


class MobileSuperNet(MobileNet, SuperNet):
    """All nets of a space in one, sharing the weights of the blocks they share, with the matching network beside.

    State names are the official supernet's, ``blocks.STAGE.POSITION.CHOICE``.
    """

    cost_rules = SEARCH_RULES
    torch_renames = {"blocks.3.4": None}  # a fifth block that the official code builds and no path reaches

    def __init__(self, space: MobileSpace, num_classes: int = 1000, slice_size: int = 4, **kwargs):
        super().__init__(space.spec, space.positions, num_classes, **kwargs)
        self.space = space
        self.meta_layer = MetaMatching(num_classes, slice_size)

    @staticmethod
    def make_position(position: Position, **options) -> Choices:
        """All operations of a place."""
        return Choices([make_block(operation, position, **options) for operation in position.operations])

    def shared_layers(self) -> Iterator[nn.Layer]:
        yield from (self.conv_stem, self.bn1, self.conv_head, self.classifier)

    def counted_layers(self) -> Iterator[nn.Layer]:
        """What the official table of costs counts of them."""
        yield from (self.conv_stem, self.global_pool, self.conv_head)


class ChildNet(MobileNet):
    """The net of one path of ``space``: each block is the operation that ``arch`` names, -1 leaves one out.

    Without a ``space`` it is Cream's own, as deep as ``arch``.
    """

    cost_rules = THOP_RULES

    def __init__(self, arch: Arch, num_classes: int = 1000, space: MobileSpace | None = None, **kwargs):
        space = space or mobile_space([len(stage) for stage in arch[1:-1]])
        space.check(arch)
        positions = [
            [
                place._replace(operations=(place.operations[choice],))
                for place, choice in zip(stage, path)
                if choice != SKIP
            ]
            for stage, path in zip(space.positions, arch)
        ]
        super().__init__(space.spec, positions, num_classes, **kwargs)
        self.arch = arch

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))

    def inherit(self, net: MobileSuperNet) -> None:
        """Takes over the weights of this path in a supernet of the same space."""
        own = [*(block for stage in self.blocks for block in stage), self.conv_stem, self.bn1]
        theirs = [*net.active_blocks(self.arch), net.conv_stem, net.bn1]
        for layer, source in zip([*own, self.conv_head, self.classifier], [*theirs, net.conv_head, net.classifier]):
            arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
            load_state_dict_strictly(layer, arrays, "the supernet")
