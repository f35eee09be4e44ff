"""How far two measures put the same things into the same order: Spearman's rank correlation, and
how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hssl_search.engine.statistics import CONFIDENCE, ties

LEAST = 5
"""Points that an interval takes at least; with fewer, nothing is said of agreement."""
RESAMPLES = 2000


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's, with its 95 % bootstrap interval, over `n` points.

    `value` is None for fewer than three points or where one side is constant; `low` and `high` are
    None for fewer than `LEAST` points, and where the order is the same or the reverse on both
    sides: every resample is then in that order too, and tells nothing.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def may_be_chance(self) -> bool:
        """Return whether the interval holds zero."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def rank_correlation(
    first: Sequence[float | None], second: Sequence[float | None]
) -> RankCorrelation:
    """Return the rank correlation of the points that have both, whatever their order; None and NaN
    stand for what a point has not."""
    points = np.array([first, second], dtype=float).T
    points = points[~np.isnan(points).any(axis=1)]
    # Their order is all that counts, and the same points always come in the same order.
    points = np.array([ties.levels(side) for side in points.T.tolist()], dtype=float).T
    points = points[np.lexsort(points.T[::-1])]
    value = spearman(*points.T)
    # In a perfect order every resample is in that order too.
    if value is None or len(points) < LEAST or abs(value) > 1 - 1e-9:
        return RankCorrelation(value, None, None, len(points))
    return RankCorrelation(value, *_bootstrap(points), len(points))


def spearman(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> float | None:
    """Return Spearman's rank correlation: Pearson's of the mean ranks; None for fewer than three
    points or where one side is constant."""
    from scipy.stats import rankdata

    sides = [ties.levels([float(value) for value in side]) for side in (first, second)]
    if len(first) < 3 or min(map(max, sides)) < 1:
        return None
    return _within(float(np.corrcoef(*map(rankdata, sides))[0, 1]))


def _within(correlation: float) -> float:
    """Return a correlation without what rounding may add beyond 1."""
    return max(-1.0, min(1.0, correlation))


def _bootstrap(points: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of Spearman's correlation of n x 2 points; resamples in which
    one side is constant have none and are left out."""
    from scipy.stats import rankdata

    # One fixed seed: the same points always have the same interval.
    drawn = np.random.default_rng(0).integers(0, len(points), (RESAMPLES, len(points)))
    ranks = rankdata(points[drawn], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    first, second = ranks[..., 0], ranks[..., 1]
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    varied = scale > 0
    correlations = (first * second).sum(axis=1)[varied] / scale[varied]
    low, high = np.quantile(correlations, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return _within(float(low)), _within(float(high))
