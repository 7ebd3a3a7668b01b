"""Batches of normalised images, read and augmented by worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from multiprocessing.pool import RemoteTraceback
from typing import NamedTuple

import numpy as np
import paddle
from paddle.base import core

from pimm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.data.random_erasing import RandomErasing
from pimm.data.samplers import BatchPlan
from pimm.data.seeding import preserved_streams, seed_streams
from pimm.data.transforms import Compose, Normalize, pair
from pimm.data.transforms_factory import create_transform
from pimm.errors import ConfigError, DataError
from pimm.utils.distributed import rank, world_size

# Last part of the key of a batch's random streams; those of images end with the index.
_COLLATE_STREAM = 1
_FINISH_STREAM = 2


def fast_collate(samples):
    """Stack uint8 images [C, H, W] to an array [B, C, H, W] and their classes to int64 [B].

    Images in tuples (clean, augmented, ...) are taken apart: all clean ones first, then all first augmented ones, ...
    """
    images, labels = zip(*samples)
    if isinstance(images[0], tuple):
        labels *= len(images[0])
        images = [image for split in zip(*images) for image in split]
    batch = np.empty((len(images), *images[0].shape), np.uint8)
    for slot, image in zip(batch, images):
        slot[:] = image
    return batch, np.array(labels, np.int64)


def default_collate(samples):
    """Stack images and labels of any kind that numpy can stack; integer labels become int64."""
    images, labels = (np.stack([np.asarray(value) for value in values]) for values in zip(*samples))
    return images, labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


class _Task(NamedTuple):
    """One batch to make, in any process."""

    epoch: int
    indices: np.ndarray

    @property
    def key(self):
        return self.epoch, int(self.indices[0])


class _BatchReader(paddle.io.Dataset):
    """Makes whole batches: ``reader[task]`` is (images, labels); the same code in workers and without."""

    def __init__(self, dataset, collate_fn, seed):
        super().__init__()
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.seed = seed

    def __getitem__(self, task):
        samples = []
        for index in task.indices.tolist():
            seed_streams(self.seed, task.epoch, index)
            samples.append(self.dataset[index])
        seed_streams(self.seed, *task.key, _COLLATE_STREAM)
        return self.collate_fn(samples)

    def read_here(self, task):
        with preserved_streams():
            return self[task]

    def __len__(self):
        return len(self.dataset)


class _Guarded(paddle.io.Dataset):
    """The reader as a worker runs it: what goes wrong comes back beside the batch, for an exception would be lost.

    Items are (images, labels, broken images, error, traceback); Paddle ends in silence when a batch has no array.
    """

    def __init__(self, reader):
        super().__init__()
        self.reader = reader

    def __getitem__(self, task):
        broken = getattr(self.reader.dataset, "broken", {})
        known = set(broken)
        images, labels, error, trace = np.zeros(1), np.zeros(1), None, ""
        try:
            images, labels = self.reader[task]
        except Exception as caught:
            if isinstance(caught, DataError):
                error = str(caught)
            else:
                error = f"a transform or collate function failed in a data worker: {type(caught).__name__}: {caught}"
                trace = traceback.format_exc()
        return images, labels, [(path, broken[path]) for path in broken if path not in known], error, trace

    def __len__(self):
        return len(self.reader)


def _start_worker(_):
    """Leave Ctrl-C to the main process, end with it, and take one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    core.set_num_threads(1)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Loader:
    """Iterates over (images, labels) of one epoch at a time; made by ``create_loader``.

    Images are float32 [B, C, H, W], labels int64 [B] (or what the collate function makes of them), on the current
    device. ``len(loader)`` is the number of batches of a whole epoch. Each ``iter(loader)`` is the next epoch, or the
    one that ``set_epoch`` chose.

    What is drawn for an image depends on (seed, epoch, index of the image) alone: the same for any number of workers
    or ranks, and when an epoch is resumed in its middle. The global random streams are left as they were.
    """

    def __init__(self, dataset, sampler, collate_fn, finish=None, num_workers=0, seed=0):
        self.dataset = dataset
        self.sampler = sampler
        self.collate_fn = collate_fn
        self.finish = finish
        self.num_workers = num_workers
        self.seed = seed

    def __len__(self):
        return len(self.sampler)

    def set_epoch(self, epoch, start_batch=0):
        """Choose the epoch of the next pass; its first ``start_batch`` batches are left out without being read."""
        self.sampler.set_epoch(epoch, start_batch)

    @property
    def mixup_enabled(self):
        return getattr(self.collate_fn, "mixup_enabled", False)

    @mixup_enabled.setter
    def mixup_enabled(self, enabled):
        if hasattr(self.collate_fn, "mixup_enabled"):
            self.collate_fn.mixup_enabled = enabled

    def __iter__(self):
        epoch, batches = self.sampler.batches()
        tasks = [_Task(epoch, indices) for indices in batches]
        reader = _BatchReader(self.dataset, self.collate_fn, self.seed)
        pairs = self._read_in_workers(reader, tasks) if self.num_workers else map(reader.read_here, tasks)
        return self._tensors(pairs, tasks)

    def _tensors(self, pairs, tasks):
        for (images, labels), task in zip(pairs, tasks):
            if self.finish is not None:
                with preserved_streams():
                    seed_streams(self.seed, *task.key, _FINISH_STREAM)
                    images = self._finish(images)
            yield _as_tensor(images), _as_tensor(labels)

    def _finish(self, images):
        """Finish here what came as bytes: sending float32 from the workers costs more than it saves them.

        On a CPU by numpy, which normalises thirty times as fast as Paddle's broadcasting.
        """
        on_cpu = paddle.get_device().startswith("cpu")
        return self.finish(np.asarray(images) if on_cpu else _as_tensor(images))

    def _read_in_workers(self, reader, tasks):
        if not tasks:
            return
        # Forking anew each epoch takes 15 ms a worker; Paddle's persistent workers wait half a second instead.
        batches = paddle.io.DataLoader(
            _Guarded(reader),
            batch_sampler=[[task] for task in tasks],
            collate_fn=lambda batch: batch[0],
            num_workers=min(self.num_workers, len(tasks)),
            worker_init_fn=_start_worker,
            timeout=1,  # seconds between looks at whether the workers live
        )
        received = 0
        try:
            for images, labels, broken, error, trace in batches:
                for path, reason in broken:
                    self.dataset.skip(path, reason)
                if error:
                    raise DataError(error) from (RemoteTraceback(trace) if trace else None)
                received += 1
                yield images, labels
        except SystemError as error:
            raise DataError(_WORKER_DIED) from error
        if received != len(tasks):
            raise DataError(_WORKER_DIED)


