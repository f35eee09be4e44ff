"""The tables of a run as pandas frames."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Difference, TwoWay
from hssl_search.heads.config import HeadConfig
from hssl_search.reporting.formats import duration, known
from hssl_search.reporting.record import RunRecord, is_control, name_of
from hssl_search.reporting.style import phase_order

OTHER_DISCREPANCIES = ("output", "architecture")
"""Discrepancies beside the one that promotes; a run may not have measured them."""
_INTEGERS = (
    "rank",
    "seeds",
    "gain_seeds",
    "parameters",
    "macs",
    "trial",
    "steps",
    "group",
    "seed",
    "step",
    "attempts",
)


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's attributes as one row, with its name, number (`trial`) and state."""
    always = {"name": name_of(trial), "trial": trial.number, "state": trial.state.name}
    return {"role": "candidate", "family": "", "gate": None, **trial.user_attrs, **always}


def where_measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of the other discrepancies that no row has."""
    return frame.drop(
        columns=[
            column
            for column in OTHER_DISCREPANCIES
            if column in frame and not frame[column].map(known).any()
        ]
    )


def whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay whole where some are missing."""
    return frame.astype({column: "Int64" for column in _INTEGERS if column in frame.columns})


LEADERBOARD = [
    *("rank", "name", "role", "family", "score", "accuracy", "low", "high", "seeds"),
    *("gain", "gain_low", "gain_high", "gain_seeds", "best"),
    *(
        "discrepancy",
        *OTHER_DISCREPANCIES,
        "gate",
        "parameters",
        "macs",
        "device_s",
        "trial",
        "steps",
        "state",
    ),
]


def leaderboard(study: Study | RunRecord) -> pd.DataFrame:
    """One row for each trial that reached the proxy stage, each control and each reference, best first by `score`.

    `score` is the mean over seeds, at full proxy fidelity, of what the run ranks by; `accuracy`, in per cent, that of the accuracy.
    Bases are judged by the column that `judged_column` names: `low` and `high` are the 95 % interval of its mean over `seeds`, as far as
    chance under these seeds goes, and `gain` is the difference to the control without a head, paired by seed (`TwoWay`), of which both
    have `gain_seeds`; its interval from `gain_low` to `gain_high` holds for whichever trial is picked by these scores, and is missing where
    both share fewer than two seeds. `best` is the probability, 0 to 1, that no other trial is better. Intervals and `best` are missing
    where nothing tells the noise, and no interval reaches beyond what the measure can be. Means that are closer than it resolves are in the
    order of their trials. A trial that was
    stopped before full proxy fidelity has in the judged column what it had then, `steps` says when, no seeds and no rank. In a run that is
    ranked by discrepancy, only healthy candidates have a rank. `OTHER_DISCREPANCIES` that were not measured have no column.
    """
    record = RunRecord.of(study)
    posterior = Posterior(
        {trial.number: record.scores(trial, record.judged_by) for trial in record.trials},
        record.resolution,
    )
    best = posterior.best() if posterior.fit.dof else {}
    gains = posterior.fit.against(record.no_head.number) if record.no_head else {}
    rows = [
        _row(record, trial)
        | _chance(record.judged_by, posterior.fit, trial.number, gains.get(trial.number), best)
        for trial in record.trials
        if _reached_proxy(record, trial)
    ]
    frame = pd.DataFrame([*_ranked(rows, record), *_references(record)], columns=LEADERBOARD)
    return whole_numbers(where_measured(frame))


def judged_column(measure: Measure) -> str:
    """The leaderboard's column of what bases are judged by."""
    return "accuracy" if measure == ACCURACY else "score"


def _references(record: RunRecord) -> list[dict[str, Any]]:
    names = list(dict.fromkeys([*record.reference, *record.judged_references]))
    same = {"role": "reference", "family": ""}
    column = judged_column(record.judged_by)
    return [
        {
            "name": name,
            **same,
            "accuracy": record.reference.get(name),
            column: record.judged_references.get(name),
        }
        for name in names
    ]


def _reached_proxy(record: RunRecord, trial: FrozenTrial) -> bool:
    promoted = is_control(trial) or bool(trial.user_attrs.get("promoted"))
    return promoted or bool(record.curves(trial)) or bool(record.scores(trial, record.ranked_by))


