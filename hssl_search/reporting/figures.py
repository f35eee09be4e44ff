"""The figures of a report: the data of each, and beside it how plotly draws it.

A function that draws returns None where there is nothing to draw. Names come from users: they are
escaped before plotly, which reads a subset of HTML in its texts, gets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from optuna import Study
from plotly.subplots import make_subplots

from hssl_search.engine.records.meter import OVERHEAD
from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.correlation import RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import Measure
from hssl_search.reporting import tables
from hssl_search.reporting.formats import (
    count,
    duration,
    interval,
    known,
    number,
    plural,
    signed,
    time_unit,
)
from hssl_search.reporting.style import (
    CONTROL,
    CONTROL_DASHES,
    GRID,
    INK,
    MUTED,
    Reference,
    axis_title,
    base_layout,
    error_bars,
    faded,
    family_looks,
    frame_around,
    phase_colour,
    phase_order,
    reference_lines,
    short,
)
from hssl_search.reporting.tables import OTHER_DISCREPANCIES, judged_column
from hssl_search.reporting.text import agreement

SICK = "#b00020"
_STRIPS = ("failed", "gated out", "not promoted", "stopped early", "not finished", "no accuracy")
"""Why a point has no accuracy at full proxy fidelity, from the lowest row up."""


def references(study: Study | RunRecord) -> list[Reference]:
    """Return raw pixels, the untrained base, and the control without a head, as far as each has
    what bases are judged by."""
    record = RunRecord.of(study)
    digits = record.judged_by.digits
    lines = [
        Reference(name, float(value), digits=digits)
        for name, value in record.judged_references.items()
        if known(value)
    ]
    board = _with_value(tables.leaderboard(record), record)
    no_head = record.no_head.number if record.no_head else -1
    # One row at most; none before the control came to full proxy fidelity.
    for row in board[(board["trial"] == no_head) & (board["seeds"] > 0)].itertuples():
        low, high = (float(row.low), float(row.high)) if known(row.low) else (None, None)
        lines.append(Reference("no head", float(row.value), low, high, digits))
    return lines


def _with_value(board: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
    """Return the leaderboard with what bases are judged by as `value`."""
    return board.assign(value=board[judged_column(record.judged_by)].astype(float))


def leaderboard_rows(study: Study | RunRecord, most: int = 15) -> pd.DataFrame:
    """Return the best `most` candidates and all controls that have what bases are judged by, the
    best first, with its mean as `value` and that of each seed in `by_seed`."""
    record = RunRecord.of(study)
    board = _with_value(tables.leaderboard(record), record).dropna(subset=["trial", "value"])
    best = board[board["role"] == "candidate"].head(most)
    rows = board[board.index.isin(best.index) | (board["role"] == "control")]
    by_number = {trial.number: trial for trial in record.trials}
    by_seed = [
        list(record.scores(by_number[number], record.judged_by).values())
        for number in rows["trial"]
    ]
    winner = record.verdict.winner
    # No trial has the number -1: a column of trials compares with None as unknown.
    return rows.assign(by_seed=by_seed, winner=rows["trial"] == (-1 if winner is None else winner))


def draw_leaderboard(
    rows: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """Draw the mean of `measure` with its interval, and a pale mark for each seed, best on top."""
    if rows.empty:
        return None
    figure = go.Figure()
    looks = family_looks(rows["family"])
    # plotly counts from the bottom, and the best is to be on top.
    heights = range(len(rows), 0, -1)
    for height, row in zip(heights, rows.itertuples(), strict=True):
        colour, mark = (CONTROL, "diamond-tall") if row.role == "control" else looks[row.family]
        # A hollow mark was stopped early: its mean is of fewer steps than those of the others.
        bars = error_bars([row.value], [row.low], [row.high], colour) if known(row.low) else None
        figure.add_scatter(
            x=row.by_seed,
            y=[height] * len(row.by_seed),
            mode="markers",
            hoverinfo="skip",
            marker={"size": 7, "color": faded(colour, 0.28), "line": {"width": 0}},
        )
        figure.add_scatter(
            x=[row.value],
            y=[height],
            mode="markers",
            error_x=bars,
            hovertext=_row_text(row, measure),
            hoverinfo="text",
            marker={
                "size": 12,
                "color": colour if row.seeds else "white",
                "symbol": mark,
                "line": {"width": 1.5, "color": colour},
            },
        )
    names = [short(row.name) for row in rows.itertuples()]
    figure.update_layout(
        **base_layout(), height=145 + 30 * len(rows), showlegend=False, margin_t=70, margin_r=40
    )
    figure.update_yaxes(
        tickvals=list(heights),
        ticktext=[
            f"<b>{name} ★</b>" if won else name
            for name, won in zip(names, rows["winner"], strict=True)
        ],
        range=[0.4, len(rows) + 0.6],
        showgrid=True,
        gridcolor=GRID,
    )
    # Means set the range: seeds and wide intervals may widen it, not press the means together.
    seeds = [value for values in rows["by_seed"] for value in values]
    inside = frame_around(rows["value"], seeds, rows["low"], rows["high"])
    figure.update_xaxes(title=axis_title(measure), range=inside)
    reference_lines(figure, references, inside, vertical=True)
    return figure


def _row_text(row: Any, measure: Measure) -> str:
    """Return what a mark of the leaderboard shows under the pointer."""
    digits = measure.digits + 1  # under the pointer there is room for one more
    lines = [
        f"<b>{short(row.name, 80)}</b>",
        f"{_reached(row.value, measure)} {interval(row.value, row.low, row.high, digits)}",
        f"mean of {plural(row.seeds, 'seed')}" if row.seeds else f"stopped at step {row.steps}",
    ]
    if not pd.isna(row.gain):
        between = interval(row.gain, row.gain_low, row.gain_high, digits)
        gain = f"{signed(row.gain, digits)} {between} {measure.points} over no head"
        lines.append(f"{gain}, {plural(row.gain_seeds, 'common seed')}")
    if not pd.isna(row.parameters):
        lines.append(f"{count(row.parameters)} parameters")
    return "<br>".join(lines)


def _reached(value: float, measure: Measure) -> str:
    return f"{measure.score_name} {number(value, measure.digits + 1)}{measure.unit}"


@dataclass(frozen=True)
class DiscrepancyAccuracy:
    """Discrepancy beside what bases are judged by."""

    points: pd.DataFrame
    """A row a trial: name, role, family, state, gate, discrepancy, value (of `measure`, missing
    where it was only screened), seeds, low, high, and the other discrepancies that were
    measured."""
    correlation: RankCorrelation
    """Over the healthy candidates at full proxy fidelity."""
    measure: Measure

    def caption(self) -> str:
        """Return how well discrepancy agrees with it."""
        name = self.measure.score_name
        return agreement(self.correlation, "discrepancy", name, "healthy head")


def discrepancy_accuracy(study: Study | RunRecord) -> DiscrepancyAccuracy:
    """Return the data of the figure that `draw_discrepancy` draws."""
    record = RunRecord.of(study)
    screened = tables.screening(record)
    columns = ["trial", "name", "role", "family", "gate", "gate_reason", "discrepancy"]
    columns += [name for name in OTHER_DISCREPANCIES if name in screened]
    board = _with_value(tables.leaderboard(record), record).dropna(subset=["trial"])
    scored = board[["trial", "value", "low", "high", "seeds"]]
    points = screened[[*columns, "state"]].merge(scored, on="trial", how="left")
    points = points.dropna(subset=["discrepancy"]).reset_index(drop=True)
    # What was only screened is not on the leaderboard.
    points["seeds"] = points["seeds"].fillna(0)
    healthy = (points["role"] == "candidate") & (points["gate"] == "healthy")
    compared = points[healthy & (points["seeds"] > 0)]
    correlation = rank_correlation(compared["discrepancy"], compared["value"])
    return DiscrepancyAccuracy(points, correlation, record.judged_by)


def draw_discrepancy(
    data: DiscrepancyAccuracy, references: Sequence[Reference]
) -> go.Figure | None:
    """Draw discrepancy against what bases are judged by; below, in rows of their own, the heads
    without it at full proxy fidelity."""
    points = data.points.assign(strip=[_strip(row) for row in data.points.itertuples()])
    if points.empty:
        return None
    measured, rest = points[points["strip"] == ""], points[points["strip"] != ""]
    strips = [strip for strip in _STRIPS if strip in set(rest["strip"])]
    # Heads without an accuracy lie in rows below, by discrepancy too: most heads are screened only.
    figure, panel, below = _panels(not measured.empty, len(strips))
    if not measured.empty:
        _measured_points(figure, measured, data.measure, panel)
        bands = [line.value for line in references if line.low is not None]
        inside = frame_around(measured["value"], measured["low"], measured["high"], bands)
        figure.update_yaxes(title=axis_title(data.measure), range=inside, **panel)
        reference_lines(figure, references, inside, vertical=False, **panel)
    if strips:
        _strip_points(figure, rest, strips, data.measure, below)
    # The axis holds zero, and all values with their marks.
    low, high = min(0.0, *points["discrepancy"]), max(0.1, *points["discrepancy"])
    figure.update_xaxes(range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    title = (
        "discrepancy of head and base: share of neighbours not in common, in excess of the "
        "identity head's"
    )
    figure.update_xaxes(title=title, **below)
    return figure


def _strip(row: Any) -> str:
    """Return why a point has no accuracy at full proxy fidelity; nothing where it has one."""
    if row.seeds > 0:
        return ""
    if row.gate != "healthy":
        return "gated out"
    if row.state == "PRUNED":
        return "not promoted" if pd.isna(row.value) else "stopped early"
    return {"FAIL": "failed", "COMPLETE": "no accuracy"}.get(row.state, "not finished")


def _panels(measured: bool, strips: int) -> tuple[go.Figure, dict[str, int], dict[str, int]]:
    """Return a figure of two panels with a common x-axis, the place of the points whose y is
    known, and the place, below, of the rows of the others.

    Either is left out where there is nothing for it; both places are empty then.
    """
    if not (measured and strips):
        figure = go.Figure()
        figure.update_layout(**base_layout(), height=480 if measured else 110 + 45 * strips)
        return figure, {}, {}
    share = 0.09 * strips
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[1 - share, share], vertical_spacing=0.03
    )
    figure.update_layout(**base_layout(), height=480 + 30 * strips)
    return figure, {"row": 1, "col": 1}, {"row": 2, "col": 1}


def _measured_points(
    figure: go.Figure, points: pd.DataFrame, measure: Measure, where: dict[str, int]
) -> None:
    """Draw the points whose y is known: families, controls, and what the gate left out."""
    looks = family_looks(points["family"])
    healthy = points["gate"] == "healthy"
    candidates = points[healthy & (points["role"] == "candidate")]
    groups = [
        (str(family), *looks[str(family)], group) for family, group in candidates.groupby("family")
    ]
    controls = points[healthy & (points["role"] == "control")]
    groups += [
        ("control", CONTROL, "star", controls),
        ("gated out", SICK, "x-thin", points[~healthy]),
    ]
    for name, colour, mark, group in groups:
        if group.empty:
            continue
        ends = group["low"], group["high"]
        figure.add_scatter(
            x=group["discrepancy"],
            y=group["value"],
            error_y=error_bars(group["value"], *ends, faded(colour, 0.4), thin=True),
            mode="markers",
            name=short(name),
            hovertext=[_point_text(row, measure) for row in group.itertuples()],
            hoverinfo="text",
            marker=_marker(12, mark, colour),
            **where,
        )


def _strip_points(
    figure: go.Figure,
    points: pd.DataFrame,
    strips: list[str],
    measure: Measure,
    where: dict[str, int],
) -> None:
    """Draw the points without a y, each in the row that says why."""
    looks = family_looks(points["family"])
    for (strip, role, family), group in points.groupby(["strip", "role", "family"]):
        colour = CONTROL if role == "control" else looks[family][0]
        mark = "x-thin" if strip == "gated out" else f"{looks[family][1]}-open"
        figure.add_scatter(
            x=group["discrepancy"],
            y=[strips.index(strip)] * len(group),
            mode="markers",
            showlegend=False,
            hovertext=[_point_text(row, measure) for row in group.itertuples()],
            hoverinfo="text",
            marker=_marker(9, mark, colour),
            **where,
        )
    figure.update_yaxes(
        tickvals=list(range(len(strips))),
        ticktext=strips,
        range=[-0.6, len(strips) - 0.4],
        showgrid=False,
        **where,
    )


def _marker(size: int, mark: str, colour: str) -> dict[str, object]:
    return {"size": size, "color": colour, "symbol": mark, "line": {"width": 2, "color": colour}}


def _point_text(row: Any, measure: Measure) -> str:
    """Return what a point shows under the pointer."""
    lines = [
        f"<b>{short(row.name, 80)}</b>",
        f"discrepancy {number(row.discrepancy, 3)}",
        f"gate: {short(row.gate)}",
    ]
    if row.gate != "healthy" and row.gate_reason and not pd.isna(row.gate_reason):
        lines.append(short(row.gate_reason, 90))
    for name in OTHER_DISCREPANCIES:
        if known(value := getattr(row, name, None)):
            lines.append(f"{name} discrepancy {number(value, 3)}")
    if not pd.isna(row.value):
        lines.append(_reached(row.value, measure) + ("" if row.seeds else " so far"))
    return "<br>".join(lines)


def curve_lines(study: Study | RunRecord, most: int = 60) -> pd.DataFrame:
    """Return the learning curves: a line for each control and for the `most` candidates that came
    highest.

    Columns: trial, name, role, family, control, step, value (mean over seeds), low and high (the
    seeds' range), seeds. Only the seeds that came as far as the trial's last step count, so that
    no line jumps where one of them ends.
    """
    every = tables.curves(study)
    every = every[every["phase"] != "full"]
    last = every.groupby(["trial", "seed"])["step"].transform("max")
    farthest = every.groupby("trial")["step"].transform("max")
    by = ["trial", "name", "role", "family", "control", "step"]
    values = every[last == farthest].groupby(by, dropna=False)["value"]
    lines = values.agg(value="mean", low="min", high="max", seeds="count").reset_index()
    # Of hundreds of thin lines none could be followed.
    candidates = lines[lines["role"] != "control"]
    highest = candidates.groupby("trial")["value"].max().astype(float).nlargest(most).index
    shown = (lines["role"] == "control") | lines["trial"].isin(highest)
    return lines[shown].reset_index(drop=True)


def draw_curves(
    lines: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """Draw `measure` by step of every trained head, thin and coloured by family; the controls
    thick and dark, on top."""
    if lines.empty:
        return None
    figure = go.Figure()
    looks = family_looks(lines["family"].dropna())
    in_legend: set[str] = set()  # a family has one entry, however many lines it has
    for _, line in lines[lines["role"] != "control"].groupby("trial"):
        family = str(line["family"].iloc[0])
        colour, mark = looks[family]
        style = {"color": faded(colour, 0.75), "width": 1.6}
        shown = family not in in_legend
        _curve(figure, line, family, shown, style, {"size": 6, "symbol": mark}, measure)
        in_legend.add(family)
    for _, line in lines[lines["role"] == "control"].groupby("trial"):
        dash = CONTROL_DASHES.get(str(line["control"].iloc[0]), "dot")
        style = {"color": CONTROL, "width": 2.8, "dash": dash}
        name = str(line["name"].iloc[0])
        _curve(figure, line, name, True, style, {"size": 5, "symbol": "circle"}, measure)
    figure.update_layout(**base_layout(), height=460)
    inside = frame_around(lines["low"], lines["high"])
    figure.update_xaxes(title="training step of the proxy (batches)", rangemode="tozero")
    figure.update_yaxes(title=axis_title(measure), range=inside)
    reference_lines(figure, references, inside, vertical=False)
    return figure


def _curve(
    figure: go.Figure,
    line: pd.DataFrame,
    legend: str,
    in_legend: bool,
    style: dict[str, object],
    marker: dict[str, object],
    measure: Measure,
) -> None:
    """Draw one learning curve; that of the control without a head with the range of its seeds."""
    legend = short(legend)
    if (line["control"] == "none").any():
        figure.add_scatter(
            x=[*line["step"], *line["step"][::-1]],
            y=[*line["high"], *line["low"][::-1]],
            fill="toself",
            mode="none",
            fillcolor=faded(INK, 0.09),
            hoverinfo="skip",
            showlegend=False,
            legendgroup=legend,
        )
    texts = []
    for row in line.itertuples():
        value, low, high = (
            number(each, measure.digits + 1) for each in (row.value, row.low, row.high)
        )
        between = f" from {low} to {high}" if row.seeds > 1 else ""
        texts.append(
            f"<b>{short(row.name, 80)}</b><br>step {row.step}: {value}{measure.unit}, "
            f"{plural(row.seeds, 'seed')}{between}"
        )
    figure.add_scatter(
        x=line["step"],
        y=line["value"],
        mode="lines+markers",
        line=style,
        name=legend,
        legendgroup=legend,
        showlegend=in_legend,
        hovertext=texts,
        hoverinfo="text",
        marker=marker,
    )


def full_line(study: Study | RunRecord) -> pd.DataFrame:
    """Return what bases are judged by, by step of the full training; empty without one."""
    every = tables.curves(study)
    return every[every["phase"] == "full"].reset_index(drop=True)


def draw_full(
    line: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """Draw `measure` by step of the winner's full training."""
    if line.empty:
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=line["step"],
        y=line["value"],
        mode="lines+markers",
        line={"color": phase_colour("full"), "width": 2.5},
        hovertemplate=f"step %{{x}}: %{{y:.{measure.digits + 1}f}}{measure.unit}<extra></extra>",
    )
    inside = frame_around(line["value"])
    figure.update_layout(**base_layout(), height=340, showlegend=False, margin_t=32)
    figure.update_xaxes(title="training step of the full training (batches)", rangemode="tozero")
    figure.update_yaxes(title=axis_title(measure), range=inside)
    reference_lines(figure, references, inside, vertical=False)
    return figure


