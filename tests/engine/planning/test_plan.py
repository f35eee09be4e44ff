"""What a plan's numbers come to: jobs, groups, and who is drawn when."""

from __future__ import annotations

import pytest

from hssl_search.engine.planning.plan import Plan

EXPECTED = {"screen": 10.0, "proxy": 20.0, "confirm": 5.0, "full": 5.0}
PLAN = Plan(
    candidates=24,
    group_size=8,
    screen_steps=60,
    proxies=9,
    proxy_steps=100,
    rungs=[50, 100],
    confirm_jobs=6,
    expected_s=EXPECTED,
)


def planned(**changes: object) -> Plan:
    return Plan(**{**PLAN.as_plain(), **changes})


def test_jobs_are_those_of_each_phase() -> None:
    assert PLAN.jobs == {"measure": 1, "screen": 3, "proxy": 11, "confirm": 6, "full": 1}


@pytest.mark.parametrize(
    ("changes", "ends", "groups"),
    [
        ({}, [24], 3),
        ({"candidates": 20}, [20], 3),
        ({"rounds": 3}, [8, 16, 24], 3),
        ({"rounds": 3, "candidates": 40}, [16, 32, 40], 5),
        ({"rounds": 3, "candidates": 30, "batches": [24, 6]}, [8, 16, 24, 30], 4),
        ({"candidates": 40, "batches": [24, 6, 10]}, [24, 30, 40], 6),
    ],
)
def test_each_round_and_each_extension_ends_with_whole_groups(
    changes: dict[str, object], ends: list[int], groups: int
) -> None:
    plan = planned(**changes)
    assert (plan.ends, plan.groups) == (ends, groups)
    assert plan.ends[-1] == plan.candidates


def test_two_plans_run_the_same_whatever_they_expect_that_to_take() -> None:
    assert PLAN.runs_as(planned(expected_s=dict.fromkeys(EXPECTED, 1.0)))
    assert not PLAN.runs_as(planned(proxies=8))
