"""What goes with what in a run: rank correlations, and what values of parameters went with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial

from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.records.state import PromotionState
from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import OF_BASES, Measure
from hssl_search.reporting.formats import known, number, signed, signed_interval
from hssl_search.reporting.tables import Row, leaderboard, row_of
from hssl_search.reporting.text import trend

OF_HEADS = (
    Measure("discrepancy", "discrepancy: k-NN overlap, in excess"),
    Measure("cka_excess", "discrepancy: CKA, in excess"),
    Measure("output", "discrepancy: output"),
    Measure("architecture", "discrepancy: architecture"),
)
"""Measures of head and base that screening takes. HSSL (arXiv 2310.05108) calls large ones good."""
PREDICTORS = {
    "forecast": "surrogate (from screening), each proxy left out in turn",
    "discrepancy": "discrepancy, the paper's rule",
}
"""What may predict a proxy's score, by its key in the study's attribute `promotion`."""


@dataclass(frozen=True)
class Agreement:
    """How far a measure that needs no labels puts heads into the order of their accuracies."""

    measure: Measure
    correlation: RankCorrelation


def agreements(study: Study | RunRecord) -> list[Agreement]:
    """Return the agreement of each measure that a fully trained proxy with an accuracy has.

    Measures of the head count healthy candidates alone. Measures of the base count all trials,
    controls too, and are means over seeds as the accuracy is.
    """
    record = RunRecord.of(study)
    columns = ["trial", "role", "gate", *(measure.key for measure in (*OF_HEADS, *OF_BASES))]
    rows = pd.DataFrame([_measured(record, trial) for trial in record.trials], columns=columns)
    board = leaderboard(record)
    # Heads that were stopped early have an accuracy too, of fewer steps: it does not count here.
    scored = board.loc[(board["seeds"] > 0) & board["accuracy"].notna(), ["trial", "accuracy"]]
    # An inner join: trials without a comparable accuracy drop out.
    trained = rows.merge(scored, on="trial")
    heads = trained[(trained["role"] == "candidate") & (trained["gate"] == "healthy")]
    return [
        Agreement(measure, rank_correlation(trials[measure.key], trials["accuracy"]))
        for measures, trials in ((OF_HEADS, heads), (OF_BASES, trained))
        for measure in measures
        if trials[measure.key].map(known).any()
    ]


def _measured(record: RunRecord, trial: FrozenTrial) -> Row:
    """Return the trial's attributes; measures of the base as their means where it has more seeds
    than its own, whose values the attributes hold."""
    of_base = {
        measure.key: record.results.values(measure).get(trial.number) for measure in OF_BASES
    }
    means = {key: mean(by_seed.values()) for key, by_seed in of_base.items() if by_seed}
    return row_of(record, trial) | means


def agreement_rows(found: Sequence[Agreement]) -> list[Row]:
    """Return a row for each measure, for the page's template."""
    return [_correlation_row(each.measure, each.correlation, "accuracy") for each in found]


def promotion_rows(promotion: PromotionState | None) -> list[Row]:
    """Return a row for each `PREDICTORS` of the proxies' scores; none before there are proxies."""
    return [
        _correlation_row(Measure(key, name), correlation, "the score")
        for key, name in PREDICTORS.items()
        if (correlation := getattr(promotion, key, None)) is not None
    ]


def _correlation_row(measure: Measure, found: RankCorrelation, of: str) -> Row:
    """Return the row of a correlation, without its value where too few points make one."""
    return {
        "name": measure.name,
        "good": measure.good,
        "correlation": signed(found.value if found.n >= LEAST else None, 2),
        "between": signed_interval(found.low, found.high, 2),
        "n": found.n,
        "words": trend(found, of),
    }


def value_rows(values: pd.DataFrame) -> list[Row]:
    """Return the rows of `tables.parameter_values`, their means as texts."""
    digits = {"discrepancy": 3, "discrepancy_without": 3, "accuracy": 1, "accuracy_without": 1}
    return [
        {**row, **{name: number(row[name], places) for name, places in digits.items()}}
        for row in values.to_dict("records")
    ]
