"""Drawing what happens over time with plotly: learning curves, the full training, and the device-time timeline.

The data come from `figure_data.py`. Every function returns None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from hssl_search.engine.statistics.metrics import Measure
from hssl_search.reporting.axes import axis_title, base_layout, frame_around, reference_lines, short
from hssl_search.reporting.figure_data import Reference
from hssl_search.reporting.formats import duration, number, plural, time_unit
from hssl_search.reporting.palette import (
    CONTROL,
    CONTROL_DASHES,
    INK,
    MUTED,
    faded,
    family_looks,
    phase_colour,
    phase_order,
)


def draw_curves(
    lines: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """`measure` by step of every trained head, thin and coloured by family; the controls thick and dark, on top."""
    if lines.empty:
        return None
    figure = go.Figure()
    looks = family_looks(lines["family"].dropna())
    shown: set[str] = set()
    for _, line in lines[lines["role"] != "control"].groupby("trial"):
        family = str(line["family"].iloc[0])
        colour, mark = looks[family]
        _line(
            figure,
            line,
            short(family),
            family not in shown,
            {"color": faded(colour, 0.75), "width": 1.6},
            mark,
            6,
            measure,
        )
        shown.add(family)
    for _, line in lines[lines["role"] == "control"].groupby("trial"):
        dash = CONTROL_DASHES.get(str(line["control"].iloc[0]), "dot")
        _line(
            figure,
            line,
            short(line["name"].iloc[0]),
            True,
            {"color": CONTROL, "width": 2.8, "dash": dash},
            "circle",
            5,
            measure,
        )
    figure.update_layout(**base_layout(), height=460)
    inside = frame_around(lines["low"], lines["high"])
    figure.update_xaxes(title="training step of the proxy (batches)", rangemode="tozero")
    figure.update_yaxes(title=axis_title(measure), range=inside)
    reference_lines(figure, references, inside, vertical=False)
    return figure


def _line(
    figure: go.Figure,
    line: pd.DataFrame,
    legend: str,
    in_legend: bool,
    style: dict[str, object],
    mark: str,
    size: int,
    measure: Measure,
) -> None:
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
    digits = measure.digits + 1
    told = [
        f"<b>{short(row.name, 80)}</b><br>step {row.step}: {number(row.value, digits)}{measure.unit}, "
        f"{plural(row.seeds, 'seed')}{_range(row, digits)}"
        for row in line.itertuples()
    ]
    figure.add_scatter(
        x=line["step"],
        y=line["value"],
        mode="lines+markers",
        line=style,
        name=legend,
        legendgroup=legend,
        showlegend=in_legend,
        hovertext=told,
        hoverinfo="text",
        marker={"size": size, "symbol": mark},
    )


def _range(row: pd.Series, digits: int) -> str:
    return f" from {number(row.low, digits)} to {number(row.high, digits)}" if row.seeds > 1 else ""


def draw_full(
    line: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """`measure` by step of the winner's full training."""
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


def draw_timeline(frame: pd.DataFrame) -> go.Figure | None:
    """Every attempt as a bar from start to end, coloured by phase, in lanes of what ran at the same time."""
    if frame.empty:
        return None
    seconds, unit = time_unit(float(frame["end"].max()))
    figure = go.Figure()
    for phase in phase_order(frame["phase"]):
        part = frame[frame["phase"] == phase]
        told = [
            f"<b>{short(row.attempt, 80)}</b><br>{short(phase)}, {duration(row.device_s)} of device-time"
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
            hovertext=told,
            hoverinfo="text",
        )
    lanes = int(frame["lane"].max()) + 1
    figure.update_layout(
        **base_layout(), height=150 + min(26 * lanes, 600), barmode="overlay", margin_r=40
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
