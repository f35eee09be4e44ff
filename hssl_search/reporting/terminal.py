"""What commands print: the verdict of a run, and the plan of a search."""

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


Plain = dict[str, Any]


def print_plan(console: Console, page: Plain) -> None:
    """Print what `hssl_search.plan` returns."""
    for line in _lines(page):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_phases(page))
    for line in cannot_buy(page):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(page: Plain) -> list[str]:
    measured = page["measured"]
    found = [
        f"Budget: {page['budget']}. In {measured['precision']} a step takes {1e3 * measured['step_s']:.3g} ms, a typical head "
        f"{1e3 * measured['head_step_s']:.3g} ms more, an evaluation takes {1e3 * measured['evaluate_s']:.3g} ms, a "
        f"checkpoint {1e3 * measured['checkpoint_s']:.3g} ms."
    ]
    if page["costly"]:
        times = ", ".join(f"{family} {times:.1f}" for family, times in page["costly"].items())
        found.append(
            f"Left out after screening while there are others, by --max-head-cost {page['max_head_cost']:g}: heads with "
            f"which a step takes more than that many times as long as without one ({times})."
        )
    if (plan := page["plan"]) is not None:
        in_rounds = f" in {plan['rounds']} rounds" if plan["rounds"] > 1 else ""
        found += [
            f"Candidates: {plan['candidates']} in {plural(plan['groups'], 'group')} of up to {plan['group_size']}{in_rounds}, "
            f"screened for {plan['screen_steps']} steps.",
            f"Proxies: {plan['proxies']} and {plan['controls']} controls of {plan['proxy_steps']} steps, rungs at "
            f"{', '.join(map(str, plan['rungs']))}; then up to {plan['confirming_runs']} confirming runs with more seeds.",
            f"Time to the end: about {duration(page['eta_s'])}. Peak memory of a training: {size(page['memory_bytes'])}. "
            f"Disk: {size(page['disk_bytes'])} of checkpoints ({size(page['checkpoint_bytes'])} each).",
        ]
    return found


def _phases(page: Plain) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True
    )
    table.add_column("phase")
    for title in ("jobs", "steps", "at once", "device-time", "wall-clock"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in page["phases"]:
        steps = str(row["steps"]) if row["steps"] else MISSING
        table.add_row(
            row["phase"],
            str(row["jobs"]),
            steps,
            str(row["at_once"]),
            duration(row["device_s"]),
            duration(row["wall_s"]),
        )
    table.add_row("reserve", "", "", "", duration(page["reserve_s"]), duration(page["reserve_s"]))
    table.add_section()
    table.add_row("all", "", "", "", duration(page["device_s"]), duration(page["eta_s"]))
    return table


def cannot_buy(page: Plain) -> list[str]:
    """What the budget does not last for, and what that would need."""
    plan, device = page["plan"], page["device"]
    told = []
    allows = (
        ""
        if plan is None
        else f"This budget allows {plan['proxies']} proxies of {plan['proxy_steps']} steps; "
    )
    for one in page["beyond"]:
        sentence = f"{allows}a ranking of {one['heads']} heads by {one['steps']} steps would need about {amount(one['device_s'], device)}."
        told.append(sentence[0].upper() + sentence[1:])
        allows = ""
    return told


def too_small(page: Plain) -> str:
    """Why the budget buys no search."""
    within = f", or {' or '.join(page['fits'])} within {page['budget']}" if page["fits"] else ""
    return f"the budget {page['budget']!r} is too small for a search; give --budget {written(page['smallest_s'], page['device'])}{within}."


def amount(device_s: float, device: str) -> str:
    """As a budget is typed: `31 gpu-h`, `12 cpu-min`; rounded up to two digits."""
    unit, seconds = ("h", 3600.0) if device_s >= 5400 else ("min", 60.0)
    return f"{_up(device_s / seconds)} {device}-{unit}"


def _up(value: float) -> str:
    grain = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / grain, 9)) * grain:.6g}"


def size(count: int | None) -> str:
    """`1.2 GB`, `340 MB`."""
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
