"""Runs a phase through an executor: within the budget, recorded, and watched."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from typing import Protocol

from hssl_search.search.execution.jobs import Decision, Executor, Job, Outcome, Report, State
from hssl_search.search.jobmaker import Machine
from hssl_search.search.phases.phase import Phase
from hssl_search.search.records.meter import DeviceMeter
from hssl_search.search.records.run import Run
from hssl_search.search.records.study import StudyRecord

PATIENCE = (3.0, 60.0)
"""A job stops at a checkpoint when it takes this many times what was expected of it, and this many seconds more; it goes on after
the others of its phase, if the budget lasts for what it now turns out to need."""
ALWAYS_TRIED = 2
"""Jobs of a phase that may spend what later phases should have: without them there is nothing to go on with."""


class Watcher(Protocol):
    """Who is told what happens: the progress display."""

    def phase_started(self, name: str, jobs_total: int | None = None, budget_share: float | None = None) -> None: ...
    def phase_ended(self) -> None: ...
    def job_started(self, name: str) -> None: ...
    def report(self, name: str, step: int, total_steps: int, accuracy: float | None = None) -> None: ...
    def job_ended(self, name: str, state: str) -> None: ...
    def device_time(self, used_s: float, budget_s: float) -> None: ...
    def best(self, name: str, accuracy: float | None) -> None: ...
    def control(self, accuracy: float) -> None: ...
    def note(self, text: str) -> None: ...


class Runner:
    """Runs phases one after another."""

    def __init__(self, run: Run, executor: Executor, meter: DeviceMeter, study: StudyRecord, watcher: Watcher, machine: Machine) -> None:
        self.startup_s = 0.0
        """Device-seconds that a worker needs before it can begin its job; known after measuring."""
        self._timed: dict[str, tuple[float, float]] = {}
        """Phase -> device-seconds expected of its jobs that ended, and taken by them."""
        self._told: set[str] = set()
        """Keys of those jobs: a later round, or an extension, has them again, and others of their phase side by side."""
        self.short: set[str] = set()
        """Phases that the budget did not last for: jobs of theirs wait, or were cut."""
        self.folder, self.executor, self.meter, self.study, self.watcher, self.machine = run, executor, meter, study, watcher, machine
        self.show: Callable[[Job, Outcome], None] = lambda job, outcome: None
        """What else is to be done with a job that has ended, before it decides its trial."""
        meter.tell = watcher.device_time

    def run(self, name: str, phase: Phase, expected: Mapping[str, float], on_end: Callable[[Job, Outcome], None],
            keep_s: float = 0.0) -> None:
        """Run the jobs of a phase that have not ended before; `on_end` is called for each, those that had ended included.

        Args:
            expected: job key -> device-seconds that it should take; a job that is not in it may take all that is left.
            keep_s: device-seconds that later phases should have; all jobs but the first two leave them alone.
        """
        for place, job in enumerate(phase.jobs):
            if job.key in phase.outcomes:
                self.time(job, phase.outcomes[job.key], expected.get(job.key), cold=place < self.machine.places(job))
                self.show(job, phase.outcomes[job.key])
                on_end(job, phase.outcomes[job.key])
        if not phase.waiting():
            return
        concurrency = min(phase.waiting(), self.machine.places(phase.jobs[0]))
        waiting = [seconds for key, seconds in expected.items() if key not in phase.outcomes]
        to_spend = sum(waiting) + max(0, phase.waiting() - len(waiting)) * mean(expected.values() or [0.0])
        self.watcher.phase_started(name, phase.waiting(), to_spend / self.meter.budget.seconds if expected else None)
        watched = _Watched(phase, self, expected, concurrency, on_end, keep_s)
        self.executor.run(watched, concurrency)
        if phase.waiting() or watched.slow:
            self.short.add(name)
        self.watcher.phase_ended()

    def affordable(self, job: Job, expected_s: float | None, concurrency: int, keep_s: float = 0.0, live_s: float = 0.0) -> Job | None:
        """The job with the seconds that it may take; None when it cannot end within the budget, less what is to be kept.

        They are those that it needs, and its part of what no job needs, so that jobs that run longer end before the budget does.

        Args:
            live_s: device-seconds that the jobs that run should still take.
        """
        paid = self.machine.paid(job)
        part = paid / max(paid, self.machine.charged(concurrency))
        left = (self.meter.remaining() - live_s - max(1.0, self.pace) * (self.startup_s + keep_s)) / paid
        if expected_s is None:
            return replace(job, seconds=part * left) if left > 0 else None
        needed = self.needed(job, expected_s)
        if needed + job.task["reserve_s"] > left:
            return None
        free = left - needed - job.task["reserve_s"]
        return replace(job, seconds=min(left - (1 - part) * free, patience(needed)))

    def needed(self, job: Job, expected_s: float) -> float:
        """Seconds that a job should take from its newest checkpoint on, at the pace of the search."""
        return max(1.0, self.pace) * expected_s * share_to_do(job) / self.machine.share(job)

    @property
    def pace(self) -> float:
        """Device-seconds that jobs have taken for each one expected, in the last phase that tells; 1 before any has ended."""
        return next((pace for pace in map(self.pace_of, reversed(self._timed)) if pace is not None), 1.0)

    def pace_of(self, phase: str) -> float | None:
        """The same of one phase; None before any of its jobs has ended."""
        expected_s, taken_s = self._timed.get(phase, (0.0, 0.0))
        return taken_s / expected_s if expected_s else None

    def time(self, job: Job, outcome: Outcome, expected_s: float | None, cold: bool) -> None:
        """Learn from a job that came to its end; `cold`: its worker had to start first."""
        if outcome.state is State.DONE and came_to_its_end(job, outcome) and expected_s is not None and job.key not in self._told:
            self._told.add(job.key)
            start_s = self.startup_s / self.machine.charged(1) if cold else 0.0
            expected, taken = self._timed.get(job.phase, (0.0, 0.0))
            self._timed[job.phase] = (expected + expected_s, taken + max(0.0, outcome.seconds - start_s) * self.machine.share(job))

    def keep(self, job: Job, report: Report) -> None:
        """Write a report to the metrics of the job's trial."""
        if job.trial is not None:
            self.folder.append_metrics(job.trial, {"job": job.key, "step": report.step, **report.metrics})
        self.watcher.report(job.task["name"], report.step, job.task["steps"], report.metrics.get("accuracy"))


