"""Read sharded tar files, a few shards at a time."""

from __future__ import annotations

import math

import numpy as np
import paddle

from pimm.data.bounded import brief
from pimm.data.dataset import ImageDataset
from pimm.data.readers import create_reader
from pimm.data.samplers import BatchPlan
from pimm.errors import ConfigError
from pimm.utils.distributed import rank, world_size

SHUFFLE_SIZE = 4096
_WINDOW_STREAM = 1  # last part of the key of the draws that shuffle within a window


class IterableImageDataset(ImageDataset, paddle.io.IterableDataset):
    """Give the images of sharded tar files in an order that stays within a few shards at a time.

    Shards are those of ``pimm.data.tar_index``: tar files in a folder, or inside a tar file, with class folders or in
    webdataset's layout. An epoch in training goes through the shards in a random order, and mixes the images within a
    window, as a shuffle buffer does. Both are functions of (seed, epoch) alone.

    The index of the tar files says how many images there are and where. So each rank, and within a rank each worker,
    has its equal share of that order, however many shards there are: in training every rank has the same number of
    whole batches, in evaluation every image comes exactly once.

    ``create_loader`` takes this data set as any other. Iterating over it, as ``paddle.io.DataLoader`` does, gives the
    share of this rank and worker in the epoch that ``set_epoch`` chose. ``len`` is the number of images in the files;
    ``num_samples``, usually the same, is the number of images in an epoch on all ranks together.

    The arguments that are not listed here are those of ``ImageDataset``.

    Args:
        root: folder of tar files, or one tar file.
        reader: ``wds`` or ``tar``, which are the same.
        split: words or patterns that choose among the tar files, see ``find_tars``; what follows a ``|`` is
            ``num_samples``, as in timm.
        is_training: shuffle, and give only whole batches.
        batch_size: of one rank; in training a share is a multiple of it.
        num_samples: images of an epoch, where these are not all; after all images an epoch starts over.
        seed: of the orders.
        repeats: passes over the images that make up an epoch of training.
        target_key: where in a sample's JSON file its class is, instead of in its ``.cls`` file.
        sample_shuffle_size: how many places an image may move within the order of the shards.
        cache_index: see ``TarReader``.

    Raises:
        ConfigError: for another reader, and for more ``num_samples`` in evaluation than there are images.
        DataError: for missing or unusable tar files.
    """

    def __init__(
        self,
        root,
        reader="wds",
        split="train",
        class_map=None,
        is_training=False,
        batch_size=1,
        num_samples=None,
        seed=42,
        repeats=0,
        input_img_mode="RGB",
        target_key=None,
        transform=None,
        target_transform=None,
        sample_shuffle_size=SHUFFLE_SIZE,
        cache_index=None,
    ):
        if reader.partition("/")[0].lower() not in ("wds", "tar"):
            raise ConfigError(f"{reader}: only tar files are read shard by shard; the reader is wds or tar")
        split, _, count = split.partition("|")
        if count and not (count.isascii() and count.isdigit() and len(count) < 16):
            raise ConfigError(
                f"{split}|{brief(count)}: what follows the | is a number of images, such as {split}|50000"
            )
        options = {"class_map": class_map, "target_key": target_key, "cache_index": cache_index}
        reader = create_reader("tar", root, split=split, in_natural_order=False, **options)
        super().__init__(
            root, reader, input_img_mode=input_img_mode, transform=transform, target_transform=target_transform
        )
        self.is_training = is_training
        self.batch_size = batch_size
        self.num_samples = num_samples or int(count or 0) or len(reader) * (max(repeats, 1) if is_training else 1)
        self.seed = seed
        self.sample_shuffle_size = sample_shuffle_size
        self.epoch = 0
        if not is_training and self.num_samples > len(reader):
            raise ConfigError(f"{root}: cannot evaluate {self.num_samples} images, there are {len(reader)}")

    def __iter__(self):
        plan = self.batch_plan(self.batch_size, self.is_training, rank(), world_size())
        plan.set_epoch(self.epoch)
        _, batches = plan.batches()
        worker = paddle.io.get_worker_info()
        if worker is not None:
            first, last = (len(batches) * part // worker.num_workers for part in (worker.id, worker.id + 1))
            batches = batches[first:last]
        for batch in batches:
            for index in batch.tolist():
                yield self[index % len(self)]

    def set_epoch(self, count):
        """Choose the epoch of the next iteration."""
        self.epoch = count

    def batch_plan(self, batch_size, is_training, rank=0, world=1, seed=0):
        """Return the ``BatchPlan`` for ``create_loader``; the arguments are those of ``BatchPlan``."""
        return ShardPlan(self, batch_size, is_training, rank, world, seed)

    def order(self, *key):
        """Return the indices of an epoch's images, shard after shard, the shards in an order drawn from ``key``.

        In the k-th further pass over the images, indices are ``k * len(self)`` larger: other augmentations are drawn.
        """
        shards = np.split(np.arange(len(self)), self.reader.shard_ends[:-1])
        rng = np.random.default_rng([self.seed, *key])
        passes = range(math.ceil(self.num_samples / len(self)))
        drawn = [shards[number] + done * len(self) for done in passes for number in rng.permutation(len(shards))]
        return np.concatenate(drawn)[: self.num_samples]


class ShardPlan(BatchPlan):
    """Plan batches of which each rank's come from consecutive shards; the arguments are those of ``BatchPlan``."""

    def __init__(self, dataset, batch_size, is_training, rank=0, world=1, seed=0):
        self.dataset = dataset
        super().__init__(dataset.num_samples, batch_size, is_training, rank, world, seed)

    def _order(self, epoch):
        if not self.is_training:
            return self._dealt(np.arange(self.size))
        order = self.dataset.order(self.seed, epoch)
        rng = np.random.default_rng([self.dataset.seed, self.seed, epoch, _WINDOW_STREAM])
        return self._dealt(order[: len(self) * self.batch_size * self.world], rng)

    def _dealt(self, order, rng=None):
        """Return ``order`` rearranged: every ``world``-th place from the r-th on holds the r-th part of ``order``."""
        dealt = np.empty_like(order)
        for place, part in enumerate(np.array_split(order, self.world)):
            dealt[place :: self.world] = part if rng is None else _mixed(part, self.dataset.sample_shuffle_size, rng)
        return dealt


def _mixed(order, window, rng):
    """Return ``order`` with each index moved by less than ``window`` places."""
    return order[np.argsort(np.arange(len(order)) + rng.random(len(order)) * window, kind="stable")]
