"""Make batches of normalised images, which worker processes read and augment."""

from __future__ import annotations

import logging
import math

import numpy as np
import paddle

from pimm.data.arrays import Normalize
from pimm.data.channels import per_channel
from pimm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.data.device import to_device
from pimm.data.jpeg import fast_decoder
from pimm.data.random_erasing import RandomErasing
from pimm.data.samplers import BatchPlan
from pimm.data.seeding import FINISH_STREAM, preserved_streams, seed_streams
from pimm.data.transforms_factory import create_transform, resizes_first, scaled_size
from pimm.data.tta import CollateViews
from pimm.data.workers import CAN_FORK, BatchReader, Task, WorkerPool
from pimm.device import device_of
from pimm.errors import ConfigError
from pimm.utils.distributed import rank, world_size
from pimm.utils.labels import stack_labels

_logger = logging.getLogger(__name__)

_WORKER_SEEDINGS = ("all", "part")  # timm's; the same here


def fast_collate(samples):
    """Stack uint8 images [C, H, W] to an array [B, C, H, W], and their labels as ``stack_labels`` does.

    Images in tuples (clean, augmented, ...) are taken apart: all clean images first, then all first augmented ones, ...
    """
    images, labels = zip(*samples)
    labels = stack_labels(labels)
    if isinstance(images[0], tuple):
        labels = np.concatenate([labels] * len(images[0]))
        images = [image for split in zip(*images) for image in split]
    batch = np.empty((len(images), *images[0].shape), np.uint8)
    for slot, image in zip(batch, images):
        slot[:] = image
    return batch, labels


def default_collate(samples):
    """Stack images of any kind that numpy can stack, and their labels as ``stack_labels`` does."""
    images, labels = zip(*samples)
    return np.stack([np.asarray(image) for image in images]), stack_labels(labels)


