"""The supernet of mobile blocks, and the child nets found in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.counting import CONVENTIONS
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
    """Build the block of one operation for a position.

    Args:
        operation: the type and the settings of the block.
        position: the channels and the stride of the block.
        options: the net's arguments for its blocks; the block gets those that its type takes.
    """
    block_type = BLOCKS[operation.block]
    settings = {argument: getattr(operation, name) for name, argument in block_type.fields.items()}
    shared = {name: options[name] for name in block_type.options}
    return block_type.layer(
        in_chs=position.in_chs, out_chs=position.out_chs, stride=position.stride, **settings, **shared
    )


class MobileNet(nn.Layer):
    """The stem, the stages of blocks and the head that a supernet and a child net have in common.

    A subclass overrides ``make_position`` to say which layer stands at a position.

    Args:
        spec: the description of stem, head and activation.
        positions: the positions of the blocks, [stage][position].
        num_classes: number of logits.
        in_chans: channels of an image.
        drop_rate: probability of dropout before the classifier.
        drop_path_rate: in training, block ``i`` of ``n`` is dropped with probability ``drop_path_rate * i / n``.
        global_pool: type of the pooling before the head, as ``SelectAdaptivePool2d`` names it.
        norm_kwargs: further arguments of the batch norms.
    """

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
                nn.Sequential(*(self.make_position(each, drop_path_rate=next(rates), **options) for each in stage))
                for stage in positions
            )
        )
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.pools_first = spec.head_type == "pool_conv"
        before, behind = (self.global_pool.feat_mult(), 1) if self.pools_first else (1, self.global_pool.feat_mult())
        self.conv_head = create_conv2d(spec.stages[-1].channels * before, spec.head, 1, bias=self.pools_first)
        if not self.pools_first:
            self.bn2 = BatchNorm2d(spec.head, **norm_kwargs)
        self.act2 = act_layer()
        self.classifier = nn.Linear(spec.head * behind, num_classes)
        efficientnet_init_weights(self)

    @staticmethod
    def make_position(position: Position, **options) -> nn.Layer:
        """Build the block of a position that offers a single operation."""
        (operation,) = position.operations
        return make_block(operation, position, **options)

    def stem(self, x: Tensor) -> Tensor:
        """Compute the input of the first block from images."""
        return norm_act(self.conv_stem(x), self.bn1, self.act1)  # [N, stem, H / stride, W / stride]

    def head(self, x: Tensor) -> Tensor:
        """Compute the logits from the output of the last block."""
        if self.pools_first:
            x = self.act2(self.conv_head(self.global_pool(x))).flatten(1)  # [N, head]
        else:
            x = self.global_pool(norm_act(self.conv_head(x), self.bn2, self.act2)).flatten(1)  # [N, head * feat_mult]
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        return self.classifier(x)  # [N, num_classes]

    def shared_layers(self) -> Iterator[nn.Layer]:
        """Yield the layers with weights of stem and head."""
        yield from (self.conv_stem, self.bn1, self.conv_head)
        if not self.pools_first:
            yield self.bn2
        yield self.classifier


class MobileSuperNet(MobileNet, SuperNet):
    """The net that holds all paths of a space, with shared weights, and Cream's matching network ``meta_layer``.

    Names in the state dict are those of the official supernet, ``blocks.STAGE.POSITION.CHOICE``.

    Args:
        space: the search space.
        num_classes: number of logits.
        slice_size: how many images of a batch the matching network compares.
        kwargs: further arguments of ``MobileNet``.
    """

    torch_renames = {"blocks.3.4": None}  # None drops the weights of a fifth block that no official path reaches

    def __init__(self, space: MobileSpace, num_classes: int = 1000, slice_size: int = 4, **kwargs):
        super().__init__(space.spec, space.positions, num_classes, **kwargs)
        self.space = space
        self.cost_rules = CONVENTIONS[space.spec.counting].supernet
        self.meta_layer = MetaMatching(num_classes, slice_size)

    @staticmethod
    def make_position(position: Position, **options) -> Choices:
        """Build the blocks of all operations of a position."""
        return Choices([make_block(operation, position, **options) for operation in position.operations])

    def counted_layers(self) -> Iterator[nn.Layer]:
        """Yield the shared layers that the convention of the space counts: Cream's table has no classifier."""
        if self.space.spec.counting == "cream":
            return iter((self.conv_stem, self.global_pool, self.conv_head))
        return self.shared_layers()


class ChildNet(MobileNet):
    """The net of one path: each block is the operation that ``arch`` chooses, and a choice of -1 leaves one out.

    Args:
        arch: the path.
        num_classes: number of logits.
        space: the space of the path; None: Cream's own, with as many blocks in each stage as ``arch`` has choices.
        kwargs: further arguments of ``MobileNet``.

    Raises:
        ConfigError: ``arch`` is not a path of the space.
    """

    def __init__(self, arch: Arch, num_classes: int = 1000, space: MobileSpace | None = None, **kwargs):
        space = space or mobile_space([len(stage) for stage in arch[1:-1]])
        space.check(arch)
        positions = [
            [
                position._replace(operations=(position.operations[choice],))
                for position, choice in zip(stage, path)
                if choice != SKIP
            ]
            for stage, path in zip(space.positions, arch)
        ]
        super().__init__(space.spec, positions, num_classes, **kwargs)
        self.arch = arch
        self.cost_rules = CONVENTIONS[space.spec.counting].net

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))

    def inherit(self, net: MobileSuperNet) -> None:
        """Copy the weights of this path from a supernet of the same space."""
        targets = [*(block for stage in self.blocks for block in stage), *self.shared_layers()]
        sources = [*net.active_blocks(self.arch), *net.shared_layers()]
        for layer, source in zip(targets, sources):
            arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
            load_state_dict_strictly(layer, arrays, "the supernet")
