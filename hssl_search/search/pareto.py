"""The Pareto front of score and cost."""

from __future__ import annotations

from collections.abc import Mapping


def front(points: Mapping[int, tuple[float, float]]) -> set[int]:
    """Those of a table trial -> (score, cost) that no other beats in one without losing in the other; high scores, low costs."""
    return {trial for trial, one in points.items() if not any(_beats(other, one) for other in points.values())}


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]