class Loader:
    """Iterate over (images, labels) of one epoch at a time, as the collate function makes them.

    Both are tensors on the current device. ``len(loader)`` is the number of batches of a whole epoch. Each
    ``iter(loader)`` is the next epoch, or the one that ``set_epoch`` chose.

    What is drawn for an image depends on (seed, epoch, index of the image) alone: the same for any number of workers
    or ranks, and when an epoch is resumed in its middle. The global random streams are left as they were.

    Args:
        dataset: images and labels by index.
        sampler: ``BatchPlan`` of the dataset.
        collate_fn: callable from a list of samples to (images, labels).
        num_workers: processes; 0 reads in this process.
        seed: of all that is drawn for images and batches.
        worker_seeding: see ``pimm.data.workers.WorkerPool``.
        persistent_workers: keep the processes between epochs, unless dataset, transform, collate function or the
            switch of mixup is exchanged; the processes do not see what changes inside the dataset.
        read_ahead: let the processes begin the next epoch while this one ends; for this they are kept too.
        batch_bytes: see ``pimm.data.workers.WorkerPool``.
    """

    def __init__(
        self,
        dataset,
        sampler,
        collate_fn,
        num_workers=0,
        seed=0,
        worker_seeding="all",
        persistent_workers=False,
        read_ahead=False,
        batch_bytes=0,
    ):
        if not callable(worker_seeding) and worker_seeding not in _WORKER_SEEDINGS:
            raise ConfigError(
                f"worker_seeding {worker_seeding!r:.80} is none of {', '.join(_WORKER_SEEDINGS)}, or callable"
            )
        self.dataset = dataset
        self.sampler = sampler
        self.collate_fn = collate_fn
        self.num_workers = num_workers
        self.seed = seed
        self.worker_seeding = worker_seeding
        self.persistent_workers = persistent_workers or read_ahead
        self.read_ahead = read_ahead
        self.batch_bytes = batch_bytes
        self._kept = None  # of the last pass: (pool, the tasks it was given in advance, what it was made from)

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        return ((to_device(images), to_device(labels)) for _, images, labels in self.batches())

    def set_epoch(self, epoch, start_batch=0):
        """Choose the epoch of the next pass, without its first ``start_batch`` batches, which are not read."""
        self.sampler.set_epoch(epoch, start_batch)

    @property
    def mixup_enabled(self):
        return getattr(self.collate_fn, "mixup_enabled", False)

    @mixup_enabled.setter
    def mixup_enabled(self, enabled):
        if hasattr(self.collate_fn, "mixup_enabled"):
            self.collate_fn.mixup_enabled = enabled

    def batches(self):
        """Yield (key of the batch, images, labels) of the next pass, as arrays or tensors on the CPU or the device."""
        epoch, batches = self.sampler.batches()
        tasks = [Task(epoch, indices) for indices in batches]
        if not self.num_workers or not tasks or not CAN_FORK:
            pairs = map(self._reader().read_here, tasks)
        elif self.persistent_workers:
            pairs = self._from_kept_workers(tasks)
        else:
            pairs = self._from_new_workers(tasks)
        return ((task.key, images, labels) for (images, labels), task in zip(pairs, tasks))

    def _reader(self):
        return BatchReader(self.dataset, self.collate_fn, self.seed)

    def _new_pool(self, tasks):
        workers, key = min(self.num_workers, len(tasks)), (self.seed, tasks[0].epoch, self.sampler.rank)
        pool = WorkerPool(self._reader(), workers, self.worker_seeding, key, self.batch_bytes)
        pool.add(tasks)
        return pool

    def _from_new_workers(self, tasks):
        """Yield the batches of new workers, which takes 15 ms a worker for each epoch."""
        pool = self._new_pool(tasks)
        yield from pool.take(len(tasks))
        pool.close()

    def _from_kept_workers(self, tasks):
        pool, epoch = self._kept_pool(tasks) or self._new_pool(tasks), tasks[0].epoch + 1
        ahead = [Task(epoch, indices) for indices in self.sampler.batches_of(epoch)] if self.read_ahead else []
        pool.add(ahead)
        yield from pool.take(len(tasks))
        self._kept = pool, ahead, self._shared()

    def _shared(self):
        """Return what workers have a copy of and a user may exchange between epochs."""
        return self.dataset, getattr(self.dataset, "transform", None), self.collate_fn, self.mixup_enabled

    def _kept_pool(self, tasks):
        """Return the last pass's pool, at work on ``tasks``; None if it works on others, or is out of date."""
        if self._kept is None:
            return None
        (pool, ahead, shared), self._kept = self._kept, None
        if shared != self._shared() or (ahead and (ahead[0].key, len(ahead)) != (tasks[0].key, len(tasks))):
            pool.close()
            return None
        if not ahead:
            pool.add(tasks)
        return pool


class PrefetchLoader:
    """Normalise the uint8 batches of a ``Loader``, and erase in them, where they are used.

    A GPU gets bytes, a quarter of what floats would be, and is not waited for. On a CPU, numpy normalises thirty times
    as fast as Paddle's broadcasting.

    Args:
        loader: ``Loader`` whose batches are uint8 [B, C, H, W].
        mean: of pixels from 0 to 1, one for each of ``channels``; another number of values is averaged, with a warning.
        std: the same for the standard deviation.
        channels: of the images.
        device: place or its name; the current device if None.
        img_dtype: of the images; float32 if None.
        fp16: timm's older way to ask for float16.
        re_prob: with the next three, see ``RandomErasing``; 0 for no erasing.
        re_mode: what erased rectangles are filled with.
        re_count: the most rectangles.
        re_num_splits: parts of a batch of which the first is not erased.
    """

    def __init__(
        self,
        loader,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        channels=3,
        device=None,
        img_dtype=None,
        fp16=False,
        re_prob=0.0,
        re_mode="const",
        re_count=1,
        re_num_splits=0,
    ):
        self.loader = loader
        self.normalize = Normalize(*(_adapted(values, channels) for values in (mean, std)))
        self.random_erasing = None
        if re_prob > 0:
            self.random_erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits)
        self.place = device
        self.img_dtype = "float16" if fp16 else img_dtype or "float32"

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for key, images, labels in self.loader.batches():
            yield self._finish(images, key), to_device(labels, self.place)

    def _finish(self, images, key):
        on_cpu = device_of(self.place).is_cpu
        images = self.normalize(_to_array(images) if on_cpu else to_device(images, self.place))
        if self.random_erasing is not None:
            with preserved_streams():
                seed_streams(self.loader.seed, *key, FINISH_STREAM)
                images = self.random_erasing(images)
        if on_cpu:
            images = paddle.utils.dlpack.from_dlpack(images)  # the same memory; copying takes longer than normalising
        return images.astype(self.img_dtype)

    def set_epoch(self, epoch, start_batch=0):
        """See ``Loader``."""
        self.loader.set_epoch(epoch, start_batch)

    @property
    def sampler(self):
        return self.loader.sampler

    @property
    def dataset(self):
        return self.loader.dataset

    @property
    def collate_fn(self):
        return self.loader.collate_fn

    @property
    def mixup_enabled(self):
        return self.loader.mixup_enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled):
        self.loader.mixup_enabled = enabled


