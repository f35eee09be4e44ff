"""What counts of a training."""

from __future__ import annotations

from typing import Any

import pytest

from hssl_search.engine.execution.jobs import Outcome, Report, State
from hssl_search.engine.records.results import ailment, final_metrics

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
