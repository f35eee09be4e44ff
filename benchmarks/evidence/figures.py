"""The evidence drawn with plotly: gains, what foretells them, how rankings settle. Each is None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from benchmarks.evidence.analysis import AGAINST
from hssl_search.reporting.axes import base_layout, error_bars
from hssl_search.reporting.palette import CONTROL, ordered_looks

STEP = 0.22
"""Between marks of one head."""


def draw_gains(found: pd.DataFrame, score: str) -> go.Figure | None:
    """Of one cell: a row for each head, a mark with its interval for each thing that it is compared with."""
    if found.empty:
        return None
    order = found[found.against == AGAINST[0]].sort_values("mean").branch
    heights = {branch: place for place, branch in enumerate(order)}
    figure, looks = go.Figure(), ordered_looks(AGAINST)
    for place, against in enumerate(AGAINST):
        rows = found[(found.against == against) & found.branch.isin(heights)]
        colour, mark = looks[against]
        figure.add_scatter(
            x=rows["mean"], y=[heights[branch] + (1 - place) * STEP for branch in rows.branch], mode="markers", name=f"over {against}",
            error_x=error_bars(rows["mean"], rows.low, rows.high, colour, thin=True), marker={"size": 9, "color": colour, "symbol": mark},
            hovertext=[f"{row.branch}, {row.n} seeds" for row in rows.itertuples()], hoverinfo="text+x")
    figure.add_vline(x=0, line={"color": CONTROL, "width": 1.4})
    figure.update_layout(**base_layout(), height=130 + 42 * len(heights))
    figure.update_yaxes(tickvals=list(heights.values()), ticktext=list(heights), range=[-0.6, len(heights) - 0.4])
    figure.update_xaxes(title=f"difference in {score}, points", range=_around(found["mean"]))
    return figure


def _around(values: pd.Series) -> list[float]:
    """A range that holds all means and zero, with as much again on both sides: intervals of two seeds would press them into a line."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    air = max(high - low, 0.5)
    return [low - air, high + air]


def draw_settling(found: pd.DataFrame) -> go.Figure | None:
    """Kendall's tau over the fraction of the schedule, lines for each cell: solid with the final ranking of other seeds, dotted its own."""
    if found.empty:
        return None
    figure = go.Figure()
    names = [f"{base}, {method}" for base, method in found[["base", "method"]].drop_duplicates().itertuples(index=False)]
    looks = ordered_looks(names)
    for (base, method), rows in found.groupby(["base", "method"], sort=False):
        colour, mark = looks[f"{base}, {method}"]
        for column, dash, words in (("other", "solid", "other seeds"), ("same", "dot", "same seed")):
            figure.add_scatter(x=100 * rows.fraction, y=rows[column], mode="lines+markers", name=f"{base}, {method}: {words}",
                               line={"color": colour, "dash": dash}, marker={"symbol": mark, "size": 8},
                               error_y=error_bars(rows[column], rows[f"{column}_low"], rows[f"{column}_high"], colour, thin=True))
    return _over_the_schedule(figure, "Kendall's tau with the final ranking")


def draw_foretold(found: pd.DataFrame, measures: Sequence[str]) -> go.Figure | None:
    """Of one cell: how measures of trainings alone rank heads like the score at the end, over the fraction at which they were measured."""
    rows = found[(found.source == "alone") & found.measure.isin(measures)].dropna(subset=["value"])
    if rows.empty:
        return None
    figure, looks = go.Figure(), ordered_looks(measures)
    for measure, its in rows.groupby("measure", sort=False):
        colour, mark = looks[str(measure)]
        figure.add_scatter(x=100 * its.fraction, y=its["value"], mode="lines+markers", name=str(measure), line={"color": colour},
                           marker={"symbol": mark, "size": 8}, error_y=error_bars(its["value"], its.low, its.high, colour, thin=True))
    return _over_the_schedule(figure, "rank correlation with the score at the end")


def _over_the_schedule(figure: go.Figure, title: str) -> go.Figure:
    figure.add_hline(y=0, line={"color": CONTROL, "width": 1.2})
    figure.update_layout(**base_layout(), height=420)
    figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}, margin_r=230)
    figure.update_xaxes(title="share of the schedule, %", type="log", tickvals=[1, 2, 5, 10, 25, 50, 100])
    figure.update_yaxes(title=title, range=[-1.05, 1.05])
    return figure
