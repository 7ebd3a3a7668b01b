"""Plan which images a rank sees, in which order."""

from __future__ import annotations

import math

import numpy as np

from pimm.errors import ConfigError, DataError
from pimm.utils.distributed import rank as this_rank
from pimm.utils.distributed import world_size


class BatchPlan:
    """Plan the batches of image indices of one rank, for each epoch.

    Training: every epoch has its own permutation, drawn from (seed, epoch) and the same on all ranks. The permutation
    is cut into global batches of ``batch_size * world``, of which rank r takes every world-th image from the r-th on;
    the rest at the end is dropped. So all ranks have equally many batches, and global batches hold the same images for
    any number of ranks.

    Evaluation: rank r has the images r, r + world, ... in order: each image exactly once on exactly one rank, so the
    ranks may hold different numbers of images, or none. Sum counts over ranks, never average the ranks' means.

    Repeated augmentation (arXiv 1901.09335; training only): each image comes ``repeats`` times in a row, on different
    ranks if there are several. An epoch keeps its length, and so sees one of ``repeats`` images. The k-th repeat of
    image i has the index ``k * size + i``, so that other augmentations are drawn for it.

    Each pass over ``batches()`` is the next epoch; ``set_epoch`` chooses the epoch of the next pass.

    Args:
        size: number of images.
        batch_size: images of a batch of one rank.
        is_training: see above.
        rank: of this process.
        world: number of processes.
        seed: of the permutations.
        repeats: times that each image comes; 0 for no repeated augmentation.

    Raises:
        DataError: for images that do not fill one batch in training.
        ConfigError: for repeats in evaluation.
    """

    def __init__(self, size, batch_size, is_training, rank=0, world=1, seed=0, repeats=0):
        self.size = size
        self.batch_size = batch_size
        self.is_training = is_training
        self.rank = rank
        self.world = world
        self.seed = seed
        self.repeats = repeats
        self.epoch = 0
        self.start_batch = 0
        if is_training and len(self) == 0:
            raise DataError(
                f"{size} images do not fill one batch: batch size {batch_size} on {world} "
                f"process{'es' if world > 1 else ''} takes {batch_size * world}; choose a batch size of at most "
                f"{size // world}"
            )
        if repeats and (not is_training or repeats < 1):
            raise ConfigError(f"repeated augmentation is for training, with at least 1 repeat, not {repeats}")

    def __len__(self):
        if self.is_training:
            return self.size // (self.batch_size * self.world)
        return math.ceil(len(range(self.rank, self.size, self.world)) / self.batch_size)

    def set_epoch(self, epoch, start_batch=0):
        """Make ``epoch`` the next epoch, without its first ``start_batch`` batches."""
        if not 0 <= start_batch <= len(self):
            raise DataError(f"start_batch {start_batch} is not within an epoch of {len(self)} batches")
        self.epoch = epoch
        self.start_batch = start_batch

    def batches(self):
        """Return the epoch and the list of index arrays of this pass; the next call is about the next epoch."""
        epoch, start = self.epoch, self.start_batch
        self.epoch, self.start_batch = epoch + 1, 0
        return epoch, self.batches_of(epoch)[start:]

    def batches_of(self, epoch):
        """Return the list of index arrays of this rank in ``epoch``."""
        mine = self._order(epoch)[self.rank :: self.world]
        return [mine[number * self.batch_size : (number + 1) * self.batch_size] for number in range(len(self))]

    def _order(self, epoch):
        if not self.is_training:
            return np.arange(self.size)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        if not self.repeats:
            return order
        places = _repeated(self.size, self.repeats)
        return order[places] + self.size * (np.arange(self.size) - np.searchsorted(places, places))


def _repeated(length, repeats):
    """Return 0, 0, 0, 1, 1, 1, ... for 3 ``repeats``, which need not be a whole number."""
    return (np.arange(length) // repeats).astype(np.int64)


class OrderedDistributedSampler:
    """Give the indices rank, rank + world, ..., the first repeated until all ranks have equally many, as timm's.

    ``create_loader`` does not use this sampler: repeated images would count twice in an evaluation. Of the indices of a
    rank the first ``num_valid_samples`` are no repetition.

    Args:
        dataset: what the indices are for.
        num_replicas: number of ranks; that of the running processes if None.
        rank: of this process; the running one if None.
    """

    def __init__(self, dataset, num_replicas=None, rank=None):
        self.dataset = dataset
        self.num_replicas = world_size() if num_replicas is None else num_replicas
        self.rank = this_rank() if rank is None else rank
        self.num_samples = math.ceil(len(dataset) / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self):
        return (index % len(self.dataset) for index in range(self.rank, self.total_size, self.num_replicas))

    def __len__(self):
        return self.num_samples

    @property
    def num_valid_samples(self):
        """The number of this rank's indices that are no repetition."""
        return len(range(self.rank, len(self.dataset), self.num_replicas))


class RepeatAugSampler:
    """Give indices for repeated augmentation, as timm's: each image several times, each time for another rank.

    ``create_loader(num_aug_repeats=...)`` does the same by its ``BatchPlan``, which can resume.

    Args:
        dataset: what the indices are for.
        num_replicas: number of ranks; that of the running processes if None.
        rank: of this process; the running one if None.
        shuffle: draw a new order for every epoch, from the epoch's number alone.
        num_repeats: how often each image comes; need not be a whole number.
        selected_round: let the indices of all ranks together be a multiple of this, if there are so many images.
        selected_ratio: an epoch is ``len(dataset) / selected_ratio`` indices on each rank; 0 stands for the number of
            ranks.
    """

    def __init__(
        self,
        dataset,
        num_replicas=None,
        rank=None,
        shuffle=True,
        num_repeats=3,
        selected_round=256,
        selected_ratio=0,
    ):
        self.dataset = dataset
        self.num_replicas = world_size() if num_replicas is None else num_replicas
        self.rank = this_rank() if rank is None else rank
        self.shuffle = shuffle
        self.num_repeats = num_repeats
        self.epoch = 0
        size, ratio = len(dataset), selected_ratio or self.num_replicas
        if selected_round and size >= selected_round:
            selected = math.floor(size // selected_round * selected_round / ratio)
        else:
            selected = math.ceil(size / ratio)
        self.num_selected_samples = min(selected, math.ceil(size * num_repeats / self.num_replicas))

    def __iter__(self):
        size = len(self.dataset)
        order = np.random.default_rng(self.epoch).permutation(size) if self.shuffle else np.arange(size)
        order = order[_repeated(math.ceil(size * self.num_repeats), self.num_repeats)]
        mine = self.rank + self.num_replicas * np.arange(self.num_selected_samples)
        return iter(order[mine % len(order)].tolist())

    def __len__(self):
        return self.num_selected_samples

    def set_epoch(self, epoch):
        """Choose the epoch of the next iteration."""
        self.epoch = epoch
