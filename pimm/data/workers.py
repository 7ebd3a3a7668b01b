"""Make batches in worker processes, or by the same code without them."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import random
import signal
import sys
import traceback
from collections import deque
from multiprocessing import connection
from multiprocessing.pool import RemoteTraceback
from multiprocessing.util import Finalize
from typing import NamedTuple

import numpy as np
import paddle
from paddle.base import core
from paddle.io.dataloader import worker as paddle_worker

from pimm.data.bounded import brief
from pimm.data.seeding import COLLATE_STREAM, WORKER_STREAM, preserved_streams, seed_streams
from pimm.errors import DataError, PimmError

CAN_FORK = sys.platform == "linux"  # elsewhere Paddle's own loader has no processes either
_AHEAD = 2  # batches that each worker has been asked for
_SLOTS = _AHEAD + 1  # and one more that is being used


class Task(NamedTuple):
    """Describe one batch to make, in any process."""

    epoch: int
    indices: np.ndarray

    @property
    def key(self):
        """Return what names the batch among all batches of all epochs."""
        return self.epoch, int(self.indices[0])


class BatchReader:
    """Make whole batches: ``reader[task]`` is (images, labels) as the collate function returns them.

    Args:
        dataset: samples by index.
        collate_fn: callable from a list of samples to (images, labels).
        seed: of all that is drawn.
    """

    def __init__(self, dataset, collate_fn, seed):
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.seed = seed

    def __getitem__(self, task):
        samples = []
        for index in task.indices.tolist():
            seed_streams(self.seed, task.epoch, index)
            samples.append(self.dataset[index % len(self.dataset)])  # larger indices are repeats, see BatchPlan
        seed_streams(self.seed, *task.key, COLLATE_STREAM)
        return self.collate_fn(samples)

    def read_here(self, task):
        """Return ``reader[task]`` without touching the global random streams."""
        with preserved_streams():
            return self[task]


class _Slots:
    """Hold batches of images in memory that a worker and the main process share.

    The memory is made before the fork and used over and over: no copy through a pipe, no new pages for every batch.
    """

    def __init__(self, size):
        self._slots = [mmap.mmap(-1, size) for _ in range(_SLOTS)] if size else []
        self._size = size
        self._next = 0

    def put(self, images):
        """Return what to send in place of the images; the images themselves, if they do not fit."""
        images = _plain(images)
        if not isinstance(images, np.ndarray) or not 0 < images.nbytes <= self._size or images.dtype.hasobject:
            return images
        stored = _Stored(self._next, images.shape, images.dtype)
        self.get(stored)[...] = images
        self._next = (self._next + 1) % _SLOTS
        return stored

    def get(self, sent):
        """Return the images that were put, for use until the next batch but one of the worker is asked for."""
        if not isinstance(sent, _Stored):
            return sent
        return np.ndarray(sent.shape, sent.dtype, self._slots[sent.number])


class _Stored(NamedTuple):
    """Say where in the shared memory a batch of images lies."""

    number: int
    shape: tuple
    dtype: np.dtype


def _plain(values):
    return values.numpy() if isinstance(values, paddle.Tensor) else values


class _Result(NamedTuple):
    """Hold what a worker sends: a batch, the images it could not read, and the error if there is no batch."""

    images: object = None
    labels: object = None
    broken: tuple = ()  # (path, reason)
    error: str = ""
    trace: str = ""


def _make(reader, task, slots):
    broken = getattr(reader.dataset, "broken", {})
    known = set(broken)
    images, labels, error, trace = None, None, "", ""
    try:
        images, labels = reader[task]
        images, labels = slots.put(images), _plain(labels)
    except Exception as caught:
        error, trace = str(caught), traceback.format_exc()
        if not isinstance(caught, PimmError):
            reason = f"{type(caught).__name__}: {brief(error, 200)}"
            error = f"a target transform or collate function failed in a data worker: {reason}"
    return _Result(images, labels, tuple((path, broken[path]) for path in broken if path not in known), error, trace)


def _seed_worker(worker_seeding, key, number):
    """Seed the streams of ``random``, ``numpy.random`` and Paddle for draws that are not for an image or a batch."""
    if callable(worker_seeding):
        seed = worker_seeding(paddle.io.get_worker_info())
        random.seed(seed)
        np.random.seed(seed % 2**32)
    else:
        seed_streams(*key, number, WORKER_STREAM)
        seed = random.getrandbits(32)
    paddle.seed(seed)


def _work(reader, number, num_workers, pipe, others, slots, worker_seeding, key):
    """Make batches until the pipe is closed or the main process is gone; ignore Ctrl-C and SIGTERM."""
    for asked in (signal.SIGINT, signal.SIGTERM):  # often sent to all, while the main process has a batch to finish
        signal.signal(asked, signal.SIG_IGN)
    for other in others:  # inherited ends, which would keep pipes open
        other.close()
    core.set_num_threads(1)
    paddle.set_device("cpu")
    info = {"id": number, "num_workers": num_workers, "dataset": reader.dataset, "seed": key[0]}
    paddle_worker._worker_info = paddle_worker.WorkerInfo(**info)  # what get_worker_info() gives
    _seed_worker(worker_seeding, key, number)
    parent = os.getppid()
    with contextlib.suppress(EOFError, ConnectionError):  # the main process wants no more
        while True:
            while not pipe.poll(1):
                if os.getppid() != parent:
                    return
            pipe.send(_make(reader, pipe.recv(), slots))


_WORKER_DIED = (
    "a data-loading worker ended unexpectedly; was it killed, or is memory used up? "
    "Fewer workers or a smaller batch may help"
)


class _Worker(NamedTuple):
    """Hold what the main process knows of a worker."""

    process: multiprocessing.Process
    pipe: connection.Connection
    slots: _Slots


class WorkerPool:
    """Make the batches of tasks, in their order, in several processes.

    Args:
        reader: ``BatchReader``; the processes keep a copy of its present state.
        num_workers: number of processes.
        worker_seeding: callable from Paddle's ``worker_info`` to the seed of a worker's own streams; otherwise the
            streams follow from ``key`` and the worker's number.
        key: integers, the first of them the seed of the loader.
        batch_bytes: bytes of a batch's images; a larger batch is sent through a pipe, which is slower.
    """

    def __init__(self, reader, num_workers, worker_seeding="all", key=(0,), batch_bytes=0):
        self.dataset = reader.dataset
        self._tasks = deque()
        self._sent = self._taken = 0
        self._workers = []
        context = multiprocessing.get_context("fork")
        for number in range(num_workers):
            slots = _Slots(batch_bytes)
            pipe, far_end = context.Pipe()
            others = [pipe, *(worker.pipe for worker in self._workers)]
            args = (reader, number, num_workers, far_end, others, slots, worker_seeding, key)
            process = context.Process(target=_work, args=args, daemon=True)
            process.start()
            far_end.close()
            self._workers.append(_Worker(process, pipe, slots))
        # At the program's end multiprocessing sends daemons SIGTERM, which workers ignore, and waits for them; before
        # that it calls finalizers with a priority. In a forked process the inherited finalizer ends nothing.
        self._end = Finalize(self, _end_workers, args=(self._workers,), exitpriority=10)

    def add(self, tasks):
        """Queue more tasks."""
        self._tasks.extend(tasks)
        self._send()

    def take(self, count):
        """Yield the next ``count`` batches (images, labels); end the processes if the pass is left early, or fails.

        Images may lie in shared memory, and change after the next batch has been asked for.

        Raises:
            DataError: for a batch that cannot be made, and a process that ended.
        """
        taken = 0
        try:
            while taken < count:
                batch = self._receive()
                taken += 1
                yield batch
        finally:
            if taken < count:
                self.close()

    def close(self):
        """End the processes; this also happens when the pool is no longer used, or the program ends."""
        self._end()

    def _send(self):
        try:
            while self._tasks and self._sent - self._taken < _AHEAD * len(self._workers):
                self._workers[self._sent % len(self._workers)].pipe.send(self._tasks.popleft())
                self._sent += 1
        except OSError as error:
            raise DataError(_WORKER_DIED) from error

    def _receive(self):
        worker = self._workers[self._taken % len(self._workers)]
        try:
            connection.wait([worker.pipe, worker.process.sentinel])
            result = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            result = None
        if result is None:
            raise DataError(_WORKER_DIED)
        self._taken += 1
        self._send()
        for path, reason in result.broken:
            self.dataset.skip(path, reason)
        if result.error:
            raise DataError(result.error) from (RemoteTraceback(result.trace) if result.trace else None)
        return worker.slots.get(result.images), result.labels


def _end_workers(workers):
    for worker in workers:
        worker.pipe.close()
        worker.process.kill()  # in the middle of a batch that nobody wants; there is nothing to save
    for worker in workers:
        worker.process.join()
