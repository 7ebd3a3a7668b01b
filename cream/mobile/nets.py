"""Supernets of mobile blocks, and the nets found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.counting import SEARCH_RULES, THOP_RULES
from cream.mobile.blocks import ACTIVATIONS, BLOCKS
from cream.mobile.space import MobileSpace, Operation, Position, SpaceSpec, mobile_space
from cream.space import SKIP, Arch
from cream.supernet import Choices, SuperNet
from cream.train.meta import MetaMatching
from pimm.layers import BatchNorm2d, SelectAdaptivePool2d, create_conv2d, hard_sigmoid, norm_act
from pimm.models import load_state_dict_strictly
from pimm.models.efficientnet_builder import efficientnet_init_weights

SE_KWARGS = {"act_layer": nn.ReLU, "gate_fn": hard_sigmoid, "reduce_mid": True, "divisor": 8}


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
