"""Runs a phase through an executor: within the budget, recorded, and watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from typing import Protocol

from hssl_search.engine.execution.jobs import Decision, Executor, Job, Outcome, Report, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.phase import Phase
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics import ties


class Pace:
    """Learned from jobs that came to their end, by phase."""

    def __init__(self) -> None:
        self._timed: dict[str, tuple[float, float]] = {}
        """Phase -> device-seconds expected of its jobs that ended, and taken by them."""
        self._told: set[str] = set()
        """Keys of those jobs: a later round, or an extension, has them again, and others of their phase side by side."""

    @property
    def now(self) -> float:
        """Device-seconds that jobs have taken for each one expected, in the last phase that tells; 1 before any has ended."""
        return next((pace for pace in map(self.of, reversed(self._timed)) if pace is not None), 1.0)

    def of(self, phase: str) -> float | None:
        """The same of one phase; None before any of its jobs has ended."""
        expected_s, taken_s = self._timed.get(phase, (0.0, 0.0))
        return taken_s / expected_s if expected_s else None

    def learn(self, job: Job, expected_s: float, taken_s: float) -> None:
        """Learn from a job that came to its end, once; both in device-seconds."""
        if job.key not in self._told:
            self._told.add(job.key)
            expected, taken = self._timed.get(job.phase, (0.0, 0.0))
            self._timed[job.phase] = (expected + expected_s, taken + taken_s)


def came_to_its_end(job: Job, outcome: Outcome) -> bool:
    """Whether a job that was not stopped did all that it was to do, and not only what its seconds lasted for."""
    return job.task.kind == "measure" or (
        bool(outcome.reports) and outcome.reports[-1].step >= job.task.steps
    )


def share_to_do(job: Job) -> float:
    """Share of a job's steps that lie after its newest checkpoint."""
    return max(0.0, 1 - job.step_reached() / max(1, job.task.steps))


PATIENCE = (3.0, 60.0)
"""A job stops at a checkpoint when it takes this many times what was expected of it, and this many seconds more. It goes on when others
turn out to be as slow, else after them, if the budget lasts for what it now turns out to need."""
ALWAYS_TRIED = 2
"""Jobs of a phase that may spend what later phases should have: without them there is nothing to go on with."""


class Watcher(Protocol):
    """Who is told what happens: the progress display."""

    def phase_started(
        self, name: str, jobs_total: int | None = None, budget_share: float | None = None
    ) -> None: ...
    def phase_ended(self) -> None: ...
    def job_started(self, name: str) -> None: ...
    def report(
        self, name: str, step: int, total_steps: int, accuracy: float | None = None
    ) -> None: ...
    def job_ended(self, name: str, state: str) -> None: ...
    def job_waits(self, name: str) -> None: ...
    def device_time(self, used_s: float, budget_s: float) -> None: ...
    def best(self, name: str, accuracy: float | None) -> None: ...
    def control(self, accuracy: float) -> None: ...
    def note(self, text: str) -> None: ...