@dataclass(frozen=True)
class _Live:
    """A job that was handed out and has not ended."""

    job: Job
    needed: float
    """Seconds that it should take."""
    since: float
    """On the meter's clock."""

    def left(self, now: float) -> float:
        """GPU-seconds that it should still take."""
        return self.job.gpus * max(0.0, self.needed - (now - self.since))

    @property
    def rationed(self) -> bool:
        """Whether it was given less than would be borne of it: then it is the budget that ends it."""
        return self.job.seconds is not None and self.job.seconds < patience(self.needed)


class _Watched:
    """A phase as the executor sees it."""

    def __init__(self, phase: Phase, runner: Runner, expected: Mapping[str, float], concurrency: int,
                 on_end: Callable[[Job, Outcome], None], keep_s: float) -> None:
        self.phase, self.runner, self.expected, self.concurrency, self.end = phase, runner, expected, concurrency, on_end
        self.keep_s = keep_s
        self.begun = len(phase.outcomes)
        """Jobs that were handed out, in earlier runs too."""
        self.to_do: dict[str, float] = {}
        """Share of its steps that each job which was handed out had still to do."""
        self.cold: set[str] = set()
        """Jobs that were handed out first, whose workers had to start."""
        self.live: dict[str, _Live] = {}
        """Jobs that are paid for one by one; on a CPU budget, the whole machine is."""
        self.slow: deque[tuple[Job, Outcome]] = deque()
        """Jobs that ran out of patience and wait for the others, with how they end if they cannot go on."""
        self.known_s: dict[str, float] = {}
        """Device-seconds that such a job needs in all, by what it has done."""

    def next_job(self) -> Job | None:
        while (job := self.phase.next_job()) is not None:
            self.begun += 1
            if (fitting := self._fitting(job, self._keep_s())) is not None:
                if len(self.to_do) < self.concurrency:
                    self.cold.add(job.key)
                return self._start(fitting)
            self.runner.watcher.note(f"{job.task['name']} is not started: the budget left would not last to its end.")
            self.runner.short.add(job.phase)
            self.end(job, Outcome(State.CUT, "the budget left would not last to its end"))
        return self._next_slow()

    def _next_slow(self) -> Job | None:
        """One that ran out of patience; without budget for the rest it ends with what it has reported, or is cut where all are slow."""
        while self.slow:
            job, outcome = self.slow.popleft()
            if (fitting := self._fitting(job, self._keep_s())) is not None:
                return self._start(fitting)
            self._conclude(job, outcome if self._straggles(job) else replace(outcome, state=State.CUT))
        return None

    def _straggles(self, job: Job) -> bool:
        """Whether a job needs far longer than those of its phase that came to their end."""
        pace = self.runner.pace_of(job.phase)
        return pace is not None and self.known_s[job.key] > PATIENCE[0] * pace * self.expected[job.key]

    def _keep_s(self) -> float:
        return self.keep_s if self.begun > ALWAYS_TRIED else 0.0

    def _start(self, job: Job) -> Job:
        self.to_do[job.key] = share_to_do(job)
        self._begin(job)
        self.runner.watcher.job_started(job.task["name"])
        return job

    def on_report(self, job: Job, report: Report) -> Decision:
        self.runner.keep(job, report)
        return self.phase.on_report(job, report)

    def again(self, job: Job) -> Job:
        self.live.pop(job.key, None)
        fitting = self._fitting(job) or replace(job, seconds=0.0)
        self._begin(fitting)
        return fitting

    def _fitting(self, job: Job, keep_s: float = 0.0) -> Job | None:
        now = self.runner.meter.clock()
        live_s = sum(live.left(now) for live in self.live.values())
        return self.runner.affordable(job, self._expected(job), self.concurrency, keep_s, live_s)

    def _expected(self, job: Job) -> float | None:
        """Device-seconds expected of the whole job, at the pace of the search."""
        if job.key in self.known_s:
            return self.known_s[job.key] / max(1.0, self.runner.pace)
        return self.expected.get(job.key)

    def _planned(self, job: Job) -> float | None:
        """Device-seconds that were planned for what the job had still to do when it was handed out."""
        expected_s = self.expected.get(job.key)
        return expected_s and expected_s * self.to_do[job.key]

    def _begin(self, job: Job) -> None:
        if self.runner.machine.device == "gpu" and (expected_s := self._expected(job)) is not None:
            self.live[job.key] = _Live(job, self.runner.needed(job, expected_s), self.runner.meter.clock())

    def on_end(self, job: Job, outcome: Outcome) -> None:
        seconds, outcome = outcome.seconds, self._whole(job, outcome)
        self.runner.time(job, replace(outcome, seconds=seconds), self._planned(job), job.key in self.cold)
        if outcome.state is State.DONE and not came_to_its_end(job, outcome) and self._learns(job, outcome, seconds):
            self._wait(job, outcome)
        else:
            self._conclude(job, outcome)

    def _conclude(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is State.CUT:
            self.runner.short.add(job.phase)
        if outcome.state is not State.CUT or outcome.reports:
            self.runner.study.record_job(job, outcome)
        self.phase.on_end(job, outcome)
        self.runner.show(job, outcome)
        self.end(job, outcome)
        self.runner.watcher.job_ended(job.task["name"], outcome.state.value)

    def _wait(self, job: Job, outcome: Outcome) -> None:
        """Let a job that ran out of patience wait for the others; a search that is stopped meanwhile finds it cut."""
        cut = replace(outcome, state=State.CUT)
        self.runner.study.record_job(job, cut)
        self.phase.goes_on(job, cut)
        self.slow.append((job, outcome))
        self.runner.watcher.note(f"{job.task['name']} takes longer than expected; it goes on after the others, if the budget lasts.")

    def _learns(self, job: Job, outcome: Outcome, seconds: float) -> bool:
        """Learn what a job needs from what it has done since it was handed out; False when that was nothing."""
        reached = outcome.reports[-1].step if outcome.reports else job.step_reached()
        done = self.to_do[job.key] - (1 - reached / job.task["steps"])
        if done > 0:
            self.known_s[job.key] = seconds * self.runner.machine.share(job) / done
        return done > 0

    def _whole(self, job: Job, outcome: Outcome) -> Outcome:
        """The outcome with what the job reported before it was cut earlier; CUT where it was the budget that ended it now."""
        live = self.live.pop(job.key, None)
        if outcome.state is State.DONE and not came_to_its_end(job, outcome) and self._out_of_budget(job, live):
            outcome = replace(outcome, state=State.CUT)
        if (before := self.phase.cut.get(job.key)) is None:
            return outcome
        begins = outcome.reports[0].step if outcome.reports else math.inf
        earlier = [report for report in before.reports if report.step < begins]
        return replace(outcome, reports=[*earlier, *outcome.reports], seconds=before.seconds + outcome.seconds)

    def _out_of_budget(self, job: Job, live: _Live | None) -> bool:
        return job.key not in self.expected or (live is not None and live.rationed) or self._fitting(job) is None


def patience(needed: float) -> float:
    """Seconds that are borne of a job that needs so many."""
    return PATIENCE[0] * needed + PATIENCE[1]


def came_to_its_end(job: Job, outcome: Outcome) -> bool:
    return job.task["kind"] == "measure" or (bool(outcome.reports) and outcome.reports[-1].step >= job.task["steps"])


def share_to_do(job: Job) -> float:
    """Share of a job's steps that lie after its newest checkpoint."""
    return max(0.0, 1 - job.step_reached() / max(1, job.task["steps"]))
