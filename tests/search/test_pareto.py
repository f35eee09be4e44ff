"""The front against a sweep by cost."""

from __future__ import annotations

import random

from hssl_search.search.pareto import front


def test_the_front_is_what_a_sweep_by_cost_finds() -> None:
    dice = random.Random(0)
    for _ in range(200):
        points = {trial: (float(dice.randint(0, 6)), float(dice.randint(0, 6))) for trial in range(dice.randint(1, 12))}
        expected, best = set(), -1.0
        for cost in sorted({cost for _, cost in points.values()}):
            top = max(score for score, other in points.values() if other == cost)
            if top > best:
                expected |= {trial for trial, point in points.items() if point == (top, cost)}
                best = top
        assert front(points) == expected


def test_equals_are_both_on_the_front_and_none_is_on_an_empty_one() -> None:
    assert front({1: (3.0, 2.0), 2: (3.0, 2.0), 3: (2.0, 2.0)}) == {1, 2}
    assert front({}) == set()


def test_scores_that_differ_by_rounding_alone_are_equal() -> None:
    assert front({1: (0.3, 2.0), 2: (0.1 + 0.2, 2.0), 3: (0.3, 1.0)}) == {3}
    assert front({1: (0.3, 2.0), 2: (0.1 + 0.2, 2.0)}) == {1, 2}
