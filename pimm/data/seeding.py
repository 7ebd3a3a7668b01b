"""Random streams that are a pure function of what they are used for.

timm's transforms, and many transforms of users, draw from the global streams of ``random`` and ``numpy.random``. These
draws become reproducible by seeding both streams before each use from a key such as (seed, epoch, index of the image):
then neither the number of workers, nor the number of ranks, nor the place where an epoch is resumed has any influence.
"""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np

# Last part of the keys of streams that are not for an image; the key of an image's stream ends with its index.
COLLATE_STREAM = 1
FINISH_STREAM = 2
WORKER_STREAM = 3


def seed_streams(*key):
    """Seed ``random`` and ``numpy.random`` from non-negative integers."""
    words = np.random.SeedSequence(key).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))


@contextmanager
def preserved_streams():
    """Put the global random streams back to where they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
