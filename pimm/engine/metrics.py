"""Means of metrics over the batches of an epoch and over all processes."""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor

from pimm.utils import all_reduce_sum, is_main_process


class MeanMetrics:
    """Adds up the metrics of batches on the device; only ``read`` and ``state_dict`` wait for the device.

    Each process adds its own batches, and the means are those over all of them. Sums are kept in float64.
    """

    def __init__(self):
        self.names: list[str] = []
        self.sums: Tensor | None = None  # of each metric times the number of images; last, of the numbers of images

    def add(self, metrics: Mapping[str, Tensor], images: int) -> None:
        """Add a batch's metrics.

        Args:
            metrics: 0-d tensors by name, means over the batch; the names are the same for every batch.
            images: the number of images in the batch.
        """
        values = [value.astype("float64") for value in metrics.values()]
        batch = paddle.stack([*values, paddle.ones([], "float64")]) * images
        self.names = list(metrics)
        self.sums = batch if self.sums is None else self.sums + batch

    def read(self) -> dict[str, float]:
        """Return the means over all processes, none before the first batch; all processes call this together."""
        totals, images = self._totals()
        return {name: total / images for name, total in totals.items()}

    def state_dict(self) -> dict:
        """Return the sums over all processes; all processes call this together."""
        totals, images = self._totals()
        return {"sums": totals, "counts": dict.fromkeys(totals, images)}

    def load_state_dict(self, state: Mapping) -> None:
        """Continue from saved sums: the first process takes them, and the other processes start from zero."""
        self.names = list(state["sums"])
        if not self.names:
            self.sums = None
            return
        images = next(iter(state["counts"].values()))
        sums = paddle.to_tensor([*state["sums"].values(), images], "float64")
        self.sums = sums if is_main_process() else paddle.zeros_like(sums)

    def _totals(self) -> tuple[dict[str, float], float]:
        if self.sums is None:
            return {}, 0.0
        *totals, images = all_reduce_sum(self.sums).tolist()
        return dict(zip(self.names, totals)), images
