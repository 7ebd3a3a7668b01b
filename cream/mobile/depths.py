"""How deep Cream's own space is, and how large its images are, for a range of FLOPs."""

from __future__ import annotations

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
# The order in which stages get a further block as the FLOPs range rises: to four blocks each as the official code
# does, and beyond, where the official code gives up but the published net of 604 MFLOPs lies.
SHARED_MFLOPS = 14.9  # stem, first and last stage, and head: no part of what the official code compares
GROWTH = (2, 2, 3, 3, 4, 4, 1, 0, 2, 3, 4, 1, 1, 0, 0)
FURTHER_GROWTH = (2, 3, 4, 1, 0, 3, 4, 2, 1, 0)


def _path_mflops(depths: Sequence[int], of_stage: Callable[[Sequence[float]], float]) -> float:
    """Cost of the searched stages at 224 pixels when each block costs ``of_stage`` of its operations."""
    return sum(
        of_stage(first) + (depth - 1) * of_stage(further) for depth, (first, further) in zip(depths, OPERATION_MFLOPS)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def fit_to_flops(minimum: float, maximum: float, resolution: int | None = None) -> tuple[tuple[int, ...], int]:
    """Depths of the five searched stages and the image size, for a range of MFLOPs.

    As the official code: images shrink in steps of 32 pixels until the cheapest path of one block a stage fits (the
    range is rescaled at every step), or stages grow until the dearest path reaches the range. Where it refuses,
    because even four blocks a stage stay below ``minimum``, stages grow on until the average path reaches it.
    Of a given ``resolution`` only the depths are fitted. Raises ConfigError where no size or depth fits.
    """
    depths, size = [1] * len(OPERATION_MFLOPS), 7
    least = _path_mflops(depths, min)
    scale = (224 / resolution) ** 2 if resolution else 1.0  # all costs here are those of 224 pixels
    if least > maximum and not resolution:
        wanted = 0.0
        fitted = maximum
        while least > fitted and size > 1:
            size -= 1
            fitted *= 7 / size
        if size < 2:
            smallest = (SHARED_MFLOPS + least) * (2 / 7) ** 2
            raise ConfigError(
                f"SUPERNET.FLOPS_MAXIMUM={maximum:g} MFLOPs is out of reach: "
                f"the smallest net, on 64-pixel images, takes about {smallest:.0f}"
            )
    else:
        wanted, fitted = minimum * scale, maximum * scale
    for stage in GROWTH:
        deeper = [depth + (index == stage) for index, depth in enumerate(depths)]
        if _path_mflops(depths, max) >= wanted and _path_mflops(deeper, max) > fitted:
            break
        depths = deeper
    if _path_mflops(depths, max) < wanted:
        depths = _grow_further(depths, minimum, scale)
    return tuple(depths), resolution or size * 32


def _grow_further(depths: list[int], minimum: float, scale: float) -> list[int]:
    for stage in FURTHER_GROWTH:
        if SHARED_MFLOPS + _path_mflops(depths, _mean) >= minimum * scale:
            break
        depths = [depth + (index == stage) for index, depth in enumerate(depths)]
    most = (SHARED_MFLOPS + _path_mflops(depths, max)) / scale
    if most < minimum:
        raise ConfigError(
            f"SUPERNET.FLOPS_MINIMUM={minimum:g} MFLOPs is out of reach: the deepest space ends at {most:.0f}"
        )
    return depths
