"""How well a score ranks nets whose accuracies are known: statistics, and their paired bootstrap over nets and seeds.

A resample of n nets is a row of counts, how often each net was drawn, with the sum n; all statistics are functions of
such rows. Two copies of a net are a tie, as they are where the resampled lists are written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cream.studies.correlation import CONFIDENCE, Correlation

RESAMPLES = 2000
TOP = 10  # nets whose mean accuracy is reported

Values = Mapping[str, np.ndarray]  # a value for each row of counts, by the name of the statistic


@dataclass(frozen=True)
class Judge:
    """Judges scores of nets by the accuracies of the nets after training.

    Args:
        true: accuracies in percent, [nets].
        mflops: costs, [nets].
        depth: number of blocks, [nets].
        limit: the largest cost of the net that is picked.
        counts: the resamples, [rows, nets].
    """

    true: np.ndarray
    mflops: np.ndarray
    depth: np.ndarray
    limit: float
    counts: np.ndarray

    def __call__(self, score: np.ndarray) -> Values:
        """Return the statistics of a score, of which more is better, for each row of ``counts``.

        ``tau`` is Kendall's tau-b and ``spearman`` Spearman's rho, of the score with the accuracies. ``partial tau`` is
        tau given the costs (Kendall 1942), ``tau in depth`` tau-b over the pairs of equally deep nets. ``top ten`` is
        the mean accuracy of the ten nets with the highest scores, ``pick`` the accuracy of the net with the highest
        score that costs at most ``limit``, and ``pick misses`` what the best of these nets has more. Of equal scores
        the cheaper net goes first.
        """
        signs = pair_signs(score)
        untied = self._over_pairs(np.abs(signs))
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where nothing is left to rank
            tau = self._over_pairs(signs * self._true) / np.sqrt(untied * self._untied_true)
            with_cost = self._over_pairs(signs * self._cost) / np.sqrt(untied * self._untied_cost)
            partial = (tau - with_cost * self._tau_of_cost) / np.sqrt((1 - with_cost**2) * (1 - self._tau_of_cost**2))
            spearman = _pearson(self._ranks(signs), self._true_ranks, self.counts)
            in_depth = signs * self._equally_deep
            untied_in_depth = self._over_pairs(np.abs(in_depth)) * self._untied_true_in_depth
            tau_in_depth = self._over_pairs(in_depth * self._true) / np.sqrt(untied_in_depth)
        order = np.lexsort((self.mflops, -score))
        pick = self._first(order)
        return {
            "tau": tau,
            "spearman": spearman,
            "partial tau": np.where(np.abs(with_cost) > 1 - 1e-9, math.nan, partial),
            "tau in depth": tau_in_depth,
            "top ten": self._mean_of_first(order),
            "pick": pick,
            "pick misses": self._first(np.argsort(-self.true, kind="stable")) - pick,
        }

    def _over_pairs(self, pairs: np.ndarray) -> np.ndarray:
        """Return the sum of a matrix over all ordered pairs of the nets of each row of ``counts``."""
        # In float32 the product is exact: its terms are whole numbers, and their sums are at most the number of nets.
        return ((self._counts @ pairs) * self.counts).sum(axis=1, dtype=np.float64)

    def _ranks(self, signs: np.ndarray) -> np.ndarray:
        """Return the rank of each net, the mean rank for ties, for each row of ``counts``."""
        return (self._counts @ (1 - signs) + 1.0) / 2

    def _mean_of_first(self, order: np.ndarray) -> np.ndarray:
        """Return the mean accuracy of the first TOP nets of an order."""
        taken = np.diff(np.minimum(np.cumsum(self.counts[:, order], axis=1), TOP), axis=1, prepend=0)
        return taken @ self.true[order] / taken.sum(axis=1)

    def _first(self, order: np.ndarray) -> np.ndarray:
        """Return the accuracy of the first net of an order that costs at most the limit, NaN where there is none."""
        allowed = order[self.mflops[order] <= self.limit]
        if not len(allowed):
            return np.full(len(self.counts), math.nan)
        drawn = self.counts[:, allowed] > 0
        return np.where(drawn.any(axis=1), self.true[allowed[drawn.argmax(axis=1)]], math.nan)

    # What all scores share

    @cached_property
    def _counts(self) -> np.ndarray:
        return self.counts.astype(np.float32)

    @cached_property
    def _true(self) -> np.ndarray:
        return pair_signs(self.true)

    @cached_property
    def _cost(self) -> np.ndarray:
        return pair_signs(self.mflops)

    @cached_property
    def _equally_deep(self) -> np.ndarray:
        return (self.depth[:, None] == self.depth[None]).astype(np.float32)

    @cached_property
    def _untied_true(self) -> np.ndarray:
        return self._over_pairs(np.abs(self._true))

    @cached_property
    def _untied_cost(self) -> np.ndarray:
        return self._over_pairs(np.abs(self._cost))

    @cached_property
    def _untied_true_in_depth(self) -> np.ndarray:
        return self._over_pairs(np.abs(self._true) * self._equally_deep)

    @cached_property
    def _tau_of_cost(self) -> np.ndarray:
        return self._over_pairs(self._true * self._cost) / np.sqrt(self._untied_true * self._untied_cost)

    @cached_property
    def _true_ranks(self) -> np.ndarray:
        return self._ranks(self._true)


def pair_signs(values: np.ndarray) -> np.ndarray:
    """Return the order of each pair of nets, [nets, nets]: 1 where the first has more, -1 where it has less, or 0."""
    return np.sign(values[:, None] - values[None]).astype(np.float32)


def _pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Pearson's r of rows of values, [rows, nets], in which each value counts as often as ``counts`` says."""
    n = counts.sum(axis=1, keepdims=True)
    x, y = (side - (side * counts).sum(axis=1, keepdims=True) / n for side in (x, y))
    return (counts * x * y).sum(axis=1) / np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))


class Bootstrap:
    """Draws nets and seeds; all methods are judged on the same draws, so that their differences are paired.

    The first row is no draw: every net and every seed once.

    Args:
        nets: number of nets.
        seed: the seed of the draws.
        resamples: number of draws.
    """

    def __init__(self, nets: int, seed: int = 0, resamples: int = RESAMPLES):
        rng = np.random.default_rng([seed, 0])
        drawn = rng.multinomial(nets, np.full(nets, 1 / nets), size=resamples)
        self.counts = np.concatenate([np.ones((1, nets)), drawn])
        self.seed = seed

    def over_seeds(self, values: Sequence[Values]) -> Values:
        """Return the means of the statistics of a method's seeds; methods with as many seeds have the same draws."""
        rng = np.random.default_rng([self.seed, len(values)])
        drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=len(self.counts) - 1)
        weights = np.concatenate([np.ones((1, len(values))), drawn]) / len(values)
        return {name: _weighted(weights, np.stack([each[name] for each in values], axis=1)) for name in values[0]}


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the weighted sums of rows; a value without weight does not matter, even if it is NaN."""
    return np.where(weights > 0, weights * values, 0.0).sum(axis=1)


def with_interval(values: np.ndarray) -> Correlation:
    """Return the first of a statistic's values, and the percentile interval of the others without NaN."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(drawn) else (math.nan,) * 2
    return Correlation(float(values[0]), float(low), float(high))
