"""A phase as a source of jobs."""

from __future__ import annotations

import pytest

from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State, Task
from hssl_search.engine.phases.phase import Phase


def jobs(*keys: str) -> list[Job]:
    return [Job(key, "proxy", Task.model_construct(rungs=[1]), "/nowhere") for key in keys]


def handed_out(phase: Phase) -> list[str]:
    found = []
    while (job := phase.next_job()) is not None:
        found.append(job.key)
    return found


def test_jobs_are_handed_out_once_in_their_order() -> None:
    phase = Phase(jobs("c", "a", "b"), {})
    assert phase.waiting() == 3
    assert handed_out(phase) == ["c", "a", "b"]
    assert (phase.waiting(), phase.next_job()) == (0, None)


@pytest.mark.parametrize("state", list(State))
def test_what_ended_before_is_not_handed_out_unless_it_was_cut(state: State) -> None:
    outcome = Outcome(state, "cause", [Report(1, {})])
    phase = Phase(jobs("a", "b"), {"a": outcome, "elsewhere": outcome})
    again = state is State.CUT
    assert phase.waiting() == 1 + again
    assert handed_out(phase) == (["a", "b"] if again else ["b"])
    assert phase.outcomes == ({} if again else {"a": outcome})


def test_a_phase_goes_on_at_reports_and_keeps_how_its_jobs_ended() -> None:
    phase = Phase(jobs("a"), {})
    job = phase.next_job()
    assert job is not None
    assert phase.on_report(job, Report(1, {"accuracy": 0.0})) is Decision.CONTINUE
    phase.on_end(job, Outcome(State.DONE))
    assert phase.outcomes == {"a": Outcome(State.DONE)}
