"""Spearman's correlation and its interval, against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hssl_search.engine.statistics.correlation import rank_correlation, spearman


def test_spearman_agrees_with_scipy_ties_included() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, 30), generator.normal(size=30)
    assert spearman(pd.Series(first), pd.Series(second)) == pytest.approx(
        stats.spearmanr(first, second).statistic
    )


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 3.0, 3.0]])
def test_spearman_is_none_where_it_is_undefined(values: list[float]) -> None:
    assert spearman(pd.Series(values), pd.Series(range(len(values)))) is None


def test_bootstrap_interval_agrees_with_scipy() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=20)
    second = first + generator.normal(size=20)

    def statistic(one: np.ndarray, two: np.ndarray) -> float:
        return float(stats.spearmanr(one, two).statistic)

    expected = stats.bootstrap(
        (first, second),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
    )
    found = rank_correlation(pd.Series(first), pd.Series(second))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.08)
    assert found == rank_correlation(pd.Series(first), pd.Series(second))


def test_a_perfect_order_has_no_interval() -> None:
    found = rank_correlation(pd.Series(range(6)), pd.Series([1, 2, 4, 8, 16, 32]))
    assert (found.value, found.low, found.high, found.n) == (pytest.approx(1.0), None, None, 6)


def test_points_that_lack_one_side_do_not_count() -> None:
    assert (
        rank_correlation(pd.Series([1.0, 2.0, None, 4.0]), pd.Series([1.0, None, 3.0, 4.0])).n == 2
    )


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_plain_lists_are_correlated_like_columns(missing: float | None) -> None:
    first, second = [1.0, 2.0, missing, 4.0, 3.0, 9.0, 7.0], [1.0, 2.5, 3.0, 2.0, 8.0, 9.0, 7.5]
    found = rank_correlation(first, second)
    assert found == rank_correlation(pd.Series(first), pd.Series(second))
    assert (found.n, found.may_be_chance) == (6, found.low is not None and found.low <= 0)


def test_the_order_of_the_points_changes_nothing() -> None:
    first, second = [1.0, 2.0, 4.0, 3.0, 9.0, 7.0], [1.0, 2.5, 2.0, 8.0, 9.0, 7.5]
    assert rank_correlation(first, second) == rank_correlation(first[::-1], second[::-1])


def test_values_that_differ_by_rounding_alone_are_tied() -> None:
    first, second = [0.3, 0.3, 0.7, 0.9, 1.1, 0.2], [3.0, 2.0, 5.0, 4.0, 6.0, 1.0]
    off = [value * (1 + (1e-13 if place % 2 else -1e-13)) for place, value in enumerate(first)]
    assert rank_correlation(off, second) == rank_correlation(first, second)
    assert spearman([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]) is None, "one side is constant"
