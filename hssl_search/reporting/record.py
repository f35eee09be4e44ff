"""What the reports read from a run's study: trials, ended jobs, and the attributes of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.records.attributes import joined
from hssl_search.engine.records.results import ailment
from hssl_search.engine.statistics.metrics import ACCURACY, RANKINGS, Measure
from hssl_search.reporting.formats import known

JOB = "job/"
TRAINING_PHASES = ("proxy", "confirm")
"""The phases whose jobs train one head alone with the base, so that their results are comparable."""

Curve = list[tuple[int, float]]
"""(step, score), by step."""


@dataclass(frozen=True)
class JobRecord:
    """One ended job."""

    key: str
    phase: str
    state: str
    cause: str
    trial: int | None
    seed: int | None
    name: str
    seconds: float
    reports: list[tuple[int, Mapping[str, Any]]]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> JobRecord:
        reports = [
            (int(report["step"]), report.get("metrics") or {})
            for report in plain.get("reports") or []
        ]
        reports.sort(key=lambda report: report[0])
        return cls(
            key=plain["key"],
            phase=plain.get("phase") or "",
            state=plain.get("state") or "",
            cause=plain.get("cause") or "",
            trial=plain.get("trial"),
            seed=plain.get("seed"),
            name=plain.get("name") or plain["key"],
            seconds=plain.get("seconds") or 0.0,
            reports=reports,
        )

    def curve(self, measure: Measure) -> Curve:
        scores = [(step, measure.score(metrics)) for step, metrics in self.reports]
        return [(step, float(score)) for step, score in scores if known(score)]


@dataclass(frozen=True)
class RunRecord:
    """A study as it was when it was read; an unfinished run is read like a finished one."""

    trials: list[FrozenTrial]
    jobs: list[JobRecord]
    config: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    """Accuracies in per cent."""
    reference_scores: Mapping[str, float] = field(default_factory=dict)
    """Of what ranks."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    promotion: Mapping[str, Any] = field(default_factory=dict)
    """By which rule heads were promoted, and how well their proxies' scores were foretold."""
    _jobs_by_trial: dict[int, list[JobRecord]] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study | RunRecord) -> RunRecord:
        """Read `study`; a record that was read already is given back, so that one report sees one state of the run."""
        if isinstance(study, RunRecord):
            return study
        attributes = joined(study.user_attrs)
        jobs = [
            JobRecord.from_plain(plain) for key, plain in attributes.items() if key.startswith(JOB)
        ]
        by_trial: dict[int, list[JobRecord]] = defaultdict(list)
        for job in jobs:
            if job.trial is not None and job.phase in TRAINING_PHASES:
                by_trial[job.trial].append(job)
        run = {
            name: attributes.get(name) or {}
            for name in ("config", "reference", "reference_scores", "plan", "verdict", "promotion")
        }
        return cls(
            trials=study.get_trials(deepcopy=False),
            jobs=jobs,
            _jobs_by_trial=dict(by_trial),
            **run,
        )

    @cached_property
    def heads(self) -> list[FrozenTrial]:
        """The trials, of a head with several the last, which has what was measured for the earlier ones too."""
        earlier = {trial.user_attrs.get("retry_of") for trial in self.trials}
        return [trial for trial in self.trials if trial.number not in earlier]

    def training_jobs(self, trial: FrozenTrial) -> list[JobRecord]:
        return self._jobs_by_trial.get(trial.number, [])

    @cached_property
    def ranked_by(self) -> Measure:
        """What ranks heads."""
        return RANKINGS[self.config.get("rank_by") or ACCURACY.key]

    @cached_property
    def judged_by(self) -> Measure:
        """What bases are compared by: what ranks, or accuracy where that is the discrepancy of heads."""
        return ACCURACY if self.ranked_by.of_head else self.ranked_by

    @property
    def resolution(self) -> float:
        """Step in which what bases are compared by moves."""
        return self.judged_by.resolution(self.queries)

    @property
    def queries(self) -> int | None:
        """Images that bases are judged by."""
        return (self.config.get("images") or {}).get("queries")

    @property
    def judged_references(self) -> Mapping[str, float]:
        """Scores of the references by what bases are compared by."""
        return self.reference if self.judged_by == ACCURACY else self.reference_scores

    def curves(self, trial: FrozenTrial) -> dict[int, Curve]:
        """Score by step of every seed, by what bases are compared by; the own seed's also has the trial's intermediate values, which
        outlive a killed controller."""
        curves = {
            _seed(job, trial): curve
            for job in self.training_jobs(trial)
            if (curve := job.curve(self.judged_by))
        }
        own = _own_seed(trial)
        if self.ranked_by == self.judged_by and trial.intermediate_values:
            reported = {
                step: value for step, value in trial.intermediate_values.items() if known(value)
            }
            curves[own] = sorted({**reported, **dict(curves.get(own, []))}.items())
        return {seed: curve for seed, curve in sorted(curves.items()) if curve}

    def accuracies(self, trial: FrozenTrial) -> dict[int, float]:
        """Accuracy in per cent of every seed that came to full proxy fidelity."""
        return self.scores(trial, ACCURACY)

    def scores(self, trial: FrozenTrial, measure: Measure) -> dict[int, float]:
        """Score of every seed that came to full proxy fidelity; a trial's value is its own seed's of what ranks."""
        found = self._at_full(trial, measure.score)
        if trial.state is TrialState.COMPLETE and known(trial.value) and measure == self.ranked_by:
            found.setdefault(_own_seed(trial), trial.value)
        return dict(sorted(found.items()))

    def values(self, trial: FrozenTrial, measure: Measure) -> dict[int, float]:
        """Value, as it was reported, of every seed that came to full proxy fidelity."""
        return self._at_full(trial, measure.value)

    def _at_full(
        self, trial: FrozenTrial, read: Callable[[Mapping[str, Any]], float | None]
    ) -> dict[int, float]:
        if trial.state is not TrialState.COMPLETE:
            return {}
        ended = [job for job in self.training_jobs(trial) if job.state == "done" and job.reports]
        found = {
            _seed(job, trial): read(job.reports[-1][1])
            for job in ended
            if self._counts(job, is_control(trial))
        }
        return {seed: value for seed, value in found.items() if known(value)}

    def _counts(self, job: JobRecord, control: bool) -> bool:
        step, metrics = job.reports[-1]
        return step >= self._full_steps and (control or not ailment(metrics))

    @cached_property
    def _full_steps(self) -> int:
        """Steps of a training at full proxy fidelity; a slow one may be ended before."""
        return int((self.plan.get("numbers") or {}).get("proxy_steps") or 0)

    @cached_property
    def no_head(self) -> FrozenTrial | None:
        """The control that trains the base without any head."""
        return next(
            (trial for trial in self.trials if trial.user_attrs.get("control") == "none"), None
        )


def name_of(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("name") or f"trial {trial.number}")


def is_control(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("role") == "control"


def _own_seed(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get("seed") or 0)


def _seed(job: JobRecord, trial: FrozenTrial) -> int:
    return _own_seed(trial) if job.seed is None else int(job.seed)
