from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest
from optuna.trial import TrialState

from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.metrics import ACCURACY
from hssl_search.reporting import figures, style
from hssl_search.reporting.tables import leaderboard


def test_correlation_counts_healthy_candidates_at_full_fidelity_only(run: Any) -> None:
    relation = figures.discrepancy_accuracy(run.study)
    assert relation.correlation.n == 4
    assert relation.correlation.value == pytest.approx(1.0)
    assert relation.caption() == (
        "How well discrepancy agrees with accuracy cannot be told from 4 healthy heads."
    )
    gates = dict(zip(relation.points["name"], relation.points["gate"], strict=True))
    assert gates["noise head"] == "not learning"
    assert relation.points.set_index("name").loc["convnext depth 6", ["value"]].isna().all()


def test_caption_tells_the_correlation_with_its_interval(builder: Callable[..., Any]) -> None:
    run = builder()
    for index in range(10):
        run.add(f"head {index}", "mlp", TrialState.COMPLETE, 40.0 - index, discrepancy=0.1 * index)
    run.add("odd", "mlp", TrialState.COMPLETE, 41.0, discrepancy=0.5)
    caption = figures.discrepancy_accuracy(run.study).caption()
    assert re.fullmatch(
        r"Over 11 healthy heads the rank correlation of discrepancy with accuracy is −0\.\d\d "
        r"\(Spearman, 95 % interval −\d\.\d\d to [+−]\d\.\d\d\)\.",
        caption,
    )


def test_references_include_the_control_without_a_head_with_its_interval(run: Any) -> None:
    lines = {line.name: line for line in figures.references(run.study)}
    assert list(lines) == ["raw pixels", "untrained base", "no head"]
    low, high = leaderboard(run.study).set_index("name").loc["no head", ["low", "high"]]
    assert (lines["no head"].low, lines["no head"].high) == (low, high)
    assert low < 40.5 < high
    assert lines["raw pixels"].low is None


def test_curve_lines_average_only_the_seeds_that_came_to_the_last_step(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    trial = run.add("head", "mlp", TrialState.COMPLETE, 40.0)
    run.job(trial, "head", 1, {40: 99.0}, "confirm", state="cut")
    run.confirm(trial, "head", {2: 42.0})
    lines = figures.curve_lines(run.study).set_index("step")
    assert list(lines["seeds"]) == [2, 2, 2, 2]
    assert lines.loc[160, "value"] == pytest.approx(41.0)
    assert (lines.loc[160, "low"], lines.loc[160, "high"]) == (40.0, 42.0)


def test_curve_lines_keep_the_highest_candidates_and_every_control(run: Any) -> None:
    lines = figures.curve_lines(run.study, most=1)
    assert set(lines["name"]) == {
        "convnext depth 3 kernel 7",
        "no head",
        "no head, same device-time",
        "identity head",
    }


def test_leaderboard_rows_keep_controls_and_mark_the_winner(run: Any) -> None:
    rows = figures.leaderboard_rows(run.study, most=1)
    assert list(rows[rows["role"] == "candidate"]["name"]) == ["convnext depth 3 kernel 7"]
    assert list(rows[rows["winner"]]["trial"]) == [0]
    assert "no head" in set(rows["name"])
    assert rows.iloc[0]["by_seed"] == [41.4, 41.0, 41.5]


def test_timeline_lanes_hold_no_two_attempts_at_a_time(run: Any) -> None:
    frame = figures.timeline(run.ledger)
    assert "overhead" not in set(frame["phase"])
    for _, lane in frame.groupby("lane"):
        starts, ends = lane["start"].to_numpy(), lane["end"].to_numpy()
        assert (starts[1:] >= ends[:-1] - 1e-6).all()
    most_at_a_time = max(
        ((frame["start"] <= moment) & (frame["end"] > moment)).sum() for moment in frame["start"]
    )
    assert frame["lane"].max() + 1 == most_at_a_time


def drawn(run: Any) -> dict[str, go.Figure | None]:
    study, lines, measure = (
        run.study,
        figures.references(run.study),
        RunRecord.of(run.study).judged_by,
    )
    return {
        "leaderboard": figures.draw_leaderboard(figures.leaderboard_rows(study), lines, measure),
        "discrepancy": figures.draw_discrepancy(figures.discrepancy_accuracy(study), lines),
        "curves": figures.draw_curves(figures.curve_lines(study), lines, measure),
        "full": figures.draw_full(figures.full_line(study), lines, measure),
        "timeline": figures.draw_timeline(figures.timeline(run.ledger)),
    }


def test_every_axis_has_a_title_with_its_unit(run: Any) -> None:
    for name, figure in drawn(run).items():
        assert figure is not None, name
        layout = figure.layout.to_plotly_json()
        titles = " ".join(
            axis["title"]["text"]
            for key, axis in layout.items()
            if "axis" in key and "title" in axis
        )
        expected = {
            "timeline": ["(min)"],
            "leaderboard": ["(%)"],
            "discrepancy": ["(%)", "share of neighbours"],
            "curves": ["(%)", "(batches)"],
            "full": ["(%)", "(batches)"],
        }
        assert all(unit in titles for unit in expected[name]), (name, titles)


def test_nothing_is_drawn_of_an_empty_run() -> None:
    study = optuna.create_study()
    assert figures.draw_leaderboard(figures.leaderboard_rows(study), [], ACCURACY) is None
    assert figures.draw_discrepancy(figures.discrepancy_accuracy(study), []) is None
    assert figures.draw_curves(figures.curve_lines(study), [], ACCURACY) is None
    assert figures.draw_full(figures.full_line(study), [], ACCURACY) is None
    assert figures.draw_timeline(figures.timeline([])) is None


def test_gated_out_heads_have_a_mark_and_a_row_of_their_own(run: Any) -> None:
    figure = drawn(run)["discrepancy"]
    assert figure is not None
    rows = list(figure.layout.yaxis2.ticktext)
    assert rows == ["gated out", "not promoted", "stopped early"]
    crosses = [trace for trace in figure.data if trace.marker.symbol == "x-thin"]
    assert sorted(x for trace in crosses for x in trace.x) == [0.7, 0.93]
    assert {y for trace in crosses for y in trace.y} == {rows.index("gated out")}


def test_heads_are_shown_by_discrepancy_alone_before_any_proxy(builder: Any) -> None:
    run = builder()
    run.add("new", "mlp", optuna.trial.TrialState.RUNNING, discrepancy=0.3)
    figure = drawn(run)["discrepancy"]
    assert figure is not None
    assert list(figure.layout.yaxis.ticktext) == ["not finished"]


def test_controls_are_drawn_over_the_candidates_and_thicker(run: Any) -> None:
    figure = drawn(run)["curves"]
    assert figure is not None
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    controls = [trace.line.color == style.CONTROL for trace in lines]
    assert controls == sorted(controls)
    assert min(trace.line.width for trace in lines[controls.index(True) :]) > max(
        trace.line.width for trace in lines[: controls.index(True)]
    )


def test_names_cannot_bring_markup_into_a_figure(run: Any) -> None:
    for figure in drawn(run).values():
        assert figure is not None
        assert "<script" not in json.dumps(figure.to_dict(), default=str)
