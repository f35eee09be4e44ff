"""Screening, in whole searches without training."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.jobs import State
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def test_trials_hold_what_screening_measured(lab: Lab) -> None:
    lab.search()
    for name, overlap in lab.overlap.items():
        found = lab.trial(name).user_attrs
        assert (found["overlap"], found["overlap_excess"], found["discrepancy"]) == (
            overlap,
            *[pytest.approx(overlap - 0.3)] * 2,
        )
        assert (found["gate"], found["chance_loss"], found["group"]) == ("healthy", 4.5, 0)
    assert lab.trial("identity head").user_attrs["discrepancy"] == 0
    assert lab.trial("noise head").user_attrs["gate"] == "not learning"


def test_a_failing_screening_fails_its_candidates_and_the_others_go_on(
    make_lab: Callable[..., Lab], small_space: Space
) -> None:
    twelve = Space.from_plain(
        {"parameters": {**small_space.as_plain()["parameters"], "depth": {"choice": [1, 2, 3, 4]}}},
        "twelve",
    )
    lab = make_lab(twelve, budget="30cpu-min")
    lab.raises = {"screen/group1"}
    shown = set[tuple[int | None, State]]()
    lab.attach = lambda job, outcome: shown.add((job.trial, outcome.state))
    verdict = lab.search()
    lab.check()
    failed = [trial for trial in lab.study.trials() if trial.state is FAIL]
    assert {trial.user_attrs["cause"] for trial in failed} == {
        "its screening failed: RuntimeError: screen/group1 came to nothing"
    }
    assert {trial for trial, state in shown if state is State.FAILED} == {
        None,
        *(trial.number for trial in failed),
    }
    assert len(failed) == 6
    assert verdict["state"] == "better"
    assert verdict["winner"] not in {trial.number for trial in failed}


def test_all_screenings_failing_is_no_winner(lab: Lab) -> None:
    lab.raises = {"screen/"}
    verdict = lab.search()
    lab.check()
    assert verdict["winner"] is None
    assert {trial.state for trial in lab.study.trials() if "control" not in trial.user_attrs} == {
        FAIL
    }


def test_every_head_is_screened_once_beside_the_reference_heads(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab = make_lab(budget="60cpu-min", space=wide_space, sampler="random")
    lab.search()
    shared = [
        record["name"] for record in lab.study.job_records().values() if record["phase"] == "screen"
    ]
    assert shared == ["group 1: 10 heads", "group 2: 10 heads", "group 3: 10 heads"]


@pytest.mark.parametrize(("sampler", "rounds"), [("tpe", 3), ("random", 1), ("exhaustive", 1)])
def test_there_are_as_many_groups_and_rounds_as_the_plan_says(
    make_lab: Callable[..., Lab], sampler: str, rounds: int
) -> None:
    parameters = {
        "family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]},
        "depth": {"int": [1, 16]},
    }
    lab = make_lab(
        budget="3cpu-h",
        space=Space.from_plain({"parameters": parameters}, "large"),
        sampler=sampler,
        promote="random",
    )
    lab.search()
    plan = lab.study.study_attributes()["plan"]
    assert (plan["numbers"]["rounds"], plan["numbers"]["candidates"], plan["jobs"]["screen"]) == (
        rounds,
        64,
        8,
    )
    started = lab.watcher.of("phase_started")
    assert [phase for phase, *_ in started].count("screen") == rounds
    assert (
        sum(jobs for phase, jobs, _ in started if phase == "screen")
        == 8
        == sum(key.startswith("screen/") for key in lab.starts)
    )


def test_the_only_group_may_be_slow_and_one_that_is_cut_is_taken_to_its_end_by_a_later_run(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget="3cpu-h")
    lab.slow = {"screen": 6.0}
    assert lab.search()["state"] == "better", "half of the budget holds it"
    assert lab.starts.count("screen/group0") == 1

    lab = make_lab(budget="3cpu-h")
    lab.slow = {"screen": 200.0}
    assert lab.search()["winner"] is None
    assert lab.study.job_records()["screen/group0"]["state"] == "cut"
    told = lab.watcher.notes()
    assert "several times what was planned: jobs of screen" in told and "--budget" not in told
    lab.slow = {}
    verdict = lab.search()
    assert lab.starts.count("screen/group0") == 2
    assert all(lab.trial(name).user_attrs["gate"] == "healthy" for name in lab.overlap)
    assert verdict["state"] == "better"


def slow_screening(
    make_lab: Callable[..., Lab], space: Space, slow: float = 8.0
) -> tuple[Lab, dict[str, Any]]:
    """Return a search whose budget does not last for all groups."""
    lab = make_lab(space, budget="20cpu-min", sampler="random")
    lab.slow = {"screen": slow}
    verdict = lab.search()
    lab.check()
    assert "The budget did not last for all of: " in lab.watcher.notes()
    groups = {
        trial.user_attrs.get("group")
        for trial in lab.study.trials()
        if trial.user_attrs["role"] == "candidate"
    }
    assert None in groups and len(groups) > 1
    return lab, verdict


def test_where_screening_falls_short_the_healthy_heads_have_their_proxies_with_what_is_left(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab, verdict = slow_screening(make_lab, wide_space)
    promoted = [lab.study.frozen(trial) for trial in lab.study.study_attributes()["promoted"]]
    assert len(promoted) >= 2 and {trial.state for trial in promoted} == {COMPLETE}
    assert verdict["name"] in [trial.user_attrs["name"] for trial in promoted]
    assert verdict["comparison"]["seeds"] >= 2
    assert re.search(
        r"did not last for all of: .*screen.* --budget \+20cpu-min$",
        lab.watcher.notes(),
        re.MULTILINE,
    )
    assert not lab.study.study_attributes()["plan"]["done"]
    assert lab.search() == verdict
    done = {key for key, count in lab.ends.items() if key.startswith("proxy/")}
    lab.slow, lab.budget = {}, parse_budget("20cpu-min+60cpu-min")
    extended = lab.search()
    assert extended["state"] == "better"
    assert all("gate" in lab.trial(name).user_attrs for name in lab.overlap), (
        "the other groups are screened then"
    )
    assert len(lab.study.study_attributes()["promoted"]) > len(promoted)
    assert all(lab.ends[key] == 1 for key in done), "no proxy is run again"


def test_where_screening_leaves_too_little_for_proxies_nothing_is_settled_and_that_is_told(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab, verdict = slow_screening(make_lab, wide_space, 14.0)
    assert not any(key.startswith("proxy/") for key in lab.starts)
    assert (
        "first" not in lab.study.study_attributes()["plan"]
        and "promoted" not in lab.study.study_attributes()
    )
    assert verdict["sentence"].startswith(
        "The budget ended before a healthy head came to the end of its proxy, so there is no "
        "winner; "
    )
    assert "No head was promoted: the budget ended before that." in lab.watcher.notes()
    assert "No head candidate was healthy" not in lab.watcher.notes()
