"""How deep Cream's own space is, and how large its images are, for a range of FLOPs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Callable

from pimm.errors import ConfigError

# Millions of multiply-adds at 224 pixels of the six operations, [stage][first block or a further one][operation].
OPERATION_MFLOPS = (
    (
        (21.828704, 32.669328, 25.039968, 37.486224, 29.856864, 44.711568),
        (18.820752, 28.16048, 23.637648, 35.385824, 30.862992, 46.22384),
    ),
    (
        (11.808656, 17.68624, 13.01288, 19.492576, 14.819216, 22.20208),
        (11.86712, 17.780848, 13.87416, 20.791408, 16.88472, 25.307248),
    ),
    (
        (8.198, 12.292848, 8.69976, 13.045488, 9.4524, 14.174448),
        (10.99632, 16.5172, 11.99984, 18.02248, 13.50512, 20.2804),
    ),
    (
        (12.006112, 18.028752, 13.009632, 19.534032, 14.514912, 21.791952),
        (15.61632, 23.46096, 16.820544, 25.267296, 18.62688, 27.9768),
    ),
    (
        (11.307456, 17.007072, 11.608512, 17.458656, 12.060096, 18.136032),
        (15.292416, 23.1504, 15.894528, 24.053568, 16.797696, 25.40832),
    ),
)
SHARED_MFLOPS = 14.9  # stem, first and last stage, and head: no part of what the official code compares
GATE_MFLOPS = 0.56  # of that, gates and head behind the pooling, which cost as much on small images
# The order in which stages get a further block as the FLOPs range rises: to four blocks each as the official code
# does, and beyond, where the official code gives up but the published net of 604 MFLOPs lies.
GROWTH = (2, 2, 3, 3, 4, 4, 1, 0, 2, 3, 4, 1, 1, 0, 0)
FURTHER_GROWTH = (2, 3, 4, 1, 0, 3, 4, 2, 1, 0)
CYCLE = (2, 3, 4, 1, 0)
DEEPEST = 20  # blocks a stage
SIDE = 32  # image sizes are multiples of it
LARGEST, SMALLEST = 7, 2  # image sizes, in units of SIDE


def fit_to_flops(minimum: float, maximum: float, resolution: int | None = None) -> tuple[tuple[int, ...], int]:
    """Return depths of the five searched stages and the image size in pixels for a range of costs.

    As the official code does: images shrink in steps of 32 pixels until the cheapest path of one block a stage fits
    (the range is rescaled at every step), or stages grow until the dearest path reaches the range. It differs where
    the official result leaves nothing to search: where even four blocks a stage stay below ``minimum``, stages grow on
    until the average path reaches it; where the images that it takes leave no path below ``maximum``, they shrink on.

    Args:
        minimum: least cost, in millions of multiply-adds.
        maximum: largest cost.
        resolution: image size, if it is given; only the depths are fitted then.

    Raises:
        ConfigError: no size or depth fits the range.
    """
    depths, size = [1] * len(OPERATION_MFLOPS), LARGEST
    least = _path_mflops(depths, min)
    scale = (LARGEST * SIDE / resolution) ** 2 if resolution else 1.0  # all costs here are those of 224 pixels
    if least > maximum and not resolution:
        wanted = 0.0
        size, fitted = _shrink(least, maximum)
    else:
        wanted, fitted = minimum * scale, maximum * scale
    for stage in GROWTH:
        deeper = _with_block(depths, stage)
        if _path_mflops(depths, max) >= wanted and _path_mflops(deeper, max) > fitted:
            break
        depths = deeper
    if _path_mflops(depths, max) < wanted:
        depths = _grow_further(depths, minimum, scale)
    if not resolution and _cheapest(depths, size) > maximum:
        depths, size = _shrink_further(depths, size, maximum)
    return tuple(depths), resolution or size * SIDE


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _path_mflops(depths: Sequence[int], of_stage: Callable[[Sequence[float]], float]) -> float:
    """Return the cost of the searched stages at 224 pixels if each block costs ``of_stage`` of its operations."""
    return sum(
        of_stage(first) + (depth - 1) * of_stage(further) for depth, (first, further) in zip(depths, OPERATION_MFLOPS)
    )


def _cheapest(depths: Sequence[int], size: int) -> float:
    """Return about what the cheapest path costs on images of ``size`` times 32 pixels."""
    return (SHARED_MFLOPS - GATE_MFLOPS + _path_mflops(depths, min)) * (size / LARGEST) ** 2 + GATE_MFLOPS


def _with_block(depths: Sequence[int], stage: int) -> list[int]:
    return [depth + (index == stage) for index, depth in enumerate(depths)]


def _shrink(least: float, maximum: float) -> tuple[int, float]:
    """Return the official code's image size for a low maximum, and the maximum as it rescales it.

    Args:
        least: cost of the cheapest path of one block a stage, at 224 pixels.
        maximum: largest cost.

    Raises:
        ConfigError: not even the smallest images fit.
    """
    size, fitted = LARGEST, maximum
    while least > fitted and size >= SMALLEST:
        size -= 1
        fitted *= LARGEST / size
    if size < SMALLEST:
        smallest = _cheapest([1] * len(OPERATION_MFLOPS), SMALLEST)
        raise ConfigError(
            f"SUPERNET.FLOPS_MAXIMUM={maximum:g} MFLOPs is out of reach: "
            f"the smallest net, on {SMALLEST * SIDE}-pixel images, takes about {smallest:.0f}"
        )
    return size, fitted


def _shrink_further(depths: list[int], size: int, maximum: float) -> tuple[list[int], int]:
    """Return one block a stage and the largest image size at which it fits, or what was given if none does."""
    shallow = [1] * len(depths)
    fitting = [smaller for smaller in range(size, SMALLEST - 1, -1) if _cheapest(shallow, smaller) <= maximum]
    return (shallow, fitting[0]) if fitting else (depths, size)


def _grow_further(depths: list[int], minimum: float, scale: float) -> list[int]:
    """Return depths at which the average path costs ``minimum``, or the deepest there are.

    Args:
        depths: those that the official code ends at.
        minimum: least cost at the given image size.
        scale: cost at 224 pixels by the cost at that size.

    Raises:
        ConfigError: not even the dearest path of the deepest space costs as much.
    """
    for stage in itertools.chain(FURTHER_GROWTH, itertools.cycle(CYCLE)):
        if SHARED_MFLOPS + _path_mflops(depths, _mean) >= minimum * scale or min(depths) == DEEPEST:
            break
        depths = _with_block(depths, stage)
    most = (SHARED_MFLOPS + _path_mflops(depths, max)) / scale
    if most < minimum:
        raise ConfigError(
            f"SUPERNET.FLOPS_MINIMUM={minimum:g} MFLOPs is out of reach: the deepest space ends at {most:.0f}"
        )
    return depths
