"""What the figures show, as frames and dataclasses, apart from how it is drawn (`figures.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from optuna import Study

from hssl_search.engine.records.meter import OVERHEAD
from hssl_search.engine.statistics.correlation import RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import Measure
from hssl_search.reporting import tables
from hssl_search.reporting.formats import known, signed, signed_interval
from hssl_search.reporting.frames import OTHER_DISCREPANCIES
from hssl_search.reporting.leaderboard import judged_column
from hssl_search.reporting.record import RunRecord

FEW = 10
"""Below this many points a rank correlation is called what it is: not meaningful."""


@dataclass(frozen=True)
class Reference:
    """A line to compare with: what bases are judged by, and its interval where it was trained with several seeds."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    digits: int = 1


def references(study: Study | RunRecord) -> list[Reference]:
    """Raw pixels, the untrained base, and the control without a head; those that have what bases are judged by."""
    record = RunRecord.of(study)
    digits = record.judged_by.digits
    lines = [
        Reference(name, float(value), digits=digits)
        for name, value in record.judged_references.items()
        if known(value)
    ]
    no_head = record.no_head
    if no_head is None:
        return lines
    board = tables.leaderboard(record)
    row = board[(board["trial"] == no_head.number) & (board["seeds"] > 0)]
    if row.empty:
        return lines
    value, low, high = (
        row[column].iloc[0] for column in (judged_column(record.judged_by), "low", "high")
    )
    between = known(low) and known(high)
    return [
        *lines,
        Reference(
            "no head",
            float(value),
            float(low) if between else None,
            float(high) if between else None,
            digits,
        ),
    ]


@dataclass(frozen=True)
class DiscrepancyAccuracy:
    """Does discrepancy foretell what bases are judged by? `points`: a row a trial with name, role, family, state, gate, discrepancy,
    value (of `measure`, missing where it was only screened), seeds, low, high, and the other discrepancies that were measured.
    `correlation` is over the healthy candidates at full proxy fidelity."""

    points: pd.DataFrame
    correlation: RankCorrelation
    measure: Measure

    def caption(self) -> str:
        found, name = self.correlation, self.measure.score_name
        if found.n < 3:
            return f"Rank correlation needs at least 3 healthy heads whose {name} at full proxy fidelity is known; there are {found.n}."
        if found.value is None:
            return f"No rank correlation: the {found.n} healthy heads at full proxy fidelity do not differ in discrepancy or in {name}."
        value = f"{signed(found.value, 2)} {signed_interval(found.low, found.high, 2)}".rstrip()
        text = f"Spearman rank correlation of discrepancy and {name}: {value} over n = {found.n} healthy heads"
        if found.n < FEW:
            return f"{text}. With so few heads this number is not meaningful: values this large come up by chance."
        return f"{text} at full proxy fidelity."


def discrepancy_accuracy(study: Study | RunRecord) -> DiscrepancyAccuracy:
    record = RunRecord.of(study)
    told = [
        "trial",
        "name",
        "role",
        "family",
        "gate",
        "gate_reason",
        "discrepancy",
        *OTHER_DISCREPANCIES,
        "state",
    ]
    measured = tables.screening(record)
    board = _with_value(tables.leaderboard(record), record)[
        ["trial", "value", "low", "high", "seeds"]
    ].dropna(subset=["trial"])
    points = (
        measured[[column for column in told if column in measured]]
        .merge(board, on="trial", how="left")
        .dropna(subset=["discrepancy"])
    )
    points["seeds"] = points["seeds"].fillna(0)
    compared = points[
        (points["role"] == "candidate") & (points["gate"] == "healthy") & (points["seeds"] > 0)
    ]
    correlation = rank_correlation(compared["discrepancy"], compared["value"])
    return DiscrepancyAccuracy(points.reset_index(drop=True), correlation, record.judged_by)


def _with_value(board: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
    """The leaderboard with what bases are judged by as `value`."""
    return board.assign(value=board[judged_column(record.judged_by)].astype(float))


def curve_lines(study: Study | RunRecord, most: int = 60) -> pd.DataFrame:
    """The learning curves, a line for each control and for the `most` candidates that came highest.

    Columns: trial, name, role, family, control, step, value (mean over seeds), low and high (the seeds' range), seeds. Only the
    seeds that came as far as the trial's last step count, so that no line jumps where one of them ends.
    """
    every = tables.curves(study)
    every = every[every["phase"] != "full"]
    last = every.groupby(["trial", "seed"])["step"].transform("max")
    farthest = every.groupby("trial")["step"].transform("max")
    complete = every[last == farthest]
    by = ["trial", "name", "role", "family", "control", "step"]
    lines = complete.groupby(by, dropna=False)["value"].agg(
        value="mean", low="min", high="max", seeds="count"
    )
    lines = lines.reset_index()
    highest = (
        lines[lines["role"] != "control"]
        .groupby("trial")["value"]
        .max()
        .astype(float)
        .nlargest(most)
        .index
    )
    return lines[(lines["role"] == "control") | lines["trial"].isin(highest)].reset_index(drop=True)


def full_line(study: Study | RunRecord) -> pd.DataFrame:
    """What bases are judged by, by step of the full training; empty without one."""
    every = tables.curves(study)
    return every[every["phase"] == "full"].reset_index(drop=True)


def leaderboard_rows(study: Study | RunRecord, most: int = 15) -> pd.DataFrame:
    """The best `most` candidates and all controls that have what bases are judged by, best first, with its mean as `value` and that of
    each seed in `by_seed`."""
    record = RunRecord.of(study)
    board = _with_value(tables.leaderboard(record), record).dropna(subset=["trial", "value"])
    best = board[board["role"] == "candidate"].head(most)
    rows = board[board.index.isin(best.index) | (board["role"] == "control")]
    by_number = {trial.number: trial for trial in record.trials}
    by_seed = [
        list(record.scores(by_number[number], record.judged_by).values())
        for number in rows["trial"]
    ]
    winner = record.verdict.get("winner")
    return rows.assign(by_seed=by_seed, winner=rows["trial"] == (-1 if winner is None else winner))


def timeline(ledger: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """`tables.device_time` with a `lane` for each attempt, so that attempts which ran at the same time lie in different lanes.

    The controller's own time (phase `overhead`) is left out: it is what lies between the bars."""
    frame = tables.device_time(ledger)
    frame = frame[frame["phase"] != OVERHEAD].reset_index(drop=True)
    ends: list[float] = []
    lanes = []
    for start, end in zip(frame["start"], frame["end"], strict=True):
        free = next((lane for lane, busy in enumerate(ends) if busy <= start + 1e-6), len(ends))
        ends[free : free + 1] = [end]
        lanes.append(free)
    return frame.assign(lane=pd.Series(lanes, dtype="Int64"))
