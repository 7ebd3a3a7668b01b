"""Reference values of the original PyTorch code, and the recipe that rebuilds the tensors behind them.

``tests/data/golden`` holds what the original code computed. Its weights and inputs are not stored: they
are drawn from their names and shapes, so a test rebuilds them with ``state`` and ``inputs``.
"""

import functools
import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "golden"


@functools.cache
def facts(name):
    """Read ``NAME.json`` or ``NAME.json.gz``."""
    plain = FOLDER / f"{name}.json"
    if plain.exists():
        return json.loads(plain.read_text())
    with gzip.open(FOLDER / f"{name}.json.gz") as file:
        return json.load(file)


@functools.cache
def arrays(name):
    """Open ``NAME.npz``, whose arrays are read when their keys are asked for."""
    return np.load(FOLDER / f"{name}.npz")


def param(name, shape, seed=0, gain=1.0):
    """Draw the parameter or buffer of a PyTorch-style name and shape; ``gain`` scales weights of rank 2 and up."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if leaf == "running_var":
        value = rng.uniform(0.5, 1.5, size=shape)
    elif leaf in ("running_mean", "bias"):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) <= 1:
        value = rng.uniform(0.5, 1.5, size=shape)
    else:
        value = rng.standard_normal(shape) * math.sqrt(1.0 / math.prod(shape[1:])) * gain
    return np.asarray(value, np.float32)


def state(names_shapes, seed=0, gain=1.0):
    """Draw ``{name: array}`` for pairs of PyTorch-style name and shape."""
    return {name: param(name, tuple(shape), seed, gain) for name, shape in names_shapes}


def inputs(shape, seed=0, stream=12345):
    """Draw standard-normal float32 values."""
    return np.random.default_rng([seed, stream]).standard_normal(tuple(shape)).astype(np.float32)


def targets(n, num_classes, seed=0, stream=777):
    """Draw class indices, int64 [n]."""
    return np.random.default_rng([seed, stream]).integers(0, num_classes, n).astype(np.int64)


def images_u8(shape, seed=0, stream=12352):
    """Draw pixel values, uint8."""
    return np.random.default_rng([seed, stream]).integers(0, 256, tuple(shape)).astype(np.uint8)


def generator_randn1(seed, n):
    """Compute what n calls of ``torch.randn(1)`` give on a CPU generator of this seed."""
    source = np.random.RandomState(seed & 0xFFFFFFFF)

    def uniform():
        high, low = (int(source.randint(0, 2**32, dtype=np.uint32)) for _ in range(2))
        return (((high << 32) | low) & ((1 << 53) - 1)) * 2.0**-53

    values = []
    while len(values) < n:
        first, second = uniform(), uniform()
        radius = math.sqrt(-2.0 * math.log1p(-second))
        values += [radius * math.cos(2.0 * math.pi * first), radius * math.sin(2.0 * math.pi * first)]
    return [float(np.float32(value)) for value in values[:n]]


def relative_error(actual, expected):
    """Return the largest difference of two arrays, relative to the largest value that is expected."""
    return np.abs(actual - expected).max() / np.abs(expected).max()
