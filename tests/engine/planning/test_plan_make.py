"""Plans for bases, data, spaces and budgets of every size."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from hssl_search.engine.planning.costs import Costs, Wanted, proxy_cost
from hssl_search.engine.planning.plan import (
    BudgetTooSmall,
    Plan,
    make_plan,
    plan_again,
    proxy_rungs,
)
from hssl_search.engine.policy import DEFAULT
from hssl_search.errors import UserError

SIZES = (None, 1, 2, 3, 7, 8, 9, 10, 17, 64, 65, 1000)
COSTS = Costs(
    step=0.1, heads={"mlp": 0.02, "convnext": 0.04}, evaluate=0.4, checkpoint=0.1, startup=5.0
)


def drawn(seed: int, count: int = 150) -> Iterator[tuple[Costs, int | None, list[float]]]:
    """Yield (costs, size of the space, rising budgets): from tiny bases on few images to large ones
    on many, over six orders of magnitude."""
    dice = random.Random(seed)
    for _ in range(count):
        step = 10 ** dice.uniform(-3, 1)
        heads = {
            family: step * 10 ** dice.uniform(-2, 0.5) for family in "abcd"[: dice.randint(1, 4)]
        }
        costs = Costs(
            step,
            heads,
            step * 10 ** dice.uniform(-1, 2),
            step * 10 ** dice.uniform(-2, 1),
            dice.choice([0.0, 1.0, 5.0, 20.0]),
        )
        costs = replace(
            costs,
            last=dice.choice([0.0, 1.0]) * costs.evaluate,
            side_by_side=dice.choice([0.6, 1.0]),
        )
        yield costs, dice.choice(SIZES), sorted(10 ** dice.uniform(0, 6) for _ in range(8))


def plans(seed: int) -> Iterator[tuple[float, Costs, int | None, Plan]]:
    for costs, size, budgets in drawn(seed):
        for budget in budgets:
            try:
                yield budget, costs, size, make_plan(budget, costs, size)
            except UserError:
                continue


def proxy_s(plan: Plan, costs: Costs) -> float:
    return proxy_cost(costs, plan.proxy_steps, len(plan.rungs))


def proxies_s(plan: Plan, costs: Costs) -> float:
    """Return the device-seconds of the proxies with a head, and of the two controls, whose step is
    the base's alone."""
    beside = costs.beside_others
    return plan.proxies * proxy_s(plan, costs) + 2 * beside.training(
        plan.proxy_steps, beside.step, len(plan.rungs)
    )


def confirming_s(plan: Plan, costs: Costs) -> float:
    """Return the device-seconds of confirming runs, one in four of which has no head; each is
    evaluated once."""
    beside = costs.beside_others
    return plan.confirm_jobs * beside.training(
        plan.proxy_steps, beside.step + 0.75 * beside.mean_head, 1
    )


def alone_s(costs: Costs, candidates: int) -> float:
    """Return the device-seconds of two steps of the base, and of two of each candidate of a
    group."""
    return 2 * ((1 + candidates) * costs.step + candidates * costs.mean_head)


def test_what_is_planned_costs_no_more_than_is_left() -> None:
    for budget, costs, _, plan in plans(0):
        assert set(plan.expected_s) == set(type(DEFAULT.shares).model_fields)
        assert min(plan.expected_s.values()) >= 0
        assert sum(plan.expected_s.values()) + len(
            plan.expected_s
        ) * costs.between_phases() <= budget * (1 + 1e-9)


def screening_s(plan: Plan, costs: Costs) -> float:
    """Return device-seconds of one group."""
    step_s = costs.step + (plan.group_size + 2) * costs.mean_head
    return costs.training(plan.screen_steps, step_s, 2) + alone_s(costs, plan.group_size)


def test_expected_seconds_are_those_of_the_jobs_planned() -> None:
    for _, costs, _, plan in plans(1):
        screening = plan.groups * screening_s(plan, costs)
        assert plan.expected_s["screen"] == pytest.approx(screening)
        assert plan.expected_s["proxy"] == pytest.approx(proxies_s(plan, costs))
        assert plan.expected_s["confirm"] == pytest.approx(confirming_s(plan, costs))


def test_plans_keep_to_their_bounds() -> None:
    for _, _, size, plan in plans(2):
        assert 1 <= plan.candidates <= min(size or 64, 64)
        assert 1 <= plan.group_size <= 8
        assert plan.groups * plan.group_size < plan.candidates + plan.groups, (
            "a place in a group is empty that need not be"
        )
        assert 20 <= plan.screen_steps <= 200
        assert (
            min(2, plan.candidates)
            <= plan.proxies
            <= min(24, max(2, math.ceil(plan.candidates / 2)))
        )
        assert 20 <= plan.proxy_steps <= 2000
        assert DEFAULT.fewest_confirm_jobs <= plan.confirm_jobs <= DEFAULT.most_confirm_jobs


