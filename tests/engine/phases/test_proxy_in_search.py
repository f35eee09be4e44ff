"""Proxies, in whole searches without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def lab_winner(lab: Lab) -> int:
    """Return the number that the winner's trial will have."""
    return next(
        one.trial
        for one in lab.controller().trials.candidates(6)
        if one.name == max(lab.accuracy, key=lab.accuracy.__getitem__)
    )


def test_a_failing_proxy_is_a_failure_with_its_cause_and_the_search_goes_on(lab: Lab) -> None:
    best = lab_winner(lab)
    lab.raises = {f"proxy/{best:04d}/seed0"}
    verdict = lab.search()
    lab.check()
    failed = lab.study.frozen(best)
    assert (failed.state, failed.user_attrs["cause"]) == (
        FAIL,
        f"RuntimeError: proxy/{best:04d}/seed0 came to nothing",
    )
    assert (verdict["state"], verdict["winner"]) == (
        "better",
        lab.trial("resnet depth 2 width 1 kernel 3 no-first-shortcut").number,
    )


def test_all_proxies_failing_is_no_winner(lab: Lab) -> None:
    lab.raises = {"proxy/"}
    verdict = lab.search()
    lab.check()
    assert verdict["winner"] is None
    promoted = [trial for trial in lab.study.trials() if trial.user_attrs.get("promoted")]
    assert FAIL in {trial.state for trial in promoted} <= {FAIL, PRUNED}
    assert [lab.trial(name).state for name in ("no head", "identity head")] == [FAIL, FAIL]
    assert not any(key.startswith(("confirm", "full")) for key in lab.starts)


def test_a_head_that_falls_ill_in_its_proxy_is_pruned_with_its_cause_and_cannot_win(
    lab: Lab,
) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.gate_alone = {best: "collapsed"}
    verdict = lab.search()
    lab.check()
    assert (lab.trial(best).state, lab.trial(best).user_attrs["cause"]) == (
        PRUNED,
        "collapsed: found collapsed.",
    )
    assert (verdict["state"], verdict["name"]) == (
        "better",
        "resnet depth 2 width 1 kernel 3 no-first-shortcut",
    )
    assert best not in {row["name"] for row in verdict["rows"]}


def test_device_time_of_a_trial_is_what_its_proxy_was_charged(lab: Lab) -> None:
    lab.search()
    plan = lab.study.study_attributes()["plan"]["numbers"]
    seconds = plan["proxy_steps"] * 0.12 + len(plan["rungs"]) * 0.6
    assert lab.trial("identity head").user_attrs["device_s"] == pytest.approx(seconds, abs=1e-2)


@pytest.mark.parametrize("pruner", ["median", "asha", "none"])
def test_each_pruner_stops_its_share_of_candidates_and_says_that_it_did(
    make_lab: Callable[..., Lab], wide_space: Space, pruner: str
) -> None:
    lab = make_lab(
        budget="60cpu-min", pruner=pruner, promote="discrepancy", space=wide_space, sampler="random"
    )
    lab.search()
    lab.check()
    stopped = [
        trial
        for trial in lab.study.trials()
        if trial.user_attrs.get("cause", "").startswith("stopped at step")
    ]
    told = {"median": "below the median", "asha": "(successive halving)", "none": ""}[pruner]
    assert all(
        told in trial.user_attrs["cause"]
        and trial.state is PRUNED
        and not trial.user_attrs.get("control")
        for trial in stopped
    )
    assert bool(stopped) == (pruner != "none")


def test_a_sampler_that_learns_draws_in_rounds_each_after_the_proxies_of_the_one_before(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab = make_lab(budget="60cpu-min", space=wide_space, sampler="tpe", pruner="none")
    lab.search()
    lab.check()
    plan = lab.study.study_attributes()["plan"]["numbers"]
    assert (plan["rounds"], plan["candidates"]) == (3, 24)
    assert [phase for phase, *_ in lab.watcher.of("phase_started")][:7] == [
        "measure",
        *["screen", "proxy"] * 3,
    ]
    phases = [lab.study.job_records()[key]["phase"] for key in lab.starts]
    assert [
        phases[:place].count("proxy") for place, phase in enumerate(phases) if phase == "screen"
    ] == [0, *(2 + -(-plan["proxies"] * done // 3) for done in (1, 2))]
    assert len(set(lab.starts)) == len(lab.starts)
    promoted = {trial.number for trial in lab.study.trials() if trial.user_attrs.get("promoted")}
    assert len(promoted) == plan["proxies"]


def test_one_slow_proxy_is_cut_and_the_others_are_promoted_all_the_same(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab = make_lab(wide_space, budget="3cpu-h", sampler="random", promote="discrepancy")
    lab.search()
    slow = [key for key in lab.starts if key.startswith("proxy/")][3]

    lab = make_lab(wide_space, budget="3cpu-h", sampler="random", promote="discrepancy")
    lab.slow = {slow: 20.0}
    verdict = lab.search()
    attributes = lab.study.study_attributes()
    assert lab.study.job_records()[slow]["state"] == "cut"
    assert len(attributes["promoted"]) == attributes["plan"]["numbers"]["proxies"]
    assert verdict["winner"] is not None
    assert not attributes["plan"]["done"], "a resume takes the slow one up again"
    assert "The budget did not last" not in lab.watcher.notes()
    lab.slow = {}
    lab.search()
    attributes = lab.study.study_attributes()
    assert lab.study.job_records()[slow]["state"] in ("done", "stopped")
    assert attributes["plan"]["done"]
