"""The Pareto front of score and cost."""

from __future__ import annotations

from collections.abc import Mapping

from hssl_search.search import ties


def front(points: Mapping[int, tuple[float, float]]) -> set[int]:
    """Those of a table trial -> (score, cost) that no other beats in one without losing in the other; high scores, low costs."""
    return {trial for trial, one in points.items() if not any(_beats(other, one) for other in points.values())}


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    better, cheaper = ties.above(one[0], other[0]), ties.above(other[1], one[1])
    return (better or cheaper) and ties.at_least(one[0], other[0]) and ties.at_least(other[1], one[1])
