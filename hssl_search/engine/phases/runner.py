"""Runs phases: what starts, for how many seconds within the budget, and how each job ended.

A job has two lives. For the `Runner` here it is a decision: the runner takes it from its phase,
gives it the seconds that the budget allows, and records how it ended. For the dispatcher
(`hssl_search.engine.execution.dispatcher`) it is something that runs: each report is passed on
once, each end is told once, and all time is charged.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import TYPE_CHECKING, Literal, Protocol

from hssl_search.engine.execution.jobs import Decision, Executor, Job, Outcome, Report, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord

if TYPE_CHECKING:
    from hssl_search.engine.candidates.promotion import Promotions
    from hssl_search.engine.planning.plan import Plan


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
    def device_time(self, used_s: float, budget_s: float) -> None: ...
    def best(self, name: str, accuracy: float | None) -> None: ...
    def control(self, accuracy: float) -> None: ...
    def planned(
        self, plan: Plan, occasion: Literal["begun", "screened", "extended", "done"]
    ) -> None: ...
    def promoted(self, promotions: Promotions) -> None: ...
    def note(self, text: str) -> None: ...


class Phase:
    """The jobs of a phase, worked off in order, and what is decided while they run.

    Jobs that ended in an earlier run of the same search are not handed out again; one that was cut
    before its end is, and continues from its checkpoint. A subclass that chooses its jobs as
    results come in overrides `next_job` and `waiting`; one that stops jobs early overrides
    `on_report`.
    """

    def __init__(self, jobs: Iterable[Job], ended: Mapping[str, Outcome]) -> None:
        self.jobs: list[Job] = []
        self.outcomes: dict[str, Outcome] = {}
        self.cut: dict[str, Outcome] = {}
        """What jobs that were cut had reported at their rungs."""
        self._waiting: deque[Job] = deque()
        self._ended = ended
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """Add one more job at the end of the list."""
        self.jobs.append(job)
        before = self._ended.get(job.key)
        if before is not None and before.state is not State.CUT:
            self.outcomes[job.key] = before
            return
        self._waiting.append(job)
        if before is not None:
            at_rungs = [report for report in before.reports if report.step in job.task.rungs]
            self.cut[job.key] = replace(before, reports=at_rungs)

    def waiting(self) -> int:
        """Return how many jobs may still be handed out."""
        return len(self._waiting)

    def next_job(self) -> Job | None:
        """Return the next job, or None where there is none at present."""
        return self._waiting.popleft() if self._waiting else None

    def on_report(self, job: Job, report: Report) -> Decision:
        """Decide whether a job continues after a report."""
        return Decision.CONTINUE

    def again(self, job: Job) -> Job:
        """Return the job as it may run after its worker died."""
        return job

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """Hear how a job ended; called once for each job that was handed out."""
        self.outcomes[job.key] = outcome


class Pace:
    """How many device-seconds jobs take for each one that was expected, learned as they end.

    While none of a phase has come to its end, those that were cut for being slow tell; after that
    one slow job is no reason to expect others to be.
    """

    def __init__(self) -> None:
        self._timed: dict[str, tuple[float, float]] = {}
        """Phase -> device-seconds expected of its jobs that came to their end, and taken."""
        self._cut: dict[str, tuple[float, float]] = {}
        """The same of what those did that were cut."""
        self._phases: dict[str, None] = {}
        """In the order in which something was first learned of them."""
        self._learned: set[str] = set()
        """Keys of those jobs. A later round, or an extension, lists them again."""

    @property
    def now(self) -> float:
        """Return the pace of the last phase of which a job has ended; 1 before any has."""
        paces = map(self.of, reversed(self._phases))
        return next((pace for pace in paces if pace is not None), 1.0)

    @property
    def at_least_planned(self) -> float:
        """Return the pace to plan with: jobs that were fast are no promise that others will be."""
        return max(1.0, self.now)

    def of(self, phase: str) -> float | None:
        """Return the pace of one phase; None before any of its jobs has ended."""
        timed = self._timed.get(phase) or self._cut.get(phase) or (0.0, 0.0)
        return timed[1] / timed[0] if timed[0] else None

    def learn(self, job: Job, expected_s: float, taken_s: float, cut: bool = False) -> None:
        """Learn from a job, once; both times in device-seconds."""
        if job.key not in self._learned:
            self._learned.add(job.key)
            self._phases.setdefault(job.phase)
            timed = self._cut if cut else self._timed
            expected, taken = timed.get(job.phase, (0.0, 0.0))
            timed[job.phase] = (expected + expected_s, taken + taken_s)


def attach_nothing(job: Job, outcome: Outcome) -> None:
    """Attach nothing to the trial of a job."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What jobs run on, and where it is kept what came of them; the same for all phases."""

    run: Run
    study: StudyRecord
    executor: Executor
    meter: DeviceMeter
    machine: Machine
    watcher: Watcher
    ended: dict[str, Outcome]
    """How jobs ended, by their keys, in earlier runs of this search too."""
    policy: Policy = DEFAULT
    attach: Callable[[Job, Outcome], None] = attach_nothing
    """Attaches to the trial of a job that has ended what a dashboard shows, before it is
    decided."""
    startup_s: float = 0.0
    """Device-seconds that a worker needs before it can begin its job; known after measuring."""
    pace: Pace = field(default_factory=Pace)
    short: set[str] = field(default_factory=set)
    """Phases that the budget did not last for: jobs of theirs were not started, or were cut."""
    late: set[str] = field(default_factory=set)
    """Phases of which a job was cut because it took several times what was expected of it. The
    search continues without it, and a resume takes it up again."""

    @property
    def complete(self) -> bool:
        """Return whether all that was planned so far came to its end."""
        return not self.short and not self.late

    def recall(self, job: Job) -> None:
        """Know what a job of a search that was killed had reported: the study holds how jobs ended,
        and that one did not."""
        before = self.ended.get(job.key, Outcome(State.CUT))
        if before.state is not State.CUT or job.trial is None:
            return
        reports = {report.step: report for report in before.reports}
        for line in self.run.metrics(job.trial):
            if line["job"] == job.key:
                metrics = {key: value for key, value in line.items() if key not in ("job", "step")}
                reports.setdefault(line["step"], Report(line["step"], metrics))
        if reports:
            in_order = [reports[step] for step in sorted(reports)]
            self.ended[job.key] = replace(before, reports=in_order)


