"""What results mean: who is promoted, who is stopped, who wins, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A minus B, paired by seed."""

    mean: float
    interval: tuple[float, float] | None
    """At 95 %, Student's t over the seeds; None with fewer than two seeds in common."""
    seeds: int

    @property
    def decided(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Of two tables seed -> score; only seeds in both count. ValueError when there is none."""
    seeds = sorted(set(one) & set(other))
    if not seeds:
        raise ValueError("no seed in common")
    gaps = [one[seed] - other[seed] for seed in seeds]
    return Difference(mean(gaps), t_interval(gaps), len(gaps))


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def best(scores: Mapping[int, Mapping[int, float]]) -> int | None:
    """The trial with the highest mean over its seeds, of a table trial -> seed -> score; the lower number on a tie.

    Only trials with the most seeds count: one that was never confirmed cannot overtake one that was.
    """
    most = max((len(by_seed) for by_seed in scores.values()), default=0)
    confirmed = [trial for trial, by_seed in scores.items() if len(by_seed) == most]
    return min(confirmed, key=lambda trial: (-mean(scores[trial].values()), trial), default=None)
