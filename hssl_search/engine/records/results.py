"""What came of the trainings of a search: trial -> seed -> score.

Here alone stands which training counts, for the search itself and for its reports.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from hssl_search.engine.execution.jobs import Metrics, Outcome, State
from hssl_search.engine.records.state import (
    HeadMeasures,
    JobRecord,
    PlanState,
    SearchState,
    Summary,
    TrialState,
    Verdict,
    bad_keys,
    ended_jobs,
    joined,
)
from hssl_search.engine.statistics.metrics import ACCURACY, RANKINGS, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Scores, ranked

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def final_metrics(outcome: Outcome, steps: int) -> Metrics | None:
    """Return the metrics of a job that came to its last step; None when it ended before."""
    last = outcome.reports[-1] if outcome.reports else None
    came = outcome.state is State.DONE and last is not None and last.step >= steps
    return last.metrics if came and last is not None else None


def ailment(metrics: Metrics) -> str:
    """Return which gate a head of a training did not pass, and why; empty where all are healthy."""
    heads = (HeadMeasures.model_validate(head) for head in metrics.get("heads") or [])
    return next(filter(None, (head.ailment() for head in heads)), "")


def counted(outcome: Outcome, steps: int, is_control: bool) -> Metrics | None:
    """Return the last metrics of a training if it counts; else None.

    It counts when it came to its last step and its head is healthy; a control counts in any health.
    """
    metrics = final_metrics(outcome, steps)
    return None if metrics is None or (not is_control and ailment(metrics)) else metrics


def finite(value: float | None) -> float | None:
    """Return a score or value if it is a finite number; else None, for it does not count."""
    return value if value is not None and math.isfinite(value) else None


ALONE = ("proxy", "confirm")
"""The phases that train one head alone with the base, so that their results can be compared."""


class Row(NamedTuple):
    """What the scores of one trial say of it."""

    trial: int
    seeds: int
    mean: float
    interval: tuple[float, float] | None
    """Of the mean, within what the measure can be; None where nothing tells the noise."""
    best: float | None
    """The probability that no other trial is better; None where nothing tells the noise."""


@dataclass(frozen=True)
class ScoreTable:
    """The scores by one measure, and what they say together."""

    measure: Measure
    scores: Scores
    """trial -> seed -> score"""
    resolution: float = 0.0
    """Step in which scores move."""

    @cached_property
    def posterior(self) -> Posterior:
        """Return the posterior of these scores."""
        return Posterior(self.scores, self.resolution)

    @cached_property
    def rows(self) -> list[Row]:
        """Return a row for each trial that has scores, the best mean first."""
        fit = self.posterior.fit
        # Without a degree of freedom nothing tells the noise of the means.
        best = self.posterior.best() if fit.dof else {}
        rows = []
        for trial in ranked(self.scores, fit.resolution):
            values, between = list(self.scores[trial].values()), fit.interval_of_mean(trial)
            interval = between and self.measure.within(*between)
            rows.append(Row(trial, len(values), mean(values), interval, best.get(trial)))
        return rows


class Results:
    """The last metrics of every training that counts, by trial and seed.

    Args:
        ranked_by: what ranks heads.
        queries: images that bases are judged by, where it is known.
    """

    def __init__(self, ranked_by: Measure = ACCURACY, queries: int | None = None) -> None:
        self.ranked_by, self.queries = ranked_by, queries
        self._metrics: dict[int, dict[int, Metrics]] = {}
        self._tables: dict[Measure, ScoreTable] = {}

    @property
    def judged_by(self) -> Measure:
        """Return what bases are compared by: what ranks, unless that is of the head."""
        return ACCURACY if self.ranked_by.of_head else self.ranked_by

    def take(self, trial: int, seed: int, metrics: Metrics) -> None:
        """Take the metrics of a training that counts (`counted`)."""
        self._metrics.setdefault(trial, {})[seed] = metrics
        self._tables.clear()  # what was fitted to the scores before is of no use any more

    def table(self, measure: Measure | None = None) -> ScoreTable:
        """Return the scores by a measure, read once until there are others.

        Args:
            measure: None for what ranks.
        """
        measure = measure or self.ranked_by
        if measure not in self._tables:
            resolution = measure.resolution(self.queries)
            self._tables[measure] = ScoreTable(measure, self._read(measure.score), resolution)
        return self._tables[measure]

    def values(self, measure: Measure) -> Scores:
        """Return trial -> seed -> value as it was measured, of the trials that have one."""
        return self._read(measure.value)

    def _read(self, read: Callable[[Metrics], float | None]) -> Scores:
        numbers: dict[int, dict[int, float]] = {}
        for trial, by_seed in self._metrics.items():
            for seed, metrics in by_seed.items():
                if (value := finite(read(metrics))) is not None:
                    numbers.setdefault(trial, {})[seed] = value
        return numbers


Curve = list[tuple[int, float]]
"""(step, score), by step."""


@dataclass(frozen=True)
class RunRecord:
    """A study as it was when it was read; a run that continues is read like one that ended.

    A report reads it once, so that all of the report is of one moment.
    """

    trials: list[FrozenTrial]
    states: dict[int, TrialState]
    """By the number of the trial."""
    jobs: list[JobRecord]
    search: SearchState
    results: Results

    @classmethod
    def of(cls, study: Study | RunRecord) -> RunRecord:
        """Read a study; a record that was read already is returned as it is."""
        if isinstance(study, RunRecord):
            return study
        attributes = joined(study.user_attrs)
        search, jobs = SearchState.of(attributes), ended_jobs(attributes)
        trials = study.get_trials(deepcopy=False)
        states = {trial.number: _state(trial) for trial in trials}
        config = search.config or {}
        ranked_by = RANKINGS[config.get("rank_by") or ACCURACY.key]
        results = Results(ranked_by, (config.get("images") or {}).get("queries"))
        # Earlier versions did not record how long a training was to be: all were proxies.
        numbers = search.plan.numbers if search.plan else None
        steps = int((numbers or {}).get("proxy_steps") or 0)
        for job in jobs:
            if job.phase in ALONE and job.trial in states:
                state = states[job.trial]
                seed = state.seed if job.seed is None else job.seed
                metrics = counted(job.outcome(), job.steps or steps, state.is_control)
                if metrics is not None:
                    results.take(job.trial, seed, metrics)
        return cls(trials, states, jobs, search, results)

    @cached_property
    def alone(self) -> dict[int, list[JobRecord]]:
        """Return the trainings of single heads by their trial."""
        jobs: dict[int, list[JobRecord]] = defaultdict(list)
        for job in self.jobs:
            if job.phase in ALONE and job.trial is not None:
                jobs[job.trial].append(job)
        return jobs

    @property
    def config(self) -> Summary:
        """Return the search as reports show it; empty where the study does not hold it."""
        return self.search.config or {}

    @property
    def verdict(self) -> Verdict:
        """Return the verdict; an empty one before there is one."""
        return self.search.verdict or Verdict()

    @property
    def plan(self) -> PlanState:
        """Return the plan; empty before there is one."""
        return self.search.plan or PlanState()

    @property
    def ranked_by(self) -> Measure:
        """Return what ranks heads."""
        return self.results.ranked_by

    @property
    def judged_by(self) -> Measure:
        """Return what bases are compared by."""
        return self.results.judged_by

    @property
    def judged_references(self) -> dict[str, float]:
        """Return the scores of the references by what bases are compared by."""
        search = self.search
        return search.reference if self.judged_by == ACCURACY else search.reference_scores

    @property
    def heads(self) -> list[FrozenTrial]:
        """Return the trials, of a head with several the last, which knows what the others found."""
        earlier = {state.retry_of for state in self.states.values()}
        return [trial for trial in self.trials if trial.number not in earlier]

    @property
    def no_head(self) -> FrozenTrial | None:
        """Return the control that trains the base without a head."""
        controls = (trial for trial in self.trials if self.states[trial.number].control == "none")
        return next(controls, None)

    def scores(self, trial: FrozenTrial, measure: Measure) -> dict[int, float]:
        """Return seed -> score of the trainings of a trial that count."""
        # Seeds of the same trial may end in any order.
        return dict(sorted(self.results.table(measure).scores.get(trial.number, {}).items()))

    def curves(self, trial: FrozenTrial) -> dict[int, Curve]:
        """Return seed -> what bases are compared by at each step.

        The trial's own seed also has its intermediate values, which outlive a killed controller.
        """
        own, measure = self.states[trial.number].seed, self.judged_by
        curves: dict[int, dict[int, float]] = defaultdict(dict)
        if self.ranked_by == measure:  # else they are of something else than the curve
            curves[own] = {
                step: value
                for step, value in trial.intermediate_values.items()
                if finite(value) is not None
            }
        for job in self.alone.get(trial.number, []):
            curves[own if job.seed is None else job.seed] |= dict(curve(job, measure))
        return {seed: sorted(curves[seed].items()) for seed in sorted(curves) if curves[seed]}


def _state(trial: FrozenTrial) -> TrialState:
    try:
        state = TrialState.model_validate(trial.user_attrs)
    except ValidationError as error:  # such as a head of a family that this version does not know
        bad = bad_keys(error)
        readable = {key: value for key, value in trial.user_attrs.items() if key not in bad}
        state = TrialState.model_validate(readable)
    # A trial that no search made has no name.
    return state if state.name else state.with_set(TrialState(name=f"trial {trial.number}"))


def curve(job: JobRecord, measure: Measure) -> Curve:
    """Return the score of a job at each step that has one."""
    scores = ((report.step, finite(measure.score(report.metrics))) for report in job.reports)
    return sorted((step, score) for step, score in scores if score is not None)