def _row(record: RunRecord, trial: FrozenTrial) -> dict[str, Any]:
    judged = record.scores(trial, record.judged_by)
    ends = [curve[-1] for curve in record.curves(trial).values()]
    reached = (
        {} if judged else {judged_column(record.judged_by): max(ends, default=(0, math.nan))[1]}
    )
    return {
        **row_of(trial),
        "score": _mean(record.scores(trial, record.ranked_by)),
        "accuracy": _mean(record.accuracies(trial)),
        **reached,
        "seeds": len(judged),
        "steps": max((step for step, _ in ends), default=None),
    }


def _mean(by_seed: Mapping[int, float]) -> float:
    return mean(by_seed.values()) if by_seed else math.nan


def _chance(
    measure: Measure, fit: TwoWay, trial: int, gain: Difference | None, best: Mapping[int, float]
) -> dict[str, Any]:
    """Interval of the mean, gain over the control without a head, probability of being best; as far as they are known."""
    between = fit.interval_of_mean(trial)
    low, high = measure.within(*between) if between else (None, None)
    found = {"low": low, "high": high, "best": best.get(trial)}
    if gain is None:
        return found | {"gain": math.nan, "gain_seeds": 0}
    between = gain.paired.interval
    gain_low, gain_high = measure.apart(*between) if between else (None, None)
    return found | {
        "gain": gain.mean,
        "gain_low": gain_low,
        "gain_high": gain_high,
        "gain_seeds": gain.seeds,
    }


def _ranked(rows: list[dict[str, Any]], record: RunRecord) -> list[dict[str, Any]]:
    """The rows, best first, numbered as far as they may be compared; the others follow by what bases are judged by."""

    def comparable(row: dict[str, Any]) -> bool:
        if record.ranked_by.of_head:
            return known(row["score"]) and row["role"] == "candidate" and row["gate"] == "healthy"
        return bool(row["seeds"])

    numbered = {row["trial"]: row for row in rows}

    def by(column: str, some: list[dict[str, Any]], resolution: float) -> list[dict[str, Any]]:
        values = {row["trial"]: row[column] if known(row[column]) else -math.inf for row in some}
        return [numbered[trial] for trial in ties.rank(values, resolution)]

    step = record.ranked_by.resolution(record.queries) / max([1, *(row["seeds"] for row in rows)])
    compared = by("score", [row for row in rows if comparable(row)], step)
    others = by(
        judged_column(record.judged_by),
        [row for row in rows if not comparable(row)],
        record.resolution,
    )
    return [
        *({**row, "rank": rank} for rank, row in enumerate(compared, start=1)),
        *({**row, "rank": None} for row in others),
    ]


CURVES = ["trial", "name", "role", "family", "control", "phase", "seed", "step", "value"]
SCREENING = [
    *(
        "trial",
        "name",
        "role",
        "family",
        "group",
        "parameters",
        "macs",
        "cka",
        "overlap",
        "cka_excess",
        "overlap_excess",
        "discrepancy",
    ),
    *(*OTHER_DISCREPANCIES, "head_loss", "chance_loss", "gate", "gate_reason", "promoted", "state"),
]
VALUES = [
    "parameter",
    "value",
    "gated_out",
    "heads",
    "discrepancy",
    "discrepancy_without",
    "scored",
    "accuracy",
    "accuracy_without",
]
MOST_VALUES = 4
"""Rows of a number in the table of `VALUES`; more values are joined with their neighbours."""


def screening(study: Study | RunRecord) -> pd.DataFrame:
    """What screening measured, a row for each trial that the gate judged, most discrepant first. `OTHER_DISCREPANCIES` that were
    not measured have no column."""
    judged = [trial for trial in RunRecord.of(study).heads if trial.user_attrs.get("gate")]
    frame = pd.DataFrame([row_of(trial) for trial in judged], columns=SCREENING)
    return whole_numbers(
        where_measured(
            frame.sort_values(["discrepancy", "trial"], ascending=[False, True], ignore_index=True)
        )
    )


def parameter_values(study: Study | RunRecord) -> pd.DataFrame:
    """Return what each value of a head's parameters went with: a row for each value, of the parameters in which healthy heads differ.

    `discrepancy` is the mean over the `heads` healthy candidates that have the value, `discrepancy_without` that over the other healthy
    ones that read the parameter; `accuracy` and `accuracy_without` are the same of those that have one at full proxy fidelity, `scored`
    of which have the value. `gated_out` candidates have the value and are not healthy.
    """
    record = RunRecord.of(study)
    judged = [
        trial for trial in record.heads if trial.user_attrs.get("gate") and not is_control(trial)
    ]
    parameters = [name for name in HeadConfig.model_fields if name not in ("format", "blocks")]
    heads = pd.DataFrame(
        [_head_row(record, trial) for trial in judged],
        columns=[*parameters, "gate", "discrepancy", "accuracy"],
    )
    heads = heads.astype({"discrepancy": float, "accuracy": float})
    return pd.DataFrame(
        [row for parameter in parameters for row in _value_rows(parameter, heads)], columns=VALUES
    )


