"""Intervals against scipy and simulation; promotion, stopping and the best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hssl_search.search.ranking import best, difference, t_interval


def test_the_interval_is_the_one_of_scipy() -> None:
    draws = np.random.default_rng(0)
    for count in (2, 3, 5, 30):
        values = draws.normal(40, 2, count)
        low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
        assert t_interval(values.tolist()) == pytest.approx((low, high))


def test_a_paired_difference_is_decided_where_the_paired_t_test_rejects() -> None:
    draws = np.random.default_rng(1)
    decided = []
    for _ in range(300):
        one, other = draws.normal(41, 1, 4), draws.normal(40, 1, 4)
        found = difference(dict(enumerate(one.tolist())), dict(enumerate(other.tolist())))
        assert found.mean == pytest.approx((one - other).mean())
        assert found.decided == (stats.ttest_rel(one, other).pvalue < 0.05)
        decided.append(found.decided)
    assert 0 < sum(decided) < 300


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_interval_covers_the_true_difference_nineteen_times_in_twenty(seeds: int) -> None:
    draws, covered = np.random.default_rng(seeds), 0
    for _ in range(1_000):
        shared = draws.normal(40, 3, seeds)
        one, other = shared + 0.7 + draws.normal(0, 0.5, seeds), shared + draws.normal(0, 0.5, seeds)
        interval = difference(dict(enumerate(one.tolist())), dict(enumerate(other.tolist()))).interval
        assert interval is not None
        covered += interval[0] <= 0.7 <= interval[1]
    assert stats.binomtest(covered, 1_000, 0.95).pvalue > 0.001


def test_only_seeds_in_common_count() -> None:
    found = difference({0: 41.0, 1: 43.0, 5: 99.0}, {1: 40.0, 0: 40.0, 2: 0.0})
    assert (found.mean, found.seeds) == (2.0, 2)
    with pytest.raises(ValueError, match="no seed in common"):
        difference({0: 41.0}, {1: 40.0})


def test_one_seed_decides_nothing_and_equal_gaps_do() -> None:
    alone = difference({0: 90.0}, {0: 10.0})
    assert (alone.mean, alone.interval, alone.seeds, alone.decided) == (80.0, None, 1, False)
    assert difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 3.0}).decided
    assert not difference({0: 1.0, 1: 3.0}, {0: 1.0, 1: 3.0}).decided
    assert t_interval([]) is None


def test_the_best_has_the_highest_mean_and_the_lower_number_on_a_tie() -> None:
    assert best({3: {0: 50.0, 1: 40.0}, 1: {0: 44.0}, 2: {0: 46.0, 1: 45.0}}) == 2
    assert best({7: {0: 45.0}, 4: {0: 45.0}, 9: {0: 44.0}}) == 4


def test_a_trial_with_fewer_seeds_cannot_be_the_best() -> None:
    assert best({7: {0: 40.0, 1: 50.0}, 4: {0: 99.0}}) == 7
    assert best({}) is None
