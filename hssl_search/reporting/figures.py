"""Drawing heads side by side with plotly: the leaderboard, and discrepancy against what bases are judged by.

The data come from `figure_data.py`. Every function returns None where there is nothing to draw.

Names come from users: they are escaped before plotly, which reads a subset of HTML in its texts, gets them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from hssl_search.engine.statistics.metrics import Measure
from hssl_search.reporting.axes import (
    axis_title,
    base_layout,
    error_bars,
    frame_around,
    panels,
    reference_lines,
    short,
)
from hssl_search.reporting.figure_data import DiscrepancyAccuracy, Reference
from hssl_search.reporting.formats import count, interval, known, number, plural, signed
from hssl_search.reporting.frames import OTHER_DISCREPANCIES
from hssl_search.reporting.palette import CONTROL, GRID, faded, family_looks

_STRIPS = ("failed", "gated out", "not promoted", "stopped early", "not finished", "no accuracy")
"""Why a point has no accuracy at full proxy fidelity, from the lowest row up."""


def draw_leaderboard(
    rows: pd.DataFrame, references: Sequence[Reference], measure: Measure
) -> go.Figure | None:
    """The mean of `measure` with its interval, and a light mark for each seed, best on top."""
    if rows.empty:
        return None
    figure = go.Figure()
    looks = family_looks(rows["family"])
    heights = range(len(rows), 0, -1)
    for height, row in zip(heights, rows.itertuples(), strict=True):
        colour, mark = (CONTROL, "diamond-tall") if row.role == "control" else looks[row.family]
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
            error_x=error_bars([row.value], [row.low], [row.high], colour)
            if known(row.low)
            else None,
            hovertext=_told(row, measure),
            hoverinfo="text",
            marker={
                "size": 12,
                "color": colour if row.seeds else "white",
                "symbol": mark,
                "line": {"width": 1.5, "color": colour},
            },
        )
    figure.update_layout(
        **base_layout(), height=145 + 30 * len(rows), showlegend=False, margin_t=70, margin_r=40
    )
    figure.update_yaxes(
        tickvals=list(heights),
        ticktext=[_tick(row) for row in rows.itertuples()],
        range=[0.4, len(rows) + 0.6],
        showgrid=True,
        gridcolor=GRID,
    )
    inside = frame_around(
        rows["value"],
        [value for values in rows["by_seed"] for value in values],
        rows["low"],
        rows["high"],
    )
    figure.update_xaxes(title=axis_title(measure), range=inside)
    reference_lines(figure, references, inside, vertical=True)
    return figure


def _tick(row: pd.Series) -> str:
    name = short(row.name)
    return f"<b>{name} ★</b>" if row.winner else name


def _told(row: pd.Series, measure: Measure) -> str:
    digits = measure.digits + 1
    lines = [
        f"<b>{short(row.name, 80)}</b>",
        f"{_reached(row.value, measure)} {interval(row.value, row.low, row.high, digits)}",
    ]
    lines.append(
        f"mean of {plural(row.seeds, 'seed')}" if row.seeds else f"stopped at step {row.steps}"
    )
    if not pd.isna(row.gain):
        between = interval(row.gain, row.gain_low, row.gain_high, digits)
        lines.append(
            f"{signed(row.gain, digits)} {between} {measure.points} over no head, {plural(row.gain_seeds, 'common seed')}"
        )
    if not pd.isna(row.parameters):
        lines.append(f"{count(row.parameters)} parameters")
    return "<br>".join(lines)


def _reached(value: float, measure: Measure) -> str:
    return f"{measure.score_name} {number(value, measure.digits + 1)}{measure.unit}"


def draw_discrepancy(
    data: DiscrepancyAccuracy, references: Sequence[Reference]
) -> go.Figure | None:
    """Discrepancy against what bases are judged by; below, in rows of their own, the heads without it at full proxy fidelity."""
    points = data.points.assign(strip=[_strip(row) for row in data.points.itertuples()])
    if points.empty:
        return None
    measured, rest = points[points["strip"] == ""], points[points["strip"] != ""]
    strips = [strip for strip in _STRIPS if strip in set(rest["strip"])]
    figure, panel, below = panels(not measured.empty, len(strips))
    if not measured.empty:
        _measured_points(figure, measured, data.measure, panel)
        bands = [line.value for line in references if line.low is not None]
        inside = frame_around(measured["value"], measured["low"], measured["high"], bands)
        figure.update_yaxes(title=axis_title(data.measure), range=inside, **panel)
        reference_lines(figure, references, inside, vertical=False, **panel)
    if strips:
        _strip_points(figure, rest, strips, data.measure, below)
    figure.update_xaxes(range=_from_zero(points["discrepancy"]))
    figure.update_xaxes(title=_DISCREPANCY, **below)
    return figure


def _from_zero(values: pd.Series) -> list[float]:
    """The range of an axis that holds zero and all values, marks included."""
    low, high = min(0.0, float(values.min())), max(0.1, float(values.max()))
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)]


_DISCREPANCY = "discrepancy of head and base: share of neighbours not in common, in excess of the identity head's"


def _strip(row: pd.Series) -> str:
    if row.seeds > 0:
        return ""
    if row.gate != "healthy":
        return "gated out"
    if row.state == "PRUNED":
        return "not promoted" if pd.isna(row.value) else "stopped early"
    return {"FAIL": "failed", "COMPLETE": "no accuracy"}.get(row.state, "not finished")


def _measured_points(
    figure: go.Figure, points: pd.DataFrame, measure: Measure, where: dict[str, int]
) -> None:
    looks = family_looks(points["family"])
    healthy = (points["role"] == "candidate") & (points["gate"] == "healthy")
    for family, group in points[healthy].groupby("family"):
        _marks(
            figure, group, str(family), looks[str(family)][0], looks[str(family)][1], measure, where
        )
    controls = points[(points["role"] == "control") & (points["gate"] == "healthy")]
    _marks(figure, controls, "control", CONTROL, "star", measure, where)
    _marks(
        figure,
        points[points["gate"] != "healthy"],
        "gated out",
        "#b00020",
        "x-thin",
        measure,
        where,
    )


def _marks(
    figure: go.Figure,
    group: pd.DataFrame,
    name: str,
    colour: str,
    mark: str,
    measure: Measure,
    where: dict[str, int],
) -> None:
    if group.empty:
        return
    figure.add_scatter(
        x=group["discrepancy"],
        y=group["value"],
        error_y=error_bars(
            group["value"], group["low"], group["high"], faded(colour, 0.4), thin=True
        ),
        mode="markers",
        name=short(name),
        hovertext=[_point(row, measure) for row in group.itertuples()],
        hoverinfo="text",
        marker={"size": 12, "color": colour, "symbol": mark, "line": {"width": 2, "color": colour}},
        **where,
    )


def _strip_points(
    figure: go.Figure,
    points: pd.DataFrame,
    strips: list[str],
    measure: Measure,
    where: dict[str, int],
) -> None:
    looks = family_looks(points["family"])
    for (strip, role, family), group in points.groupby(["strip", "role", "family"]):
        colour = CONTROL if role == "control" else looks[family][0]
        mark = "x-thin" if strip == "gated out" else f"{looks[family][1]}-open"
        figure.add_scatter(
            x=group["discrepancy"],
            y=[strips.index(strip)] * len(group),
            mode="markers",
            showlegend=False,
            hovertext=[_point(row, measure) for row in group.itertuples()],
            hoverinfo="text",
            marker={
                "size": 9,
                "symbol": mark,
                "color": colour,
                "line": {"width": 2, "color": colour},
            },
            **where,
        )
    figure.update_yaxes(
        tickvals=list(range(len(strips))),
        ticktext=strips,
        range=[-0.6, len(strips) - 0.4],
        showgrid=False,
        **where,
    )


def _point(row: pd.Series, measure: Measure) -> str:
    lines = [
        f"<b>{short(row.name, 80)}</b>",
        f"discrepancy {number(row.discrepancy, 3)}",
        f"gate: {short(row.gate)}",
    ]
    if row.gate != "healthy" and row.gate_reason and not pd.isna(row.gate_reason):
        lines.append(short(row.gate_reason, 90))
    told = {name: getattr(row, name, None) for name in OTHER_DISCREPANCIES}
    lines += [
        f"{name} discrepancy {number(value, 3)}" for name, value in told.items() if known(value)
    ]
    if not pd.isna(row.value):
        lines.append(_reached(row.value, measure) + ("" if row.seeds else " so far"))
    return "<br>".join(lines)
