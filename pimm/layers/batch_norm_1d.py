"""Batch normalisation of rows of numbers, that keeps PyTorch's running statistics."""

from pimm.layers.norm import SYNCHRONIZED, BatchNorm2d, SyncBatchNorm2d


class BatchNorm1d(BatchNorm2d):
    """`BatchNorm2d` for numbers [N, C]."""

    def forward(self, x):
        return super().forward(x.unsqueeze([2, 3])).squeeze([2, 3])


class SyncBatchNorm1d(BatchNorm1d, SyncBatchNorm2d):
    """`BatchNorm1d` that normalises by the batches of all processes."""


SYNCHRONIZED[BatchNorm1d] = SyncBatchNorm1d
