"""Confirming, in whole searches without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.engine.records.state import SearchState
from hssl_search.reporting.tables import leaderboard

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def on_the_leaderboard(lab: Lab) -> dict[str, tuple[int, float]]:
    """Return (seeds, mean) of each trial that counts."""
    lab.study.write(SearchState(config={"rank_by": "accuracy"}))
    board = leaderboard(lab.study.study)
    counted = board[board["role"].ne("reference") & board["seeds"].gt(0)]
    return {
        row["name"]: (row["seeds"], pytest.approx(row["score"])) for _, row in counted.iterrows()
    }


def in_the_verdict(verdict: dict[str, Any]) -> dict[str, tuple[int, float]]:
    return {
        row["name"]: (row["seeds"], row["mean"])
        for row in verdict["rows"]
        if row["role"] != "reference"
    }


def test_a_confirming_run_of_an_unhealthy_head_counts_in_neither_verdict_nor_leaderboard(
    lab: Lab,
) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.noise, lab.accuracy[best] = 3.0, 100.0

    def fall_ill(key: str, step: int) -> None:
        lab.gate_alone = (
            {best: "collapsed"} if key.startswith("confirm/") and key.endswith("/seed1") else {}
        )

    lab.at_rung = fall_ill
    verdict = lab.search()
    lab.check()
    runs = [
        record["seed"]
        for record in lab.study.job_records().values()
        if record["trial"] == verdict["winner"]
    ]
    assert (
        verdict["name"] == best and 1 in runs and in_the_verdict(verdict)[best][0] == len(runs) - 1
    )
    assert on_the_leaderboard(lab) == in_the_verdict(verdict)


def test_the_control_of_the_same_device_time_trains_as_long_as_the_best_proxy(lab: Lab) -> None:
    lab.search()
    steps = lab.study.study_attributes()["plan"]["numbers"]["proxy_steps"]
    [record] = [
        record
        for record in lab.study.job_records().values()
        if record["name"] == "no head, same device-time"
    ]
    assert [report["step"] for report in record["reports"]] == [round(steps * 0.12 / 0.10)]


def test_of_a_failing_no_head_control_further_seeds_are_compared(lab: Lab) -> None:
    lab.at_rung = lambda key, step: (
        lab.raises.add(key)
        if key.startswith("proxy") and lab.watcher.of("job_started")[-1] == ("no head",)
        else None
    )
    verdict = lab.search()
    lab.check()
    assert lab.trial("no head").state is FAIL
    assert verdict["name"] == max(lab.accuracy, key=lab.accuracy.__getitem__)
    assert verdict["comparison"]["seeds"] == 2, (
        "the second and the third seed of both were compared"
    )


def test_confirming_runs_that_fail_leave_what_the_proxies_found(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget="200cpu-min")  # for more runs than are tried to pair leader and no head
    lab.raises = {"confirm/"}
    verdict = lab.search()
    lab.check()
    assert (verdict["state"], verdict["comparison"]["seeds"]) == ("undecided", 1)
    assert [
        lab.trial(name).state
        for name in ("same-architecture head", "no head, same device-time", "no head")
    ] == [FAIL, FAIL, COMPLETE]
