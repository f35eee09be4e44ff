"""Agreement of heads that were screened twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.reporting import tables
from hssl_search.reporting.page import build_page
from hssl_search.reporting.repeated import repeated


def screened(
    builder: Callable[..., Any], pairs: Sequence[tuple[float, float]], ill: int = 0
) -> Any:
    run = builder()
    for number, (first, second) in enumerate(pairs):
        again = {
            "group": 1,
            "overlap_excess": second,
            "cka_excess": 0.0,
            "gate": "collapsed" if number < ill else "healthy",
        }
        run.add(
            f"head {number}",
            "mlp",
            TrialState.PRUNED,
            discrepancy=first,
            overlap_excess=first,
            again=again,
        )
    run.add("once", "mlp", TrialState.PRUNED, discrepancy=0.9, overlap_excess=0.9)
    return run


def test_heads_screened_twice_are_compared_by_order_and_gate(
    builder: Callable[..., Any], tmp_path: Path
) -> None:
    run = screened(
        builder,
        [(0.1, 0.2), (0.2, 0.1), (0.3, 0.3), (0.4, 0.5), (0.5, 0.6), (0.6, 0.7), (0.9, 0.0)][::-1],
        ill=1,
    )
    found = repeated(run.study)
    assert (found.heads, found.same_gate, found.discrepancy.n) == (7, 6, 6)
    assert found.discrepancy.value == pytest.approx(1 - 6 * 2 / (6 * 35)), (
        "Spearman's formula with two places exchanged"
    )
    assert (
        "7 heads screened twice, in different groups: the gate judged 6 the same, and the order"
        in build_page(run.study, [], tmp_path)
    )


def test_too_few_say_nothing_of_order_and_none_say_nothing(builder: Callable[..., Any]) -> None:
    assert (
        "2 healthy both times are too few"
        in repeated(screened(builder, [(0.1, 0.2), (0.2, 0.1)]).study).sentence()
    )
    assert repeated(screened(builder, []).study).sentence() == ""


def test_a_head_that_was_given_a_further_trial_counts_once(builder: Callable[..., Any]) -> None:
    run = screened(builder, [(0.1, 0.2), (0.2, 0.1)])
    again = {"group": 1, "overlap_excess": 0.2, "cka_excess": 0.0, "gate": "healthy"}
    run.add(
        "head 0",
        "mlp",
        TrialState.COMPLETE,
        discrepancy=0.1,
        overlap_excess=0.1,
        again=again,
        retry_of=0,
    )
    assert repeated(run.study).heads == 2
    assert list(tables.screening(run.study)["trial"]) == [2, 1, 3]
