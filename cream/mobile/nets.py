"""The supernet of mobile blocks, and the child nets found in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.counting import CONVENTIONS
from cream.mobile.blocks import ACTIVATIONS, BLOCKS, ResidualUnit
from cream.mobile.space import WIDTHS_AND_STRIDES, MobileSpace, Operation, Position, SpaceSpec, mobile_space
from cream.space import SKIP, Arch, format_arch
from cream.supernet import Choices, SuperNet
from cream.train.meta import MetaMatching
from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, SelectAdaptivePool2d, create_conv2d, hard_sigmoid, norm_act
from pimm.models import load_state_dict_strictly
from pimm.models.efficientnet_builder import efficientnet_init_weights
from pimm.models.features import Stage, limit_strides, stage_features
from pimm.models.interface import ImageModel

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
        self.head_hidden_size = spec.head * behind
        self.classifier = self.create_classifier(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        efficientnet_init_weights(self)

    def create_classifier(self, num_features: int, num_classes: int) -> nn.Layer:
        """Create the last layer."""
        return nn.Linear(num_features, num_classes)

    @staticmethod
    def make_position(position: Position, **options) -> nn.Layer:
        """Build the block of a position that offers a single operation."""
        (operation,) = position.operations
        return make_block(operation, position, **options)

    def stem(self, x: Tensor) -> Tensor:
        """Compute the input of the first block from images."""
        return norm_act(self.conv_stem(x), self.bn1, self.act1)  # [N, stem, H / stride, W / stride]

    def final(self, x: Tensor) -> Tensor:
        """Compute the output of the head convolution from feature maps, if it stands before the pooling."""
        return x if self.pools_first else norm_act(self.conv_head(x), self.bn2, self.act2)  # [N, head, H, W]

    def pre_logits(self, x: Tensor) -> Tensor:
        """Compute the output of the head convolution from pooled feature maps, if it stands behind the pooling."""
        return self.act2(self.conv_head(x)) if self.pools_first else x  # [N, head, 1, 1]

    def head(self, x: Tensor) -> Tensor:
        """Compute the logits from the output of the last block."""
        x = self.pre_logits(self.global_pool(self.final(x))).flatten(1)  # [N, head_hidden_size]
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

    default_cfg = {"first_conv": "conv_stem", "classifier": ("classifier", "meta_layer")}  # what begins anew
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

    def begin_with_identities(self) -> None:
        """Set the last batch norm of each block with a shortcut to 0, so that the block begins as the identity.

        The paths through these blocks then begin as the same function (https://arxiv.org/abs/1706.02677 for one net).
        """
        for position in (each for stage in self.blocks for each in stage):
            for block in position:
                is_residual_unit = isinstance(block, ResidualUnit) and block.downsample is None
                if is_residual_unit or getattr(block, "has_residual", False):
                    *_, last = (layer for layer in block.sublayers() if isinstance(layer, BatchNorm2d))
                    last.weight.set_value(paddle.zeros_like(last.weight))

    def counted_layers(self) -> Iterator[nn.Layer]:
        """Yield the shared layers that the convention of the space counts: Cream's table has no classifier."""
        if self.space.spec.counting == "cream":
            return iter((self.conv_stem, self.global_pool, self.conv_head))
        return self.shared_layers()


class ChildNet(MobileNet, ImageModel):
    """The net of one path: each block is the operation that ``arch`` chooses, and a choice of -1 leaves one out.

    Args:
        arch: the path.
        num_classes: number of logits.
        space: the space of the path; None: Cream's own, with as many blocks in each stage as ``arch`` has choices.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32; None for no limit.
        kwargs: further arguments of ``MobileNet``.

    Raises:
        ConfigError: ``arch`` is not a path of the space, or a block cannot be dilated.
    """

    def __init__(
        self,
        arch: Arch,
        num_classes: int = 1000,
        space: MobileSpace | None = None,
        output_stride: int | None = None,
        **kwargs,
    ):
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
        super().__init__(space.spec, _dilate(positions, space.spec, output_stride), num_classes, **kwargs)
        self.arch = arch
        self.cost_rules = CONVENTIONS[space.spec.counting].net
        if self.pools_first:
            self.num_features, self.head_layers = space.spec.stages[-1].channels, ("conv_head", "act2")
        else:
            self.num_features, self.final_layers = space.spec.head, ("conv_head", "bn2", "act2")
        depths = [len(stage) for stage in arch[1:-1]]
        is_creams = len(depths) == len(WIDTHS_AND_STRIDES) and space.spec == mobile_space(depths).spec
        self.model_name = f"cream-{format_arch(arch)}" if is_creams else None  # as convert-weights --model takes it
        self.feature_info = _describe_features(space.spec, positions, output_stride)

    def group_matcher(self, coarse: bool = False) -> dict:
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        return {"stem": r"^conv_stem|bn1", "blocks": r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"}

    def inherit(self, net: MobileSuperNet) -> None:
        """Copy the weights of this path from a supernet of the same space."""
        targets = [*(block for stage in self.blocks for block in stage), *self.shared_layers()]
        sources = [*net.active_blocks(self.arch), *net.shared_layers()]
        for layer, source in zip(targets, sources):
            arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
            load_state_dict_strictly(layer, arrays, "the supernet")


def _dilate(
    positions: Sequence[Sequence[Position]], spec: SpaceSpec, output_stride: int | None
) -> list[list[Position]]:
    """Return positions, [stage][position], whose strides beyond ``output_stride`` became dilations.

    Raises:
        ConfigError: a block that would be dilated cannot be.
    """
    placed = limit_strides((each.stride for stage in positions for each in stage), output_stride, spec.stem_stride)
    dilated = []
    for stage in positions:
        blocks = []
        for position in stage:
            stride, dilation, _ = next(placed)
            (operation,) = position.operations
            fields = BLOCKS[operation.block].fields
            if dilation > 1 and operation.kernel > 1 and "kernel" in fields:
                if "dilation" not in fields:
                    raise ConfigError(f"output_stride={output_stride}: a block {operation.block} cannot be dilated")
                operation = replace(operation, dilation=operation.dilation * dilation)
            blocks.append(position._replace(stride=stride, operations=(operation,)))
        dilated.append(blocks)
    return dilated


def _describe_features(
    spec: SpaceSpec, positions: Sequence[Sequence[Position]], output_stride: int | None
) -> list[dict]:
    """Describe the feature maps of a net with these positions, [stage][position], before strides became dilations."""
    strides = [math.prod(each.stride for each in stage) for stage in positions]
    stages = [
        Stage(stride > 1, each.channels, reduction)
        for each, stride, (_, _, reduction) in zip(
            spec.stages, strides, limit_strides(strides, output_stride, spec.stem_stride)
        )
    ]
    return stage_features(Stage(True, spec.stem, spec.stem_stride), stages)
