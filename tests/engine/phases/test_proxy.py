"""Who is stopped at a rung."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hssl_search.engine.candidates.pruners import PRUNERS
from hssl_search.engine.config import PrunerName
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State, Task
from hssl_search.engine.phases.proxy import Proxy
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.engine.statistics.metrics import ACCURACY, DISCREPANCY, LABELFREE, Measure

RUNGS = [25, 50, 100]
CONTENDERS = {
    0: Contender(0, TrialState(name="no head", family="none", control="none")),
    1: Contender(1, TrialState(name="identity head", family="identity", control="identity")),
    **{
        trial: Contender(trial, TrialState(name=f"head {trial}", family="mlp"))
        for trial in range(2, 9)
    },
}


class WorkerSetup:
    """A proxy phase of 100 steps, and what it told."""

    def __init__(
        self,
        ended: Mapping[str, Outcome] | None = None,
        ranked_by: Measure = ACCURACY,
        pruner: PrunerName = "median",
        more: int = 0,
    ) -> None:
        self.scored: list[tuple[int | None, int, float]] = []
        jobs = [
            Job(
                f"proxy/{trial}",
                "proxy",
                Task.model_construct(steps=100, rungs=RUNGS),
                "/nowhere",
                trial,
            )
            for trial in CONTENDERS
        ]
        self.jobs = {job.trial: job for job in jobs}
        self.chosen: list[dict[int, float]] = []
        """The scores at each choice of a further job."""
        self.phase = Proxy(
            jobs,
            ended or {},
            CONTENDERS,
            ranked_by,
            lambda job, step, found: self.scored.append((job.trial, step, found)),
            PRUNERS[pruner],
            len(jobs) + more,
            self.choose,
        )

    def choose(self) -> Job | None:
        self.chosen.append(self.phase.scores())
        return Job(
            f"proxy/more{len(self.chosen)}",
            "proxy",
            Task.model_construct(steps=100, rungs=RUNGS),
            "/nowhere",
            9,
        )

    def ends(self, trial: int, state: State, *accuracies: float) -> None:
        """Let the proxy report these at its rungs, and end."""
        reports = [
            Report(step, {"accuracy": accuracy})
            for step, accuracy in zip(RUNGS, accuracies, strict=False)
        ]
        for report in reports:
            self.phase.on_report(self.jobs[trial], report)
        self.phase.on_end(self.jobs[trial], Outcome(state, "", reports))

    def says(self, trial: int, step: int, accuracy: float | None) -> Decision:
        return self.phase.on_report(
            self.jobs[trial], Report(step, {} if accuracy is None else {"accuracy": accuracy})
        )


def test_a_candidate_below_the_median_of_four_others_is_stopped() -> None:
    setup = WorkerSetup()
    for trial, accuracy in ((0, 10.0), (1, 20.0), (2, 30.0)):
        assert setup.says(trial, 50, accuracy) is Decision.CONTINUE
    assert setup.says(3, 50, 5.0) is Decision.CONTINUE, "three others are too few"
    assert setup.says(4, 50, 14.9) is Decision.STOP
    assert setup.says(5, 50, 15.0) is Decision.CONTINUE
    assert setup.says(6, 25, 1.0) is Decision.CONTINUE, "no one has been at this rung"


def test_a_proxy_that_goes_on_after_a_cut_is_not_compared_with_itself() -> None:
    cut = {"proxy/5": Outcome(State.CUT, "", [Report(25, {"accuracy": 5.0})])}
    setup = WorkerSetup(cut)
    for trial, accuracy in ((0, 10.0), (2, 20.0), (3, 30.0)):
        setup.says(trial, 25, accuracy)
    assert setup.says(5, 25, 5.0) is Decision.CONTINUE, (
        "three others are too few, as they were before the cut"
    )


def test_every_score_is_told_those_of_stopped_ones_too() -> None:
    setup = WorkerSetup()
    for trial in range(5):
        setup.says(trial, 50, 40.0 - trial)
    assert setup.scored == [(trial, 50, 40.0 - trial) for trial in range(5)]


def test_controls_are_never_stopped_and_count_for_the_median() -> None:
    setup = WorkerSetup()
    for trial in range(2, 6):
        setup.says(trial, 50, 40.0)
    assert setup.says(0, 50, 0.0) is Decision.CONTINUE
    assert setup.says(1, 50, 0.0) is Decision.CONTINUE
    low = WorkerSetup()
    for trial, accuracy in ((0, 50.0), (1, 50.0), (2, 10.0), (3, 10.0)):
        low.says(trial, 50, accuracy)
    assert low.says(4, 50, 20.0) is Decision.STOP


def test_no_one_is_stopped_at_the_last_rung() -> None:
    setup = WorkerSetup()
    for trial in range(2, 7):
        setup.says(trial, 100, 40.0)
    assert setup.says(7, 100, 1.0) is Decision.CONTINUE


@pytest.mark.parametrize("state", [State.DONE, State.STOPPED, State.FAILED])
def test_what_ended_before_a_resume_counts(state: State) -> None:
    ended = {
        f"proxy/{trial}": Outcome(state, "", [Report(50, {"accuracy": 40.0})])
        for trial in range(2, 6)
    }
    setup = WorkerSetup(ended)
    assert setup.says(6, 50, 39.0) is Decision.STOP
    assert setup.scored == [(6, 50, 39.0)]


def test_rungs_that_were_reached_before_a_cut_count_and_steps_between_them_do_not() -> None:
    def setup(step: int) -> WorkerSetup:
        return WorkerSetup(
            {
                f"proxy/{trial}": Outcome(State.CUT, "", [Report(step, {"accuracy": 40.0})])
                for trial in range(2, 6)
            }
        )

    assert setup(50).says(6, 50, 39.0) is Decision.STOP
    assert setup(37).says(6, 50, 39.0) is Decision.CONTINUE
    assert setup(37).phase.waiting() == len(CONTENDERS)


def test_a_report_between_rungs_neither_counts_nor_is_told() -> None:
    setup = WorkerSetup()
    for trial in range(2, 7):
        assert setup.says(trial, 37, 40.0 - trial) is Decision.CONTINUE
    assert setup.scored == []


def test_a_report_without_accuracy_neither_counts_nor_stops() -> None:
    setup = WorkerSetup()
    for trial in range(2, 8):
        assert setup.says(trial, 50, None) is Decision.CONTINUE
    assert setup.scored == []


def test_without_labels_discrepancy_is_what_counts() -> None:
    setup = WorkerSetup(ranked_by=DISCREPANCY)
    answers = [
        setup.phase.on_report(setup.jobs[trial], Report(50, {"heads": [{"overlap": overlap}]}))
        for trial, overlap in ((1, 0.0), (2, 0.4), (3, 0.4), (4, 0.4), (5, 0.3))
    ]
    assert [answer is Decision.STOP for answer in answers] == [False, False, False, False, True]
    assert setup.phase.on_report(setup.jobs[0], Report(50, {"loss": 1.0})) is Decision.CONTINUE


def test_by_a_measure_of_the_base_controls_without_a_head_count_and_accuracies_do_not() -> None:
    setup = WorkerSetup(ranked_by=LABELFREE)
    sign = -1 if LABELFREE.good == "low" else 1
    answers = [
        setup.phase.on_report(
            setup.jobs[trial],
            Report(50, {LABELFREE.key: sign * value, "accuracy": 90.0 if trial == 4 else 10.0}),
        )
        for trial, value in ((0, 30.0), (1, 20.0), (2, 30.0), (3, 10.0), (4, 24.9), (5, 25.0))
    ]
    assert [answer is Decision.STOP for answer in answers] == [
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert setup.scored[-1] == (5, 50, 25.0)


def test_a_value_that_is_no_number_does_not_move_the_median() -> None:
    setup = WorkerSetup()
    for trial in range(2, 6):
        assert setup.says(trial, 50, float("nan")) is Decision.CONTINUE
    for trial in range(2, 6):
        setup.says(trial, 50, 40.0)
    assert setup.says(6, 50, 41.0) is Decision.CONTINUE
    assert setup.says(7, 50, 39.0) is Decision.STOP


def test_jobs_beyond_the_first_are_chosen_when_they_are_asked_for() -> None:
    setup = WorkerSetup(more=2)
    assert setup.phase.waiting() == 11
    first = [setup.phase.next_job() for _ in CONTENDERS]
    assert (setup.phase.waiting(), setup.chosen, first) == (2, [], list(setup.jobs.values()))
    setup.ends(2, State.DONE, 10.0, 20.0, 30.0)
    keys = [job and job.key for job in (setup.phase.next_job() for _ in range(3))]
    assert keys == ["proxy/more1", "proxy/more2", None]
    assert setup.chosen == [{2: 30.0}] * 2
    assert setup.phase.waiting() == 0


def test_a_job_that_is_chosen_again_goes_on_with_what_is_known_of_it() -> None:
    known = {
        "proxy/more1": Outcome(
            State.DONE, "", [Report(step, {"accuracy": float(step)}) for step in RUNGS]
        ),
        "proxy/more2": Outcome(State.CUT, "", [Report(25, {"accuracy": 20.0})]),
    }
    setup = WorkerSetup(known, more=3)
    setup.phase.contenders = {
        **CONTENDERS,
        9: Contender(9, TrialState(name="head 9", family="mlp")),
    }
    for _ in setup.jobs:
        setup.phase.next_job()
    assert [job.key for job in iter(setup.phase.next_job, None)] == [
        "proxy/more2",
        "proxy/more3",
    ], "what has ended is not run again"
    assert setup.chosen == [{}, {9: 100.0}, {9: 100.0}]
    assert setup.phase.waiting() == 0


def test_a_stopped_proxy_is_taken_to_gain_what_others_have_gained_from_its_rung_on() -> None:
    setup = WorkerSetup()
    setup.ends(0, State.DONE, 10.0, 20.0, 30.0)
    setup.ends(2, State.DONE, 20.0, 30.0, 50.0)
    setup.ends(3, State.STOPPED, 5.0)
    setup.ends(4, State.STOPPED, 10.0, 16.0)
    setup.ends(5, State.FAILED, 90.0)
    setup.phase.on_report(setup.jobs[6], Report(25, {"accuracy": 70.0}))
    assert setup.phase.scores() == {0: 30.0, 2: 50.0, 3: 5.0 + 25.0, 4: 16.0 + 15.0}


def test_scores_of_proxies_that_ended_before_a_resume_are_known() -> None:
    ended = {
        "proxy/2": Outcome(
            State.DONE, "", [Report(25, {"accuracy": 1.0}), Report(100, {"accuracy": 9.0})]
        ),
        "proxy/3": Outcome(State.STOPPED, "", [Report(25, {"accuracy": 0.0})]),
    }
    assert WorkerSetup(ended).phase.scores() == {2: 9.0, 3: 8.0}
