"""Rank correlations of two lists of accuracies, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000
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
        """Return the numbers by name; NaN, which JSON does not have, is null."""
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
    """Return how far the coefficients of ``first`` exceed those of ``second``, resampled together, as ``correlate``."""
    pairs = zip(resample(first, true, seed).items(), resample(second, true, seed).values())
    return {name: Correlation((a - b)[0], *_percentiles((a - b)[1:])) for (name, a), b in pairs}


def resample(predicted: Sequence[float], true: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Return each coefficient of two lists, followed by those of RESAMPLES draws of their pairs by ``seed``."""
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    draws = np.random.default_rng(seed).integers(len(true), size=(RESAMPLES, len(true)))
    parts = [np.arange(len(true))[None], *np.array_split(draws, 50)]  # in parts, because tau compares all pairs
    with np.errstate(invalid="ignore"):  # 0 / 0 of what is constant
        return {
            name: np.concatenate([function(predicted[part], true[part]) for part in parts])
            for name, function in COEFFICIENTS.items()
        }


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return tau-b of pairs [..., n]: concordant less discordant pairs, by the pairs without a tie in x and in y."""
    x, y = (np.sign(side[..., :, None] - side[..., None, :]) for side in (x, y))
    return (x * y).sum((-2, -1)) / np.sqrt(np.abs(x).sum((-2, -1)) * np.abs(y).sum((-2, -1)))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return rho of pairs [..., n]: Pearson's r of the ranks."""
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return r of pairs [..., n]."""
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
