"""The moving average of a supernet's weights, by which paths are scored in place of the last weights."""

from __future__ import annotations

from collections.abc import Iterable

import paddle
from paddle import Tensor

from cream.supernet import SuperNet
from pimm.ops.updates import move_averages
from pimm.utils import ModelEma


class PathAverage(ModelEma):
    """Averages each weight over the updates of this weight: a weight whose block was not trained has nothing to add.

    Running statistics of batch norm are not averaged, because a path's statistics are computed anew before the path is
    scored.

    Args:
        net: the supernet.
        decay: the share of the average that stays at each update, from 0 to 1.
    """

    def __init__(self, net: SuperNet, decay: float):
        super().__init__(net, decay)
        pairs = zip(net.named_parameters(), self.ema.named_parameters())
        self._averages = {weight.name: average for (_, weight), (_, average) in pairs}

    @paddle.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Move the averages of the weights that an update has trained towards these weights."""
        weights = list(parameters)
        averages, count = [self._averages[weight.name] for weight in weights], len(weights)
        move_averages(averages, weights, [self.decay] * count, [1.0 - self.decay] * count)

    @paddle.no_grad()
    def copy_to(self, net: SuperNet) -> None:
        """Replace the trained weights of the supernet by their averages."""
        for weight in net.parameters():
            if not weight.stop_gradient:
                paddle.assign(self._averages[weight.name], weight)
