"""Whole searches without training: what they decide, and what they record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def test_a_search_finds_the_best_of_the_promoted_and_compares_it_with_no_head(lab: Lab) -> None:
    verdict = lab.search()
    lab.check()
    winner = max(lab.accuracy, key=lab.accuracy.__getitem__)
    assert (verdict["name"], verdict["state"]) == (winner, "better")
    assert verdict["winner"] == lab.trial(winner).number
    assert verdict["comparison"] == {
        "against": "no head",
        "difference": pytest.approx(7.0),
        "interval": pytest.approx([7.0, 7.0], abs=2.0),
        "seeds": 2,
        "more_seeds": None,
        "more_s": None,
    }
    assert verdict["comparison"]["interval"][0] < 6.9, (
        "equal gaps of two seeds do not tell that there is no noise"
    )
    assert [one["against"] for one in verdict["others"]] == [
        "identity head",
        "same-architecture head",
        "no head, same device-time",
    ]
    rows = {row["name"]: row for row in verdict["rows"]}
    assert {name: row["mean"] for name, row in rows.items() if row["role"] == "reference"} == {
        "raw pixels": 60.0,
        "untrained base": 50.0,
    }
    assert {name for name, row in rows.items() if row["role"] == "control"} == {
        "no head",
        "identity head",
        "same-architecture head",
        "no head, same device-time",
    }
    assert rows[winner]["mean"] == pytest.approx(77.05)
    assert lab.study.study_attributes()["verdict"] == verdict
    assert lab.study.study_attributes()["reference"] == {"raw pixels": 60.0, "untrained base": 50.0}


def test_a_search_leaves_the_same_in_a_database_as_in_memory(
    make_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    in_memory = make_lab()
    verdict, in_database = in_memory.search(), make_lab()
    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo", new=True) as record:
        in_database.record = record
        assert in_database.search() == verdict
        in_database.check()
    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo") as record:
        in_database.record = record
        left = [
            [
                (
                    trial.state,
                    trial.params,
                    trial.values,
                    trial.user_attrs,
                    trial.intermediate_values,
                )
                for trial in lab.study.trials()
            ]
            for lab in (in_memory, in_database)
        ]
        assert left[0] == left[1]
        assert record.study_attributes() == in_memory.study.study_attributes()
        assert record.job_records() == in_memory.study.job_records()


def test_states_of_all_trials_are_true(lab: Lab) -> None:
    weak = next(name for name in lab.accuracy if name.startswith("convnext depth 2"))
    lab.accuracy[weak] -= 0.5  # below the median of the others, and not just at it
    lab.search()
    states = {trial.user_attrs["name"]: trial.state for trial in lab.study.trials()}
    plan = lab.study.study_attributes()["plan"]["numbers"]
    assert (len(states), plan["candidates"], plan["proxies"]) == (11, 6, 3)
    assert [
        states[name]
        for name in (
            "no head",
            "identity head",
            "same-architecture head",
            "no head, same device-time",
        )
    ] == [COMPLETE] * 4
    order = sorted(lab.accuracy, key=lab.accuracy.__getitem__)
    assert states[order[-1]] is COMPLETE
    stopped = lab.trial(weak)
    assert (stopped.state, list(stopped.intermediate_values)) == (PRUNED, plan["rungs"][:1])
    assert (
        stopped.user_attrs["cause"]
        == f"stopped at step {plan['rungs'][0]}: below the median of that rung."
    )
    assert all(
        "expected of other heads" in lab.trial(name).user_attrs["cause"]
        for name in order
        if " depth 1 " in name
    )


def test_every_job_is_recorded_and_watched(lab: Lab) -> None:
    lab.search()
    records = lab.study.job_records()
    assert list(records) == lab.starts
    assert [phase for phase, *_ in lab.watcher.of("phase_started")] == [
        "measure",
        "screen",
        "proxy",
        "confirm",
        "full",
    ]
    assert len(lab.watcher.of("phase_ended")) == 5
    assert [name for (name,) in lab.watcher.of("job_started")] == [
        record["name"] for record in records.values()
    ]
    assert lab.watcher.of("best")[-1] == (
        max(lab.accuracy, key=lab.accuracy.__getitem__),
        pytest.approx(77.05),
    )
    assert lab.watcher.of("control")[-1] == (pytest.approx(70.05),)
    assert "Plan: screen 6 heads" in lab.watcher.notes()


def test_the_full_training_is_the_winners_and_as_long_as_wanted(lab: Lab) -> None:
    lab.search()
    full = lab.study.study_attributes()["full"]
    assert full["steps"] == 110 * (1_000 // 256)
    assert full["heads"] == [
        lab.trial(max(lab.accuracy, key=lab.accuracy.__getitem__)).user_attrs["head"]
    ]
    assert lab.study.job_records()["full"]["reports"][-1]["step"] == full["steps"]


def test_the_full_training_takes_what_the_budget_leaves(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(full_epochs=10**6)
    lab.search()
    lab.check()
    assert lab.study.job_records()["full"]["state"] == "done"
    assert 0.85 * lab.budget.seconds < lab.charged() <= lab.budget.seconds


def test_full_training_switched_off(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(full_epochs="off")
    lab.search()
    assert "full" not in lab.study.job_records()


def test_where_no_head_is_better_the_full_training_has_no_head(lab: Lab) -> None:
    lab.accuracy = {name: 60.0 + number for number, name in enumerate(lab.accuracy)}
    verdict = lab.search()
    lab.check()
    assert (verdict["state"], verdict["comparison"]["difference"]) == (
        "no head",
        pytest.approx(-5.0),
    )
    assert lab.study.study_attributes()["full"]["heads"] == []
    assert lab.study.study_attributes()["full"]["name"] == "full training with no head"


def test_a_failing_full_training_is_told_and_leaves_the_verdict(lab: Lab) -> None:
    lab.raises = {"full"}
    assert lab.search()["state"] == "better"
    lab.check()
    assert "failed: RuntimeError: full came to nothing" in lab.watcher.notes()


def test_measuring_that_fails_is_told_in_one_sentence_and_tried_anew_after_a_resume(
    lab: Lab,
) -> None:
    lab.raises = {"measure"}
    sentence = (
        r"did not succeed \(RuntimeError: measure came to nothing\); mend the cause, then continue "
        r"with: "
        r"hssl-search resume \S+demo\.$"
    )
    for _ in range(2):
        with pytest.raises(UserError, match=sentence):
            lab.search()
    assert lab.starts == ["measure", "measure"]
    lab.raises = set()
    assert lab.search()["state"] == "better"
    assert lab.starts[:4].count("measure") == 3
    assert lab.study.job_records()["measure"]["state"] == "done"


def test_a_budget_spent_before_measuring_is_told(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="6cpu-s")
    for _ in range(2):
        with pytest.raises(UserError, match="the budget"):
            lab.search()


@pytest.mark.parametrize(
    "deaf", [False, True], ids=["workers heed their seconds", "workers do not"]
)
@pytest.mark.parametrize("phase", ["screen", "proxy", "confirm", "full"])
def test_a_budget_that_ends_in_a_phase_ends_the_search_with_true_states(
    make_lab: Callable[..., Lab], phase: str, deaf: bool
) -> None:
    lab = make_lab(full_epochs=10**6)
    lab.slow, lab.deaf = {phase: 50.0}, deaf
    verdict = lab.search()
    lab.check(within=not deaf)
    assert (verdict["winner"] is None) == (phase in ("screen", "proxy"))
    assert not any(key.startswith(("confirm", "full")) for key in lab.starts) or phase in (
        "confirm",
        "full",
    )
    again = lab.search()
    assert again == verdict


def test_a_search_that_ended_is_not_worked_on_again(lab: Lab) -> None:
    verdict = lab.search()
    starts, trials, charged = list(lab.starts), lab.study.trials(), lab.charged()
    assert lab.search() == verdict
    assert (lab.starts, lab.charged()) == (starts, charged)
    assert [(trial.state, trial.value, trial.user_attrs) for trial in lab.study.trials()] == [
        (trial.state, trial.value, trial.user_attrs) for trial in trials
    ]


def test_the_seconds_of_a_step_in_its_proxy_are_kept_of_every_promoted_head(
    make_lab: Callable[..., Lab], wide_space: Space
) -> None:
    lab = make_lab(budget="60cpu-min", space=wide_space, pruner="none")
    lab.weight = {name: 5.0 for name in lab.accuracy if name.startswith(("convnext", "resnet"))}
    lab.search()
    promoted = {
        trial.user_attrs["name"]: trial
        for trial in lab.study.trials()
        if trial.user_attrs.get("promoted")
    }
    assert {name: trial.user_attrs["step_s"] for name, trial in promoted.items()} == pytest.approx(
        {name: 0.1 + 0.02 * lab.weight.get(name, 1.0) for name in promoted}
    )
