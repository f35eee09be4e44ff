"""The report of a run: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from optuna import Study
from plotly.offline import get_plotlyjs

from hssl_search.bundled import find
from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.correlation import LEAST
from hssl_search.reporting import figures, relations, sections, tables
from hssl_search.reporting.formats import capital
from hssl_search.reporting.sections import verdict_text


@dataclass(frozen=True)
class Panel:
    """A figure on the page with what is said of it, or in its place."""

    key: str
    title: str
    caption: str
    absent: str
    """What is said while there is nothing to draw."""
    plot: Markup | None
    """None where there is nothing to draw yet."""


def build_page(study: Study | RunRecord, ledger: Iterable[Mapping[str, Any]], folder: Path) -> str:
    """Return the whole page as HTML, for a finished run or as far as an unfinished one came.

    Template and style lie in the folder `reports/`; a user's own of the same name take their
    place. All texts of the run are escaped.
    """
    record, entries = RunRecord.of(study), list(ledger)
    content = {**_content(record, entries, folder), "panels": panels(record, entries)}
    # StrictUndefined: a user's own template that asks for what is no longer there fails by name.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # plotly.js is in the page, which has to work without a network.
    style, plotly = Markup(_report_file("style.css")), Markup(get_plotlyjs())
    template = environment.from_string(_report_file("template.html"))
    return template.render(**content, style=style, plotly=plotly)


def _report_file(name: str) -> str:
    return find("reports", name).read_text(encoding="utf-8")


def _content(
    record: RunRecord, entries: list[Mapping[str, Any]], folder: Path
) -> dict[str, object]:
    """Return the values of the template, but for the figures."""
    board, screening = tables.leaderboard(record), tables.screening(record)
    cost = tables.cost(record, entries)
    score_title, ranked_by = sections.ranking(record.ranked_by)
    return {
        "name": str(record.config.get("name") or folder.name),
        "go_on": sections.next_command(folder, record.search.verdict is not None),
        "facts": sections.facts(record, cost, entries),
        "verdict": verdict_text(record),
        "state": record.verdict.state if record.search.verdict else "",
        "headline": sections.headline(record, board),
        "cost": cost.sentence(),
        "cost_rows": sections.cost_rows(cost),
        "overspent": bool(cost.budget_s and cost.used_s > cost.budget_s),
        "board": sections.board_rows(board, record),
        "references": sections.reference_rows(board),
        "reference_scores": sections.reference_scores(record),
        "reference_words": sections.reference_words(record),
        "screening": sections.screening_rows(screening),
        "screened": len(screening),
        "gate_summary": sections.gate_summary(screening),
        "failures": tables.failures(record).fillna({"trial": 0}).to_dict("records"),
        "howto": sections.howto(folder),
        "config": yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True),
        "versions": sections.versions(record.config),
        "score_title": score_title,
        "ranked_by": ranked_by,
        "judged_by": record.judged_by.score_name,
        "most_rows": sections.MOST_ROWS,
        "values": relations.value_rows(tables.parameter_values(record)),
        "agreements": relations.agreement_rows(relations.agreements(record)),
        "least_agreeing": LEAST,
        "promoted_by": record.search.promotion.rule if record.search.promotion else "",
        "promotion": relations.promotion_rows(record.search.promotion),
    }


def panels(record: RunRecord, entries: list[Mapping[str, Any]]) -> list[Panel]:
    """Return the figures in the order of the page.

    Args:
        entries: those of the run's ledger.
    """
    measure, name = record.judged_by, record.judged_by.score_name
    lines = figures.references(record)
    # Curves have the control without a head among them, so that its line is not drawn again.
    untrained = [line for line in lines if line.name in record.judged_references]
    relation = figures.discrepancy_accuracy(record)
    full = figures.full_line(record)
    nothing = f"No {name} has been reported yet."
    if record.ranked_by.of_head:
        nothing = "This run has no labelled images to measure accuracy on."
    return [
        panel(
            "accuracy",
            f"{capital(name)}, and how sure it is",
            figures.draw_leaderboard(figures.leaderboard_rows(record), lines, measure),
            f"Mean {name} and the 95 % interval that chance leaves, best on top. Pale marks are "
            "single seeds, hollow ones were stopped before full proxy fidelity, dark diamonds are "
            "controls. The vertical line and its band are the control without a head.",
            nothing,
        ),
        panel(
            "discrepancy",
            f"Does discrepancy predict {name}?",
            figures.draw_discrepancy(relation, lines),
            relation.caption(),
            "Nothing has been screened yet.",
        ),
        panel(
            "curves",
            "Learning curves",
            figures.draw_curves(figures.curve_lines(record), untrained, measure),
            "Mean over the seeds of a head, at most 60 heads, the highest. Controls are dark and "
            "thick; the shade is the range of the seeds of the control without a head. A line that "
            "ends early was stopped.",
            nothing,
        ),
        panel(
            "full",
            "Full training",
            figures.draw_full(full, lines, measure),
            f"{', '.join(full['name'].unique())}. Steps are those of the full recipe: its schedule "
            "differs from that of the proxies above.",
            "",
        ),
        panel(
            "timeline",
            "Where the time went",
            figures.draw_timeline(figures.timeline(entries)),
            "Each bar is an attempt of a job; bars above each other ran at the same time. Time "
            "between bars is the controller's own.",
            "Nothing has been charged yet.",
        ),
    ]


def panel(key: str, title: str, figure: go.Figure | None, caption: str, absent: str) -> Panel:
    """Return the figure with what is said of it, as a <div> and its script, without plotly.js,
    which the page holds once."""
    # The page keeps the heading, and says why there is nothing below it.
    if figure is None:
        return Panel(key, title, caption, absent, None)
    options = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    }
    plot = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{key}", config=options
    )
    return Panel(key, title, caption, absent, Markup(plot))
