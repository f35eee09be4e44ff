"""The pace of a search: how much longer its jobs take than was expected of them."""

from __future__ import annotations

from hssl_search.search.execution.jobs import Job, Outcome


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
    return job.task["kind"] == "measure" or (bool(outcome.reports) and outcome.reports[-1].step >= job.task["steps"])


def share_to_do(job: Job) -> float:
    """Share of a job's steps that lie after its newest checkpoint."""
    return max(0.0, 1 - job.step_reached() / max(1, job.task["steps"]))
