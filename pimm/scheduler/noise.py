"""Draw the random numbers of PyTorch's CPU generator, from which timm's schedules take their noise."""

from __future__ import annotations

import math

import numpy as np

_FLAT = 1000  # standard deviations over limit from which a truncated normal distribution is uniform, to a millionth


def normal_draws(seed):
    """Yield what successive calls of ``torch.randn(1)`` return on a generator seeded with ``seed``.

    numpy and PyTorch share the Mersenne twister. PyTorch joins two of its words to 53 bits, turns two such numbers
    into two normal values (Box and Muller's transform) and keeps the second value for the next call.
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
    """Return the first normal draw times ``std`` whose absolute value is below ``limit``; 0 for a limit of 0."""
    if std > _FLAT * limit:  # next to no draw is so small, and all small ones are equally likely
        return uniform(seed, std, limit)
    return next(value * std for value in normal_draws(seed) if abs(value * std) < limit)


def uniform(seed, std, limit):
    """Return what ``torch.rand(1)`` returns on a generator seeded with ``seed``, scaled to -``limit`` .. ``limit``.

    ``std`` is unused; it is there because all noises are called alike.
    """
    word = int(_twister(seed).randint(0, 2**32, dtype=np.uint32))
    return 2.0 * ((word & ((1 << 24) - 1)) * 2.0**-24 - 0.5) * limit


def _twister(seed):
    return np.random.RandomState(seed & 0xFFFFFFFF)


NOISES = {"normal": truncated_normal, "uniform": uniform}
