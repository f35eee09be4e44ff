"""The leaderboard: every head that was trained alone with the base, beside controls and references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial

from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Difference, TwoWay
from hssl_search.reporting.formats import known
from hssl_search.reporting.frames import OTHER_DISCREPANCIES, row_of, where_measured, whole_numbers
from hssl_search.reporting.record import RunRecord, is_control

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
