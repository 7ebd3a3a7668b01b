"""The random draws of PyTorch's CPU generator, which timm's schedules take their noise from."""

from __future__ import annotations

import math

import numpy as np


def normal_draws(seed):
    """What successive ``torch.randn(1)`` give, without end, on a generator seeded with ``seed``.

    Both frameworks have the Mersenne twister: PyTorch joins two of its words to 53 bits, makes two normal values of two
    such numbers (Box and Muller's transform) and keeps the second value for the next call.
    """
    source = _twister(seed)

    def uniform():
        high, low = (int(word) for word in source.randint(0, 2**32, size=2, dtype=np.uint32))
        return ((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53

    while True:
        angle = 2.0 * math.pi * uniform()
        radius = math.sqrt(-2.0 * math.log1p(-uniform()))
        yield float(np.float32(radius * math.cos(angle)))
        yield float(np.float32(radius * math.sin(angle)))


def truncated_normal(seed, std, limit):
    """The first of ``std`` times these draws that is smaller than ``limit`` in size."""
    return next(value * std for value in normal_draws(seed) if abs(value * std) < limit)


def uniform(seed, std, limit):
    """What ``torch.rand(1)`` gives on a generator seeded so, spread from minus to plus ``limit``; ``std`` is unused."""
    word = int(_twister(seed).randint(0, 2**32, dtype=np.uint32))
    return 2.0 * ((word & ((1 << 24) - 1)) * 2.0**-24 - 0.5) * limit


def _twister(seed):
    return np.random.RandomState(seed & 0xFFFFFFFF)


NOISES = {"normal": truncated_normal, "uniform": uniform}
