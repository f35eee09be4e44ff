"""A phase: a list of jobs worked off in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from hssl_search.search.execution.jobs import Decision, Job, Outcome, Report, State


class Phase:
    """A JobSource over a list of jobs; those that ended in an earlier run of the same search are not handed out again."""

    def __init__(self, jobs: Iterable[Job], ended: Mapping[str, Outcome]) -> None:
        self.jobs: list[Job] = []
        self.outcomes: dict[str, Outcome] = {}
        self._waiting: deque[Job] = deque()
        self._ended = ended
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """One more job, at the end of the list."""
        self.jobs.append(job)
        before = self._ended.get(job.key)
        if before is None or before.state is State.CUT:
            self._waiting.append(job)
        else:
            self.outcomes[job.key] = before

    def waiting(self) -> int:
        """Jobs not handed out yet."""
        return len(self._waiting)

    def next_job(self) -> Job | None:
        return self._waiting.popleft() if self._waiting else None

    def on_report(self, job: Job, report: Report) -> Decision:
        return Decision.CONTINUE

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.key] = outcome
