"""What every supernet can do, whatever its blocks are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from paddle import Tensor, nn

from cream.counting import CONVOLUTION_RULES
from cream.space import SKIP, Arch, SearchSpace


class Choices(nn.LayerList):
    """The operations offered at one position; ``forward`` runs the one that is chosen."""

    def forward(self, x: Tensor, choice: int) -> Tensor:
        return x if choice == SKIP else self[choice](x)

    def operation(self, choice: int) -> nn.Layer:
        """The block whose weights the choice runs through."""
        return self[choice]

    def standalone(self, choice: int) -> nn.Layer:
        """A block that computes what the choice does and has no more weights than it takes."""
        return self[choice]


class SuperNet(nn.Layer):
    """A net whose architecture is an argument: ``net(x, arch)`` runs one path and keeps no trace of it.

    A subclass brings ``space``, ``blocks`` (stages of positions of ``Choices``) and what every path shares: ``stem(x)``
    leads to the blocks, ``head(x)`` from the blocks to the logits.
    """

    space: SearchSpace
    in_chans = 3
    cost_rules = CONVOLUTION_RULES

    def shared_layers(self) -> Iterator[nn.Layer]:
        """The layers of stem and head: all but the blocks and the matching network."""
        for name, layer in self.named_children():
            if name not in ("blocks", "meta_layer"):
                yield layer

    def counted_layers(self) -> Iterator[nn.Layer]:
        """Those of the shared layers whose cost, by ``cost_rules``, belongs to a path: all of them."""
        return self.shared_layers()

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        x = self.stem(x)
        for stage, path in zip(self.blocks, arch):
            for position, choice in zip(stage, path):
                x = position(x, choice)
        return self.head(x)

    def active_blocks(self, arch: Arch) -> Iterator[nn.Layer]:
        """The blocks that a path runs through, in forward order."""
        for stage, path in zip(self.blocks, arch):
            for position, choice in zip(stage, path):
                if choice != SKIP:
                    yield position.operation(choice)

    def active_parameters(self, arch: Arch) -> list[Tensor]:
        """The trainable parameters on a path: all that a step with this path may move."""
        layers = itertools.chain(self.shared_layers(), self.active_blocks(arch))
        return [p for layer in layers for p in layer.parameters() if not p.stop_gradient]
