"""The t interval against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hssl_search.search.ranking import t_interval


def test_the_interval_is_the_one_of_scipy() -> None:
    draws = np.random.default_rng(0)
    for count in (2, 3, 5, 30):
        values = draws.normal(40, 2, count)
        low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
        assert t_interval(values.tolist()) == pytest.approx((low, high))


def test_fewer_than_two_values_have_no_interval() -> None:
    assert (t_interval([]), t_interval([40.0])) == (None, None)
