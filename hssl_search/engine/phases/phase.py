"""A phase: a list of jobs worked off in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State


class Phase:
    """A JobSource over a list of jobs; those that ended in an earlier run of the same search are not handed out again.

    A job that was cut before its end goes on; `cut` has what it reported until then, at the rungs it is to report at.
    """

    def __init__(self, jobs: Iterable[Job], ended: Mapping[str, Outcome]) -> None:
        self.jobs: list[Job] = []
        self.outcomes: dict[str, Outcome] = {}
        self.cut: dict[str, Outcome] = {}
        self._waiting: deque[Job] = deque()
        self._ended = ended
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """One more job, at the end of the list."""
        self.jobs.append(job)
        before = self._ended.get(job.key)
        if before is not None and before.state is not State.CUT:
            self.outcomes[job.key] = before
            return
        self._waiting.append(job)
        if before is not None:
            self.goes_on(job, before)

    def goes_on(self, job: Job, cut: Outcome) -> None:
        """Know what a job had reported when it was cut."""
        self.cut[job.key] = replace(
            cut, reports=[report for report in cut.reports if report.step in job.task.rungs]
        )

    def waiting(self) -> int:
        """Jobs not handed out yet."""
        return len(self._waiting)

    def next_job(self) -> Job | None:
        return self._waiting.popleft() if self._waiting else None

    def on_report(self, job: Job, report: Report) -> Decision:
        return Decision.CONTINUE

    def again(self, job: Job) -> Job:
        return job

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.key] = outcome