def timeline(ledger: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `tables.device_time` with a `lane` for each attempt, so that attempts which ran at
    the same time lie in different lanes.

    The controller's own time (phase `overhead`) is left out: it is what lies between the bars.
    """
    frame = tables.device_time(ledger)
    frame = frame[frame["phase"] != OVERHEAD].reset_index(drop=True)
    ends: list[float] = []
    lanes = []
    # The first lane that is free takes the next attempt; ends and starts are rounded in the ledger.
    for start, end in zip(frame["start"], frame["end"], strict=True):
        free = next((lane for lane, busy in enumerate(ends) if busy <= start + 1e-6), len(ends))
        # Also appends a lane where none is free.
        ends[free : free + 1] = [end]
        lanes.append(free)
    return frame.assign(lane=pd.Series(lanes, dtype="Int64"))


def draw_timeline(frame: pd.DataFrame) -> go.Figure | None:
    """Draw every attempt as a bar from start to end, coloured by phase, in lanes of what ran at
    the same time."""
    if frame.empty:
        return None
    seconds, unit = time_unit(float(frame["end"].max()))
    figure = go.Figure()
    for phase in phase_order(frame["phase"]):
        part = frame[frame["phase"] == phase]
        texts = [
            f"<b>{short(row.attempt, 80)}</b><br>{short(phase)}, {duration(row.device_s)} of "
            "device-time"
            for row in part.itertuples()
        ]
        figure.add_bar(
            orientation="h",
            base=part["start"] / seconds,
            x=(part["end"] - part["start"]) / seconds,
            y=part["lane"] + 1,
            width=0.72,
            name=short(phase),
            marker={"color": phase_colour(phase), "line": {"color": "white", "width": 1}},
            hovertext=texts,
            hoverinfo="text",
        )
    lanes = int(frame["lane"].max()) + 1
    figure.update_layout(
        # Of hundreds of lanes the bars get thinner, not the page longer.
        **base_layout(),
        height=150 + min(26 * lanes, 600),
        barmode="overlay",
        margin_r=40,
    )
    figure.update_xaxes(title=f"time since the search began ({unit})", rangemode="tozero")
    figure.update_yaxes(
        title="jobs at a time",
        dtick=max(1, lanes // 8),
        range=[0.4, lanes + 0.6],
        showgrid=False,
        title_font_color=MUTED,
    )
    return figure
