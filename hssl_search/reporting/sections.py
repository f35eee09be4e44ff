"""The parts of the report page, as plain values for its template: texts and numbers already written for people, nothing escaped."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import TrialState

from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.engine.verdict import Verdict
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
from hssl_search.reporting.record import RunRecord, is_control
from hssl_search.reporting.style import CONTROL, family_looks, phase_colour
from hssl_search.reporting.tables import OTHER_DISCREPANCIES, Cost, judged_column, leaderboard
from hssl_search.reporting.text import verdict_sentence

Plain = dict[str, Any]
MOST_ROWS = 200
"""Rows of one table on the page; the files beside it have all."""
_PACKAGES = ("hssl-search", "torch", "timm", "ray", "optuna", "scikit-learn", "numpy")


def verdict_text(study: Study | RunRecord) -> str:
    """The verdict's sentences; for a run without a verdict, how far it came and what leads."""
    record = RunRecord.of(study)
    if record.verdict:
        stored = str(record.verdict.get("sentence") or "")
        return stored or verdict_sentence(Verdict.model_validate(record.verdict))
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


def facts(record: RunRecord, cost: Cost, ledger: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What was searched: label and value of each fact that is known."""
    config = record.config
    arguments = " ".join(f"{key}={value}" for key, value in (config.get("base_args") or {}).items())
    budget = config.get("budget") or (duration(cost.budget_s) if cost.budget_s else "")
    found = [
        ("Base", f"{config.get('base') or ''} {arguments}".strip()),
        ("Images", _images(config)),
        ("Labels from", str(config.get("probe_data") or "")),
        ("Method", str(config.get("trainer") or "")),
        ("Space", str(config.get("space") or "")),
        ("Warm start from", ", ".join(config.get("warm_start") or [])),
        ("Budget", str(budget)),
        ("Date", _dates(record, ledger)),
    ]
    return [(label, value) for label, value in found if value]


def _images(config: Mapping[str, Any]) -> str:
    """`photos/: 8,000 to train on, 1,000 to judge by, 32 px`."""
    counted = config.get("images") or {}
    parts = [
        f"{counted['training']:,} to train on" if counted.get("training") else "",
        f"{counted['queries']:,} to judge by" if counted.get("queries") else "",
        f"{config['image_size']} px" if config.get("image_size") else "",
    ]
    told = ", ".join(part for part in parts if part)
    return ": ".join(part for part in (str(config.get("data") or ""), told) if part)


def _dates(record: RunRecord, ledger: list[Mapping[str, Any]]) -> str:
    charged = [str(entry["at"]) for entry in ledger if entry.get("at")]
    told = charged or [
        trial.datetime_start.isoformat() for trial in record.trials if trial.datetime_start
    ]
    if not told:
        return ""
    first, last = min(told)[:16].replace("T", " "), max(told)[:16].replace("T", " ")
    zone = " UTC" if charged else ""
    if first[:10] == last[:10]:
        return f"{first} to {last[11:]}{zone}" if first != last else f"{first}{zone}"
    return f"{first} to {last}{zone}"


def headline(record: RunRecord, board: pd.DataFrame) -> list[Plain]:
    """The few numbers that the verdict rests on."""
    boxes: list[Plain] = []
    measure, column = record.judged_by, judged_column(record.judged_by)
    rows = {row["trial"]: row for row in board.dropna(subset=["trial"]).to_dict("records")}
    no_head = record.no_head
    numbers = [
        ("winner", record.verdict.get("winner")),
        ("no head", no_head.number if no_head else None),
    ]
    for label, trial in numbers:
        row = rows.get(trial)
        if (
            row is not None
            and known(row[column])
            and not (label == "winner" and no_head and trial == no_head.number)
        ):
            note = f"{row['name']}, " if label == "winner" else ""
            boxes.append(
                {
                    "label": label,
                    "value": measure.amount(row[column]),
                    "spread": interval(row[column], row["low"], row["high"], measure.digits),
                    "note": f"{note}{_seeds(row['seeds'])}",
                }
            )
    if (difference := _difference(record.verdict.get("comparison") or {}, measure)) is not None:
        boxes.append(difference)
    return boxes


def _difference(comparison: Mapping[str, Any], measure: Measure) -> Plain | None:
    if not known(comparison.get("difference")):
        return None
    low, high = comparison.get("interval") or (None, None)
    return {
        "label": "difference",
        "value": signed(comparison["difference"], measure.digits),
        "spread": signed_interval(low, high, measure.digits),
        "note": f"{measure.points} over {comparison.get('against') or 'no head'}, {_seeds(comparison.get('seeds'))}, paired",
    }


def _seeds(seeds: Any) -> str:
    return plural(seeds, "seed") if known(seeds) and seeds else "not at full fidelity"


def cost_rows(cost: Cost) -> list[Plain]:
    """A row a phase; `used` and `planned` are shares of the widest bar, 0 to 100."""
    widest = max([*cost.phases["device_s"], *cost.phases["planned_s"].dropna(), 1e-9])
    return [
        {
            "phase": row["phase"],
            "device_time": duration(row["device_s"]),
            "first_time": duration(row["first_s"]),
            "planned_time": duration(row["planned_s"]),
            "jobs": f"{row['jobs']} of {row['jobs_planned']:.0f}"
            if known(row["jobs_planned"])
            else row["jobs"] or "",
            "attempts": row["attempts"],
            "colour": phase_colour(row["phase"]),
            "used": 100 * row["device_s"] / widest,
            "planned": 100 * row["planned_s"] / widest if known(row["planned_s"]) else None,
        }
        for row in cost.phases.to_dict("records")
    ]


def ranking(measure: Measure) -> tuple[str, str]:
    """Heading of the column that ranks, and what that is; both empty where accuracy does."""
    if measure == ACCURACY:
        return "", ""
    if measure.of_head:
        return (
            "score",
            "Ranked by score, the k-NN overlap distance between head and base at the end of the training.",
        )
    return (
        measure.score_name,
        f"Ranked by {measure.score_name} of the base on held-out images at the end of the training.",
    )


def board_rows(board: pd.DataFrame, record: RunRecord) -> list[Plain]:
    """The leaderboard's rows: what was ranked, all controls, and of the other candidates as many as fit."""
    looks = family_looks(board["family"].dropna())
    trained = board[board["role"] != "reference"].head(MOST_ROWS)
    kept = board[board.index.isin(trained.index) | (board["role"] == "control")]
    return [_board_row(row, looks, record) for row in kept.to_dict("records")]


def _board_row(
    row: Mapping[str, Any], looks: Mapping[str, tuple[str, str]], record: RunRecord
) -> Plain:
    full = known(row["seeds"]) and row["seeds"] > 0
    winner, column, digits = (
        record.verdict.get("winner"),
        judged_column(record.judged_by),
        record.judged_by.digits,
    )
    spread = interval(row[column], row["low"], row["high"], digits)
    return {
        "rank": row["rank"] if known(row["rank"]) else "",
        "name": row["name"],
        "role": row["role"],
        "winner": winner is not None and row["trial"] == winner,
        "family": row["family"],
        "colour": CONTROL if row["role"] == "control" else looks[row["family"]][0],
        "score": number(row["score"], record.ranked_by.digits),
        "score_spread": spread if column == "score" else "",
        "accuracy": number(row["accuracy"]),
        "spread": spread if column == "accuracy" else "",
        "ranked": known(row["rank"]),
        "stopped": f"stopped at step {row['steps']}" if not full and known(row["steps"]) else "",
        "seeds": row["seeds"] if full else "",
        "gain": signed(row["gain"], digits) if known(row["gain"]) else "",
        "gain_spread": interval(row["gain"], row["gain_low"], row["gain_high"], digits),
        "best": share(row["best"]),
        "gain_sign": _clear_sign(row["gain_low"], row["gain_high"]),
        "discrepancy": number(row["discrepancy"], 3),
        "others": _others(row),
        "gate": _gate(row["gate"]),
        "parameters": count(row["parameters"]),
        "macs": count(row["macs"]),
        "device_time": duration(row["device_s"]),
        "trial": row["trial"] if known(row["trial"]) else "",
    }


def _others(row: Mapping[str, Any]) -> dict[str, str]:
    """The other discrepancies that the run measured, by name."""
    return {name: number(row[name], 3) for name in OTHER_DISCREPANCIES if name in row}


def _clear_sign(low: Any, high: Any) -> str:
    """`up` or `down` where an interval excludes zero."""
    if not (known(low) and known(high)):
        return ""
    return "up" if low > 0 else "down" if high < 0 else ""


def reference_rows(board: pd.DataFrame) -> list[tuple[str, str]]:
    rows = board[board["role"] == "reference"]
    return [(row["name"], number(row["accuracy"])) for row in rows.to_dict("records")]


def reference_scores(record: RunRecord) -> dict[str, str]:
    """Of each reference by what ranks; empty of one that has none."""
    scores = {
        name: number(value, record.ranked_by.digits)
        for name, value in record.reference_scores.items()
    }
    return {name: scores.get(name, "") for name in (*record.reference, *record.judged_references)}


def reference_words(record: RunRecord) -> str:
    """`raw pixels 39.8 %; untrained base 29.3 %, RankMe 12.5`."""
    measures = {ACCURACY: record.reference, record.judged_by: record.judged_references}
    told = {
        name: [
            measure.amount(values[name])
            for measure, values in measures.items()
            if known(values.get(name))
        ]
        for name in reference_scores(record)
    }
    return "; ".join(f"{name} {', '.join(amounts)}" for name, amounts in told.items() if amounts)


def screening_rows(screening: pd.DataFrame) -> list[Plain]:
    looks = family_looks(screening["family"].dropna())
    return [
        {
            "name": row["name"],
            "family": row["family"],
            "role": row["role"],
            "trial": row["trial"],
            "parameters": count(row["parameters"]),
            "colour": CONTROL if row["role"] == "control" else looks[row["family"]][0],
            "discrepancy": number(row["discrepancy"], 3),
            "overlap": number(row["overlap"], 3),
            "cka": number(row["cka"], 3),
            "cka_excess": number(row["cka_excess"], 3),
            "others": _others(row),
            "head_loss": number(row["head_loss"], 2),
            "chance_loss": number(row["chance_loss"], 2),
            "gate": _gate(row["gate"]),
            "reason": row["gate_reason"] if isinstance(row["gate_reason"], str) else "",
            "fate": _fate(row),
        }
        for row in screening.head(MOST_ROWS).to_dict("records")
    ]


def _fate(row: Mapping[str, Any]) -> str:
    if row["state"] == "FAIL":
        return "failed"
    if row["role"] == "control":
        return "control"
    if row["gate"] != "healthy":
        return "gated out"
    return "promoted" if row["promoted"] is True else "not promoted"


def _gate(gate: Any) -> str:
    return gate if isinstance(gate, str) else ""


def gate_summary(screening: pd.DataFrame) -> str:
    """`14 heads screened: 12 healthy, 2 not learning.`"""
    if screening.empty:
        return ""
    judged = ", ".join(
        f"{number_of} {gate}" for gate, number_of in screening["gate"].value_counts().items()
    )
    return f"{plural(len(screening), 'head')} screened, controls included: {judged}."


def howto(folder: Path) -> list[tuple[str, str]]:
    """How to use the winner: (`heading`, `prose` or `code`, text) of the run's winner/HOWTO.md; empty before there is one."""
    path = folder / "winner" / "HOWTO.md"
    return list(_markdown_blocks(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _markdown_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of a small Markdown text: fenced code, and paragraphs without the marks of headings."""
    for index, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if index % 2:
            yield "code", part.strip("\n")
            continue
        for paragraph in re.split(r"\n\s*\n", part):
            if words := paragraph.strip():
                yield ("heading", words.lstrip("# ")) if words.startswith("#") else ("prose", words)


def versions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The versions that the run recorded in its configuration, else those of the installed packages."""
    if recorded := config.get("versions"):
        return [(str(name), str(value)) for name, value in recorded.items()]
    return [
        *_installed(_PACKAGES),
        ("python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
    ]


def _installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def go_on(folder: Path, decided: bool) -> tuple[str, str]:
    """What to do next, and its command."""
    if decided:
        return (
            "To look at every trial in the Optuna dashboard:",
            f"hssl-search dashboard {shlex.quote(str(folder))}",
        )
    return "To go on with the search:", f"hssl-search resume {shlex.quote(str(folder))}"
