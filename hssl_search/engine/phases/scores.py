"""The scoreboard: decides the trial of a training that has ended."""

from __future__ import annotations

from statistics import mean

from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import Job, Metrics, Outcome, State
from hssl_search.engine.phases.runner import Watcher
from hssl_search.engine.records.results import Results, ailment, counted, final_metrics, finite
from hssl_search.engine.records.state import HeadMeasures, TrialState
from hssl_search.engine.statistics.metrics import ACCURACY, OF_BASES
from hssl_search.engine.statistics.posterior import Posterior


class Scoreboard:
    """Takes the trainings of single contenders into the results, and decides their trials.

    Args:
        results: of the trainings that were taken before.
        why_stopped: what the study says of a trial that was stopped at a rung.
    """

    def __init__(
        self, trials: Trials, watcher: Watcher, results: Results, why_stopped: str
    ) -> None:
        self.trials, self.watcher, self.results = trials, watcher, results
        self.why_stopped = why_stopped
        self.step_s: dict[int, float] = {}
        """trial -> seconds of a step of its proxy, as they were"""
        self._leader: int | None = None
        """The candidate with the best score so far; only a new score of another can overtake it."""

    def report(self, job: Job, step: int, score: float) -> None:
        """Write a score at a rung to the trial."""
        assert job.trial is not None
        self.trials.study.report(job.trial, step, score)

    def score(self, job: Job, outcome: Outcome) -> float | None:
        """Return the score of a training; None where it does not count."""
        metrics = counted(outcome, job.task.steps, self._is_control(job))
        return None if metrics is None else finite(self.results.ranked_by.score(metrics))

    def take(self, job: Job, outcome: Outcome) -> None:
        """Decide the trial of a training that has ended; one that was cut continues later."""
        trial = job.trial
        assert trial is not None
        metrics = final_metrics(outcome, job.task.steps)
        if metrics is not None:
            if (step_s := _seconds_a_step(outcome)) > 0:
                self.step_s.setdefault(trial, step_s)  # the first: that of its proxy
                self.trials.note(trial, TrialState(step_s=self.step_s[trial]))
            self.trials.note(trial, _measured_alone(metrics))
            self._complete(job, trial, metrics)
        elif outcome.state is State.FAILED:
            self.trials.decide(trial, "FAIL", cause=outcome.cause)
        elif outcome.state is State.STOPPED:
            cause = f"stopped at step {outcome.reports[-1].step}: {self.why_stopped}"
            self.trials.decide(trial, "PRUNED", cause=cause)
        elif outcome.state is State.DONE:
            # In a record of an earlier version: the runner now cuts such a job.
            cause = "it took much longer than expected and was ended at a checkpoint."
            self.trials.decide(trial, "PRUNED", cause=cause)

    def _complete(self, job: Job, trial: int, metrics: Metrics) -> None:
        """Take the metrics of a training that came to its last step, and decide its trial."""
        measure = self.results.ranked_by
        if not self._is_control(job) and (cause := ailment(metrics)):
            self.trials.decide(trial, "PRUNED", cause=cause)
            return
        # Also what cannot be ranked: the verdict and the report compare by other measures too.
        self.results.take(trial, job.task.seed, metrics)
        if (score := measure.score(metrics)) is None:
            cause = f"it has no {measure.name} to be ranked by."
            self.trials.decide(trial, "PRUNED", cause=cause)
        elif finite(score) is None:
            self.trials.decide(trial, "FAIL", cause=f"its {measure.name} was no number.")
        else:
            self.report(job, job.task.steps, score)
            self._tell_best(trial)
            self.trials.decide(trial, "COMPLETE", score)

    def _tell_best(self, trial: int) -> None:
        """Tell the leader, or the control to beat, after a new score of the trial."""
        control = self.trials.contender(trial).control
        accuracies = self.results.table(ACCURACY).scores
        if control == "none" and trial in accuracies:
            self.watcher.control(mean(accuracies[trial].values()))
        if control is None:
            table = self.results.table()
            # Two rivals alone: the posterior of all trials after each score would cost too much.
            rivals = {trial, trial if self._leader is None else self._leader}
            scores = {rival: table.scores[rival] for rival in rivals}
            self._leader = Posterior(scores, table.resolution).leader(rivals)
            assert self._leader is not None
            by_seed = accuracies.get(self._leader)
            accuracy = mean(by_seed.values()) if by_seed else None
            self.watcher.best(self.trials.contender(self._leader).name, accuracy)

    def _is_control(self, job: Job) -> bool:
        assert job.trial is not None
        return self.trials.contender(job.trial).control is not None


def _seconds_a_step(outcome: Outcome) -> float:
    """Return the mean seconds of the steps that a training timed; 0 where it timed none.

    A training that was resumed after its last step has timed none of its own.
    """
    timed = [
        (report.metrics["train_s"], report.metrics["train_steps"]) for report in outcome.reports
    ]
    return sum(seconds for seconds, _ in timed) / max(1, sum(steps for _, steps in timed))


def _measured_alone(metrics: Metrics) -> TrialState:
    """Return what a proxy adds to its trial, beside what its joint screening found."""
    keys = [measure.key for measure in OF_BASES if measure.key in metrics]
    of_base = TrialState.model_validate({key: metrics[key] for key in keys})
    if not metrics.get("heads"):
        return of_base
    head = HeadMeasures.model_validate(metrics["heads"][0])
    return of_base.with_set(
        TrialState(proxy_cka=head.cka, proxy_overlap=head.overlap, proxy_head_loss=head.head_loss)
    )
