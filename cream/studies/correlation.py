"""Rank correlations of two lists of accuracies, with bootstrap intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

RESAMPLES = 2000
PAIRWISE = 128  # lists up to this length are compared pair by pair, in one array
MOST_VALUES = 4_000_000  # largest number of values in an array of resamples
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Correlation:
    """A coefficient and its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def as_json(self) -> dict[str, float | None]:
        """Return the numbers by name, with None for NaN, which JSON does not have."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


def correlate(predicted: Sequence[float], true: Sequence[float], seed: int = 0) -> dict[str, Correlation]:
    """Return Kendall's tau-b, Spearman's rho and Pearson's r of two lists, each with a 95% interval.

    The interval is the percentile bootstrap over pairs; resamples in which one list is constant have no coefficient and
    are left out. The coefficients of a constant list are NaN.
    """
    resampled = resample(predicted, true, seed)
    return {name: Correlation(values[0], *_percentiles(values[1:])) for name, values in resampled.items()}


def compare(
    first: Sequence[float], second: Sequence[float], true: Sequence[float], seed: int = 0
) -> dict[str, Correlation]:
    """Return how much the coefficients of ``first`` exceed those of ``second``; both are resampled together."""
    pairs = zip(resample(first, true, seed).items(), resample(second, true, seed).values())
    return {name: Correlation((a - b)[0], *_percentiles((a - b)[1:])) for (name, a), b in pairs}


def resample(predicted: Sequence[float], true: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Return each coefficient of two lists, followed by those of RESAMPLES draws of their pairs by ``seed``."""
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    rng, n = np.random.default_rng(seed), len(true)
    rows = max(1, MOST_VALUES // (n * n if n <= PAIRWISE else n))  # of resamples at a time, to bound the memory
    found: dict[str, list[np.ndarray]] = {name: [] for name in COEFFICIENTS}
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    with np.errstate(invalid="ignore"):  # 0 / 0 of a constant list
        for draw in itertools.chain([np.arange(n)[None]], (rng.integers(n, size=(size, n)) for size in sizes)):
            for name, function in COEFFICIENTS.items():
                found[name].append(function(predicted[draw], true[draw]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of m pairs of lists [m, n].

    The coefficient is the number of concordant minus that of discordant pairs, divided by the geometric mean of the
    numbers of pairs without a tie in x and in y. Short lists are compared in one array; longer ones one after the
    other, in n log n.
    """
    if x.shape[-1] > PAIRWISE:
        from scipy.stats import kendalltau  # takes 0.7 s, which every command would wait

        return np.array([kendalltau(*pair, method="asymptotic").statistic for pair in zip(x, y)])
    x, y = (np.sign(side[..., :, None] - side[..., None, :]) for side in (x, y))
    return (x * y).sum((-2, -1)) / np.sqrt(np.abs(x).sum((-2, -1)) * np.abs(y).sum((-2, -1)))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's rho of pairs of lists [..., n]: Pearson's r of their ranks."""
    from scipy.stats import rankdata

    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's r of pairs of lists [..., n]."""
    x, y = (side - side.mean(-1, keepdims=True) for side in (x, y))
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


COEFFICIENTS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "kendall": kendall,
    "spearman": spearman,
    "pearson": pearson,
}


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