class Runner:
    """Runs phases one after another."""

    def __init__(
        self,
        run: Run,
        executor: Executor,
        meter: DeviceMeter,
        study: StudyRecord,
        watcher: Watcher,
        machine: Machine,
    ) -> None:
        self.startup_s = 0.0
        """Device-seconds that a worker needs before it can begin its job; known after measuring."""
        self._pace = Pace()
        self.short: set[str] = set()
        """Phases that the budget did not last for: jobs of theirs wait, or were cut."""
        self.folder, self.executor, self.meter, self.study, self.watcher, self.machine = (
            run,
            executor,
            meter,
            study,
            watcher,
            machine,
        )
        self.show: Callable[[Job, Outcome], None] = lambda job, outcome: None
        """What else is to be done with a job that has ended, before it decides its trial."""
        meter.tell = watcher.device_time

    def run(
        self,
        name: str,
        phase: Phase,
        expected: Mapping[str, float],
        on_end: Callable[[Job, Outcome], None],
        keep_s: float = 0.0,
    ) -> None:
        """Run the jobs of a phase that have not ended before; `on_end` is called for each, those that had ended included.

        Args:
            expected: job key -> device-seconds that it should take; a job that is not in it may take all that is left.
            keep_s: device-seconds that later phases should have; all jobs but the first two leave them alone.
        """
        for place, job in enumerate(phase.jobs):
            if job.key in phase.outcomes:
                self.time(
                    job,
                    phase.outcomes[job.key],
                    expected.get(job.key),
                    cold=place < self.machine.places(job),
                )
                self.show(job, phase.outcomes[job.key])
                on_end(job, phase.outcomes[job.key])
        if not phase.waiting():
            return
        concurrency = min(phase.waiting(), self.machine.places(phase.jobs[0]))
        waiting = [seconds for key, seconds in expected.items() if key not in phase.outcomes]
        to_spend = sum(waiting) + max(0, phase.waiting() - len(waiting)) * mean(
            expected.values() or [0.0]
        )
        self.watcher.phase_started(
            name, phase.waiting(), to_spend / self.meter.budget.seconds if expected else None
        )
        watched = _Watched(phase, self, expected, concurrency, on_end, keep_s)
        self.executor.run(watched, concurrency)
        if phase.waiting() or watched.slow:
            self.short.add(name)
        self.watcher.phase_ended()

    def affordable(
        self,
        job: Job,
        expected_s: float | None,
        concurrency: int,
        keep_s: float = 0.0,
        live_s: float = 0.0,
    ) -> Job | None:
        """The job with the seconds that it may take; None when it cannot end within the budget, less what is to be kept.

        They are those that it needs, and its part of what no job needs, so that jobs that run longer end before the budget does.

        Args:
            live_s: device-seconds that the jobs that run should still take.
        """
        paid = self.machine.paid(job)
        part = paid / max(paid, self.machine.charged(concurrency))
        left = (
            self.meter.remaining() - live_s - max(1.0, self.pace) * (self.startup_s + keep_s)
        ) / paid
        if expected_s is None:
            return replace(job, seconds=part * left) if left > 0 else None
        needed = self.needed(job, expected_s)
        if needed + job.task.reserve_s > left:
            return None
        free = left - needed - job.task.reserve_s
        return replace(job, seconds=min(left - (1 - part) * free, patience(job, needed)))

    def needed(self, job: Job, expected_s: float) -> float:
        """Seconds that a job should take from its newest checkpoint on, at the pace of the search."""
        return max(1.0, self.pace) * expected_s * share_to_do(job) / self.machine.share(job)

    @property
    def pace(self) -> float:
        return self._pace.now

    def pace_of(self, phase: str) -> float | None:
        return self._pace.of(phase)

    def time(self, job: Job, outcome: Outcome, expected_s: float | None, cold: bool) -> None:
        """Learn the pace from a job that came to its end; `cold`: its worker had to start first."""
        if outcome.state is State.DONE and came_to_its_end(job, outcome) and expected_s is not None:
            self._pace.learn(job, expected_s, self.worked_s(job, outcome.seconds, cold))

    def worked_s(self, job: Job, seconds: float, cold: bool) -> float:
        """Device-seconds of so many seconds of a job, without the start of its worker."""
        start_s = self.startup_s / self.machine.charged(1) if cold else 0.0
        return max(0.0, seconds - start_s) * self.machine.share(job)

    def keep(self, job: Job, report: Report) -> None:
        """Write a report to the metrics of the job's trial."""
        if job.trial is not None:
            self.folder.append_metrics(
                job.trial, {"job": job.key, "step": report.step, **report.metrics}
            )
        self.watcher.report(
            job.task.name, report.step, job.task.steps, report.metrics.get("accuracy")
        )


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
        return self.job.seconds is not None and self.job.seconds < patience(self.job, self.needed)


