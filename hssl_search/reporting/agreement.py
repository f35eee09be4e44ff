"""Does a measure that needs no labels agree with accuracy? Rank correlations over the heads of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial

from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import OF_BASES, Measure
from hssl_search.reporting.formats import known
from hssl_search.reporting.frames import row_of
from hssl_search.reporting.leaderboard import leaderboard
from hssl_search.reporting.record import RunRecord

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

    def words(self, of: str = "accuracy") -> str:
        """What the correlation with the values `of` says."""
        found = self.correlation
        if found.n < LEAST:
            return "too few"
        if found.value is None:
            return "all alike"
        if found.low is None:
            return (
                "the same order, too few to say how sure"
                if found.value > 0
                else "the reverse order, too few to say how sure"
            )
        if found.may_be_chance:
            return "not clear"
        return f"{'rises' if found.value > 0 else 'falls'} with {of}"


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
