"""The tables of a run as pandas frames, at any moment of the run. Accuracies are in per cent."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.execution.jobs import State
from hssl_search.engine.records import results
from hssl_search.engine.records.results import RunRecord, curve
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.engine.statistics.two_way import Difference
from hssl_search.heads.config import HeadConfig
from hssl_search.reporting.formats import duration, known
from hssl_search.reporting.style import phase_order

Entries = Iterable[Mapping[str, Any]]
"""Entries of a run's `records.ledger.Ledger`."""
Row = dict[str, Any]

OTHER_DISCREPANCIES = ("output", "architecture")
"""Discrepancies beside the one that promotes; a run may not have measured them."""
LEADERBOARD = [
    *("rank", "name", "role", "family", "score", "accuracy", "low", "high", "seeds"),
    *("gain", "gain_low", "gain_high", "gain_seeds", "best", "discrepancy", *OTHER_DISCREPANCIES),
    *("gate", "parameters", "macs", "device_s", "trial", "steps", "state"),
]
SCREENING = [
    *("trial", "name", "role", "family", "group", "parameters", "macs", "cka", "overlap"),
    *("cka_excess", "overlap_excess", "discrepancy", *OTHER_DISCREPANCIES),
    *("head_loss", "chance_loss", "gate", "gate_reason", "promoted", "state"),
]
VALUES = [
    *("parameter", "value", "gated_out", "heads", "discrepancy", "discrepancy_without"),
    *("scored", "accuracy", "accuracy_without"),
]
CURVES = ["trial", "name", "role", "family", "control", "phase", "seed", "step", "value"]
_INTEGERS = (
    *("rank", "seeds", "gain_seeds", "parameters", "macs", "trial", "steps", "group", "seed"),
    *("step", "attempts"),
)
MOST_VALUES = 4
"""Rows of a number in the table of `VALUES`; more values are joined with their neighbours."""


def row_of(record: RunRecord, trial: FrozenTrial) -> Row:
    """Return the trial's attributes as one row, with its name, number (`trial`) and state."""
    name = record.states[trial.number].name
    always = {"name": name, "trial": trial.number, "state": trial.state.name}
    # In this order: attributes replace defaults, and nothing replaces the last three.
    return {"role": "candidate", "family": "", "gate": None, **trial.user_attrs, **always}


def _frame(rows: list[Row], columns: list[str]) -> pd.DataFrame:
    """Return the rows as a frame whose whole numbers stay whole where some are missing, without
    the columns of `OTHER_DISCREPANCIES` that no row has."""
    frame = pd.DataFrame(rows, columns=columns)
    absent = [name for name in OTHER_DISCREPANCIES if name in frame and not _any(frame[name])]
    return _whole_numbers(frame.drop(columns=absent))


def _any(column: pd.Series) -> bool:
    return bool(column.map(known).any())


def _whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({column: "Int64" for column in _INTEGERS if column in frame.columns})


def leaderboard(study: Study | RunRecord) -> pd.DataFrame:
    """Return a row for each trial that reached the proxy stage, each control and each reference,
    the best first by `score`.

    `score` is the mean over seeds, at full proxy fidelity, of what the run ranks by; `accuracy`,
    in per cent, that of the accuracy. Bases are judged by the column that `judged_column` names:
    `low` and `high` are the 95 % interval of its mean over `seeds`, as far as chance under these
    seeds goes, and `gain` is the difference to the control without a head, paired by seed
    (`TwoWay`), of which both have `gain_seeds`. The interval from `gain_low` to `gain_high` holds
    for whichever trial is picked by these scores, and is missing where both share fewer than two
    seeds. `best` is the probability, 0 to 1, that no other trial is better.

    Intervals and `best` are missing where nothing tells the noise, and no interval reaches beyond
    what the measure can be. Means that are closer than it resolves are in the order of their
    trials. A trial that was stopped before full proxy fidelity has in the judged column what it
    had then, `steps` says when, no seeds and no rank. In a run that is ranked by discrepancy, only
    healthy candidates have a rank. `OTHER_DISCREPANCIES` that were not measured have no column.
    """
    record = RunRecord.of(study)
    table = record.results.table(record.judged_by)
    known_of = {row.trial: row for row in table.rows}
    no_head = record.no_head
    gains = table.posterior.fit.against(no_head.number) if no_head else {}
    rows = [
        {
            **_reached(record, trial),
            **_interval(known_of.get(trial.number)),
            **_gain(record.judged_by, gains.get(trial.number)),
        }
        for trial in record.trials
        if _reached_proxy(record, trial)
    ]
    return _frame([*_ranked(rows, record), *_references(record)], LEADERBOARD)


