"""Comparisons that do not hang on rounding."""

from __future__ import annotations

import random

import pytest

from hssl_search.engine.statistics import ties


def nudged(values: dict[int, float], seed: int) -> dict[int, float]:
    """Return the same values in another order, each off by what another library may make of it."""
    draws = random.Random(seed)
    found = {number: value * (1 + draws.uniform(-1e-12, 1e-12)) for number, value in values.items()}
    return dict(draws.sample(list(found.items()), len(found)))


def test_of_values_that_tie_with_the_largest_the_lowest_number_is_the_best() -> None:
    assert ties.best({7: 45.0, 4: 45.0 - 1e-12, 9: 44.0}) == 4
    assert ties.best({7: 45.0, 4: 44.9, 9: 44.0}) == 7
    assert ties.best({7: 45.0, 4: 44.9, 9: 44.0}, resolution=0.2) == 4
    assert ties.best({}) is None


def test_each_is_compared_with_the_largest_that_is_left_and_not_with_its_neighbour() -> None:
    chain = {0: 44.7, 1: 44.8, 2: 44.9, 3: 45.0}
    assert ties.groups(chain, resolution=0.15) == [[2, 3], [0, 1]]
    assert ties.rank(chain, resolution=0.15) == [2, 3, 0, 1]


@pytest.mark.parametrize("resolution", [0.0, 100 / 360, 0.1])
def test_neither_rounding_nor_the_order_of_arrival_changes_an_order(resolution: float) -> None:
    draws = random.Random(1)
    values = {number: 100 * draws.randrange(330, 350) / 360 for number in range(30)}
    told = ties.groups(values, resolution)
    assert len(told) > 5 and any(len(group) > 1 for group in told)
    for seed in range(50):
        assert ties.groups(nudged(values, seed), resolution) == told


def test_scores_a_whole_step_apart_are_no_tie_and_half_a_step_apart_are_one() -> None:
    step = 100 / 360
    for right in range(360):
        score, next_score = 100 * right / 360, 100 * (right + 1) / 360
        assert ties.above(next_score, score, step)
        assert ties.tie(score + step / 2, score, step)
        assert ties.at_least(score, score + step / 2, step) and not ties.at_least(
            score, next_score, step
        )


def test_levels_are_those_of_ranks_with_ties() -> None:
    assert ties.levels([41.0, 40.0 + 1e-13, 45.0, 40.0, 41.0]) == [1, 0, 2, 0, 1]


def test_a_ratio_that_is_whole_but_for_rounding_counts_as_whole() -> None:
    assert 0.3 / 0.1 < 3
    assert (ties.floor(0.3 / 0.1), ties.ceil(3 * (1 + 1e-15)), ties.nearest(2.5 - 1e-13)) == (
        3,
        3,
        3,
    )
    assert (ties.floor(2.9999), ties.ceil(3.0001), ties.nearest(2.4999)) == (2, 4, 2)
    assert (ties.floor(-0.5), ties.floor(7.0), ties.ceil(7.0)) == (-1, 7, 7)


def test_infinite_values_come_first_or_last() -> None:
    assert ties.rank({0: float("-inf"), 1: 3.0, 2: float("inf"), 3: float("inf")}) == [2, 3, 1, 0]
