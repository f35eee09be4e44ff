"""By what heads are ranked, in whole searches without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from hssl_search.engine.records.state import SearchState
from hssl_search.engine.statistics.metrics import ACCURACY, LABELFREE
from hssl_search.reporting.formats import signed
from hssl_search.reporting.relations import agreements

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def finished(lab: Lab) -> list[FrozenTrial]:
    return [trial for trial in lab.study.trials() if trial.state is COMPLETE]


def at_the_end(lab: Lab, trial: FrozenTrial, key: str) -> float:
    """Mean over seeds of what the trainings of a trial reported last."""
    ends = [
        record["reports"][-1]["metrics"][key]
        for record in lab.study.job_records().values()
        if record["trial"] == trial.number
    ]
    return sum(ends) / len(ends)


def test_without_labels_the_most_discrepant_wins_and_nothing_that_cannot_be_ranked_is_confirmed(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(rank_by="discrepancy")
    verdict = lab.search()
    lab.check()
    assert (verdict["name"], verdict["state"]) == (
        max(lab.overlap, key=lab.overlap.__getitem__),
        "unranked",
    )
    assert lab.study.study_attributes()["reference"] == {}
    none = lab.trial("no head")
    assert (none.state, none.user_attrs["cause"]) == (
        PRUNED,
        "it has no discrepancy to be ranked by.",
    )
    confirmed = {
        record["name"].split(" (")[0]
        for record in lab.study.job_records().values()
        if record["phase"] == "confirm"
    }
    assert confirmed & {"no head", "no head, same device-time"} == set()
    assert lab.watcher.of("control") == []


def test_without_labels_a_trials_value_is_its_discrepancy(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="discrepancy")
    winner = lab.trial(lab.search()["name"])
    assert (winner.state, winner.value) == (COMPLETE, winner.user_attrs["proxy_overlap"])


@pytest.mark.parametrize("rank_by", ["accuracy", "discrepancy", "labelfree"])
def test_trials_hold_the_quality_without_labels_that_their_own_seed_came_to(
    make_lab: Callable[..., Lab], rank_by: str
) -> None:
    lab = make_lab(rank_by=rank_by)
    lab.search()
    own = {
        record["trial"]: record["reports"][-1]["metrics"]
        for record in lab.study.job_records().values()
        if record["seed"] == 0
    }
    held = {trial.number: trial.user_attrs[LABELFREE.key] for trial in finished(lab)}
    assert held == {trial: own[trial][LABELFREE.key] for trial in held}
    assert len(set(held.values())) > 3


@pytest.mark.parametrize("labelled", [True, False])
def test_ranked_without_labels_the_best_base_is_compared_with_no_head(
    make_lab: Callable[..., Lab], labelled: bool
) -> None:
    lab = make_lab(rank_by="labelfree", labelled=labelled)
    verdict = lab.search()
    lab.check()
    promoted = [
        trial.user_attrs["name"] for trial in lab.study.trials() if trial.user_attrs.get("promoted")
    ]
    assert (verdict["name"], verdict["state"]) == (
        max(promoted, key=lab.quality.__getitem__),
        "better",
    )
    assert verdict["name"] != max(promoted, key=lab.accuracy.__getitem__)
    ahead = pytest.approx(lab.quality[verdict["name"]] - 20.0)
    low, high = verdict["comparison"].pop("interval")
    assert low < lab.quality[verdict["name"]] - 20.0 < high
    gap = {key: verdict["comparison"][key] for key in ("against", "difference", "seeds")}
    assert gap == {"against": "no head", "difference": ahead, "seeds": 2}
    rows = {row["name"]: row["mean"] for row in verdict["rows"]}
    assert (rows["untrained base"], rows["no head"]) == (5.0, pytest.approx(20.05))
    assert rows.keys() >= {"identity head", "same-architecture head", "no head, same device-time"}
    assert "raw pixels" not in rows, "pixels have nothing but an accuracy"
    assert lab.study.study_attributes()["reference"] == (
        {"raw pixels": 60.0, "untrained base": 50.0} if labelled else {}
    )
    assert lab.study.study_attributes()["reference_scores"] == {"untrained base": 5.0}
    assert lab.trial(verdict["name"]).value == pytest.approx(lab.quality[verdict["name"]])


def test_ranked_without_labels_and_judged_with_them_the_verdict_tells_their_agreement(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(rank_by="labelfree")
    verdict = lab.search()
    scores, accuracies = (
        [at_the_end(lab, trial, measure.key) for trial in finished(lab)]
        for measure in (LABELFREE, ACCURACY)
    )
    if LABELFREE.good == "low":
        scores = [-score for score in scores]
    expected, trials = float(stats.spearmanr(scores, accuracies).statistic), len(scores)
    interval = verdict["agreement"]["interval"]
    assert verdict["agreement"] == {
        "with": "accuracy",
        "correlation": pytest.approx(expected),
        "interval": interval,
        "trials": trials,
    }
    assert (
        f"Over {trials} trials the rank correlation of {LABELFREE.score_name} with accuracy is "
        f"{signed(expected, 2)}" in verdict["sentence"]
    )
    lab.study.write(SearchState(config={"rank_by": LABELFREE.key}))
    [told] = [one.correlation for one in agreements(lab.study.study) if one.measure is LABELFREE]
    assert (abs(told.value or 0), told.n) == (pytest.approx(abs(expected)), trials), (
        "the report has the same number"
    )
    assert lab.watcher.of("best")[-1] == (
        verdict["name"],
        pytest.approx(lab.accuracy[verdict["name"]] + 0.05),
    )
    assert lab.watcher.of("control")[-1] == (pytest.approx(70.05),)


def test_ranked_without_labels_and_not_judged_with_them_no_accuracy_is_told(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(rank_by="labelfree", labelled=False)
    verdict = lab.search()
    assert verdict["agreement"] is None
    assert verdict["sentence"].endswith(
        "Nothing was labelled, so whether it makes the base more accurate was not measured."
    )
    assert lab.watcher.of("best")[-1] == (verdict["name"], None)
    assert lab.watcher.of("control") == []
    lab.study.write(SearchState(config={"rank_by": LABELFREE.key}))
    assert agreements(lab.study.study) == []


def test_ranked_by_discrepancy_and_judged_with_labels_the_verdict_does_not_say_that_there_were_none(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(rank_by="discrepancy", labelled=True)
    verdict = lab.search()
    lab.check()
    assert verdict["agreement"]["trials"] == len(finished(lab))
    assert "Nothing was labelled" not in verdict["sentence"]
    assert [row for row in verdict["rows"] if row["role"] == "reference"] == [], (
        "accuracies are no discrepancies"
    )


def test_a_score_that_is_no_number_is_a_failure_and_no_winner(lab: Lab) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.accuracy[best] = float("nan")
    verdict = lab.search()
    assert (lab.trial(best).state, lab.trial(best).user_attrs["cause"]) == (
        FAIL,
        "its accuracy was no number.",
    )
    assert (verdict["state"], verdict["name"]) == (
        "better",
        "resnet depth 2 width 1 kernel 3 no-first-shortcut",
    )