def test_rungs_rise_to_the_last_step_and_take_a_small_part_of_a_proxy() -> None:
    for _, costs, _, plan in plans(3):
        assert plan.rungs == sorted(set(plan.rungs))
        assert plan.rungs[0] >= 1
        assert plan.rungs[-1] == plan.proxy_steps
        rungs_s = len(plan.rungs) * costs.beside_others.rung()
        assert (
            len(plan.rungs) == 1
            or plan.proxy_steps == 2000
            or rungs_s <= 0.21 * proxy_s(plan, costs)
        )


def test_a_larger_budget_never_means_fewer_candidates_or_proxies() -> None:
    for costs, size, budgets in drawn(4):
        found = [
            make_plan(budget, costs, size) for budget in budgets if affords(budget, costs, size)
        ]
        for smaller, larger in pairwise(found):
            assert larger.candidates >= smaller.candidates
            assert larger.proxies >= smaller.proxies
            if larger.candidates == smaller.candidates:
                assert larger.screen_steps >= smaller.screen_steps
            if (larger.proxies, len(larger.rungs)) == (smaller.proxies, len(smaller.rungs)):
                assert larger.proxy_steps >= smaller.proxy_steps


def affords(budget: float, costs: Costs, size: int | None) -> bool:
    try:
        make_plan(budget, costs, size)
    except UserError:
        return False
    return True


def test_what_one_budget_affords_every_larger_one_does() -> None:
    for costs, size, budgets in drawn(5):
        answers = [affords(budget, costs, size) for budget in budgets]
        assert answers == sorted(answers)


def test_screening_uses_its_share_up_to_the_last_whole_step() -> None:
    for budget, costs, _, plan in plans(6):
        share = (budget - len(DEFAULT.shares) * costs.between_phases()) * DEFAULT.shares.screen
        one_more = plan.groups * (costs.step + (plan.group_size + 2) * costs.mean_head)
        assert plan.screen_steps in (20, 200) or plan.expected_s["screen"] + one_more > share


def test_the_seconds_that_a_refusal_names_are_enough_and_not_many_times_too_many() -> None:
    refused = 0
    for costs, size, budgets in drawn(7):
        if affords(budgets[0], costs, size):
            continue
        with pytest.raises(BudgetTooSmall, match="the budget is too small for a search") as told:
            make_plan(budgets[0], costs, size)
        make_plan(told.value.needed_s * (1 + 1e-9), costs, size)
        assert not affords(told.value.needed_s / 2 - 1, costs, size)
        refused += 1
    assert refused > 50


def test_a_full_training_is_at_least_as_long_as_a_proxy_or_its_share_goes_to_confirming() -> None:
    counted = dict.fromkeys(("", "off", "short"), 0)
    dice = random.Random(15)
    for budget, costs, size, plan in plans(14):
        full = Wanted(dice.choice([0, 50, 1_000, 10**9]), dice.choice([0.5, 1.0, 2.0]))
        found = make_plan(budget, costs, size, full=full)
        left_s, step_s = (
            found.expected_s["full"] + costs.between_phases(),
            costs.step + costs.mean_head,
        )
        steps, *_ = full.affordable(left_s, costs, step_s, found.proxy_steps)
        counted[found.without_full] += 1
        assert (found.jobs["full"], steps > 0) == ((0, False) if found.without_full else (1, True))
        assert (
            steps >= found.proxy_steps and steps * full.batches >= found.proxy_steps
        ) or found.without_full
        assert sum(found.expected_s.values()) + 4 * costs.between_phases() <= budget * (1 + 1e-9)
        if found.without_full:
            one_s = confirming_s(replace(found, confirm_jobs=1), costs)
            left_s = budget - 4 * costs.between_phases() - sum(found.expected_s.values())
            assert (
                found.confirm_jobs in (DEFAULT.fewest_confirm_jobs, DEFAULT.most_confirm_jobs)
                or left_s < one_s
            )
            assert found.confirm_jobs >= plan.confirm_jobs
    assert min(counted.values()) > 100


def test_a_plan_without_a_full_training_says_why() -> None:
    short, off = (make_plan(600, COSTS, None, full=full) for full in (Wanted(20), Wanted(0)))
    assert (short.without_full, off.without_full) == ("short", "off")
    assert short.confirm_jobs == off.confirm_jobs > make_plan(600, COSTS, None).confirm_jobs


@pytest.mark.parametrize("remaining", [0.0, 1e-9, 30.0])
def test_nothing_left_is_too_small(remaining: float) -> None:
    with pytest.raises(UserError, match="the budget is too small for a search"):
        make_plan(remaining, COSTS, None)


def test_an_infinite_space_is_planned_like_a_very_large_one() -> None:
    for budget in (200.0, 600.0, 6_000.0, 1e6):
        assert make_plan(budget, COSTS, None) == make_plan(budget, COSTS, 10**9)


def test_a_space_of_one_head_is_searched_with_one_proxy() -> None:
    plan = make_plan(600, COSTS, 1)
    assert (plan.candidates, plan.groups, plan.proxies) == (1, 1, 1)