def judged_column(measure: Measure) -> str:
    """Return the leaderboard's column of what bases are judged by."""
    return "accuracy" if measure == ACCURACY else "score"


def _references(record: RunRecord) -> list[Row]:
    column = judged_column(record.judged_by)
    return [
        {
            "name": name,
            "role": "reference",
            "family": "",
            "accuracy": record.search.reference.get(name),
            column: record.judged_references.get(name),
        }
        for name in dict.fromkeys([*record.search.reference, *record.judged_references])
    ]


def _reached_proxy(record: RunRecord, trial: FrozenTrial) -> bool:
    state = record.states[trial.number]
    promoted = state.is_control or bool(state.promoted)
    return promoted or bool(record.curves(trial)) or bool(record.scores(trial, record.ranked_by))


def _reached(record: RunRecord, trial: FrozenTrial) -> Row:
    """Return the trial's row with its means; where it was stopped, with what it had then."""
    judged = record.scores(trial, record.judged_by)
    ends = [curve[-1] for curve in record.curves(trial).values()]
    row = {
        **row_of(record, trial),
        "score": _mean(record.scores(trial, record.ranked_by)),
        "accuracy": _mean(record.scores(trial, ACCURACY)),
        "seeds": len(judged),
        "steps": max((step for step, _ in ends), default=None),
    }
    if not judged:
        row[judged_column(record.judged_by)] = max(ends, default=(0, math.nan))[1]
    return row


def _mean(by_seed: Mapping[int, float]) -> float:
    return mean(by_seed.values()) if by_seed else math.nan


def _interval(scored: results.Row | None) -> Row:
    """Return the interval of the mean and the chance to be the best, as far as they are known."""
    low, high = scored.interval if scored and scored.interval else (None, None)
    return {"low": low, "high": high, "best": scored and scored.best}


def _gain(measure: Measure, gain: Difference | None) -> Row:
    """Return the difference to the control without a head, as far as it is known."""
    if gain is None:
        return {"gain": math.nan, "gain_seeds": 0}
    between = gain.paired.interval
    low, high = measure.apart(*between) if between else (None, None)
    return {"gain": gain.mean, "gain_low": low, "gain_high": high, "gain_seeds": gain.seeds}


def _ranked(rows: list[Row], record: RunRecord) -> list[Row]:
    """Return the rows, the best first, numbered as far as they may be compared; the others follow
    by what bases are judged by."""

    def comparable(row: Row) -> bool:
        if record.ranked_by.of_head:
            return known(row["score"]) and row["role"] == "candidate" and row["gate"] == "healthy"
        return bool(row["seeds"])

    def by(column: str, some: list[Row], resolution: float) -> list[Row]:
        values = {row["trial"]: row[column] if known(row[column]) else -math.inf for row in some}
        by_trial = {row["trial"]: row for row in some}
        return [by_trial[trial] for trial in ties.rank(values, resolution)]

    # A mean over n seeds moves in 1 / n of the steps in which one score does.
    step = record.results.table().resolution / max([1, *(row["seeds"] for row in rows)])
    compared = by("score", [row for row in rows if comparable(row)], step)
    others = [row for row in rows if not comparable(row)]
    judged, column = record.results.table(record.judged_by), judged_column(record.judged_by)
    return [
        *({**row, "rank": rank} for rank, row in enumerate(compared, start=1)),
        *by(column, others, judged.resolution),
    ]


def screening(study: Study | RunRecord) -> pd.DataFrame:
    """Return what screening measured: a row for each trial that the gate judged, the most
    discrepant first. `OTHER_DISCREPANCIES` that were not measured have no column."""
    record = RunRecord.of(study)
    judged = [trial for trial in record.heads if record.states[trial.number].gate]
    frame = _frame([row_of(record, trial) for trial in judged], SCREENING)
    order = ["discrepancy", "trial"]
    return frame.sort_values(order, ascending=[False, True], ignore_index=True)


