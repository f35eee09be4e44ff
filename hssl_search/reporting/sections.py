"""The parts of the report page, as plain values for its template.

Texts and numbers are already written for people; nothing is escaped.
"""

from __future__ import annotations

import platform
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import TrialState

from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.reporting.formats import (
    count,
    duration,
    interval,
    known,
    number,
    plural,
    share,
    signed,
    signed_interval,
)
from hssl_search.reporting.style import CONTROL, family_looks, phase_colour
from hssl_search.reporting.tables import OTHER_DISCREPANCIES, Cost, Row, judged_column, leaderboard
from hssl_search.reporting.text import verdict_sentence

MOST_ROWS = 200
"""Rows of one table on the page; the files beside it have all."""
_PACKAGES = ("hssl-search", "torch", "timm", "ray", "optuna", "scikit-learn", "numpy")


def verdict_text(study: Study | RunRecord) -> str:
    """Return the verdict's sentences; of a run without a verdict, how far it came and who leads."""
    record = RunRecord.of(study)
    if record.search.verdict is not None:
        return record.verdict.sentence or verdict_sentence(record.verdict)
    candidates = [trial for trial in record.heads if not record.states[trial.number].is_control]
    screened = sum(bool(record.states[trial.number].gate) for trial in candidates)
    states = Counter(trial.state for trial in candidates)
    failed = f", {states[TrialState.FAIL]} failed" if states[TrialState.FAIL] else ""
    return (
        f"No verdict yet: {plural(len(candidates), 'head')}, {screened} screened, "
        f"{states[TrialState.COMPLETE]} at full proxy fidelity{failed}. {_leader(record)}"
    )


def _leader(record: RunRecord) -> str:
    """Return the best head so far, beside the control without a head."""
    board = leaderboard(record)
    ranked = board[(board["role"] == "candidate") & board["rank"].notna()]
    if ranked.empty:
        return "No head has a result that can be ranked."
    best, amount = ranked.iloc[0], record.ranked_by.amount
    reached = amount(best["score"])
    if record.ranked_by.of_head:
        return f"The most discrepant healthy head so far is {best['name']} ({reached})."
    control = record.scores(record.no_head, record.ranked_by) if record.no_head else {}
    against = "the control without a head has no result yet"
    if control:
        against = f"no head {amount(mean(control.values()))}"
    return f"The best so far is {best['name']} with {reached} ({against})."


