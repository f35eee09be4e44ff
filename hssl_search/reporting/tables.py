"""The tables of a run as pandas frames, and the files written from them.

All read a study with the attributes that `hssl_search.engine.records.study` writes, at any moment of a run. Accuracies are per cent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from hssl_search.heads.config import HeadConfig
from hssl_search.reporting.files import write_whole
from hssl_search.reporting.frames import OTHER_DISCREPANCIES, row_of, where_measured, whole_numbers
from hssl_search.reporting.leaderboard import leaderboard
from hssl_search.reporting.record import RunRecord, is_control, name_of

TRIALS = "trials.parquet"
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


def reported_trials(run_folder: Path) -> int:
    """Return how many trials the `trials.parquet` in the run folder has; 0 where there is none that can be read."""
    try:
        return int(pyarrow.parquet.read_metadata(run_folder / TRIALS).num_rows)
    except (OSError, pyarrow.ArrowException):
        return 0


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


def write_tables(run_folder: Path, study: Study | RunRecord) -> list[Path]:
    """Write `leaderboard.csv` and `trials.parquet` into the run folder, each whole or not at all."""
    record = RunRecord.of(study)
    board, every = leaderboard(record), trials(record)
    return [
        write_whole(run_folder / "leaderboard.csv", lambda path: board.to_csv(path, index=False)),
        write_whole(
            run_folder / TRIALS, lambda path: every.to_parquet(path, engine="pyarrow", index=False)
        ),
    ]
