"""What a plan says beforehand, against what the search then does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.costs import Costs, Wanted
from hssl_search.engine.planning.plan import make_plan, ranking_s, smallest_s
from hssl_search.engine.planning.preview import planned_phases
from hssl_search.engine.records.ledger import Ledger

COSTS = Costs(step=0.1, heads={"typical": 0.02}, evaluate=0.5, checkpoint=0.1, startup=3.0)
CHECKPOINT_BYTES = 1_000_000

MakeLab = Callable[..., Any]


@pytest.mark.parametrize("budget", ["6cpu-min", "10cpu-min", "20cpu-min", "1cpu-h", "3cpu-h"])
def test_each_phase_costs_what_was_planned_of_the_jobs_that_it_ran(
    make_lab: MakeLab, budget: str
) -> None:
    """Without early stopping; confirming ends when nothing is open any more, so its planned cost is
    that of as many runs as it made.
    """
    planned = {row["phase"]: row for row in previewed(make_lab, budget)["phases"]}
    lab = make_lab(budget=budget, pruner="none", full_epochs=1_000)
    lab.search()
    spent = Ledger(lab.run.ledger).by_phase()
    ran = {phase: sum(key.startswith(phase) for key in lab.ends) for phase in planned}
    whole = ("measure", "screen", "proxy", "full")
    assert {phase: ran[phase] for phase in whole} == {
        phase: planned[phase]["jobs"] for phase in whole
    }
    assert 0 < ran["confirm"] <= lab.study.study_attributes()["plan"]["jobs"]["confirm"], (
        "which may be planned anew after screening"
    )
    for phase, row in planned.items():
        assert spent[phase] == pytest.approx(row["device_s"] * ran[phase] / row["jobs"], rel=0.2), (
            phase
        )


def test_a_preview_is_the_plan_that_the_search_then_makes(make_lab: MakeLab) -> None:
    page = previewed(make_lab, "20cpu-min")
    lab = make_lab(budget="20cpu-min", pruner="none", full_epochs=1_000)
    lab.search()
    known = lab.study.study_attributes()["plan"]
    assert {row["phase"]: row["device_s"] for row in page["phases"]} == pytest.approx(
        known["first_phases"]
    )
    told = ("candidates", "group_size", "screen_steps", "proxies", "proxy_steps", "rungs")
    assert {name: page["plan"][name] for name in told} == {
        name: known["first"][name] for name in told
    }
    assert json.loads(json.dumps(page)) == page


def test_early_stopping_makes_proxies_cheaper_than_planned(make_lab: MakeLab) -> None:
    spent = {}
    for pruner in ("none", "asha"):
        lab = make_lab(budget="1cpu-h", pruner=pruner)
        lab.search()
        spent[pruner] = Ledger(lab.run.ledger).by_phase()["proxy"]
    assert spent["asha"] < spent["none"]


def test_a_budget_too_small_is_told_what_would_do(make_lab: MakeLab) -> None:
    page = previewed(make_lab, "20cpu-s")
    assert (page["enough"], page["plan"], [row["phase"] for row in page["phases"]]) == (
        False,
        None,
        ["measure"],
    )
    assert previewed(make_lab, f"{math.ceil(page['smallest_s'])}cpu-s")["enough"]
    assert page["beyond"] and all(one["device_s"] > page["smallest_s"] for one in page["beyond"])


def test_what_a_better_ranking_needs_buys_it(make_lab: MakeLab) -> None:
    for one in previewed(make_lab, "6cpu-min")["beyond"]:
        plan = previewed(make_lab, f"{math.ceil(one['device_s'])}cpu-s")["plan"]
        assert plan["proxies"] >= one["heads"] and plan["proxy_steps"] >= one["steps"]


def test_a_budget_that_buys_the_most_lacks_nothing(make_lab: MakeLab) -> None:
    assert previewed(make_lab, "100cpu-h")["beyond"] == []


@pytest.mark.parametrize(("heads", "steps"), [(4, 150), (20, 150), (24, 2000)])
def test_a_ranking_is_planned_from_its_cost_on_and_not_much_before(heads: int, steps: int) -> None:
    needed_s = ranking_s(heads, steps, COSTS)
    plan = make_plan(needed_s * (1 + 1e-9), COSTS, None)
    assert plan.proxies >= heads and plan.proxy_steps >= steps
    before = make_plan(0.9 * needed_s, COSTS, None)
    assert before.proxies < heads or before.proxy_steps < steps
    assert needed_s > smallest_s(COSTS)


def test_phases_take_turns_on_the_places_that_the_machine_has() -> None:
    whole, packed = Machine("gpu", 16, 2), Machine("gpu", 16, 2, gpus_per_trial=0.25)
    plan = make_plan(3600.0, COSTS, 30)
    full_s = plan.expected_s["full"] + COSTS.between_phases()
    full = Wanted(10**6).affordable(full_s, COSTS, 0.12, plan.proxy_steps)
    rows = {row.phase: row for row in planned_phases(plan, full, COSTS, packed, whole)}
    proxy, jobs = rows["proxy"], plan.proxies + 2
    assert (proxy.jobs, proxy.steps, proxy.at_once) == (
        jobs,
        plan.proxy_steps,
        min(8, math.ceil(jobs / plan.rounds)),
    )
    each_s = 4 * plan.expected_s["proxy"] / jobs
    assert plan.rounds == 3 and proxy.wall_s == pytest.approx(plan.rounds * (each_s + 3.0 + 3.0))
    assert proxy.device_s == pytest.approx(
        plan.expected_s["proxy"] + plan.rounds * 3.0 * proxy.at_once / 4
    )
    assert (rows["full"].at_once, rows["full"].steps) == (1, full.steps)
    assert rows["full"].device_s == pytest.approx(full.device_s + 3.0)


def test_disk_holds_a_checkpoint_of_each_training_and_one_more_of_each_that_runs(
    make_lab: MakeLab,
) -> None:
    page = previewed(make_lab, "20cpu-min")
    rows = {row["phase"]: row for row in page["phases"]}
    kept = rows["proxy"]["jobs"] + rows["confirm"]["jobs"] + rows["full"]["jobs"]
    assert page["disk_bytes"] == CHECKPOINT_BYTES * (kept + 1)


def test_without_a_full_training_none_is_planned(make_lab: MakeLab) -> None:
    page = previewed(make_lab, "20cpu-min", full_epochs="off")
    assert [row["phase"] for row in page["phases"]] == ["measure", "screen", "proxy", "confirm"]


def previewed(make_lab: MakeLab, budget: str, **changes: Any) -> dict[str, Any]:
    """Return what a search with this budget would be, by a controller that may measure for as long
    as it likes."""
    lab = make_lab(**{"budget": "1cpu-h", "pruner": "none", "full_epochs": 1_000, **changes})
    lab.memory = {"memory_bytes": 5_000_000, "checkpoint_bytes": CHECKPOINT_BYTES}
    found: dict[str, Any] = lab.controller().preview(parse_budget(budget))
    return found
