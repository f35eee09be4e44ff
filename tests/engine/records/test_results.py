"""What counts of a training."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from hssl_search.engine.execution.jobs import Outcome, Report, State
from hssl_search.engine.records.results import (
    Results,
    RunRecord,
    ScoreTable,
    ailment,
    counted,
    final_metrics,
)
from hssl_search.engine.statistics.metrics import ACCURACY, ALIGNMENT, DISCREPANCY

ENDS = [Report(50, {"accuracy": 40.0}), Report(100, {"accuracy": 41.0})]


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (Outcome(State.DONE, reports=ENDS), {"accuracy": 41.0}),
        (Outcome(State.DONE, reports=ENDS[:1]), None),
        (Outcome(State.DONE), None),
        (Outcome(State.STOPPED, reports=ENDS), None),
        (Outcome(State.CUT, reports=ENDS), None),
        (Outcome(State.FAILED, "no luck", ENDS), None),
    ],
    ids=["at its end", "before its end", "without a report", "stopped", "cut", "failed"],
)
def test_only_what_was_reported_at_the_last_step_counts(
    outcome: Outcome, found: dict[str, Any] | None
) -> None:
    assert final_metrics(outcome, 100) == found


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"heads": [{"gate": "healthy"}, {}]}, ""),
        (
            {"heads": [{"gate": "healthy"}, {"gate": "collapsed", "gate_reason": "one point."}]},
            "collapsed: one point.",
        ),
        ({"heads": None}, ""),
        ({}, ""),
    ],
)
def test_one_sick_head_is_why_a_training_does_not_count(metrics: dict[str, Any], why: str) -> None:
    assert ailment(metrics) == why


@pytest.mark.parametrize("is_control", [True, False])
def test_a_sick_head_counts_as_a_control_alone(is_control: bool) -> None:
    metrics = {"accuracy": 41.0, "heads": [{"gate": "collapsed"}]}
    outcome = Outcome(State.DONE, reports=[Report(100, metrics)])
    assert counted(outcome, 100, is_control) == (metrics if is_control else None)


def test_scores_are_of_what_is_a_number_and_as_good_as_they_are_large() -> None:
    results = Results()
    for trial, seed, accuracy in ((0, 0, 40.0), (0, 1, 41.0), (1, 0, float("nan")), (2, 0, None)):
        results.take(trial, seed, {"accuracy": accuracy, ALIGNMENT.key: 0.25})
    assert results.table().scores == {0: {0: 40.0, 1: 41.0}}
    assert results.table(ALIGNMENT).scores[2] == {0: -0.25}
    assert results.values(ALIGNMENT)[2] == {0: 0.25}
    assert results.judged_by == ACCURACY == Results(DISCREPANCY).judged_by


def test_a_table_is_read_and_fitted_once_until_another_training_ends() -> None:
    results = Results(queries=1_000)
    results.take(0, 0, {"accuracy": 40.0})
    first = results.table()
    assert results.table() is first and first.posterior is first.posterior
    assert first.resolution == 0.1
    results.take(1, 0, {"accuracy": 41.0})
    assert results.table().scores == {0: {0: 40.0}, 1: {0: 41.0}}


def test_rows_tell_the_best_first_and_no_interval_before_anything_tells_the_noise() -> None:
    once = ScoreTable(ACCURACY, {0: {0: 40.0}, 1: {0: 99.9}}, 0.1).rows
    assert [(row.trial, row.seeds, row.mean) for row in once] == [(1, 1, 99.9), (0, 1, 40.0)]
    assert all((row.interval, row.best) == (None, None) for row in once)
    twice = ScoreTable(ACCURACY, {0: {0: 40.0, 1: 42.0}, 1: {0: 99.0, 1: 99.9}}, 0.1).rows
    assert twice[0].interval is not None and twice[0].interval[1] == 100.0, "accuracies end there"
    assert sum(row.best or 0.0 for row in twice) == pytest.approx(1.0)


def test_a_study_with_values_that_cannot_be_read_is_read_without_them() -> None:
    study = optuna.create_study()
    study.set_user_attr("verdict", {"state": "another"})
    study.set_user_attr("promoted", [0])
    head = {"family": "later"}
    attributes = {"role": "candidate", "name": "a", "head": head, "group": "x", "seed": 3}
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attributes))
    record = RunRecord.of(study)
    assert (record.search.verdict, record.search.promoted) == (None, (0,))
    assert record.states[0].attributes() == {"role": "candidate", "name": "a", "seed": 3}
