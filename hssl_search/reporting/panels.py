"""The figures of the report, each with its title, caption, and what is said in its place while there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from hssl_search.reporting import figure_data, figures, figures_over_time
from hssl_search.reporting.formats import capital
from hssl_search.reporting.record import RunRecord


@dataclass(frozen=True)
class Panel:
    """A figure on the page; `plot` is None where there is nothing to draw yet, and `absent` says why."""

    key: str
    title: str
    caption: str
    absent: str
    plot: Markup | None


def panels(record: RunRecord, entries: list[Mapping[str, Any]]) -> list[Panel]:
    """In the order of the page; `entries` are the ledger's."""
    nothing = f"No {record.judged_by.score_name} has been reported yet."
    if record.ranked_by.of_head:
        nothing = "This run has no labelled images to measure accuracy on."
    return [
        _accuracy(record, nothing),
        _discrepancy(record),
        _curves(record, nothing),
        _full(record),
        _timeline(entries),
    ]


def _accuracy(record: RunRecord, nothing: str) -> Panel:
    name = record.judged_by.score_name
    return panel(
        "accuracy",
        f"{capital(name)}, and how sure it is",
        figures.draw_leaderboard(
            figure_data.leaderboard_rows(record), figure_data.references(record), record.judged_by
        ),
        f"Mean {name} and the 95 % interval that chance leaves, best on top. Pale marks are single seeds, hollow ones were stopped "
        "before full proxy fidelity, dark diamonds are controls. The vertical line and its band are the control without a head.",
        nothing,
    )


def _discrepancy(record: RunRecord) -> Panel:
    relation = figure_data.discrepancy_accuracy(record)
    return panel(
        "discrepancy",
        f"Does discrepancy foretell {record.judged_by.score_name}?",
        figures.draw_discrepancy(relation, figure_data.references(record)),
        relation.caption(),
        "Nothing has been screened yet.",
    )


def _curves(record: RunRecord, nothing: str) -> Panel:
    fixed = [
        line for line in figure_data.references(record) if line.name in record.judged_references
    ]
    return panel(
        "curves",
        "Learning curves",
        figures_over_time.draw_curves(figure_data.curve_lines(record), fixed, record.judged_by),
        "Mean over the seeds of a head, at most 60 heads, the highest. Controls are dark and thick; the shade is the range of the "
        "seeds of the control without a head. A line that ends early was stopped.",
        nothing,
    )


def _full(record: RunRecord) -> Panel:
    line = figure_data.full_line(record)
    return panel(
        "full",
        "Full training",
        figures_over_time.draw_full(line, figure_data.references(record), record.judged_by),
        f"{', '.join(line['name'].unique())}. Steps are those of the full recipe: its schedule differs from that of the proxies above.",
        "",
    )


def _timeline(entries: list[Mapping[str, Any]]) -> Panel:
    return panel(
        "timeline",
        "Where the time went",
        figures_over_time.draw_timeline(figure_data.timeline(entries)),
        "Each bar is an attempt of a job; bars above each other ran at the same time. Time between bars is the controller's own.",
        "Nothing has been charged yet.",
    )


def panel(key: str, title: str, figure: go.Figure | None, caption: str, absent: str) -> Panel:
    """The figure with what is said of it, ready for a page; `absent` is said where there is no figure."""
    return Panel(key, title, caption, absent, None if figure is None else _embed(key, figure))


def _embed(key: str, figure: go.Figure) -> Markup:
    """The figure as a <div> and its script, without plotly.js, which the page holds once."""
    options = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    }
    return Markup(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"figure-{key}", config=options
        )
    )
