from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.reporting import figure_data
from hssl_search.reporting.leaderboard import leaderboard


def test_correlation_counts_healthy_candidates_at_full_fidelity_only(run: Any) -> None:
    relation = figure_data.discrepancy_accuracy(run.study)
    assert relation.correlation.n == 4
    assert relation.correlation.value == pytest.approx(1.0)
    assert "n = 4" in relation.caption()
    assert "not meaningful" in relation.caption()
    gates = dict(zip(relation.points["name"], relation.points["gate"], strict=True))
    assert gates["noise head"] == "not learning"
    assert relation.points.set_index("name").loc["convnext depth 6", ["value"]].isna().all()


def test_caption_is_plain_with_enough_heads_and_refuses_with_too_few(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    for index in range(2):
        run.add(f"head {index}", "mlp", TrialState.COMPLETE, 40.0 + index, discrepancy=0.1 * index)
    assert "at least 3" in figure_data.discrepancy_accuracy(run.study).caption()
    for index in range(2, figure_data.FEW):
        run.add(f"head {index}", "mlp", TrialState.COMPLETE, 40.0 - index, discrepancy=0.1 * index)
    caption = figure_data.discrepancy_accuracy(run.study).caption()
    assert f"n = {figure_data.FEW}" in caption
    assert re.search(r"accuracy: −0\.\d\d \[−\d\.\d\d, [+−]?\d\.\d\d\] over", caption)
    assert "not meaningful" not in caption


def test_references_include_the_control_without_a_head_with_its_interval(run: Any) -> None:
    lines = {line.name: line for line in figure_data.references(run.study)}
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
    lines = figure_data.curve_lines(run.study).set_index("step")
    assert list(lines["seeds"]) == [2, 2, 2, 2]
    assert lines.loc[160, "value"] == pytest.approx(41.0)
    assert (lines.loc[160, "low"], lines.loc[160, "high"]) == (40.0, 42.0)


def test_curve_lines_keep_the_highest_candidates_and_every_control(run: Any) -> None:
    lines = figure_data.curve_lines(run.study, most=1)
    assert set(lines["name"]) == {
        "convnext depth 3 kernel 7",
        "no head",
        "no head, same device-time",
        "identity head",
    }


def test_leaderboard_rows_keep_controls_and_mark_the_winner(run: Any) -> None:
    rows = figure_data.leaderboard_rows(run.study, most=1)
    assert list(rows[rows["role"] == "candidate"]["name"]) == ["convnext depth 3 kernel 7"]
    assert list(rows[rows["winner"]]["trial"]) == [0]
    assert "no head" in set(rows["name"])
    assert rows.iloc[0]["by_seed"] == [41.4, 41.0, 41.5]


def test_timeline_lanes_hold_no_two_attempts_at_a_time(run: Any) -> None:
    frame = figure_data.timeline(run.ledger)
    assert "overhead" not in set(frame["phase"])
    for _, lane in frame.groupby("lane"):
        starts, ends = lane["start"].to_numpy(), lane["end"].to_numpy()
        assert (starts[1:] >= ends[:-1] - 1e-6).all()
    most_at_a_time = max(
        ((frame["start"] <= moment) & (frame["end"] > moment)).sum() for moment in frame["start"]
    )
    assert frame["lane"].max() + 1 == most_at_a_time