def _head_row(record: RunRecord, trial: FrozenTrial) -> dict[str, Any]:
    head, attributes, accuracies = (
        trial.user_attrs.get("head") or {},
        trial.user_attrs,
        record.accuracies(trial),
    )
    blocks = head.get("blocks")
    return {
        **head,
        "family": attributes.get("family"),
        "depth": len(blocks.split("+"))
        if blocks
        else head.get("depth"),  # a hybrid names its blocks instead of a depth
        "gate": attributes["gate"],
        "discrepancy": attributes.get("discrepancy"),
        "accuracy": sum(accuracies.values()) / len(accuracies) if accuracies else math.nan,
    }


def _value_rows(parameter: str, heads: pd.DataFrame) -> Iterator[dict[str, Any]]:
    heads = heads[heads[parameter].notna()]
    healthy = heads[heads["gate"] == "healthy"]
    if healthy[parameter].nunique() < 2:
        return
    for values in _neighbours(heads[parameter]):
        has = healthy[parameter].isin(values)
        ours, others = healthy[has], healthy[~has]
        yield {
            "parameter": parameter,
            "value": " to ".join(
                dict.fromkeys(_value_name(value) for value in (values[0], values[-1]))
            ),
            "gated_out": int(heads[parameter].isin(values).sum() - has.sum()),
            "heads": len(ours),
            "discrepancy": ours["discrepancy"].mean(),
            "discrepancy_without": others["discrepancy"].mean(),
            "scored": int(ours["accuracy"].count()),
            "accuracy": ours["accuracy"].mean(),
            "accuracy_without": others["accuracy"].mean(),
        }


def _neighbours(values: pd.Series) -> list[list[Any]]:
    """Return the distinct values, ascending; numbers in at most `MOST_VALUES` groups of neighbours."""
    distinct = sorted(set(values))
    groups = len(distinct) if isinstance(distinct[0], str) else min(MOST_VALUES, len(distinct))
    return [
        [distinct[place] for place in part] for part in np.array_split(range(len(distinct)), groups)
    ]


def _value_name(value: Any) -> str:
    """Return the value as a space writes it."""
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"


def curves(study: Study | RunRecord) -> pd.DataFrame:
    """What bases are judged by, as `value`, by step: a row for each trial, seed and rung, and those of the full training (`phase` full,
    with its winner's name)."""
    record = RunRecord.of(study)
    rows: list[dict[str, Any]] = []
    for trial in record.trials:
        same = {**row_of(trial), "control": trial.user_attrs.get("control"), "phase": "proxy"}
        for seed, curve in record.curves(trial).items():
            rows += [{**same, "seed": seed, "step": step, "value": value} for step, value in curve]
    for job in record.jobs:
        if job.phase == "full":
            same = {
                "trial": job.trial,
                "name": job.name,
                "role": "candidate",
                "phase": "full",
                "seed": job.seed,
            }
            rows += [
                {**same, "step": step, "value": value}
                for step, value in job.curve(record.judged_by)
            ]
    return whole_numbers(pd.DataFrame(rows, columns=CURVES))


def failures(study: Study | RunRecord) -> pd.DataFrame:
    """What failed and why: trials, and jobs whose trial did not fail with them."""
    record = RunRecord.of(study)
    failed = [trial for trial in record.trials if trial.state is TrialState.FAIL]
    rows = [
        {
            "name": name_of(trial),
            "trial": trial.number,
            "what": "trial",
            "cause": trial.user_attrs.get("cause") or "",
        }
        for trial in failed
    ]
    told = {trial.number for trial in failed}
    jobs = [job for job in record.jobs if job.state == "failed" and job.trial not in told]
    rows += [
        {"name": job.name, "trial": job.trial, "what": job.key, "cause": job.cause} for job in jobs
    ]
    return whole_numbers(pd.DataFrame(rows, columns=["name", "trial", "what", "cause"]))


