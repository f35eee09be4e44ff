"""What goes with what: whether measures agree with what ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial

from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import OF_BASES, Measure
from hssl_search.reporting.formats import known, number, signed, signed_interval
from hssl_search.reporting.record import RunRecord
from hssl_search.reporting.tables import leaderboard, row_of
from hssl_search.reporting.text import trend

OF_HEADS = (
    Measure("discrepancy", "discrepancy: k-NN overlap, in excess"),
    Measure("cka_excess", "discrepancy: CKA, in excess"),
    Measure("output", "discrepancy: output"),
    Measure("architecture", "discrepancy: architecture"),
)
"""Of head and base, as screening found them. HSSL (arXiv 2310.05108) takes a large one for good."""


@dataclass(frozen=True)
class Agreement:
    measure: Measure
    correlation: RankCorrelation


def agreements(study: Study | RunRecord) -> list[Agreement]:
    """Of each measure that a trial with an accuracy at full proxy fidelity has: those of the head over healthy candidates, those of the
    base, means over seeds like the accuracy, over all trials, controls too."""
    trained = _trained(RunRecord.of(study))
    heads = trained[(trained["role"] == "candidate") & (trained["gate"] == "healthy")]
    return [*_agreements(OF_HEADS, heads), *_agreements(OF_BASES, trained)]


def _trained(record: RunRecord) -> pd.DataFrame:
    """Measures and accuracy of each trial that came to full proxy fidelity and has one."""
    columns = ["trial", "role", "gate", *(measure.key for measure in (*OF_HEADS, *OF_BASES))]
    every = pd.DataFrame([_measured(record, trial) for trial in record.trials], columns=columns)
    board = leaderboard(record)
    return every.merge(
        board.loc[(board["seeds"] > 0) & board["accuracy"].notna(), ["trial", "accuracy"]],
        on="trial",
    )


def _measured(record: RunRecord, trial: FrozenTrial) -> dict[str, Any]:
    """Its attributes, which hold what its own seed came to; of more seeds the means."""
    of_base = {measure.key: record.values(trial, measure) for measure in OF_BASES}
    return row_of(trial) | {
        key: mean(by_seed.values()) for key, by_seed in of_base.items() if by_seed
    }


def _agreements(measures: Sequence[Measure], trials: pd.DataFrame) -> list[Agreement]:
    return [
        Agreement(measure, rank_correlation(trials[measure.key], trials["accuracy"]))
        for measure in measures
        if trials[measure.key].map(known).any()
    ]


Plain = dict[str, Any]


def value_rows(values: pd.DataFrame) -> list[Plain]:
    """Return the rows of `tables.parameter_values`, their means as texts."""
    digits = {"discrepancy": 3, "discrepancy_without": 3, "accuracy": 1, "accuracy_without": 1}
    return [
        {**row, **{name: number(row[name], places) for name, places in digits.items()}}
        for row in values.to_dict("records")
    ]


def agreement_rows(found: Sequence[Agreement]) -> list[Plain]:
    """A row a measure; no correlation where there are too few points for one that means anything."""
    return [_agreement_row(one, "accuracy") for one in found]


def promotion_rows(promotion: Mapping[str, Any]) -> list[Plain]:
    """What foretold the scores of the promoted heads' proxies, a row each; none before there are proxies."""
    names = {
        "forecast": "forecast from screening, each proxy left out in turn",
        "discrepancy": "discrepancy, the paper's rule",
    }
    measures = {key: Measure(key, name) for key, name in names.items() if key in promotion}
    return [
        _agreement_row(Agreement(measure, RankCorrelation(**promotion[key])), "the score")
        for key, measure in measures.items()
    ]


def _agreement_row(one: Agreement, of: str) -> Plain:
    return {
        "name": one.measure.name,
        "good": one.measure.good,
        "correlation": signed(one.correlation.value if one.correlation.n >= LEAST else None, 2),
        "between": signed_interval(one.correlation.low, one.correlation.high, 2),
        "n": one.correlation.n,
        "words": trend(one.correlation, of),
    }
