"""Batches made by worker processes, or by the same code without them."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
import traceback
import weakref
from collections import deque
from multiprocessing.pool import RemoteTraceback
from typing import NamedTuple

import numpy as np
import paddle
from paddle.base import core

from pimm.data.seeding import COLLATE_STREAM, WORKER_STREAM, preserved_streams, seed_streams
from pimm.errors import DataError

_PREFETCH = 2  # batches that each worker has been asked for
_RESPITE = 30  # seconds that a worker lives on after SIGTERM


class Task(NamedTuple):
    """One batch to make, in any process."""

    epoch: int
    indices: np.ndarray

    @property
    def key(self):
        """What names the batch among all batches of all epochs."""
        return self.epoch, int(self.indices[0])


class BatchReader:
    """Makes whole batches: ``reader[task]`` is (images, labels) as the collate function has them."""

    def __init__(self, dataset, collate_fn, seed):
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.seed = seed

    def __getitem__(self, task):
        samples = []
        for index in task.indices.tolist():
            seed_streams(self.seed, task.epoch, index)
            samples.append(self.dataset[index % len(self.dataset)])  # beyond it are repeats, see BatchPlan
        seed_streams(self.seed, *task.key, COLLATE_STREAM)
        return self.collate_fn(samples)

    def read_here(self, task):
        """``reader[task]`` without touching the global random streams."""
        with preserved_streams():
            return self[task]


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
        return len(self.reader.dataset)


def seed_worker(worker_seeding, key, number):
    """Seed the streams of ``random``, ``numpy.random`` and Paddle in worker ``number``, from ``key`` and the number.

    This is for draws that are not made for an image or a batch, which have streams of their own. ``worker_seeding``
    may be a callable that gives the seed from Paddle's ``worker_info``.
    """
    if callable(worker_seeding):
        seed = worker_seeding(paddle.io.get_worker_info())
        random.seed(seed)
        np.random.seed(seed % 2**32)
    else:
        seed_streams(*key, number, WORKER_STREAM)
        seed = random.getrandbits(32)
    paddle.seed(seed)


def _start_worker(worker_seeding, key, number):
    """Leave Ctrl-C and SIGTERM to the main process, end with it, and take one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A cluster sends SIGTERM to all processes at once, and the main one may still have a batch to finish and to save.
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(_RESPITE))
    core.set_num_threads(1)
    seed_worker(worker_seeding, key, number)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Feed:
    """Tasks as Paddle's loader takes them: whenever there are none left it stops asking, until it is told to."""

    def __init__(self, tasks):
        self.tasks = deque(tasks)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.tasks:
            raise StopIteration
        return [self.tasks.popleft()]


_WORKER_DIED = (
    "a data-loading worker ended unexpectedly; was it killed, or is memory (or shared memory, /dev/shm) used up? "
    "Fewer workers or a smaller batch may help"
)


class WorkerPool:
    """Processes that make the batches of tasks, in their order.

    Args:
        reader: ``BatchReader``; the processes keep it as it is now.
        tasks: the first ones.
        num_workers: processes.
        worker_seeding, key: see ``seed_worker``.
    """

    def __init__(self, reader, tasks, num_workers, worker_seeding="all", key=(0,)):
        self.dataset = reader.dataset
        self._num_workers = num_workers
        self._feed = _Feed(tasks)
        self._batches = iter(
            paddle.io.DataLoader(
                _Guarded(reader),
                batch_sampler=self._feed,
                collate_fn=lambda batch: batch[0],
                num_workers=num_workers,
                prefetch_factor=_PREFETCH,
                worker_init_fn=functools.partial(_start_worker, worker_seeding, key),
                timeout=1,  # seconds between looks at whether the workers live
            )
        )
        # Paddle's own threads keep its iterator alive, so that it is never collected, and complains in the end.
        self._end = weakref.finalize(self, self._batches._try_shutdown_all)

    def add(self, tasks):
        """More tasks, for when those before are done."""
        self._feed.tasks.extend(tasks)

    def wake(self, tasks):
        """More tasks for idle workers, whose batches have all been taken.

        Paddle's own way to keep workers waits half a second at every start.
        """
        self.add(tasks)
        for _ in range(min(len(tasks), _PREFETCH * self._num_workers)):
            self._batches._try_put_indices()

    def take(self, count):
        """Yield the next ``count`` batches (images, labels). Ends the processes if it is left before, or fails."""
        taken = 0
        try:
            while taken < count:
                try:
                    images, labels, broken, error, trace = next(self._batches)
                except (StopIteration, SystemError) as died:
                    raise DataError(_WORKER_DIED) from died
                for path, reason in broken:
                    self.dataset.skip(path, reason)
                if error:
                    raise DataError(error) from (RemoteTraceback(trace) if trace else None)
                taken += 1
                yield images, labels
        finally:
            if taken < count:
                self.close()

    def close(self):
        """End the processes, as also happens when the pool is no longer used, or the program ends."""
        self._end()