def trials(study: Study | RunRecord) -> pd.DataFrame:
    """Every trial, flat: state, value, times, each attribute, each parameter of the space (`param_...`) and of the head (`head_...`).

    Columns hold one type each; what is nested, or of several types, is written as JSON.
    """
    record = RunRecord.of(study)
    frame = pd.DataFrame([_flat(record, trial) for trial in record.trials])
    for column in frame.columns:
        if (
            frame[column].dtype == object
            and len({type(value) for value in frame[column].dropna()} - {float, int}) > 0
        ):
            frame[column] = _as_text(frame[column])
    return whole_numbers(frame)


def _flat(record: RunRecord, trial: FrozenTrial) -> dict[str, Any]:
    results = record.accuracies(trial)
    head = trial.user_attrs.get("head") or {}
    return {
        "trial": trial.number,
        "name": name_of(trial),
        "state": trial.state.name,
        "value": trial.value,
        "accuracy": sum(results.values()) / len(results) if results else math.nan,
        "seeds": len(results),
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        **{key: value for key, value in trial.user_attrs.items() if key not in ("name", "head")},
        **{f"head_{key}": value for key, value in head.items()},
        **{f"param_{key}": value for key, value in trial.params.items()},
        "accuracy_by_seed": json.dumps(results),
        "values_by_step": json.dumps(trial.intermediate_values),
    }


def _as_text(column: pd.Series) -> pd.Series:
    if (
        all(isinstance(value, (bool, str)) for value in column.dropna())
        and len({type(value) for value in column.dropna()}) == 1
    ):
        return column
    return column.map(lambda value: json.dumps(value, default=str), na_action="ignore")


def device_time(ledger: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row an attempt: attempt, phase, trial, start and end (seconds since the run began, without the time between two
    controllers) and device_s, in order of start. `ledger` are the entries of `records.ledger.Ledger`."""
    columns = ["attempt", "phase", "trial", "from", "to", "device_s"]
    entries = pd.DataFrame(list(ledger), columns=columns).rename(
        columns={"from": "start", "to": "end"}
    )
    whole = {
        "phase": ("phase", "last"),
        "trial": ("trial", "last"),
        "start": ("start", "min"),
        "end": ("end", "max"),
        "device_s": ("device_s", "sum"),
    }
    frame = entries.groupby("attempt", sort=False).agg(**whole).reset_index()
    return whole_numbers(frame.sort_values(["start", "end"], ignore_index=True, kind="stable"))


def phase_costs(ledger: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Device-seconds (`device_s`) and attempts of each phase, in the order in which the phases were first charged."""
    attempts = device_time(ledger)
    whole = {"device_s": ("device_s", "sum"), "attempts": ("attempt", "count")}
    return whole_numbers(attempts.groupby("phase", sort=False).agg(**whole).reset_index())


Entries = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Cost:
    """`phases`: a row a phase with device_s, attempts and jobs that ended; planned_s and jobs_planned of the plan as it was in the end, and
    first_s of the one before screening (missing where the plan does not name the phase)."""

    phases: pd.DataFrame
    used_s: float
    budget_s: float | None

    def sentence(self) -> str:
        """`11.2 min of device-time, of a budget of 12.0 min (93 %)`."""
        text = f"{duration(self.used_s)} of device-time"
        if self.budget_s:
            text += f", of a budget of {duration(self.budget_s)} ({100 * self.used_s / self.budget_s:.0f} %)"
        return text


def cost(record: RunRecord, ledger: Entries) -> Cost:
    spent = phase_costs(ledger).set_index("phase")
    planned = planned_seconds(record.plan)
    names = phase_order([*spent.index, *planned])
    phases = spent.reindex(names).fillna({"device_s": 0.0, "attempts": 0})
    first = planned_seconds({"phases": record.plan.get("first_phases")}) or planned
    ended = Counter(job.phase for job in record.jobs if job.state != "cut")
    for column, values in (
        ("first_s", first),
        ("planned_s", planned),
        ("jobs_planned", record.plan.get("jobs") or {}),
    ):
        phases[column] = pd.Series(values, dtype=float).reindex(names)
    phases["jobs"] = [ended[name] for name in names]
    budget = record.plan.get("budget_s")
    return Cost(
        phases.reset_index(names="phase"),
        float(phases["device_s"].sum()),
        float(budget) if known(budget) else None,
    )


def planned_seconds(plan: Mapping[str, Any]) -> dict[str, float]:
    """Device-seconds by phase from `plan["phases"]`, whose values are seconds or mappings with `device_s`."""
    phases = plan.get("phases") or {}
    seconds = {
        name: value.get("device_s") if isinstance(value, Mapping) else value
        for name, value in phases.items()
    }
    return {name: float(value) for name, value in seconds.items() if known(value)}