_WORKER_DIED = (
    "a data-loading worker ended unexpectedly; was it killed, or is memory (or shared memory, /dev/shm) used up? "
    "Fewer workers or a smaller batch may help"
)


def _as_tensor(values):
    return values if isinstance(values, paddle.Tensor) else paddle.to_tensor(values)


def _plan(dataset, *options):
    """The data set's own plan, as one of sharded files has, or the usual one."""
    own = getattr(dataset, "batch_plan", None)
    return own(*options) if own else BatchPlan(len(dataset), *options)


def _decode_small(dataset, input_size):
    dataset = getattr(dataset, "dataset", dataset)  # inside AugMixDataset
    if not hasattr(dataset, "draft_size"):
        raise ConfigError(f"draft decoding is for pimm.data.Dataset; {type(dataset).__name__} decodes on its own")
    height, width = pair(input_size[-2:] if isinstance(input_size, (tuple, list)) else input_size)
    dataset.draft_size = (width, height)


def create_loader(
    dataset,
    input_size,
    batch_size,
    is_training=False,
    use_prefetcher=True,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_split=False,
    scale=None,
    ratio=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    auto_augment=None,
    num_aug_splits=0,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    num_workers=1,
    distributed=False,
    crop_pct=None,
    collate_fn=None,
    pin_memory=False,
    fp16=False,
    tf_preprocessing=False,
    seed=0,
    draft=False,
):
    """Give ``dataset`` its transform and make the loader of its batches; the arguments are timm's.

    Args:
        dataset: as ``pimm.data.Dataset``; its ``transform`` is replaced.
        input_size: (channels, height, width), (height, width) or one side.
        batch_size: images of one process.
        is_training: shuffle, augment, and drop the last incomplete batch.
        use_prefetcher: normalise and erase whole batches, on the device, instead of single images in the workers.
        re_split: erase only in the augmented splits (without ``num_aug_splits``, in the second half of the batch).
        distributed: take this rank's share of the images, see ``BatchPlan``: equally many batches in training; in
            evaluation every image exactly once, so that ranks may have different numbers of them.
        pin_memory: accepted for timm's scripts; Paddle copies to the device in the background anyway.
        fp16: give float16 images (where the prefetcher is used).
        seed: of the order and of all that is drawn for the images.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 of their size where that is still large enough; faster for large
            photographs, with slightly different pixels.

        The other arguments are those of ``create_transform``.

    Raises:
        DataError: when a training set does not fill one batch on every process.
    """
    re_num_splits = (num_aug_splits or 2) if re_split else 0
    dataset.transform = create_transform(
        input_size,
        is_training=is_training,
        use_prefetcher=use_prefetcher,
        scale=scale,
        ratio=ratio,
        hflip=hflip,
        vflip=vflip,
        color_jitter=color_jitter,
        auto_augment=auto_augment,
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        tf_preprocessing=tf_preprocessing,
        re_prob=re_prob,
        re_mode=re_mode,
        re_count=re_count,
        re_num_splits=re_num_splits,
        separate=num_aug_splits > 0,
    )
    finish = None
    if use_prefetcher:
        erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits)
        normalize = Normalize(mean, std, "float16" if fp16 else "float32")
        finish = Compose([normalize, erasing] if is_training and re_prob > 0 else [normalize])
    if draft:
        _decode_small(dataset, input_size)
    number, world = (rank(), world_size()) if distributed else (0, 1)
    return Loader(
        dataset,
        _plan(dataset, batch_size, is_training, number, world, seed),
        collate_fn or (fast_collate if use_prefetcher else default_collate),
        finish,
        num_workers,
        seed,
    )
