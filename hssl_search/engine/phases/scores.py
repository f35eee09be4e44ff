"""The scoreboard: what trainings of single contenders came to, and what that decides of their trials."""

from __future__ import annotations

import math
from statistics import mean

from hssl_search.engine.candidates.candidate import ailment, final_metrics
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import Job, Outcome, Plain, State
from hssl_search.engine.phases.runner import Watcher
from hssl_search.engine.records.state import HeadMeasures, TrialState
from hssl_search.engine.statistics.metrics import ACCURACY, OF_BASES, Measure
from hssl_search.engine.statistics.posterior import Posterior


class Scoreboard:
    """
    Args:
        resolution: step in which scores move.
        why_stopped: what the study says of a trial that was stopped at a rung.
    """

    def __init__(
        self,
        trials: Trials,
        watcher: Watcher,
        ranked_by: Measure,
        resolution: float,
        why_stopped: str,
    ) -> None:
        self.trials, self.watcher, self.ranked_by, self.resolution, self.why_stopped = (
            trials,
            watcher,
            ranked_by,
            resolution,
            why_stopped,
        )
        self.scores: dict[int, dict[int, float]] = {}
        """trial -> seed -> score at full proxy fidelity"""
        self.accuracies: dict[int, dict[int, float]] = {}
        """The same of accuracies, where there are labels"""
        self.step_s: dict[int, float] = {}
        """trial -> seconds a step in its proxy, as they were"""
        self._leader: int | None = None
        """The candidate with the best score so far; only a new score of another can overtake it."""

    def report(self, job: Job, step: int, found: float) -> None:
        """A score at a rung."""
        assert job.trial is not None
        self.trials.study.report(job.trial, step, found)

    def take(self, job: Job, outcome: Outcome) -> None:
        """Decide the trial of a training that has ended; one that was cut goes on later."""
        assert job.trial is not None
        metrics = final_metrics(outcome, job.task.steps)
        if metrics is not None:
            if (step_s := _seconds_a_step(outcome)) > 0:
                self.step_s.setdefault(job.trial, step_s)
                self.trials.note(job.trial, TrialState(step_s=self.step_s[job.trial]))
            self.trials.note(job.trial, _measured_alone(metrics))
            self._complete(job, metrics)
        elif outcome.state is State.FAILED:
            self.trials.decide(job.trial, "FAIL", cause=outcome.cause)
        elif outcome.state is State.STOPPED:
            self.trials.decide(
                job.trial,
                "PRUNED",
                cause=f"stopped at step {outcome.reports[-1].step}: {self.why_stopped}",
            )
        elif outcome.state is State.DONE:
            self.trials.decide(
                job.trial,
                "PRUNED",
                cause="it took much longer than expected and was ended at a checkpoint.",
            )

    def score(self, job: Job, outcome: Outcome) -> float | None:
        """What a training came to; None for nothing that counts."""
        metrics = final_metrics(outcome, job.task.steps)
        found = None if metrics is None else self.ranked_by.score(metrics)
        return (
            found
            if found is not None and math.isfinite(found) and not self._sick(job, metrics or {})
            else None
        )

    def _complete(self, job: Job, metrics: Plain) -> None:
        """Take the score of a training that came to its end, and decide its trial."""
        assert job.trial is not None
        found = self.ranked_by.score(metrics)
        if sick := self._sick(job, metrics):
            self.trials.decide(job.trial, "PRUNED", cause=sick)
        elif found is None:
            self.trials.decide(
                job.trial, "PRUNED", cause=f"it has no {self.ranked_by.name} to be ranked by."
            )
        elif not math.isfinite(found):
            self.trials.decide(job.trial, "FAIL", cause=f"its {self.ranked_by.name} was no number.")
        else:
            self.report(job, job.task.steps, found)
            self._keep(job.trial, job.task.seed, found, ACCURACY.score(metrics))
            self._tell_best(job.trial)
            self.trials.decide(job.trial, "COMPLETE", found)

    def _keep(self, trial: int, seed: int, found: float, accuracy: float | None) -> None:
        self.scores.setdefault(trial, {})[seed] = found
        if accuracy is not None:
            self.accuracies.setdefault(trial, {})[seed] = accuracy

    def _tell_best(self, trial: int) -> None:
        """Tell the leader, or the control to beat, after a new score of the trial, with the accuracy that is known."""
        control = self.trials.contender(trial).control
        if control == "none" and trial in self.accuracies:
            self.watcher.control(mean(self.accuracies[trial].values()))
        if control is None:
            rivals = {trial, trial if self._leader is None else self._leader}
            self._leader = Posterior(
                {each: self.scores[each] for each in rivals}, self.resolution
            ).leader(rivals)
            assert self._leader is not None
            known = self.accuracies.get(self._leader)
            self.watcher.best(
                self.trials.contender(self._leader).name, mean(known.values()) if known else None
            )

    def _sick(self, job: Job, metrics: Plain) -> str:
        """Why a candidate's run does not count; empty for a healthy one, and for controls."""
        assert job.trial is not None
        return "" if self.trials.contender(job.trial).control else ailment(metrics)


def _seconds_a_step(outcome: Outcome) -> float:
    """Mean seconds of the steps that were timed in a training."""
    timed = [
        (report.metrics["train_s"], report.metrics["train_steps"]) for report in outcome.reports
    ]
    return sum(seconds for seconds, _ in timed) / max(
        1, sum(steps for _, steps in timed)
    )  # 0: all steps were an earlier process's


def _measured_alone(metrics: Plain) -> TrialState:
    """Return what a proxy adds to its trial, beside what its joint screening found."""
    keys = [measure.key for measure in OF_BASES if measure.key in metrics]
    of_base = TrialState.model_validate({key: metrics[key] for key in keys})
    if not metrics.get("heads"):
        return of_base
    head = HeadMeasures.model_validate(metrics["heads"][0])
    return of_base.with_set(
        TrialState(proxy_cka=head.cka, proxy_overlap=head.overlap, proxy_head_loss=head.head_loss)
    )