def test_a_plan_comes_back_from_json_as_it_was() -> None:
    for _, _, _, plan in plans(8):
        assert Plan(**json.loads(json.dumps(plan.as_plain()))) == plan


@pytest.mark.parametrize(
    ("steps", "count", "rungs"),
    [(100, 1, [100]), (100, 2, [50, 100]), (100, 3, [25, 50, 100]), (2, 3, [1, 2]), (1, 3, [1])],
)
def test_rungs_are_a_quarter_half_and_all(steps: int, count: int, rungs: list[int]) -> None:
    assert proxy_rungs(steps, count) == rungs


def rounds_s(plan: Plan, costs: Costs) -> list[float]:
    """Return device-seconds of the screening of each round."""
    ends = [0, *(math.ceil(end / plan.group_size) for end in plan.ends)]
    return [(end - begin) * screening_s(plan, costs) for begin, end in pairwise(ends)]


def test_rounds_are_of_whole_groups_so_that_there_are_as_many_as_planned() -> None:
    in_rounds = 0
    for budget, costs, size, plan in plans(12):
        dealt = [
            math.ceil((end - begin) / plan.group_size) for begin, end in pairwise([0, *plan.ends])
        ]
        assert (len(dealt), sum(dealt), plan.ends[-1]) == (
            plan.rounds,
            plan.groups,
            plan.candidates,
        ) and min(dealt) > 0
        assert max(dealt) - min(dealt) <= 1
        alone = make_plan(budget, costs, size, learning=False)
        assert alone == replace(plan, rounds=1) and alone.ends == [plan.candidates]
        in_rounds += plan.rounds == 3
    assert in_rounds > 100


def test_the_later_rounds_screening_is_kept_back_when_proxies_are_planned_anew() -> None:
    in_rounds = 0
    for budget, costs, _, plan in plans(13):
        first, *later = rounds_s(plan, costs)
        left_s = budget - first - costs.between_phases()
        again = plan_again(plan, 0.8 * left_s, costs)
        if later and again != plan:
            in_rounds += 1
            kept_s = sum(later) + (3 + 2 * len(later)) * costs.between_phases()
            planned_s = sum(again.expected_s[phase] for phase in ("proxy", "confirm", "full"))
            assert planned_s == pytest.approx(0.8 * left_s - kept_s)
    assert in_rounds > 100


def test_where_screening_took_what_was_planned_its_proxies_stay() -> None:
    stayed = total = 0
    for budget, costs, _, plan in plans(10):
        again = plan_again(plan, budget - costs.between_phases() - rounds_s(plan, costs)[0], costs)
        assert again.proxies >= plan.proxies
        assert (
            again.confirm_jobs >= plan.confirm_jobs
            or again.proxies > plan.proxies
            or again.proxy_steps > plan.proxy_steps
        )
        stayed, total = stayed + again.runs_as(plan), total + 1
    assert stayed > 0.8 * total > 400


def test_work_that_takes_longer_than_measured_gets_fewer_or_shorter_proxies_that_fit() -> None:
    changed = 0
    for budget, costs, _, plan in plans(11):
        left_s, slow = (
            0.9 * budget - costs.between_phases() - plan.expected_s["screen"],
            costs.scaled(2.5),
        )
        again = plan_again(plan, left_s, slow)
        assert (
            again.proxies <= plan.proxies
            and again.candidates == plan.candidates
            and again.screen_steps == plan.screen_steps
        )
        assert again.expected_s["screen"] == plan.expected_s["screen"]
        if again != plan and again.proxy_steps > DEFAULT.proxy_steps.fewest:
            changed += 1
            assert again.expected_s["proxy"] == pytest.approx(proxies_s(again, slow))
            assert again.expected_s["proxy"] + again.expected_s["confirm"] <= left_s
    assert changed > 300


def test_where_little_is_left_the_shortest_proxies_stay_planned() -> None:
    plan = make_plan(600, COSTS, None)
    again = plan_again(plan, 1.0, COSTS)
    assert (again.proxies, again.rungs, again.proxy_steps, again.confirm_jobs) == (
        2,
        [20],
        20,
        DEFAULT.fewest_confirm_jobs,
    )


def test_a_slow_joint_step_means_fewer_candidates_or_shorter_screening_but_the_same_proxies() -> (
    None
):
    plan, slow = make_plan(600, COSTS, None), make_plan(600, replace(COSTS, joint=3.0), None)
    assert slow.groups * slow.screen_steps < plan.groups * plan.screen_steps
    assert slow.expected_s["screen"] <= 600 * DEFAULT.shares.screen
    step_s = 3 * (0.1 + (slow.group_size + 2) * 0.03)
    each_s = slow.screen_steps * step_s + 2 * COSTS.rung() + alone_s(COSTS, slow.group_size)
    assert slow.expected_s["screen"] == pytest.approx(slow.groups * each_s)
