"""The report of a run: one HTML file that needs no network.

The template and the style lie in the folder `reports/` and can be replaced by the user's own of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from optuna import Study
from plotly.offline import get_plotlyjs

from hssl_search import bundled
from hssl_search.engine.statistics.correlation import LEAST
from hssl_search.errors import UserError
from hssl_search.reporting import relations, sections, tables
from hssl_search.reporting.agreement import agreements
from hssl_search.reporting.cost import cost as cost_of
from hssl_search.reporting.files import write_whole
from hssl_search.reporting.panels import panels
from hssl_search.reporting.record import RunRecord
from hssl_search.reporting.repeated import repeated
from hssl_search.reporting.verdict import verdict_text

Entries = Iterable[Mapping[str, Any]]


def write_report(folder: Path, study: Study | RunRecord, ledger: Entries) -> list[Path]:
    """Write `report.html`, `leaderboard.csv` and `trials.parquet` into the run folder, each whole or not at all.

    Args:
        ledger: the entries of the run's `records.ledger.Ledger`.

    Raises:
        UserError: where the last report has more trials than the study, which then is another one; nothing is written.
    """
    record = RunRecord.of(study)
    if (before := tables.reported_trials(folder)) > (now := len(record.trials)):
        raise UserError(
            f"the report in {folder} is of {before} trials and the study holds {now}: it is not the study of this run, or a "
            f"part of it is lost; put it back, or remove {folder / tables.TRIALS} to have a report of what is there."
        )
    page = build_page(record, ledger, folder)
    return [
        write_whole(folder / "report.html", lambda path: _write(path, page)),
        *tables.write_tables(folder, record),
    ]


def _write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8")


def build_page(study: Study | RunRecord, ledger: Entries, folder: Path) -> str:
    """The whole page as HTML, for a finished run or as far as an unfinished one came. All texts of the run are escaped."""
    record, entries = RunRecord.of(study), list(ledger)
    content = {
        **_content(record, entries, folder),
        **_related(record),
        "panels": panels(record, entries),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, plotly = Markup(_report_file("style.css")), Markup(get_plotlyjs())
    template = environment.from_string(_report_file("template.html"))
    return template.render(**content, style=style, plotly=plotly)


def _report_file(name: str) -> str:
    return bundled.find("reports", name).read_text(encoding="utf-8")


def _content(record: RunRecord, entries: list[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    board, screening, cost = (
        tables.leaderboard(record),
        tables.screening(record),
        cost_of(record, entries),
    )
    score_title, ranked_by = sections.ranking(record.ranked_by)
    return {
        "name": str(record.config.get("name") or folder.name),
        "go_on": sections.go_on(folder, bool(record.verdict)),
        "facts": sections.facts(record, cost, entries),
        "verdict": verdict_text(record),
        "state": str(record.verdict.get("state") or ""),
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
        "repeated": repeated(record).sentence(),
        "failures": tables.failures(record).fillna({"trial": 0}).to_dict("records"),
        "howto": sections.howto(folder),
        "config": yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True),
        "versions": sections.versions(record.config),
        "score_title": score_title,
        "ranked_by": ranked_by,
        "judged_by": record.judged_by.score_name,
        "most_rows": sections.MOST_ROWS,
    }


def _related(record: RunRecord) -> dict[str, Any]:
    """What goes with what in this run."""
    return {
        "values": relations.value_rows(tables.parameter_values(record)),
        "agreements": relations.agreement_rows(agreements(record)),
        "least_agreeing": LEAST,
        "promoted_by": str(record.promotion.get("rule") or ""),
        "promotion": relations.promotion_rows(record.promotion),
    }
