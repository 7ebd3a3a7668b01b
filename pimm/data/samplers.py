"""Which images a rank sees, in which order."""

from __future__ import annotations

import math

import numpy as np
import paddle.distributed as dist

from pimm.errors import DataError


class BatchPlan:
    """The batches of image indices of one rank, for each epoch.

    Training: every epoch has its own permutation, drawn from (seed, epoch) and the same on all ranks. It is cut into
    global batches of ``batch_size * world``, of which rank r takes every world-th image from the r-th on; what is left
    at the end is dropped. So all ranks have equally many batches, and global batches hold the same images for any
    number of ranks.

    Evaluation: rank r has the images r, r + world, ... in order: each image exactly once on exactly one rank, so the
    ranks may hold different numbers of images, none even. Sum counts over ranks, never average their means.

    Each pass over ``batches()`` is the next epoch; ``set_epoch`` chooses the one that comes next.
    """

    def __init__(self, size, batch_size, is_training, rank=0, world=1, seed=0):
        self.size = size
        self.batch_size = batch_size
        self.is_training = is_training
        self.rank = rank
        self.world = world
        self.seed = seed
        self.epoch = 0
        self.start_batch = 0
        if is_training and len(self) == 0:
            raise DataError(
                f"{size} images do not fill one batch: batch size {batch_size} on {world} "
                f"process{'es' if world > 1 else ''} takes {batch_size * world}; choose a batch size of at most "
                f"{size // world}"
            )

    def __len__(self):
        if self.is_training:
            return self.size // (self.batch_size * self.world)
        return math.ceil(len(range(self.rank, self.size, self.world)) / self.batch_size)

    def set_epoch(self, epoch, start_batch=0):
        """Make ``epoch`` the next one, without its first ``start_batch`` batches."""
        if not 0 <= start_batch <= len(self):
            raise DataError(f"start_batch {start_batch} is not within an epoch of {len(self)} batches")
        self.epoch = epoch
        self.start_batch = start_batch

    def batches(self):
        """Epoch number and list of index arrays of this pass; the next call is about the next epoch."""
        epoch, start = self.epoch, self.start_batch
        self.epoch, self.start_batch = epoch + 1, 0
        mine = self._order(epoch)[self.rank :: self.world]
        bounds = [index * self.batch_size for index in range(start, len(self))]
        return epoch, [mine[bound : bound + self.batch_size] for bound in bounds]

    def _order(self, epoch):
        if self.is_training:
            return np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return np.arange(self.size)


class OrderedDistributedSampler:
    """Indices rank, rank + world, ... with the first ones repeated until all ranks have equally many, as timm's.

    ``create_loader`` does not use it: the repeated images would count twice in an evaluation.
    """

    def __init__(self, dataset, num_replicas=None, rank=None):
        self.dataset = dataset
        self.num_replicas = dist.get_world_size() if num_replicas is None else num_replicas
        self.rank = dist.get_rank() if rank is None else rank
        self.num_samples = math.ceil(len(dataset) / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self):
        return (index % len(self.dataset) for index in range(self.rank, self.total_size, self.num_replicas))

    def __len__(self):
        return self.num_samples
