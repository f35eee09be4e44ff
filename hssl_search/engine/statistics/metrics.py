"""What is measured of a trained base or its head, and may rank contenders; what chance gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from hssl_search.engine.statistics import CONFIDENCE


@dataclass(frozen=True)
class Measure:
    """A number of each contender, and how people are told of it."""

    key: str
    """In the metrics that a worker reports and in the attributes of a trial; as `rank_by` of a run,
    what ranks there."""
    name: str
    good: Literal["high", "low", "near 1"] = "high"
    """What its source takes for a sign of a good base."""
    unit: str = ""
    """As it follows a value."""
    digits: int = 1
    low: float = -math.inf
    high: float = math.inf
    """What values can be, at the least and at the most."""
    of_head: str = ""
    """Of a measure of the head, its key in the head's metrics. A contender without a head lacks it,
    and cannot be ranked by it."""

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the value as a worker reported it; None where it was not measured, or is spelled
        out in a record as no number."""
        # One head at most in a training alone; a control without one has none.
        heads = metrics.get("heads") or [{}]
        value = heads[0].get(self.of_head) if self.of_head else metrics.get(self.key)
        return value if isinstance(value, int | float) else None

    def score(self, metrics: Mapping[str, Any]) -> float | None:
        """Return what ranks, larger is better: the value, or the negative of one that is good when
        it is low."""
        value = self.value(metrics)
        return -value if value is not None and self.good == "low" else value

    def resolution(self, images: int | None) -> float:
        """Return the step in which scores move: that of the last digit told, or of one image more
        that is classified right."""
        return max(10.0**-self.digits, 100 / images if self.unit and images else 0.0)

    def within(self, low: float, high: float) -> tuple[float, float]:
        """Return what of an interval of scores scores can be."""
        # The score of a measure that is good when low is its negative: its bounds swap.
        least, most = (-self.high, -self.low) if self.good == "low" else (self.low, self.high)
        return min(most, max(least, low)), min(most, max(least, high))

    def apart(self, low: float, high: float) -> tuple[float, float]:
        """Return what of an interval of differences of scores differences can be."""
        most = self.high - self.low
        return min(most, max(-most, low)), min(most, max(-most, high))

    @property
    def score_name(self) -> str:
        """Return what a score is called: `RankMe`, `negative alignment`."""
        return f"negative {self.name}" if self.good == "low" else self.name

    @property
    def points(self) -> str:
        """Return what follows a difference of scores: `points`, `in RankMe`."""
        return "points" if self.unit else f"in {self.score_name}"

    def amount(self, score: float) -> str:
        """Return a score as it stands alone in a sentence: `41.2 %`, `RankMe 23.4`."""
        return (
            f"{score:.{self.digits}f}{self.unit}"
            if self.unit
            else f"{self.score_name} {score:.{self.digits}f}"
        )


ACCURACY = Measure("accuracy", "accuracy", unit=" %", low=0.0, high=100.0)
DISCREPANCY = Measure("discrepancy", "discrepancy", digits=3, low=0.0, high=1.0, of_head="overlap")
RANKME = Measure("labelfree_rankme", "RankMe", low=0.0)
ALPHA_REQ = Measure("labelfree_alpha_req", "α-ReQ", "near 1", digits=2)
LIDAR = Measure("labelfree_lidar", "LiDAR", low=0.0)
ALIGNMENT = Measure("labelfree_alignment", "alignment", "low", digits=3, low=0.0)
UNIFORMITY = Measure("labelfree_uniformity", "uniformity", "low", digits=3, high=0.0)

OF_BASES = (RANKME, ALPHA_REQ, LIDAR, ALIGNMENT, UNIFORMITY)
"""Of the base, without labels: arXiv 2210.02885; Agrawal et al., NeurIPS 2022; arXiv 2312.04000;
arXiv 2005.10242 (the last two)."""
RANKINGS = {
    measure.key: measure
    for measure in (ACCURACY, DISCREPANCY, *OF_BASES)
    if measure.good != "near 1"
}
"""Those that tell which of two is better, by what a run has as `rank_by`."""
LABELFREE = RANKME
"""What `--rank-by labelfree` stands for; a run keeps the one that it began with."""
RANK_BY: Mapping[str, Measure] = {
    "accuracy": ACCURACY,
    "discrepancy": DISCREPANCY,
    "labelfree": LABELFREE,
}
"""What each answer to `--rank-by` ranks by."""
CHANCE = "chance"
"""Of the reference in leaderboards and reports."""


@dataclass(frozen=True)
class Chance:
    """The accuracy that needs no representation at all."""

    level: float
    """Accuracy, in per cent, of naming the most frequent class of the queries each time."""
    queries: int

    @classmethod
    def of(cls, images: Mapping[str, Any]) -> Chance | None:
        """Return that of `images` as search.yaml holds them; None where nothing is labelled, or
        where an earlier version wrote them."""
        counts = images.get("query_counts")
        return cls(100 * max(counts) / sum(counts), sum(counts)) if counts else None

    def exceeded_by(self, accuracy: float) -> bool:
        """Return whether so many queries tell an accuracy from chance (one-sided, at 95 %).

        Further seeds are judged by the same queries, so that they do not help here.
        """
        share = self.level / 100
        # Of the share that guessing gets right: a binomial count, taken as normal.
        deviation = 100 * math.sqrt(share * (1 - share) / self.queries)
        return accuracy - self.level > NormalDist().inv_cdf(CONFIDENCE) * deviation
