"""What an extended budget adds to a plan."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from hssl_search.engine.planning.costs import Costs, group_cost
from hssl_search.engine.planning.plan import Plan, extend_plan, make_plan
from hssl_search.engine.policy import DEFAULT

COSTS = Costs(
    step=0.1, heads={"mlp": 0.02, "convnext": 0.04}, evaluate=0.4, checkpoint=0.1, startup=5.0
)
PLAN = make_plan(600, COSTS, None)


def added(
    plan: Plan, budget: float, size: int | None = None, waiting: int = 4
) -> tuple[Plan, tuple[int, int, int]]:
    again = extend_plan(plan, budget, COSTS, size, waiting)
    return again, (
        again.candidates - plan.candidates,
        again.proxies - plan.proxies,
        again.confirm_jobs - plan.confirm_jobs,
    )


def test_what_is_added_fits_into_what_is_left_and_is_what_is_expected() -> None:
    dice, one = random.Random(0), COSTS.training(PLAN.proxy_steps, 0.13, len(PLAN.rungs))
    for _ in range(200):
        size = dice.choice([None, PLAN.candidates, PLAN.candidates + 3, 1000])
        budget, waiting = 10 ** dice.uniform(0, 6), dice.randint(0, 9)
        again, (heads, proxies, confirming) = added(PLAN, budget, size, waiting)
        assert min(heads, proxies, confirming) >= 0
        assert again.expected_s["proxy"] == pytest.approx(one * proxies) and again.expected_s[
            "confirm"
        ] == pytest.approx(one * confirming)
        assert (
            sum(again.expected_s.values())
            <= max(0.0, budget - len(DEFAULT.shares) * COSTS.between_phases()) + 1e-6
        )
        assert proxies <= waiting + heads
        assert proxies or not heads, "nothing is screened that has no proxy"
        assert size is None or again.candidates <= max(size, PLAN.candidates)


def test_fidelity_stays() -> None:
    for budget in (0.0, 1e3, 1e5):
        again, _ = added(PLAN, budget)
        for same in ("group_size", "screen_steps", "proxy_steps", "rungs"):
            assert getattr(again, same) == getattr(PLAN, same)


def test_nothing_is_added_where_nothing_is_left() -> None:
    again, more = added(PLAN, 1.0)
    assert more == (0, 0, 0) and again.batches == [] and set(again.expected_s.values()) == {0.0}


def test_where_screening_leaves_nothing_for_a_proxy_waiting_heads_have_it_or_confirming() -> None:
    plan = replace(PLAN, screen_steps=20, proxy_steps=300)
    one = COSTS.training(plan.proxy_steps, 0.13, len(plan.rungs))
    budget = 2.4 * one + len(DEFAULT.shares) * COSTS.between_phases()
    assert group_cost(COSTS, plan.group_size, 20) < 0.2 * 2.4 * one, "a group would be affordable"
    assert [added(plan, budget, None, waiting)[1] for waiting in (0, 5)] == [(0, 0, 1), (0, 0, 1)]
    assert [added(plan, 1.1 * budget, None, waiting)[1] for waiting in (0, 5)] == [
        (0, 0, 2),
        (0, 1, 1),
    ]


def test_batches_are_those_that_were_planned_and_groups_are_dealt_within_each() -> None:
    once, (first, *_) = added(PLAN, 2_000)
    twice, (second, *_) = added(once, 2_000)
    assert (
        twice.batches == [PLAN.candidates, first, second] and sum(twice.batches) == twice.candidates
    )
    assert twice.groups == sum(-(-batch // PLAN.group_size) for batch in twice.batches)
    assert Plan(**twice.as_plain()) == twice


def test_a_space_that_is_used_up_leaves_more_for_proxies_and_seeds() -> None:
    _, (no_heads, *used_up) = added(PLAN, 1_000, PLAN.candidates, waiting=20)
    _, (heads, *open_ended) = added(PLAN, 1_000, None, waiting=20)
    assert no_heads == 0 < heads
    assert sum(used_up) > sum(open_ended)
