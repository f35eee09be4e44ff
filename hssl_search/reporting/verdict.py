"""The verdict of a run in words, and as it is printed in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.reporting.cost import cost
from hssl_search.reporting.formats import MISSING, interval, known, number, plural, share, signed
from hssl_search.reporting.leaderboard import judged_column
from hssl_search.reporting.record import RunRecord, is_control
from hssl_search.reporting.tables import leaderboard

TONES = {"better": "green", "undecided": "yellow", "no head": "cyan", "unranked": "white"}


def verdict_text(study: Study | RunRecord) -> str:
    """The verdict's sentences; for a run without a verdict, how far it came and what leads."""
    record = RunRecord.of(study)
    if sentence := record.verdict.get("sentence"):
        return str(sentence)
    return f"No verdict yet: {_progress(record)}. {_leader(record)}"


def _progress(record: RunRecord) -> str:
    candidates = [trial for trial in record.heads if not is_control(trial)]
    screened = sum(bool(trial.user_attrs.get("gate")) for trial in candidates)
    finished = sum(trial.state is TrialState.COMPLETE for trial in candidates)
    failed = sum(trial.state is TrialState.FAIL for trial in candidates)
    told = (
        f"{plural(len(candidates), 'head')}, {screened} screened, {finished} at full proxy fidelity"
    )
    return f"{told}, {failed} failed" if failed else told


def _leader(record: RunRecord) -> str:
    board = leaderboard(record)
    ranked = board[(board["role"] == "candidate") & board["rank"].notna()]
    if ranked.empty:
        return "No head has a result that can be ranked."
    best = ranked.iloc[0]
    told = record.ranked_by.amount
    if record.ranked_by.of_head:
        return f"The most discrepant healthy head so far is {best['name']} ({told(best['score'])})."
    no_head = record.no_head
    result = record.scores(no_head, record.ranked_by) if no_head else {}
    against = (
        f"no head {told(mean(result.values()))}"
        if result
        else "the control without a head has no result yet"
    )
    return f"The best so far is {best['name']} with {told(best['score'])} ({against})."


def print_verdict(
    console: Console,
    study: Study | RunRecord,
    ledger: Iterable[Mapping[str, Any]],
    folder: Path,
    top: int = 5,
) -> None:
    """The verdict, a table of references, controls and the `top` candidates, what it cost, and where the files are."""
    record = RunRecord.of(study)
    tone = TONES.get(str(record.verdict.get("state")), "white")
    console.print()
    console.print(Text(verdict_text(record), style=f"bold {tone}"))
    board = leaderboard(record)
    if not board.empty:
        console.print(_table(board, record.judged_by, record.verdict.get("winner"), top))
    console.print(f"Cost: {cost(record, ledger).sentence()}", highlight=False)
    for path in _paths(folder):
        console.print(Text(f"  {path}"), highlight=False, soft_wrap=True)


def _table(board: pd.DataFrame, measure: Measure, winner: int | None, top: int) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True
    )
    table.add_column("", ratio=1, overflow="fold")
    accuracy_too = measure != ACCURACY and bool(board["accuracy"].notna().any())
    judged = f"{measure.score_name}{measure.unit}"
    for title in (
        judged,
        "seeds",
        "gain",
        "best",
        *(["accuracy %"] if accuracy_too else []),
        "discrepancy",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    groups = [("reference", 99, "dim"), ("control", 99, ""), ("candidate", top, "")]
    for role, most, style in groups:
        rows = board[(board["role"] == role) & (board["rank"].notna() | (role != "candidate"))]
        for row in rows.head(most).to_dict("records"):
            won = winner is not None and row["trial"] == winner
            table.add_row(
                *_cells(row, measure, won, accuracy_too), style="bold green" if won else style
            )
        if len(rows):
            table.add_section()
    return table


def _cells(row: Mapping[str, Any], measure: Measure, won: bool, accuracy_too: bool) -> list[str]:
    value, digits = row[judged_column(measure)], measure.digits
    judged = f"{number(value, digits)} {interval(value, row['low'], row['high'], digits)}".rstrip()
    seeds = "" if pd.isna(row["seeds"]) else str(row["seeds"]) if row["seeds"] else MISSING
    between = interval(row["gain"], row["gain_low"], row["gain_high"], digits)
    gain = f"{signed(row['gain'], digits)} {between}".rstrip() if known(row["gain"]) else ""
    accuracy = [number(row["accuracy"])] if accuracy_too else []
    discrepancy = number(row["discrepancy"], 3) if known(row["discrepancy"]) else ""
    return [
        escape(str(row["name"])) + (" ★" if won else ""),
        judged,
        seeds,
        gain,
        share(row["best"]),
        *accuracy,
        discrepancy,
    ]


def _paths(folder: Path) -> list[Path]:
    """What a reader opens next, as far as it exists."""
    here = Path.cwd()
    paths = [
        path
        for path in (folder / "report.html", folder / "winner", folder / "leaderboard.csv")
        if path.exists()
    ]
    return [
        path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path
        for path in paths
    ]