@dataclass(frozen=True)
class _Started:
    """A job that was handed out and has not ended."""

    job: Job
    cold: bool
    """Whether its worker had to start."""
    to_do: float
    """Share of its steps that it had to do when it was handed out."""
    needed_s: float | None
    """Seconds that it should take from `since` on; None where that is not known."""
    since: float
    """On the meter's clock."""
    patient: bool
    """Whether it was given all that is borne of it; else it is the budget that ends it."""

    def left_s(self, now: float) -> float:
        """Return the GPU-seconds that it should still take."""
        return self.job.gpus * max(0.0, (self.needed_s or 0.0) - (now - self.since))


class Runner:
    """Runs one phase within the budget; to the executor it is the source of the phase's jobs.

    Args:
        expected: job key -> device-seconds that it should take; a job that is not in it may take
            all that is left. Grows as jobs are chosen.
        decide: called with each job and how it ended, those that ended before included.
        keep_s: device-seconds that later phases should have; all jobs but the first
            `policy.always_tried` leave them alone.
        sole: whether the phase has one job, without which there is nothing to continue with: it may
            take half of what is left, however long was expected.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        phase: Phase,
        expected: Mapping[str, float],
        decide: Callable[[Job, Outcome], None] = lambda job, outcome: None,
        keep_s: float = 0.0,
        sole: bool = False,
    ) -> None:
        self.backend, self.name, self.phase = backend, name, phase
        self.expected, self.decide, self.keep_s = expected, decide, keep_s
        self.sole = sole
        waiting = phase.waiting()
        places = backend.machine.places(phase.jobs[0]) if waiting else 1
        self.concurrency = min(waiting, places)
        self._begun = len(phase.outcomes)
        """Jobs that were taken from the phase, in earlier runs too."""
        self._warm = 0
        """Jobs that were handed out: the first at each place start a worker, which others use
        again."""
        self._live: dict[str, _Started] = {}

    def run(self) -> None:
        """Run the phase to its end, or as far as the budget lasts."""
        phase, backend, expected = self.phase, self.backend, self.expected
        for place, job in enumerate(phase.jobs):
            if (outcome := phase.outcomes.get(job.key)) is not None:
                cold = place < backend.machine.places(job)
                if outcome.state is State.DONE and came_to_its_end(job, outcome):
                    self._learn_pace(job, outcome.seconds, 1.0, cold)
                backend.attach(job, outcome)
                self.decide(job, outcome)
        if not phase.waiting():
            return
        waiting = [seconds for key, seconds in expected.items() if key not in phase.outcomes]
        unknown = max(0, phase.waiting() - len(waiting))  # jobs that will be chosen later
        to_spend = sum(waiting) + unknown * mean(expected.values() or [0.0])
        share = to_spend / backend.meter.budget.seconds if expected else None
        backend.watcher.phase_started(self.name, phase.waiting(), share)
        backend.executor.run(self, self.concurrency)
        if phase.waiting():
            backend.short.add(self.name)
        backend.watcher.phase_ended()

    def next_job(self) -> Job | None:
        """Return the next job of the phase that can end within the budget; those that cannot are
        not started, and wait for a larger one."""
        while (job := self.phase.next_job()) is not None:
            # Without a few jobs of its own a phase leaves the later ones nothing to work with.
            keep_s = 0.0 if self._begun < self.backend.policy.always_tried else self.keep_s
            self._begun += 1
            if (fitting := self.affordable(job, keep_s)) is not None:
                self._start(fitting, self._warm < self.concurrency, share_to_do(job))
                self._warm += 1
                self.backend.watcher.job_started(job.task.name)
                return fitting
            why = "the budget left would not last to its end"
            self.backend.watcher.note(f"{job.task.name} is not started: {why}.")
            self.backend.short.add(job.phase)
            self.decide(job, Outcome(State.CUT, why))  # without a record, as if never asked for
        return None

    def on_report(self, job: Job, report: Report) -> Decision:
        """Write a report to the metrics of the job's trial, and ask the phase."""
        if job.trial is not None:
            line = {"job": job.key, "step": report.step, **report.metrics}
            self.backend.run.append_metrics(job.trial, line)
        task, accuracy = job.task, report.metrics.get("accuracy")
        self.backend.watcher.report(task.name, report.step, task.steps, accuracy)
        return self.phase.on_report(job, report)

    def again(self, job: Job) -> Job:
        """Return the job with the seconds that it may take from its newest checkpoint on; with
        none, it ends where it is."""
        before = self._live.pop(job.key)
        fitting = self.affordable(job) or replace(job, seconds=0.0)
        self._start(fitting, before.cold, before.to_do)
        return fitting

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """Record how a job ended, and let phase and trial decide by it."""
        backend, started, seconds = self.backend, self._live.pop(job.key), outcome.seconds
        late = False
        if outcome.state is State.DONE:
            done = started.to_do
            if cut := not came_to_its_end(job, outcome):  # its seconds were over
                late = started.patient
                outcome = replace(outcome, state=State.CUT)
                done -= share_to_do(job)
                why = "used up the time that it was given, and was cut at a checkpoint"
                backend.watcher.note(f"{job.task.name} {why}.")
            self._learn_pace(job, seconds, done, started.cold, cut)
        if (before := self.phase.cut.get(job.key)) is not None:
            # A worker that takes up a checkpoint between two rungs reports the last rung again.
            begins = outcome.reports[0].step if outcome.reports else math.inf
            earlier = [report for report in before.reports if report.step < begins]
            both = [*earlier, *outcome.reports]
            outcome = replace(outcome, reports=both, seconds=before.seconds + seconds)
        if outcome.state is State.CUT:
            (backend.late if late else backend.short).add(job.phase)
        if outcome.state is not State.CUT or outcome.reports:
            backend.study.record_job(job, outcome)
        self.phase.on_end(job, outcome)
        backend.ended[job.key] = outcome
        backend.attach(job, outcome)
        self.decide(job, outcome)
        backend.watcher.job_ended(job.task.name, outcome.state.value)

    def affordable(self, job: Job, keep_s: float = 0.0) -> Job | None:
        """Return the job with the seconds that it may take; None when it cannot end within the
        budget.

        They are those that it needs, and its part of what no job needs, so that jobs that run
        longer end before the budget does.
        """
        backend = self.backend
        live_s, now = 0.0, backend.meter.clock()
        if backend.machine.device == "gpu":  # of CPUs, the budget pays for the whole machine
            live_s = sum(started.left_s(now) for started in self._live.values())
        paid = backend.machine.paid(job)
        part = paid / max(paid, backend.machine.charged(self.concurrency))
        kept_s = backend.pace.at_least_planned * (backend.startup_s + keep_s)
        left = (backend.meter.remaining() - live_s - kept_s) / paid
        if (needed := self._needed_s(job)) is None:
            return replace(job, seconds=part * left) if left > 0 else None
        reserve_s = job.task.reserve_s
        if needed + reserve_s > left:
            return None
        borne = self._patience_s(job, needed)
        if self.sole:
            borne = max(borne, left / 2)
        free = left - needed - reserve_s
        return replace(job, seconds=min(left - (1 - part) * free, borne))

    def _patience_s(self, job: Job, needed: float) -> float:
        """Return the seconds that are borne of a job that needs so many; it leaves before the last
        of them, which are its reserve."""
        policy = self.backend.policy
        return policy.patience * needed + policy.patience_s + job.task.reserve_s

    def _needed_s(self, job: Job) -> float | None:
        """Return the seconds that a job should take from its newest checkpoint on, at the pace of
        the search; None where that is not known."""
        if (expected_s := self.expected.get(job.key)) is None:
            return None
        machine, pace = self.backend.machine, self.backend.pace.at_least_planned
        return pace * expected_s * share_to_do(job) / machine.share(job)

    def _start(self, job: Job, cold: bool, to_do: float) -> None:
        needed, now = self._needed_s(job), self.backend.meter.clock()
        patient = needed is not None and (job.seconds or 0.0) >= self._patience_s(job, needed)
        self._live[job.key] = _Started(job, cold, to_do, needed, now, patient)

    def _learn_pace(
        self, job: Job, seconds: float, done: float, cold: bool, cut: bool = False
    ) -> None:
        """Learn the pace from a job that came to its end, or did what its seconds lasted for.

        Args:
            seconds: wall-clock seconds in which it did the share `done` of its steps.
            cold: whether its worker had to start first, which is no part of the pace.
            cut: whether its seconds were over.
        """
        expected_s, machine = self.expected.get(job.key), self.backend.machine
        if expected_s is not None and done > 0:
            start_s = self.backend.startup_s / machine.charged(1) if cold else 0.0
            worked_s = max(0.0, seconds - start_s) * machine.share(job)
            self.backend.pace.learn(job, expected_s * done, worked_s, cut)


def came_to_its_end(job: Job, outcome: Outcome) -> bool:
    """Return whether a job that was not stopped did all that it was to do, and not only what its
    seconds lasted for."""
    return job.task.kind == "measure" or (
        bool(outcome.reports) and outcome.reports[-1].step >= job.task.steps
    )


def share_to_do(job: Job) -> float:
    """Return the share of a job's steps that lie after its newest checkpoint."""
    return max(0.0, 1 - job.step_reached() / max(1, job.task.steps))
