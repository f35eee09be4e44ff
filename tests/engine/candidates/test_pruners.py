"""Who is stopped at a rung, by each rule."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from hssl_search.engine.candidates.pruners import PRUNERS, AtRung
from hssl_search.engine.config import PrunerName
from hssl_search.engine.policy import DEFAULT


def stops(rule: PrunerName, score: float, others: Sequence[float]) -> bool:
    there = {trial: AtRung(trial, other) for trial, other in enumerate(others, start=1)}
    return PRUNERS[rule].stops(AtRung(0, score), there, 0.0)


def test_below_the_median_of_enough_others_is_stopped() -> None:
    others = [10.0, 20.0, 30.0, 40.0]
    assert len(others) == DEFAULT.pruner_startup
    assert stops("median", 24.9, others)
    assert not stops("median", 25.0, others)
    assert not stops("median", 99.0, others)
    assert not stops("median", 0.0, others[1:])
    assert not stops("median", 0.0, [])
    assert stops("median", 19.9, [20.0, 20.0, 20.0, 10.0])


@pytest.mark.parametrize(
    ("score", "others", "stopped"),
    [
        (1.0, [], False),
        (1.0, [2.0], True),
        (2.0, [1.0], False),
        (1.0, [2.0, 0.0], True),
        (1.0, [3.0, 2.0, 0.0], True),
        (1.0, [2.0, 0.0, 0.0], False),
        (1.0, [1.0], False),
        (2.0, [9.0, 8.0, 1.0, 0.0], True),
        (8.5, [9.0, 8.0, 1.0, 0.0], False),
    ],
)
def test_successive_halving_lets_the_better_half_go_on_and_always_the_best(
    score: float, others: list[float], stopped: bool
) -> None:
    assert stops("asha", score, others) == stopped


def test_halving_keeps_about_half_of_many_however_they_come() -> None:
    dice = random.Random(0)
    there: dict[int, AtRung] = {}
    kept = 0
    for trial in range(400):
        one = AtRung(trial, dice.random())
        kept += not PRUNERS["asha"].stops(one, there, 0.0)
        there[trial] = one
    assert 180 <= kept <= 220


def test_without_a_pruner_no_one_is_stopped() -> None:
    assert not stops("none", 0.0, [9.0] * 20)


@pytest.mark.parametrize("right", range(100, 140))
def test_who_has_the_median_itself_is_not_stopped_by_its_rounding(right: int) -> None:
    """Accuracies of 360 images: the mean of the two in the middle may lie above the score between
    them by the last bit.
    """
    below, score, above = (100.0 * (right + more) / 360 for more in (-1, 0, 1))
    assert not stops("median", score, [below, above, below, above])
    assert not stops("median", score * (1 - 1e-12), [below, above, below, above])


@pytest.mark.parametrize("rule", ["median", "asha"])
def test_who_ties_with_those_that_go_on_goes_on(rule: PrunerName) -> None:
    rule_stops = PRUNERS[rule].stops
    others = {10 * place: AtRung(10 * place, 23.4) for place in range(1, 6)}
    assert rule_stops(AtRung(0, 23.34), others, 0.0)
    assert not rule_stops(AtRung(0, 23.36), others, 0.1)
    assert rule_stops(AtRung(0, 23.2), others, 0.1)