def facts(record: RunRecord, cost: Cost, ledger: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what was searched: label and value of each fact that is known."""
    config = record.config
    arguments = " ".join(f"{key}={value}" for key, value in (config.get("base_args") or {}).items())
    budget = config.get("budget") or (duration(cost.budget_s) if cost.budget_s else "")
    pairs = [
        ("Base", f"{config.get('base') or ''} {arguments}".strip()),
        ("Images", _images(config)),
        ("Labels from", str(config.get("probe_data") or "")),
        ("Method", str(config.get("trainer") or "")),
        ("Space", str(config.get("space") or "")),
        ("Warm start from", ", ".join(run.name for run in record.search.warm_start)),
        ("Budget", str(budget)),
        ("Date", _dates(record, ledger)),
    ]
    return [(label, value) for label, value in pairs if value]


def _images(config: Mapping[str, Any]) -> str:
    """Return `photos/: 8,000 to train on, 1,000 to judge by, 32 px`."""
    images = config.get("images") or {}
    parts = [
        f"{images['training']:,} to train on" if images.get("training") else "",
        f"{images['queries']:,} to judge by" if images.get("queries") else "",
        f"{config['image_size']} px" if config.get("image_size") else "",
    ]
    counts = ", ".join(filter(None, parts))
    return ": ".join(filter(None, (str(config.get("data") or ""), counts)))


def _dates(record: RunRecord, ledger: list[Mapping[str, Any]]) -> str:
    """Return when the run began and ended; by its trials, in local time, where nothing was
    charged."""
    charged = [str(entry["at"]) for entry in ledger if entry.get("at")]
    times = charged or [
        trial.datetime_start.isoformat() for trial in record.trials if trial.datetime_start
    ]
    if not times:
        return ""
    first, last = (each[:16].replace("T", " ") for each in (min(times), max(times)))
    zone = " UTC" if charged else ""
    if first == last:
        return f"{first}{zone}"
    return f"{first} to {last[11:] if first[:10] == last[:10] else last}{zone}"


def headline(record: RunRecord, board: pd.DataFrame) -> list[dict[str, str]]:
    """Return the few numbers that the verdict rests on: winner, no head, and their difference."""
    boxes: list[dict[str, str]] = []
    measure, column = record.judged_by, judged_column(record.judged_by)
    rows = {row["trial"]: row for row in board.dropna(subset=["trial"]).to_dict("records")}
    no_head = record.no_head.number if record.no_head else None
    winner = record.verdict.winner
    # Where the winner is the control itself there is one box for both.
    for label, trial in (("winner", None if winner == no_head else winner), ("no head", no_head)):
        row = rows.get(trial)
        if row is not None and known(row[column]):
            seeds = _seeds(row["seeds"])
            box = {
                "label": label,
                "value": measure.amount(row[column]),
                "spread": interval(row[column], row["low"], row["high"], measure.digits),
                "note": f"{row['name']}, {seeds}" if label == "winner" else seeds,
            }
            boxes.append(box)
    gap = record.verdict.comparison
    if gap is not None:
        low, high = gap.interval or (None, None)
        against = f"{measure.points} over {gap.against}"
        box = {
            "label": "difference",
            "value": signed(gap.difference, measure.digits),
            "spread": signed_interval(low, high, measure.digits),
            "note": f"{against}, {_seeds(gap.seeds)}, paired",
        }
        boxes.append(box)
    return boxes


def _seeds(seeds: Any) -> str:
    return plural(seeds, "seed") if known(seeds) and seeds else "not at full fidelity"


def cost_rows(cost: Cost) -> list[Row]:
    """Return a row for each phase; `used` and `planned` are shares of the widest bar, 0 to 100."""
    # The least value keeps a run that charged nothing from dividing by zero.
    widest = max([*cost.phases["device_s"], *cost.phases["planned_s"].dropna(), 1e-9])
    rows = []
    for phase in cost.phases.to_dict("records"):
        jobs = phase["jobs"] or ""
        if known(phase["jobs_planned"]):
            jobs = f"{phase['jobs']} of {phase['jobs_planned']:.0f}"
        planned_s = phase["planned_s"]
        row = {
            "phase": phase["phase"],
            "device_time": duration(phase["device_s"]),
            "first_time": duration(phase["first_s"]),
            "planned_time": duration(planned_s),
            "jobs": jobs,
            "attempts": phase["attempts"],
            "colour": phase_colour(phase["phase"]),
            "used": 100 * phase["device_s"] / widest,
            "planned": 100 * planned_s / widest if known(planned_s) else None,
        }
        rows.append(row)
    return rows


def ranking(measure: Measure) -> tuple[str, str]:
    """Return the heading of the column that ranks, and what that is; both empty where accuracy
    ranks."""
    if measure == ACCURACY:
        return "", ""
    if measure.of_head:
        return (
            "score",
            "Ranked by score, the k-NN overlap distance between head and base at the end of the "
            "training.",
        )
    name = measure.score_name
    return name, f"Ranked by {name} of the base on held-out images at the end of the training."


def board_rows(board: pd.DataFrame, record: RunRecord) -> list[Row]:
    """Return the leaderboard's rows: what was ranked, all controls, and of the other candidates as
    many as fit."""
    looks = family_looks(board["family"].dropna())
    trained = board[board["role"] != "reference"].head(MOST_ROWS)
    # Controls are what heads are compared with: none is cut off with the rows that do not fit.
    shown = board[board.index.isin(trained.index) | (board["role"] == "control")]
    return [_board_row(row, looks, record) for row in shown.to_dict("records")]


def _board_row(
    row: Mapping[str, Any], looks: Mapping[str, tuple[str, str]], record: RunRecord
) -> Row:
    full = known(row["seeds"]) and row["seeds"] > 0
    winner, column = record.verdict.winner, judged_column(record.judged_by)
    digits = record.judged_by.digits
    spread = interval(row[column], row["low"], row["high"], digits)
    # A gain is coloured where its interval excludes zero.
    low, high = row["gain_low"], row["gain_high"]
    sign = "up" if known(low) and low > 0 else "down" if known(high) and high < 0 else ""
    return {
        "rank": row["rank"] if known(row["rank"]) else "",
        "name": row["name"],
        "role": row["role"],
        "winner": winner is not None and row["trial"] == winner,
        "family": row["family"],
        "colour": _colour(row, looks),
        "score": number(row["score"], record.ranked_by.digits),
        "score_spread": spread if column == "score" else "",
        "accuracy": number(row["accuracy"]),
        "spread": spread if column == "accuracy" else "",
        "ranked": known(row["rank"]),
        "stopped": f"stopped at step {row['steps']}" if not full and known(row["steps"]) else "",
        "seeds": row["seeds"] if full else "",
        "gain": signed(row["gain"], digits) if known(row["gain"]) else "",
        "gain_spread": interval(row["gain"], low, high, digits),
        "best": share(row["best"]),
        "gain_sign": sign,
        "discrepancy": number(row["discrepancy"], 3),
        "others": _others(row),
        "gate": row["gate"] if isinstance(row["gate"], str) else "",
        "parameters": count(row["parameters"]),
        "macs": count(row["macs"]),
        "device_time": duration(row["device_s"]),
        "trial": row["trial"] if known(row["trial"]) else "",
    }


def _colour(row: Mapping[str, Any], looks: Mapping[str, tuple[str, str]]) -> str:
    return CONTROL if row["role"] == "control" else looks[row["family"]][0]


def _others(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the other discrepancies that the run measured, by name."""
    return {name: number(row[name], 3) for name in OTHER_DISCREPANCIES if name in row}


def reference_rows(board: pd.DataFrame) -> list[tuple[str, str]]:
    """Return name and accuracy of each reference."""
    rows = board[board["role"] == "reference"]
    return [(row["name"], number(row["accuracy"])) for row in rows.to_dict("records")]


def reference_scores(record: RunRecord) -> dict[str, str]:
    """Return each reference's score by what ranks; nothing of one that has none."""
    scores = {
        name: number(value, record.ranked_by.digits)
        for name, value in record.search.reference_scores.items()
    }
    return {
        name: scores.get(name, "") for name in (*record.search.reference, *record.judged_references)
    }


def reference_words(record: RunRecord) -> str:
    """Return `raw pixels 39.8 %; untrained base 29.3 %, RankMe 12.5`."""
    measures = {ACCURACY: record.search.reference, record.judged_by: record.judged_references}
    words = []
    for name in reference_scores(record):
        amounts = [
            measure.amount(values[name])
            for measure, values in measures.items()
            if known(values.get(name))
        ]
        if amounts:
            words.append(f"{name} {', '.join(amounts)}")
    return "; ".join(words)


def screening_rows(screening: pd.DataFrame) -> list[Row]:
    """Return the rows of `tables.screening` that fit."""
    looks = family_looks(screening["family"].dropna())
    return [
        {
            "name": row["name"],
            "family": row["family"],
            "role": row["role"],
            "trial": row["trial"],
            "parameters": count(row["parameters"]),
            "colour": _colour(row, looks),
            "discrepancy": number(row["discrepancy"], 3),
            "overlap": number(row["overlap"], 3),
            "cka": number(row["cka"], 3),
            "cka_excess": number(row["cka_excess"], 3),
            "others": _others(row),
            "head_loss": number(row["head_loss"], 2),
            "chance_loss": number(row["chance_loss"], 2),
            "gate": row["gate"],
            "reason": row["gate_reason"] if isinstance(row["gate_reason"], str) else "",
            "fate": _fate(row),
        }
        for row in screening.head(MOST_ROWS).to_dict("records")
    ]


def _fate(row: Mapping[str, Any]) -> str:
    # First: a trial that failed after screening has a gate too.
    if row["state"] == "FAIL":
        return "failed"
    if row["role"] == "control":
        return "control"
    if row["gate"] != "healthy":
        return "gated out"
    # `is True`: where it is missing it is NaN, which counts as true.
    return "promoted" if row["promoted"] is True else "not promoted"


def gate_summary(screening: pd.DataFrame) -> str:
    """Return `14 heads screened, controls included: 12 healthy, 2 not learning.`"""
    if screening.empty:
        return ""
    gates = ", ".join(f"{heads} {gate}" for gate, heads in screening["gate"].value_counts().items())
    return f"{plural(len(screening), 'head')} screened, controls included: {gates}."


def howto(folder: Path) -> list[tuple[str, str]]:
    """Return how to use the winner: (`heading`, `prose` or `code`, text) of the run's
    winner/HOWTO.md; nothing before there is one."""
    path = folder / "winner" / "HOWTO.md"
    return list(_markdown_blocks(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _markdown_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the blocks of a small Markdown text: fenced code, and paragraphs without the marks of
    headings."""
    # Of a text that is split at its fences every second part is code.
    for index, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if index % 2:
            yield "code", part.strip("\n")
            continue
        for paragraph in re.split(r"\n\s*\n", part):
            if words := paragraph.strip():
                yield ("heading", words.lstrip("# ")) if words.startswith("#") else ("prose", words)


def versions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the versions that the run recorded, else those of the installed packages."""
    # A report may be written again elsewhere: what the run itself recorded counts.
    if recorded := config.get("versions"):
        return [(str(name), str(value)) for name, value in recorded.items()]
    installed = []
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed.append((package, version(package)))
    system = f"{platform.system()} {platform.machine()}"
    return [*installed, ("python", platform.python_version()), ("system", system)]


def next_command(folder: Path, decided: bool) -> tuple[str, str]:
    """Return what to do next, and its command."""
    # It is copied into a shell: a folder's name may have spaces.
    run = shlex.quote(str(folder))
    if decided:
        return (
            "To look at every trial in the Optuna dashboard:",
            f"hssl-search dashboard {run}",
        )
    return "To continue the search:", f"hssl-search resume {run}"