@dataclass
class _Known:
    """What is known of a job that was handed out."""

    cold: bool
    """Whether its worker had to start."""
    to_do: float
    """Share of its steps that it had to do when it was first handed out."""
    left: float
    """The same as far as it is known to have come since."""
    seconds: float = 0.0
    """That it has taken."""
    needs_s: float | None = None
    """Device-seconds that it turns out to need in all, once it ran out of patience."""


class _Watched:
    """A phase as the executor sees it."""

    def __init__(
        self,
        phase: Phase,
        runner: Runner,
        expected: Mapping[str, float],
        concurrency: int,
        on_end: Callable[[Job, Outcome], None],
        keep_s: float,
    ) -> None:
        self.phase, self.runner, self.expected, self.concurrency, self.end = (
            phase,
            runner,
            expected,
            concurrency,
            on_end,
        )
        self.keep_s = keep_s
        self.begun = len(phase.outcomes)
        """Jobs that were handed out, in earlier runs too."""
        self.tried: set[str] = set()
        """Jobs that need keep nothing for later phases."""
        self.known: dict[str, _Known] = {}
        """Of each job that was handed out."""
        self.live: dict[str, _Live] = {}
        """Those that have not ended."""
        self.slow: dict[str, tuple[Job, Outcome]] = {}
        """Jobs that ran out of patience and wait to go on, with how they end if they cannot."""

    def next_job(self) -> Job | None:
        while (job := self._next()) is not None:
            if (fitting := self._affordable(job)) is not None:
                return self._start(fitting)
            if job.key not in self.slow:
                self._refuse(job)
            elif self.live and (self._paid_singly() or self.runner.pace_of(job.phase) is None):
                return None  # what those that run leave, or tell, may do for it
            else:
                self._give_up(job)
        return None

    def _next(self) -> Job | None:
        """One that is as slow as its phase and can go on, or a new one, or else the least slow."""
        waiting = [
            self.slow[key][0] for key in sorted(self.slow)
        ]  # not in the order in which they happened to come
        slow = [
            waiting[place]
            for place in ties.rank(
                {place: -self._slowness(job) for place, job in enumerate(waiting)}
            )
        ]
        as_others = next(
            (job for job in slow if not self._straggles(job) and self._affordable(job)), None
        )
        if as_others is not None:
            return as_others
        if (job := self.phase.next_job()) is not None:
            self.tried |= {job.key} if self.begun < ALWAYS_TRIED else set()
            self.begun += 1
            return job
        return slow[0] if slow else None

    def _affordable(self, job: Job) -> Job | None:
        return self._fitting(job, 0.0 if job.key in self.tried else self.keep_s)

    def _slowness(self, job: Job) -> float:
        """Device-seconds that a slow job turns out to need for each that was expected of it."""
        return (self.known[job.key].needs_s or 0.0) / self.expected[job.key]

    def _straggles(self, job: Job) -> bool:
        """Whether a slow job is far slower than those of its phase that came to their end; before one has, whether it alone is slow."""
        pace = self.runner.pace_of(job.phase)
        return (
            len(self.slow) < 2
            if pace is None
            else ties.above(self._slowness(job), PATIENCE[0] * pace)
        )

    def _start(self, job: Job) -> Job:
        to_do = share_to_do(job)
        self.known.setdefault(job.key, _Known(len(self.known) < self.concurrency, to_do, to_do))
        self.slow.pop(job.key, None)
        self._begin(job)
        self.runner.watcher.job_started(job.task.name)
        return job

    def _refuse(self, job: Job) -> None:
        """End a job that was not begun, without a record: it is begun when the budget is extended."""
        self.runner.watcher.note(
            f"{job.task.name} is not started: the budget left would not last to its end."
        )
        self.runner.short.add(job.phase)
        self.end(job, Outcome(State.CUT, "the budget left would not last to its end"))

    def _give_up(self, job: Job) -> None:
        """End a slow job that the budget does not last for: one that straggles with what it has reported, else it is cut."""
        straggles = self.runner.pace_of(job.phase) is not None and self._straggles(job)
        _, outcome = self.slow.pop(job.key)
        self._conclude(job, outcome if straggles else replace(outcome, state=State.CUT))

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
        live_s = sum(live.left(now) for live in self.live.values()) if self._paid_singly() else 0.0
        return self.runner.affordable(job, self._expected(job), self.concurrency, keep_s, live_s)

    def _paid_singly(self) -> bool:
        """Whether jobs are paid for one by one; on a CPU budget, the whole machine is."""
        return self.runner.machine.device == "gpu"

    def _expected(self, job: Job) -> float | None:
        """Device-seconds expected of the whole job, which at the pace of the search make what it needs."""
        known = self.known.get(job.key)
        if known is not None and known.needs_s is not None:
            return known.needs_s / max(1.0, self.runner.pace)
        return self.expected.get(job.key)

    def _begin(self, job: Job) -> None:
        if (expected_s := self._expected(job)) is not None:
            self.live[job.key] = _Live(
                job, self.runner.needed(job, expected_s), self.runner.meter.clock()
            )

    def on_end(self, job: Job, outcome: Outcome) -> None:
        live, known = self.live.pop(job.key, None), self.known[job.key]
        known.seconds += outcome.seconds
        outcome = self._with_earlier(job, outcome)
        if outcome.state is State.DONE and not came_to_its_end(job, outcome):
            if live is not None and not live.rationed and self._learns(job, outcome):
                return self._wait(job, outcome)
            if live is None or live.rationed or self._fitting(job) is None:
                outcome = replace(outcome, state=State.CUT)
        planned_s = self.expected.get(job.key)
        self.runner.time(
            job,
            replace(outcome, seconds=known.seconds),
            planned_s and planned_s * known.to_do,
            known.cold,
        )
        self._conclude(job, outcome)

    def _with_earlier(self, job: Job, outcome: Outcome) -> Outcome:
        """The outcome with what the job reported before it was cut."""
        if (before := self.phase.cut.get(job.key)) is None:
            return outcome
        begins = outcome.reports[0].step if outcome.reports else math.inf
        earlier = [report for report in before.reports if report.step < begins]
        return replace(
            outcome, reports=[*earlier, *outcome.reports], seconds=before.seconds + outcome.seconds
        )

    def _learns(self, job: Job, outcome: Outcome) -> bool:
        """Learn what a job needs from what it has done; False when that was nothing since it was last handed out."""
        known, reached = (
            self.known[job.key],
            max([job.step_reached(), *(report.step for report in outcome.reports)]),
        )
        left = 1 - reached / job.task.steps
        if left >= known.left:
            return False
        known.left = left
        known.needs_s = self.runner.worked_s(job, known.seconds, known.cold) / (known.to_do - left)
        return True

    def _wait(self, job: Job, outcome: Outcome) -> None:
        """Let a job that ran out of patience wait to go on; a search that is stopped meanwhile finds it cut."""
        cut = replace(outcome, state=State.CUT)
        self.runner.study.record_job(job, cut)
        self.phase.goes_on(job, cut)
        self.slow[job.key] = job, outcome
        self.runner.watcher.job_waits(job.task.name)
        self.runner.watcher.note(
            f"{job.task.name} takes much longer than planned; it goes on as far as the budget lasts."
        )

    def _conclude(self, job: Job, outcome: Outcome) -> None:
        if outcome.state is State.CUT:
            self.runner.short.add(job.phase)
        if outcome.state is not State.CUT or outcome.reports:
            self.runner.study.record_job(job, outcome)
        self.phase.on_end(job, outcome)
        self.runner.show(job, outcome)
        self.end(job, outcome)
        self.runner.watcher.job_ended(job.task.name, outcome.state.value)


def patience(job: Job, needed: float) -> float:
    """Seconds that are borne of a job that needs so many; it leaves before the last of them, which are its reserve."""
    return PATIENCE[0] * needed + PATIENCE[1] + float(job.task.reserve_s)