def parameter_values(study: Study | RunRecord) -> pd.DataFrame:
    """Return what each value of a head's parameters went with: a row for each value, of the
    parameters in which healthy heads differ.

    `discrepancy` is the mean over the `heads` healthy candidates that have the value,
    `discrepancy_without` that over the other healthy ones that read the parameter; `accuracy` and
    `accuracy_without` are the same of those that have one at full proxy fidelity, `scored` of
    which have the value. `gated_out` candidates have the value and are not healthy.
    """
    record = RunRecord.of(study)
    parameters = [name for name in HeadConfig.model_fields if name not in ("format", "blocks")]
    rows = [
        _head_row(record, trial)
        for trial in record.heads
        if record.states[trial.number].gate and not record.states[trial.number].is_control
    ]
    heads = pd.DataFrame(rows, columns=[*parameters, "gate", "discrepancy", "accuracy"])
    # A column of None alone would be of objects, which have no mean.
    heads = heads.astype({"discrepancy": float, "accuracy": float})
    return pd.DataFrame(
        [row for parameter in parameters for row in _value_rows(parameter, heads)], columns=VALUES
    )


def _head_row(record: RunRecord, trial: FrozenTrial) -> Row:
    state = record.states[trial.number]
    head = state.head
    return {
        **(head.parameters() if head else {}),
        "family": state.family,
        "depth": head and head.block_count,
        "gate": state.gate,
        "discrepancy": state.discrepancy,
        "accuracy": _mean(record.scores(trial, ACCURACY)),
    }


def _value_rows(parameter: str, heads: pd.DataFrame) -> Iterator[Row]:
    heads = heads[heads[parameter].notna()]
    healthy = heads[heads["gate"] == "healthy"]
    # With one value there are no heads without it to compare with.
    if healthy[parameter].nunique() < 2:
        return
    distinct = sorted(set(heads[parameter]))
    groups = len(distinct) if isinstance(distinct[0], str) else min(MOST_VALUES, len(distinct))
    # A number has many values, each of few heads: neighbours are taken together.
    for part in np.array_split(range(len(distinct)), groups):
        values = [distinct[place] for place in part]
        has = healthy[parameter].isin(values)
        ours, others = healthy[has], healthy[~has]
        ends = dict.fromkeys(_value_name(value) for value in (values[0], values[-1]))
        yield {
            "parameter": parameter,
            "value": " to ".join(ends),
            "gated_out": int(heads[parameter].isin(values).sum() - has.sum()),
            "heads": len(ours),
            "discrepancy": ours["discrepancy"].mean(),
            "discrepancy_without": others["discrepancy"].mean(),
            "scored": int(ours["accuracy"].count()),
            "accuracy": ours["accuracy"].mean(),
            "accuracy_without": others["accuracy"].mean(),
        }


def _value_name(value: Any) -> str:
    """Return the value as a space writes it."""
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"


def curves(study: Study | RunRecord) -> pd.DataFrame:
    """Return what bases are judged by, as `value`, by step: a row for each trial, seed and rung,
    and those of the full training (`phase` full, with its winner's name)."""
    record = RunRecord.of(study)
    rows: list[Row] = []
    for trial in record.trials:
        same = {
            **row_of(record, trial),
            "control": record.states[trial.number].control,
            "phase": "proxy",
        }
        for seed, points in record.curves(trial).items():
            rows += [{**same, "seed": seed, "step": step, "value": value} for step, value in points]
    # A full training has no trial of its own: its job alone holds its curve.
    for job in record.jobs:
        if job.phase == "full":
            same = {"trial": job.trial, "name": job.name, "role": "candidate", "phase": "full"}
            rows += [
                {**same, "seed": job.seed, "step": step, "value": value}
                for step, value in curve(job, record.judged_by)
            ]
    return _frame(rows, CURVES)


def failures(study: Study | RunRecord) -> pd.DataFrame:
    """Return what failed and why: trials, and jobs whose trial did not fail with them."""
    record = RunRecord.of(study)
    failed = [trial.number for trial in record.trials if trial.state is TrialState.FAIL]
    rows = [
        {
            "name": record.states[number].name,
            "trial": number,
            "what": "trial",
            "cause": record.states[number].cause or "",
        }
        for number in failed
    ]
    rows += [
        {"name": job.name, "trial": job.trial, "what": job.key, "cause": job.cause}
        for job in record.jobs
        # One row is enough where a trial failed with its job.
        if job.state is State.FAILED and job.trial not in failed
    ]
    return _frame(rows, ["name", "trial", "what", "cause"])


def trials(study: Study | RunRecord) -> pd.DataFrame:
    """Return every trial, flat: state, value, times, each attribute, each parameter of the space
    (`param_...`) and of the head (`head_...`).

    Columns hold one type each; what is nested, or of several types, is written as JSON.
    """
    record = RunRecord.of(study)
    frame = pd.DataFrame([_flat(record, trial) for trial in record.trials])
    # Parquet takes one type a column, and no mappings of different keys.
    for column in frame.columns:
        types = {type(value) for value in frame[column].dropna()}
        if frame[column].dtype == object and types - {float, int} and types not in ({bool}, {str}):
            as_json = partial(json.dumps, default=str)
            frame[column] = frame[column].map(as_json, na_action="ignore")
    return _whole_numbers(frame)


