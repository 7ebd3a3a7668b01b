"""The interface of every supernet, whatever its blocks are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property

from paddle import Tensor, nn

from cream.counting import CONVOLUTION_RULES
from cream.space import SKIP, Arch, SearchSpace


class Choices(nn.LayerList):
    """The operations that one position of a supernet offers."""

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """Run the operation that ``choice`` names, or return ``x`` if the choice is SKIP."""
        return x if choice == SKIP else self[choice](x)

    def operation(self, choice: int) -> nn.Layer:
        """Return the block that holds the weights of a choice."""
        return self[choice]

    def standalone(self, choice: int) -> nn.Layer:
        """Return a block that computes the same as a choice and holds no weight that the choice does not use."""
        return self[choice]


class SuperNet(nn.Layer):
    """A net that takes the architecture as an argument: ``net(x, arch)`` runs one path and stores nothing of it.

    A subclass sets ``space`` and ``blocks`` (stages of positions, each a ``Choices``), and defines the layers that all
    paths share: ``stem(x)`` computes the input of the first block, ``head(x)`` the logits from the output of the last.
    """

    space: SearchSpace
    cost_rules = CONVOLUTION_RULES

    @cached_property
    def in_chans(self) -> int:
        """The number of channels of an image: the input channels of the first convolution among the shared layers.

        It is 3 if no shared layer is a convolution. A subclass may set ``in_chans`` itself, and must do so if its
        stem declares another convolution first, or changes the number of channels before its first convolution.
        """
        for layer in self.shared_layers():
            for sublayer in layer.sublayers(include_self=True):
                if isinstance(sublayer, nn.Conv2D):
                    return sublayer._in_channels
        return 3

    def shared_layers(self) -> Iterator[nn.Layer]:
        """Yield the layers of stem and head, in the order in which they were declared."""
        for name, layer in self.named_children():
            if name not in ("blocks", "meta_layer"):
                yield layer

    def counted_layers(self) -> Iterator[nn.Layer]:
        """Yield the shared layers that ``cost_rules`` count as a part of every path's cost: here all of them."""
        return self.shared_layers()

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        x = self.stem(x)
        for stage, path in zip(self.blocks, arch):
            for position, choice in zip(stage, path):
                x = position(x, choice)
        return self.head(x)

    def active_blocks(self, arch: Arch) -> Iterator[nn.Layer]:
        """Yield the blocks that a path runs, in forward order."""
        for stage, path in zip(self.blocks, arch):
            for position, choice in zip(stage, path):
                if choice != SKIP:
                    yield position.operation(choice)

    def active_parameters(self, arch: Arch) -> list[Tensor]:
        """List the trainable parameters of a path, which are all that a training step of this path may change."""
        layers = itertools.chain(self.shared_layers(), self.active_blocks(arch))
        return [p for layer in layers for p in layer.parameters() if not p.stop_gradient]
