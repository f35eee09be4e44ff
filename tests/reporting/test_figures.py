from __future__ import annotations

import json
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest

from hssl_search.engine.statistics.metrics import ACCURACY
from hssl_search.reporting import axes, figure_data, figures, figures_over_time, palette
from hssl_search.reporting.record import RunRecord


def drawn(run: Any) -> dict[str, go.Figure | None]:
    study, lines, measure = (
        run.study,
        figure_data.references(run.study),
        RunRecord.of(run.study).judged_by,
    )
    return {
        "leaderboard": figures.draw_leaderboard(
            figure_data.leaderboard_rows(study), lines, measure
        ),
        "discrepancy": figures.draw_discrepancy(figure_data.discrepancy_accuracy(study), lines),
        "curves": figures_over_time.draw_curves(figure_data.curve_lines(study), lines, measure),
        "full": figures_over_time.draw_full(figure_data.full_line(study), lines, measure),
        "timeline": figures_over_time.draw_timeline(figure_data.timeline(run.ledger)),
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
    assert figures.draw_leaderboard(figure_data.leaderboard_rows(study), [], ACCURACY) is None
    assert figures.draw_discrepancy(figure_data.discrepancy_accuracy(study), []) is None
    assert figures_over_time.draw_curves(figure_data.curve_lines(study), [], ACCURACY) is None
    assert figures_over_time.draw_full(figure_data.full_line(study), [], ACCURACY) is None
    assert figures_over_time.draw_timeline(figure_data.timeline([])) is None


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
    controls = [trace.line.color == palette.CONTROL for trace in lines]
    assert controls == sorted(controls)
    assert min(trace.line.width for trace in lines[controls.index(True) :]) > max(
        trace.line.width for trace in lines[: controls.index(True)]
    )


def test_names_cannot_bring_markup_into_a_figure(run: Any) -> None:
    for figure in drawn(run).values():
        assert figure is not None
        assert "<script" not in json.dumps(figure.to_dict(), default=str)


def test_families_keep_their_colours_and_have_marks_of_their_own() -> None:
    looks = palette.family_looks(["mlp", "new", "convnext"])
    assert looks["convnext"] == palette.family_looks(["convnext"])["convnext"]
    assert (
        len({colour for colour, _ in looks.values()})
        == len({mark for _, mark in looks.values()})
        == len(looks)
    )


def test_an_axis_is_not_pressed_flat_by_one_wide_interval() -> None:
    low, high = axes.frame_around([40.0, 42.0], [-100.0, float("nan")], [43.0])
    assert low == pytest.approx(38.0 - 0.06 * 5)
    assert high == pytest.approx(43.0 + 0.06 * 5)


def test_spread_moves_labels_apart_inside_the_range() -> None:
    apart = axes.spread([1.0, 5.0, 5.1, 30.0], [0.0, 10.0], least=0.1)
    assert apart == pytest.approx([1.0, 5.0, 6.0, 10.0])
    assert axes.spread([30.0, 31.0], [0.0, 10.0], least=0.1) == pytest.approx([9.0, 10.0])


def test_a_reference_out_of_range_is_named_at_the_edge_without_a_line(run: Any) -> None:
    figure = go.Figure()
    axes.reference_lines(
        figure,
        [figure_data.Reference("far", 5.0), figure_data.Reference("near", 45.0)],
        [40.0, 50.0],
        vertical=False,
    )
    assert len(figure.layout.shapes) == 1
    assert [note.text for note in figure.layout.annotations] == ["▾ far 5.0", "near 45.0"]
