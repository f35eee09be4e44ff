"""Chance, and what a number of queries tells from it."""

from __future__ import annotations

import pytest
from scipy import stats

from hssl_search.engine.statistics.chance import Chance


def test_chance_is_the_share_of_the_most_frequent_class_of_the_queries() -> None:
    assert Chance.of({"query_counts": [16, 24, 8]}) == Chance(50.0, 48)
    assert Chance.of({"query_counts": []}) is None
    assert Chance.of({}) is None


@pytest.mark.parametrize(
    ("level", "queries"), [(50.0, 48), (100 / 3, 48), (10.0, 360), (0.1, 2_000)]
)
def test_what_exceeds_it_is_rarely_reached_by_guessing(level: float, queries: int) -> None:
    chance = Chance(level, queries)
    least = next(right for right in range(queries + 1) if chance.exceeded_by(100 * right / queries))
    assert 0.01 < stats.binom.sf(least - 1, queries, level / 100) < 0.1
    assert not chance.exceeded_by(level)