def _adapted(values, channels):
    adapted = per_channel(values, channels)
    if isinstance(values, (tuple, list)) and len(values) not in (1, channels):
        _logger.warning(
            "%d normalisation values for %d channels: taking their mean %.4g", len(values), channels, adapted[0]
        )
    return adapted


def _to_array(values):
    if isinstance(values, np.ndarray):
        return values
    return np.from_dlpack(values) if values.place.is_cpu_place() else values.numpy()


def _decode_small(dataset, size):
    """Let the data set decode JPEGs at a smaller scale of at least ``size`` (height, width)."""
    dataset = getattr(dataset, "dataset", dataset)  # inside AugMixDataset
    if not hasattr(dataset, "draft_size") or dataset.load_bytes:
        raise ConfigError(
            f"draft decoding needs images that pimm.data decodes; {type(dataset).__name__} does not do so"
        )
    dataset.draft_size = size[::-1]


def _batch_plan(dataset, repeats, *args):
    if not hasattr(dataset, "batch_plan"):
        return BatchPlan(len(dataset), *args, repeats=repeats)
    if repeats:
        raise ConfigError(f"num_aug_repeats is for data sets read in any order; {type(dataset).__name__} has its own")
    return dataset.batch_plan(*args)


def create_loader(
    dataset,
    input_size,
    batch_size,
    is_training=False,
    no_aug=False,
    re_prob=0.0,
    re_mode="const",
    re_count=1,
    re_split=False,
    train_crop_mode=None,
    scale=None,
    ratio=None,
    hflip=0.5,
    vflip=0.0,
    color_jitter=0.4,
    color_jitter_prob=None,
    grayscale_prob=0.0,
    gaussian_blur_prob=0.0,
    auto_augment=None,
    num_aug_repeats=0,
    num_aug_splits=0,
    interpolation="bilinear",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    num_workers=1,
    distributed=False,
    crop_pct=None,
    crop_mode=None,
    crop_border_pixels=None,
    collate_fn=None,
    pin_memory=False,
    fp16=False,
    img_dtype=None,
    device=None,
    use_prefetcher=True,
    use_multi_epochs_loader=False,
    persistent_workers=False,
    worker_seeding="all",
    tf_preprocessing=False,
    seed=0,
    draft=False,
    tta=0,
):
    """Give ``dataset`` its transform and make the loader of its batches; the arguments are timm's.

    The arguments that are not listed here are those of ``create_transform``.

    Args:
        dataset: as ``pimm.data.ImageDataset``; its ``transform`` is replaced.
        input_size: (channels, height, width), (height, width) or one side.
        batch_size: images of one process.
        is_training: shuffle, augment, and drop the last incomplete batch.
        re_split: erase only in the augmented splits (without ``num_aug_splits``, in the second half of the batch).
        num_aug_repeats: times that each image comes in a row, augmented differently, see ``BatchPlan``.
        num_aug_splits: for ``AugMixDataset``: how many times each image comes, the first time clean.
        num_workers: processes that read images; 0 reads in this process.
        distributed: take this rank's share of the images, see ``BatchPlan``: equally many batches in training; in
            evaluation every image exactly once, so that ranks may have different numbers of images.
        collate_fn: callable from a list of samples to (images, labels).
        pin_memory: accepted for timm's scripts; batches reach a GPU through pinned memory anyway.
        fp16: see ``PrefetchLoader``; this and the next two need the prefetcher.
        img_dtype: see ``PrefetchLoader``.
        device: see ``PrefetchLoader``.
        use_prefetcher: normalise and erase whole batches, on the device, instead of single images in the workers.
        use_multi_epochs_loader: keep the worker processes and let them begin the next epoch while this one ends.
        persistent_workers: keep the worker processes between epochs; what is drawn stays the same. Of later changes of
            the data set, kept workers see a new ``transform`` alone.
        worker_seeding: a callable from Paddle's ``worker_info`` to the seed of a worker's own random streams, which
            otherwise follow from seed, rank, worker and the epoch of its start. timm's ``all`` and ``part`` are the
            same here, for images and batches have streams of their own.
        seed: of the order and of all that is drawn for the images.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 of their size as long as both sides stay as long as those of the image
            that training crops to and evaluation scales to. Faster for large photographs. Coarse structure keeps its
            pixels, to a few grey levels; fine texture is smoothed by the decoder's box filter instead of that of
            ``interpolation``, and random parts of the image in training are enlarged from as few as 1/64 of their
            pixels, where full decoding would have had more detail.
        tta: views of each image in an evaluation, one after the other, see ``pimm.data.tta``.

    Raises:
        ConfigError: for unknown settings, and settings that do not go together.
        DataError: when a training set does not fill one batch on every process.
    """
    re_num_splits = (num_aug_splits or 2) if re_split else 0
    erasing = {"re_prob": re_prob, "re_mode": re_mode, "re_count": re_count, "re_num_splits": re_num_splits}
    dataset.transform = create_transform(
        input_size,
        is_training=is_training,
        no_aug=no_aug,
        train_crop_mode=train_crop_mode,
        scale=scale,
        ratio=ratio,
        hflip=hflip,
        vflip=vflip,
        color_jitter=color_jitter,
        color_jitter_prob=color_jitter_prob,
        grayscale_prob=grayscale_prob,
        gaussian_blur_prob=gaussian_blur_prob,
        auto_augment=auto_augment,
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        crop_border_pixels=crop_border_pixels,
        tf_preprocessing=tf_preprocessing,
        use_prefetcher=use_prefetcher,
        separate=num_aug_splits > 0,
        tta=tta,
        **erasing,
    )
    if resizes_first(dataset.transform):
        fast_decoder()  # before the worker processes, which need not find out each for itself
    channels, *img_size = _image_shape(input_size, mean)
    if draft:
        if crop_border_pixels or tf_preprocessing:
            raise ConfigError("draft decoding goes neither with crop_border_pixels nor with tf_preprocessing")
        _decode_small(dataset, tuple(img_size) if is_training else scaled_size(img_size, crop_pct))
    number, world = (rank(), world_size()) if distributed else (0, 1)
    collate_fn = collate_fn or (fast_collate if use_prefetcher else default_collate)
    image_bytes = channels * math.prod(img_size) * (1 if use_prefetcher else 4)
    loader = Loader(
        dataset,
        _batch_plan(dataset, num_aug_repeats, batch_size, is_training, number, world, seed),
        CollateViews(collate_fn) if tta > 1 else collate_fn,
        num_workers,
        seed,
        worker_seeding,
        persistent_workers,
        read_ahead=use_multi_epochs_loader,
        batch_bytes=batch_size * max(num_aug_splits, tta, 1) * image_bytes,
    )
    if not use_prefetcher:
        return loader
    if not is_training or no_aug:
        erasing["re_prob"] = 0.0
    return PrefetchLoader(loader, mean, std, channels, device, img_dtype, fp16, **erasing)


def _image_shape(input_size, mean):
    """Return (channels, height, width); where ``input_size`` does not say, there are as many channels as means."""
    if not isinstance(input_size, (tuple, list)):
        return (len(mean), input_size, input_size)
    return tuple(input_size) if len(input_size) == 3 else (len(mean), *input_size)