def _flat(record: RunRecord, trial: FrozenTrial) -> Row:
    accuracies = record.scores(trial, ACCURACY)
    state = record.states[trial.number]
    head = state.head.model_dump(exclude_none=True) if state.head else {}
    return {
        "trial": trial.number,
        "name": state.name,
        "state": trial.state.name,
        "value": trial.value,
        "accuracy": _mean(accuracies),
        "seeds": len(accuracies),
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        # The name stands above, and the head has columns of its own below.
        **{key: value for key, value in trial.user_attrs.items() if key not in ("name", "head")},
        **{f"head_{key}": value for key, value in head.items()},
        **{f"param_{key}": value for key, value in trial.params.items()},
        "accuracy_by_seed": json.dumps(accuracies),
        "values_by_step": json.dumps(trial.intermediate_values),
    }


def device_time(ledger: Entries) -> pd.DataFrame:
    """Return a row for each attempt, in order of start: attempt, phase, trial, start and end
    (seconds since the run began, without the time between two controllers), and device_s."""
    columns = ["attempt", "phase", "trial", "from", "to", "device_s"]
    entries = pd.DataFrame(list(ledger), columns=columns)
    entries = entries.rename(columns={"from": "start", "to": "end"})
    whole = {
        "phase": ("phase", "last"),
        "trial": ("trial", "last"),
        "start": ("start", "min"),
        "end": ("end", "max"),
        "device_s": ("device_s", "sum"),
    }
    # An attempt is charged at each heartbeat: its entries are summed up.
    frame = entries.groupby("attempt", sort=False).agg(**whole).reset_index()
    return _whole_numbers(frame.sort_values(["start", "end"], ignore_index=True, kind="stable"))


def phase_costs(ledger: Entries) -> pd.DataFrame:
    """Return device-seconds (`device_s`) and attempts of each phase, in the order in which the
    phases were first charged."""
    whole = {"device_s": ("device_s", "sum"), "attempts": ("attempt", "count")}
    phases = device_time(ledger).groupby("phase", sort=False)
    return _whole_numbers(phases.agg(**whole).reset_index())


@dataclass(frozen=True)
class Cost:
    """What a run cost, in device-seconds."""

    phases: pd.DataFrame
    """A row a phase with device_s, attempts and jobs that ended; planned_s and jobs_planned of the
    plan as it was in the end, first_s of the one before screening (missing where the plan does not
    name the phase)."""
    used_s: float
    budget_s: float | None

    def sentence(self) -> str:
        """Return `11 min 10 s of device-time, of a budget of 12 min 00 s (93 %)`."""
        text = f"{duration(self.used_s)} of device-time"
        if self.budget_s:
            share = 100 * self.used_s / self.budget_s
            text += f", of a budget of {duration(self.budget_s)} ({share:.0f} %)"
        return text


def cost(record: RunRecord, ledger: Entries) -> Cost:
    """Return what the run cost, phase by phase, beside what was planned."""
    spent = phase_costs(ledger).set_index("phase")
    planned = planned_seconds(record.plan.phases)
    first = planned_seconds(record.plan.first_phases) or planned
    names = phase_order([*spent.index, *planned])
    phases = spent.reindex(names).fillna({"device_s": 0.0, "attempts": 0})
    jobs = record.plan.jobs or {}
    for column, values in (("first_s", first), ("planned_s", planned), ("jobs_planned", jobs)):
        phases[column] = pd.Series(values, dtype=float).reindex(names)
    # What was cut continues with the next budget, and ends then.
    ended = Counter(job.phase for job in record.jobs if job.state is not State.CUT)
    phases["jobs"] = [ended[name] for name in names]
    budget_s = record.plan.budget_s
    return Cost(
        phases.reset_index(names="phase"),
        float(phases["device_s"].sum()),
        float(budget_s) if known(budget_s) else None,
    )


def planned_seconds(phases: Mapping[str, Any] | None) -> dict[str, float]:
    """Return device-seconds by phase, from seconds or mappings with `device_s`."""
    seconds = {
        name: value.get("device_s") if isinstance(value, Mapping) else value
        for name, value in (phases or {}).items()
    }
    return {name: float(value) for name, value in seconds.items() if known(value)}
