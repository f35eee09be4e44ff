"""Chance: the accuracy that needs no representation at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from hssl_search.engine.statistics.two_way import CONFIDENCE

NAME = "chance"
"""Of the reference in leaderboards and reports."""


@dataclass(frozen=True)
class Chance:
    level: float
    """Accuracy, in per cent, of naming the most frequent class of the queries each time."""
    queries: int

    @classmethod
    def of(cls, images: Mapping[str, Any]) -> Chance | None:
        """Return that of `images` as search.yaml holds them; None where nothing is labelled, or where an earlier version wrote them."""
        counts = images.get("query_counts")
        return cls(100 * max(counts) / sum(counts), sum(counts)) if counts else None

    def exceeded_by(self, accuracy: float) -> bool:
        """Return whether so many queries tell an accuracy from chance (one-sided, at 95 %).

        Further seeds are judged by the same queries, so that they do not help here.
        """
        share = self.level / 100
        deviation = 100 * math.sqrt(share * (1 - share) / self.queries)
        return accuracy - self.level > NormalDist().inv_cdf(CONFIDENCE) * deviation
