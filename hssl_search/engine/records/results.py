"""What came of the trainings of a search: trial -> seed -> score.

Here alone stands which training counts, for the search itself and for its reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any, NamedTuple

from hssl_search.engine.execution.jobs import Outcome, Plain, State
from hssl_search.engine.records.state import HeadMeasures
from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Scores, ranked


def final_metrics(outcome: Outcome, steps: int) -> Plain | None:
    """Return the metrics of a job that came to its last step; None when it ended before."""
    last = outcome.reports[-1] if outcome.reports else None
    came = outcome.state is State.DONE and last is not None and last.step >= steps
    return last.metrics if came and last is not None else None


def ailment(metrics: Mapping[str, Any]) -> str:
    """Return which gate a head of a training did not pass, and why; empty where all are healthy."""
    heads = (HeadMeasures.model_validate(head) for head in metrics.get("heads") or [])
    return next(filter(None, (head.ailment() for head in heads)), "")


class Row(NamedTuple):
    """What the scores of one trial say of it."""

    trial: int
    seeds: int
    mean: float
    interval: tuple[float, float] | None
    """Of the mean, within what the measure can be; None where nothing tells the noise."""
    best: float | None
    """The probability that no other trial is better; None where nothing tells the noise."""


class Results:
    """The last metrics of every training that counts: of one that came to its last step, whose head
    is healthy unless it is a control's. A score counts where it is a number.

    Args:
        ranked_by: what ranks heads.
        queries: images that bases are judged by, where it is known.
    """

    def __init__(self, ranked_by: Measure = ACCURACY, queries: int | None = None) -> None:
        self.ranked_by, self.queries = ranked_by, queries
        self.judged_by = ACCURACY if ranked_by.of_head else ranked_by
        """What bases are compared by: what ranks, unless that is of the head."""
        self._metrics: dict[int, dict[int, Plain]] = {}
        self._posteriors: dict[Measure, Posterior] = {}

    def take(self, trial: int, seed: int, metrics: Plain | None, is_control: bool) -> None:
        """Take the `final_metrics` of a training of the trial, if it counts."""
        if metrics is not None and (is_control or not ailment(metrics)):
            self._metrics.setdefault(trial, {})[seed] = metrics
            self._posteriors.clear()

    def scores(self, measure: Measure | None = None) -> Scores:
        """Return trial -> seed -> score, of the trials that have one.

        Args:
            measure: None for what ranks.
        """
        return self._read(lambda metrics: (measure or self.ranked_by).score(metrics))

    def values(self, measure: Measure) -> Scores:
        """Return trial -> seed -> value as it was measured, of the trials that have one."""
        return self._read(measure.value)

    def _read(self, read: Callable[[Plain], float | None]) -> Scores:
        numbers: dict[int, dict[int, float]] = {}
        for trial, by_seed in self._metrics.items():
            for seed, metrics in by_seed.items():
                number = read(metrics)
                if number is not None and math.isfinite(number):
                    numbers.setdefault(trial, {})[seed] = number
        return numbers

    def resolution(self, measure: Measure | None = None) -> float:
        """Return the step in which scores move."""
        return (measure or self.ranked_by).resolution(self.queries)

    def posterior(self, measure: Measure | None = None) -> Posterior:
        """Return the posterior of the scores, fitted once until there are others."""
        measure = measure or self.ranked_by
        if measure not in self._posteriors:
            self._posteriors[measure] = Posterior(self.scores(measure), self.resolution(measure))
        return self._posteriors[measure]

    def rows(self, measure: Measure | None = None) -> list[Row]:
        """Return a row for each trial with scores, the best mean first."""
        measure = measure or self.ranked_by
        scores, posterior = self.scores(measure), self.posterior(measure)
        best = posterior.best() if posterior.fit.dof else {}
        rows = []
        for trial in ranked(scores, posterior.fit.resolution):
            interval = posterior.fit.interval_of_mean(trial)
            within = interval and measure.within(*interval)
            average = mean(scores[trial].values())
            rows.append(Row(trial, len(scores[trial]), average, within, best.get(trial)))
        return rows
