"""What commands print: the verdict of a run, the plan of a search, and a replay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from optuna import Study
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hssl_search.engine.budget import written
from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.reporting.formats import (
    MISSING,
    capital,
    duration,
    interval,
    known,
    number,
    plural,
    share,
    signed,
)
from hssl_search.reporting.sections import verdict_text
from hssl_search.reporting.tables import cost, judged_column, leaderboard

if TYPE_CHECKING:
    from hssl_search.engine.replay import Number, Replay

TONES = {"better": "green", "undecided": "yellow", "no head": "cyan", "unranked": "white"}


def print_verdict(
    console: Console,
    study: Study | RunRecord,
    ledger: Iterable[Mapping[str, Any]],
    folder: Path,
    top: int = 5,
) -> None:
    """Print the verdict, a table of references, controls and the `top` candidates, what it cost,
    and where the files are."""
    record = RunRecord.of(study)
    tone = TONES[record.verdict.state]
    console.print()
    console.print(Text(verdict_text(record), style=f"bold {tone}"))
    board = leaderboard(record)
    if not board.empty:
        console.print(_board_table(board, record.judged_by, record.verdict.winner, top))
    console.print(f"Cost: {cost(record, ledger).sentence()}", highlight=False)
    here = Path.cwd()
    for name in ("report.html", "winner", "leaderboard.csv"):
        path = (folder / name).resolve()
        if path.exists():
            # Shorter to read, and to type again.
            shown = path.relative_to(here) if path.is_relative_to(here) else folder / name
            console.print(Text(f"  {shown}"), highlight=False, soft_wrap=True)


def _plain_table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True
    )


def _board_table(board: pd.DataFrame, measure: Measure, winner: int | None, top: int) -> Table:
    table = _plain_table()
    table.add_column("", ratio=1, overflow="fold")
    accuracy_too = measure != ACCURACY and bool(board["accuracy"].notna().any())
    titles = [f"{measure.score_name}{measure.unit}", "seeds", "gain", "best"]
    for title in (*titles, *(["accuracy %"] if accuracy_too else []), "discrepancy"):
        table.add_column(title, justify="right", no_wrap=True)
    groups = [("reference", 99, "dim"), ("control", 99, ""), ("candidate", top, "")]
    for role, most, style in groups:
        # Controls and references need no rank: candidates are compared with them.
        rows = board[(board["role"] == role) & (board["rank"].notna() | (role != "candidate"))]
        for row in rows.head(most).to_dict("records"):
            won = winner is not None and row["trial"] == winner
            cells = _cells(row, measure, won, accuracy_too)
            table.add_row(*cells, style="bold green" if won else style)
        if len(rows):
            table.add_section()
    return table


def _cells(row: Mapping[str, Any], measure: Measure, won: bool, accuracy_too: bool) -> list[str]:
    value, digits = row[judged_column(measure)], measure.digits
    judged = f"{number(value, digits)} {interval(value, row['low'], row['high'], digits)}".rstrip()
    seeds = "" if pd.isna(row["seeds"]) else str(row["seeds"]) if row["seeds"] else MISSING
    between = interval(row["gain"], row["gain_low"], row["gain_high"], digits)
    gain = f"{signed(row['gain'], digits)} {between}".rstrip() if known(row["gain"]) else ""
    return [
        escape(str(row["name"])) + (" ★" if won else ""),
        judged,
        seeds,
        gain,
        share(row["best"]),
        *([number(row["accuracy"])] if accuracy_too else []),
        number(row["discrepancy"], 3) if known(row["discrepancy"]) else "",
    ]


def print_plan(console: Console, page: Mapping[str, Any]) -> None:
    """Print what `hssl_search.plan` returns."""
    for line in _plan_lines(page):
        console.print(line, highlight=False, soft_wrap=True)
    table = _plain_table()
    table.add_column("phase")
    for title in ("jobs", "steps", "at once", "device-time", "wall-clock"):
        table.add_column(title, justify="right", no_wrap=True)
    for phase in page["phases"]:
        table.add_row(
            phase["phase"],
            str(phase["jobs"]),
            str(phase["steps"] or MISSING),
            str(phase["at_once"]),
            duration(phase["device_s"]),
            duration(phase["wall_s"]),
        )
    table.add_row("reserve", "", "", "", duration(page["reserve_s"]), duration(page["reserve_s"]))
    table.add_section()
    table.add_row("all", "", "", "", duration(page["device_s"]), duration(page["eta_s"]))
    console.print(table)
    for line in cannot_buy(page):
        console.print(line, highlight=False, soft_wrap=True)


def _plan_lines(page: Mapping[str, Any]) -> list[str]:
    """Return what was measured, and what is planned by it."""
    measured = page["measured"]
    step, head, evaluation, checkpoint = (
        f"{1e3 * measured[name]:.3g} ms"
        for name in ("step_s", "head_step_s", "evaluate_s", "checkpoint_s")
    )
    lines = [
        f"Budget: {page['budget']}. In {measured['precision']} a step takes {step}, a typical head "
        f"{head} more, an evaluation takes {evaluation}, a checkpoint {checkpoint}."
    ]
    if page["costly"]:
        times = ", ".join(f"{family} {times:.1f}" for family, times in page["costly"].items())
        lines.append(
            "Left out after screening while there are others, by --max-head-cost "
            f"{page['max_head_cost']:g}: heads with which a step takes more than that many times "
            f"as long as without one ({times})."
        )
    if (plan := page["plan"]) is not None:
        in_rounds = f" in {plan['rounds']} rounds" if plan["rounds"] > 1 else ""
        rungs = ", ".join(map(str, plan["rungs"]))
        lines += [
            f"Candidates: {plan['candidates']} in {plural(plan['groups'], 'group')} of up to "
            f"{plan['group_size']}{in_rounds}, screened for {plan['screen_steps']} steps.",
            f"Proxies: {plan['proxies']} and {plan['controls']} controls of {plan['proxy_steps']} "
            f"steps, rungs at {rungs}; then up to {plan['confirming_runs']} confirming runs with "
            "more seeds.",
            f"Time to the end: about {duration(page['eta_s'])}. Peak memory of a training: "
            f"{size(page['memory_bytes'])}. Disk: {size(page['disk_bytes'])} of checkpoints "
            f"({size(page['checkpoint_bytes'])} each).",
        ]
    return lines


def cannot_buy(page: Mapping[str, Any]) -> list[str]:
    """Return sentences on what the budget does not last for, and what that would need."""
    allows = ""
    if (plan := page["plan"]) is not None:
        allows = f"This budget allows {plan['proxies']} proxies of {plan['proxy_steps']} steps; "
    sentences = []
    for ranking in page["beyond"]:
        needed = amount(ranking["device_s"], page["device"])
        heads, steps = ranking["heads"], ranking["steps"]
        sentence = f"a ranking of {heads} heads by {steps} steps would need about {needed}."
        sentences.append(capital(f"{allows}{sentence}"))
        # Said once, before the first ranking.
        allows = ""
    return sentences


def too_small(page: Mapping[str, Any]) -> str:
    """Return why the budget buys no search."""
    enough = written(page["smallest_s"], page["device"])
    within = f", or {' or '.join(page['fits'])} within {page['budget']}" if page["fits"] else ""
    return (
        f"the budget {page['budget']!r} is too small for a search; give --budget {enough}{within}."
    )


def amount(device_s: float, device: str) -> str:
    """Return a budget as it is typed, rounded up to two digits: `31 gpu-h`, `12 cpu-min`."""
    unit, seconds = ("h", 3600.0) if device_s >= 5400 else ("min", 60.0)
    value = device_s / seconds
    # Rounded up: what is typed must suffice.
    grain = 10.0 ** (math.floor(math.log10(value)) - 1)
    # Without `round` a hair of rounding would cost a whole unit more.
    return f"{math.ceil(round(value / grain, 9)) * grain:.6g} {device}-{unit}"


def size(count: int | None) -> str:
    """Return `1.2 GB`, `340 MB`."""
    if count is None:
        return MISSING
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


SHOWN = {
    "accuracy": "accuracy",
    "loss": "loss",
    "head_losses.0": "head loss",
    "heads.0.overlap": "overlap",
}
"""Numbers of a replay that have a column, and its title; all are compared."""


def print_replay(console: Console, replay: Replay) -> None:
    """Print what was recorded at each rung, `recorded -> replayed` where they differ, and how many
    numbers are equal."""
    # A run without labels has no accuracy: no column for it.
    shown = [name for name in SHOWN if any(each.name == name for each in replay.numbers)]
    table = Table("step", *(SHOWN[name] for name in shown), "equal", box=box.SIMPLE_HEAD)
    for step in dict.fromkeys(each.step for each in replay.numbers):
        rung = {each.name: each for each in replay.numbers if each.step == step}
        equal = sum(each.equal for each in rung.values())
        cells = [_replayed(rung[name]) if name in rung else "" for name in shown]
        table.add_row(str(step), *cells, f"{equal} of {len(rung)}")
    console.print(table)
    for note in replay.notes:
        console.print(
            f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )


def _replayed(found: Number) -> str:
    recorded, replayed = (
        "none" if value is None else f"{value:.5g}" for value in (found.recorded, found.replayed)
    )
    return recorded if found.equal else f"{recorded} -> {replayed}"
