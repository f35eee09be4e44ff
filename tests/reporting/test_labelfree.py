"""Reports of runs that are ranked by a measure of the base that needs no labels."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import TrialState
from rich.console import Console
from scipy import stats

from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.metrics import ALIGNMENT, RANKME
from hssl_search.reporting import figures, sections, style, tables
from hssl_search.reporting.page import build_page
from hssl_search.reporting.relations import agreements
from hssl_search.reporting.sections import verdict_text
from hssl_search.reporting.terminal import print_verdict


def opposite(accuracy: float) -> float:
    """A RankMe that puts bases the other way round than accuracy does."""
    return 100.0 - accuracy


@pytest.fixture(params=[True, False], ids=["labelled", "without labels"])
def run(request: pytest.FixtureRequest, builder: Callable[..., Any]) -> Any:
    """Two heads, one of them with three seeds, one that was stopped, and the control without a
    head.
    """
    run = builder(labelled=request.param, rankme=opposite)
    accuracies = {"raw pixels": 39.8, "untrained base": 29.3}
    run.attribute(
        reference=accuracies if request.param else {}, reference_scores={"untrained base": 12.5}
    )
    best = run.add("best", "mlp", TrialState.COMPLETE, 40.0, discrepancy=0.1)
    run.add("second", "resnet", TrialState.COMPLETE, 41.0, discrepancy=0.2)
    run.add("stopped", "resnet", TrialState.PRUNED, 20.0, discrepancy=0.3)
    control: dict[str, Any] = {"role": "control", "promoted": False, "gate": None, "head": None}
    none = run.add("no head", "none", TrialState.COMPLETE, 42.0, control="none", **control)
    run.confirm(best, "best", {1: 40.5, 2: 39.5})
    run.confirm(none, "no head", {1: 42.2, 2: 42.1})
    run.job(best, "best", 0, {200: 45.0, 400: 44.0}, "full")
    return run


def row(frame: pd.DataFrame, name: str) -> Any:
    return frame.set_index("name").loc[name]


def test_the_leaderboard_ranks_compares_and_spreads_by_the_measure(run: Any) -> None:
    board = tables.leaderboard(run.study)
    ranked = board[board["rank"].notna()]
    assert list(ranked["name"]) == ["best", "second", "no head"]
    best, gaps = row(board, "best"), [42.0 - 40.0, 42.2 - 40.5, 42.1 - 39.5]
    assert (best["score"], best["seeds"], best["gain"]) == (
        pytest.approx(60.0),
        3,
        pytest.approx(sum(gaps) / 3),
    )
    noise = math.sqrt(stats.tvar(gaps) / 2 + 0.1**2 / 12)  # RankMe is told to a tenth
    assert (best["low"], best["high"]) == pytest.approx(
        stats.t.interval(0.95, 2, loc=60.0, scale=noise / math.sqrt(3))
    )
    alone = stats.t.interval(0.95, 2, loc=best["gain"], scale=noise * math.sqrt(2 / 3))
    assert best["gain_low"] < alone[0] < alone[1] < best["gain_high"], (
        "there was a second one to pick"
    )
    assert row(board, "best")["best"] > row(board, "second")["best"] > 0
    assert best["accuracy"] == pytest.approx(40.0) if run.labelled else pd.isna(best["accuracy"])


def test_a_head_that_was_stopped_has_what_it_had_then_and_no_rank_however_high(run: Any) -> None:
    stopped = row(tables.leaderboard(run.study), "stopped")
    assert (stopped["score"], stopped["steps"], stopped["seeds"]) == (80.0, 80, 0)
    assert pd.isna(stopped["rank"]) and pd.isna(stopped["accuracy"])


def test_references_have_a_score_where_one_was_measured(run: Any) -> None:
    board = tables.leaderboard(run.study)
    assert row(board, "untrained base")["score"] == 12.5
    assert ("raw pixels" in set(board["name"])) == run.labelled
    assert [(line.name, line.value) for line in figures.references(run.study)] == [
        ("untrained base", 12.5),
        ("no head", pytest.approx(100 - (42.0 + 42.2 + 42.1) / 3)),
    ]
    expected = (
        {"raw pixels": "", "untrained base": "12.5"} if run.labelled else {"untrained base": "12.5"}
    )
    assert sections.reference_scores(RunRecord.of(run.study)) == expected
    words = (
        "raw pixels 39.8 %; untrained base 29.3 %, RankMe 12.5"
        if run.labelled
        else "untrained base RankMe 12.5"
    )
    assert sections.reference_words(RunRecord.of(run.study)) == words


def test_curves_and_figures_are_of_the_measure(run: Any) -> None:
    assert list(figures.full_line(run.study)["value"]) == [55.0, 56.0]
    lines = figures.curve_lines(run.study).set_index(["name", "step"])
    assert lines.loc[("second", 160), "value"] == 59.0
    board = figures.draw_leaderboard(
        figures.leaderboard_rows(run.study), figures.references(run.study), RANKME
    )
    curves = figures.draw_curves(figures.curve_lines(run.study), [], RANKME)
    relation = figures.draw_discrepancy(figures.discrepancy_accuracy(run.study), [])
    assert board is not None and curves is not None and relation is not None
    titles = [
        board.layout.xaxis.title.text,
        curves.layout.yaxis.title.text,
        relation.layout.yaxis.title.text,
    ]
    assert titles == ["RankMe on held-out images, without labels"] * 3
    told = " ".join(
        str(trace.hovertext) for figure in (board, curves, relation) for trace in figure.data
    )
    assert "RankMe 60.00" in told and "in RankMe over no head" in told
    assert "%" not in told and "points" not in told


def test_only_with_labels_something_is_told_of_agreement_with_accuracy(run: Any) -> None:
    found = {one.measure: one.correlation for one in agreements(run.study)}
    if run.labelled:
        assert (found[RANKME].value, found[RANKME].n) == (pytest.approx(-1.0), 3)
    else:
        assert found == {}


def test_before_a_verdict_the_leader_is_told_by_the_measure(run: Any) -> None:
    assert verdict_text(run.study).endswith(
        "The best so far is best with RankMe 60.0 (no head RankMe 57.9)."
    )


def test_the_terminal_shows_the_measure_and_accuracies_where_there_are_labels(
    run: Any, tmp_path: Path
) -> None:
    out = io.StringIO()
    print_verdict(Console(file=out, width=80), run.study, run.ledger, tmp_path)
    lines = out.getvalue().splitlines()
    heading = next(line for line in lines if "seeds" in line)
    assert heading.split() == [
        "RankMe",
        "seeds",
        "gain",
        "best",
        *(["accuracy", "%"] if run.labelled else []),
        "discrepancy",
    ]
    assert max(map(len, lines[:-1])) <= 80
    best = next(line for line in lines if line.startswith("best"))
    assert "60.0 ± 0.8" in best and "+2.1" in best
    assert ("40.0" in best) == run.labelled


def test_the_page_speaks_of_the_measure(run: Any) -> None:
    comparison = {"difference": 2.1, "interval": [1.0, 3.2], "seeds": 3, "against": "no head"}
    run.attribute(
        verdict={
            "winner": 0,
            "state": "better",
            "sentence": "best is better.",
            "comparison": comparison,
        }
    )
    page = build_page(run.study, run.ledger, Path("runs/photos"))
    titles = ("RankMe, and how sure it is", "Does discrepancy predict RankMe?")
    for text in (*titles, "RankMe 60.0", "in RankMe over no head, 3 seeds, paired"):
        assert text in page
    assert "figure-accuracy" in page and "no labelled images" not in page
    words = re.sub(
        r"<[^>]+>|\s+", " ", page[page.index('id="leaderboard-table"') : page.index('id="figures"')]
    )
    assert re.search(r"head +RankMe +accuracy, %", words)
    assert re.search(r"untrained base +reference +12\.5 ", words)
    assert re.search(
        r"winner +60\.0 +± 0\.8 +" + (r"40\.0 +3 " if run.labelled else "– +3 "), words
    )
    assert "Ranked by RankMe of the base on held-out images" in words
    assert "difference of RankMe to the control without a head" in words


def test_the_page_before_any_proxy_tells_the_references(builder: Callable[..., Any]) -> None:
    run = builder(labelled=False, rankme=opposite)
    run.attribute(reference_scores={"untrained base": 12.5})
    assert "<p>References: untrained base RankMe 12.5.</p>" in build_page(
        run.study, run.ledger, Path("runs/photos")
    )


def test_rows_of_the_page_have_the_interval_beside_what_ranks(run: Any) -> None:
    record = RunRecord.of(run.study)
    best = sections.board_rows(tables.leaderboard(record), record)[0]
    assert (best["score"], best["score_spread"], best["spread"], best["rank"]) == (
        "60.0",
        "± 0.8",
        "",
        1,
    )
    assert best["accuracy"] == ("40.0" if run.labelled else "–")
    assert sections.ranking(record.ranked_by) == (
        "RankMe",
        "Ranked by RankMe of the base on held-out images at the end of the training.",
    )


def test_of_a_measure_that_is_good_when_low_the_negative_ranks_and_is_called_so(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    run.attribute(config={"rank_by": "labelfree_alignment"})
    for name, alignment in (("near", 0.25), ("far", 0.75)):
        number = run.add(name, "mlp", TrialState.COMPLETE, 40.0)
        key = f"job/proxy/{number:04}/seed0"
        job = run.study.user_attrs[key]
        job["reports"][-1]["metrics"]["labelfree_alignment"] = alignment
        run.study.set_user_attr(key, job)
    board = tables.leaderboard(run.study)
    assert dict(zip(board["name"], board["score"], strict=True)) == {"near": -0.25, "far": -0.75}
    assert list(board["rank"]) == [1, 2]
    assert "The best so far is near with negative alignment -0.250" in verdict_text(run.study)
    assert style.axis_title(ALIGNMENT) == "negative alignment on held-out images, without labels"
    [told] = [one for one in agreements(run.study) if one.measure is ALIGNMENT]
    assert told.measure.good == "low", "the table of agreements has the measure itself"
