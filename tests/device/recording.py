"""What the jobs on a device record: the counters of the test device, and the numbers in checkpoints."""

import ctypes
import hashlib
import os
from contextlib import contextmanager

import numpy as np

from pimm.utils import latest_checkpoint, read_checkpoint

# In the order of the counters of tests/device/runtime.h.
COUNTERS = (
    *("copies_in", "copies_in_async", "copies_out", "copies_out_async", "copies_inside", "waits"),
    *("kernels", "half_kernels", "behind", "collectives"),
)


def counts():
    """Return the counters of the test device, all zero without one."""
    if "TEST_DEVICE_LIBRARY" not in os.environ:
        return dict.fromkeys(COUNTERS, 0)
    count = ctypes.CDLL(os.environ["TEST_DEVICE_LIBRARY"]).test_device_count
    count.restype = ctypes.c_int64
    return {name: count(index) for index, name in enumerate(COUNTERS)}


@contextmanager
def recorded(*kinds):
    """Give a list to which each training step of these classes appends what it made the device do."""
    steps, plain = [], {kind: kind.__call__ for kind in kinds}

    def call(self, images, labels, epoch):
        before = counts()
        metrics = plain[type(self)](self, images, labels, epoch)
        steps.append({name: count - before[name] for name, count in counts().items()})
        return metrics

    for kind in kinds:
        kind.__call__ = call
    yield steps
    for kind in kinds:
        kind.__call__ = plain[kind]


def saved(folder):
    """Return the sums of absolute values of what the furthest checkpoint of a run holds, by name of the file."""
    files = read_checkpoint(latest_checkpoint(folder)).files
    return {name: total(content) for name, content in files.items()}


def bits(folder):
    """Return a digest of all that the furthest checkpoint of a run holds."""
    return hashlib.sha256(repr(_plain(read_checkpoint(latest_checkpoint(folder)).files)).encode()).hexdigest()


def _plain(content):
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return (content.dtype.str, content.tobytes()) if isinstance(content, np.ndarray) else content


def total(content):
    """Return the sum of absolute values of all arrays in nested dicts and lists."""
    if isinstance(content, dict):
        return sum(total(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(total(value) for value in content)
    return float(np.abs(np.asarray(content, np.float64)).sum()) if isinstance(content, np.ndarray) else 0.0
