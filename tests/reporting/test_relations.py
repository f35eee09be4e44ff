from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.engine.statistics.correlation import LEAST
from hssl_search.reporting import figures
from hssl_search.reporting.relations import Agreement, agreements
from hssl_search.reporting.text import trend


def by_name(study: Any) -> dict[str, Agreement]:
    return {one.measure.key: one for one in agreements(study)}


def test_only_measures_that_some_trial_has_are_told(varied: Any) -> None:
    assert list(by_name(varied.study)) == [
        "discrepancy",
        "cka_excess",
        "architecture",
        "labelfree_rankme",
        "labelfree_alpha_req",
    ]


def test_discrepancy_agrees_here_as_it_does_in_the_figure(varied: Any) -> None:
    assert (
        by_name(varied.study)["discrepancy"].correlation
        == figures.discrepancy_accuracy(varied.study).correlation
    )


def test_measures_of_the_base_count_controls_and_those_of_the_head_do_not(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    for index in range(LEAST):
        run.add(
            f"head {index}",
            "mlp",
            TrialState.COMPLETE,
            40.0 + index,
            discrepancy=0.1 * index,
            labelfree_lidar=float(-(index**2)),
        )
    both = {"discrepancy": 0.0, "labelfree_lidar": 9.0}
    run.add(
        "no head",
        "none",
        TrialState.COMPLETE,
        39.0,
        role="control",
        control="none",
        head=None,
        gate=None,
        **both,
    )
    run.add("noise head", "noise", TrialState.COMPLETE, 30.0, gate="not learning", discrepancy=0.9)
    found = by_name(run.study)
    assert (found["discrepancy"].correlation.n, found["labelfree_lidar"].correlation.n) == (
        LEAST,
        LEAST + 1,
    )
    assert found["labelfree_lidar"].correlation.value == pytest.approx(-1.0)
    assert (
        trend(found["labelfree_lidar"].correlation, "accuracy")
        == "the reverse order, too few to say how sure"
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 2, 3, 4], "too few"),
        ([3, 3, 3, 3, 3, 3], "all alike"),
        ([1, 2, 3, 4, 6, 5, 7, 8, 10, 9], "rises with accuracy"),
        ([10, 9, 7, 8, 6, 5, 4, 2, 3, 1], "falls with accuracy"),
        ([5, 1, 8, 2, 9, 3, 7, 4, 6, 5], "not clear"),
    ],
)
def test_words_claim_no_more_than_the_interval(
    builder: Callable[..., Any], values: list[int], words: str
) -> None:
    run = builder()
    for index, value in enumerate(values):
        run.add(
            f"head {index}", "mlp", TrialState.COMPLETE, 40.0 + index, labelfree_rankme=float(value)
        )
    assert trend(by_name(run.study)["labelfree_rankme"].correlation, "accuracy") == words
