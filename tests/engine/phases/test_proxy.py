"""Who is stopped at a rung."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.candidates.pruners import PRUNERS, Rule
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State
from hssl_search.engine.phases.proxy import Proxy
from hssl_search.engine.statistics.metrics import ACCURACY, DISCREPANCY, LABELFREE, Measure

RUNGS = [25, 50, 100]
CONTENDERS = {
    0: Contender(0, "no head", [], "none", "none"),
    1: Contender(1, "identity head", [{}], "identity", "identity"),
    **{trial: Contender(trial, f"head {trial}", [{}], "mlp") for trial in range(2, 9)},
}


class Bench:
    """A proxy phase of 100 steps, and what it told."""

    def __init__(
        self,
        ended: Mapping[str, Outcome] | None = None,
        ranked_by: Measure = ACCURACY,
        pruner: Rule = "median",
        more: int = 0,
    ) -> None:
        self.scored: list[tuple[int | None, int, float]] = []
        jobs = [
            Job(f"proxy/{trial}", "proxy", {"steps": 100, "rungs": RUNGS}, "/nowhere", trial)
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
            f"proxy/more{len(self.chosen)}", "proxy", {"steps": 100, "rungs": RUNGS}, "/nowhere", 9
        )

    def ends(self, trial: int, state: State, *accuracies: float) -> None:
        """The proxy reports these at its rungs, and ends."""
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
    bench = Bench()
    for trial, accuracy in ((0, 10.0), (1, 20.0), (2, 30.0)):
        assert bench.says(trial, 50, accuracy) is Decision.CONTINUE
    assert bench.says(3, 50, 5.0) is Decision.CONTINUE, "three others are too few"
    assert bench.says(4, 50, 14.9) is Decision.STOP
    assert bench.says(5, 50, 15.0) is Decision.CONTINUE
    assert bench.says(6, 25, 1.0) is Decision.CONTINUE, "no one has been at this rung"


def test_a_proxy_that_goes_on_after_a_cut_is_not_compared_with_itself() -> None:
    cut = {"proxy/5": Outcome(State.CUT, "", [Report(25, {"accuracy": 5.0})])}
    bench = Bench(cut)
    for trial, accuracy in ((0, 10.0), (2, 20.0), (3, 30.0)):
        bench.says(trial, 25, accuracy)
    assert bench.says(5, 25, 5.0) is Decision.CONTINUE, (
        "three others are too few, as they were before the cut"
    )


def test_every_score_is_told_those_of_stopped_ones_too() -> None:
    bench = Bench()
    for trial in range(5):
        bench.says(trial, 50, 40.0 - trial)
    assert bench.scored == [(trial, 50, 40.0 - trial) for trial in range(5)]


def test_controls_are_never_stopped_and_count_for_the_median() -> None:
    bench = Bench()
    for trial in range(2, 6):
        bench.says(trial, 50, 40.0)
    assert bench.says(0, 50, 0.0) is Decision.CONTINUE
    assert bench.says(1, 50, 0.0) is Decision.CONTINUE
    low = Bench()
    for trial, accuracy in ((0, 50.0), (1, 50.0), (2, 10.0), (3, 10.0)):
        low.says(trial, 50, accuracy)
    assert low.says(4, 50, 20.0) is Decision.STOP


def test_no_one_is_stopped_at_the_last_rung() -> None:
    bench = Bench()
    for trial in range(2, 7):
        bench.says(trial, 100, 40.0)
    assert bench.says(7, 100, 1.0) is Decision.CONTINUE


@pytest.mark.parametrize("state", [State.DONE, State.STOPPED, State.FAILED])
def test_what_ended_before_a_resume_counts(state: State) -> None:
    ended = {
        f"proxy/{trial}": Outcome(state, "", [Report(50, {"accuracy": 40.0})])
        for trial in range(2, 6)
    }
    bench = Bench(ended)
    assert bench.says(6, 50, 39.0) is Decision.STOP
    assert bench.scored == [(6, 50, 39.0)]


def test_rungs_that_were_reached_before_a_cut_count_and_what_was_reached_between_them_does_not() -> (
    None
):
    def bench(step: int) -> Bench:
        return Bench(
            {
                f"proxy/{trial}": Outcome(State.CUT, "", [Report(step, {"accuracy": 40.0})])
                for trial in range(2, 6)
            }
        )

    assert bench(50).says(6, 50, 39.0) is Decision.STOP
    assert bench(37).says(6, 50, 39.0) is Decision.CONTINUE
    assert bench(37).phase.waiting() == len(CONTENDERS)


def test_a_report_between_rungs_neither_counts_nor_is_told() -> None:
    bench = Bench()
    for trial in range(2, 7):
        assert bench.says(trial, 37, 40.0 - trial) is Decision.CONTINUE
    assert bench.scored == []


def test_a_report_without_accuracy_neither_counts_nor_stops() -> None:
    bench = Bench()
    for trial in range(2, 8):
        assert bench.says(trial, 50, None) is Decision.CONTINUE
    assert bench.scored == []


def test_without_labels_discrepancy_is_what_counts() -> None:
    bench = Bench(ranked_by=DISCREPANCY)
    answers = [
        bench.phase.on_report(bench.jobs[trial], Report(50, {"heads": [{"overlap": overlap}]}))
        for trial, overlap in ((1, 0.0), (2, 0.4), (3, 0.4), (4, 0.4), (5, 0.3))
    ]
    assert [answer is Decision.STOP for answer in answers] == [False, False, False, False, True]
    assert bench.phase.on_report(bench.jobs[0], Report(50, {"loss": 1.0})) is Decision.CONTINUE


def test_by_a_measure_of_the_base_controls_without_a_head_count_and_accuracies_do_not() -> None:
    bench = Bench(ranked_by=LABELFREE)
    sign = -1 if LABELFREE.good == "low" else 1
    answers = [
        bench.phase.on_report(
            bench.jobs[trial],
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
    assert bench.scored[-1] == (5, 50, 25.0)


def test_a_value_that_is_no_number_does_not_move_the_median() -> None:
    bench = Bench()
    for trial in range(2, 6):
        assert bench.says(trial, 50, float("nan")) is Decision.CONTINUE
    for trial in range(2, 6):
        bench.says(trial, 50, 40.0)
    assert bench.says(6, 50, 41.0) is Decision.CONTINUE
    assert bench.says(7, 50, 39.0) is Decision.STOP


def test_jobs_beyond_the_first_are_chosen_when_they_are_asked_for() -> None:
    bench = Bench(more=2)
    assert bench.phase.waiting() == 11
    first = [bench.phase.next_job() for _ in CONTENDERS]
    assert (bench.phase.waiting(), bench.chosen, first) == (2, [], list(bench.jobs.values()))
    bench.ends(2, State.DONE, 10.0, 20.0, 30.0)
    keys = [job and job.key for job in (bench.phase.next_job() for _ in range(3))]
    assert keys == ["proxy/more1", "proxy/more2", None]
    assert bench.chosen == [{2: 30.0}] * 2
    assert bench.phase.waiting() == 0


def test_a_job_that_is_chosen_again_goes_on_with_what_is_known_of_it() -> None:
    known = {
        "proxy/more1": Outcome(
            State.DONE, "", [Report(step, {"accuracy": float(step)}) for step in RUNGS]
        ),
        "proxy/more2": Outcome(State.CUT, "", [Report(25, {"accuracy": 20.0})]),
    }
    bench = Bench(known, more=3)
    bench.phase.contenders = {**CONTENDERS, 9: Contender(9, "head 9", [{}], "mlp")}
    for _ in bench.jobs:
        bench.phase.next_job()
    assert [job.key for job in iter(bench.phase.next_job, None)] == [
        "proxy/more2",
        "proxy/more3",
    ], "what has ended is not run again"
    assert bench.chosen == [{}, {9: 100.0}, {9: 100.0}]
    assert bench.phase.waiting() == 0


def test_a_stopped_proxy_is_taken_to_gain_what_others_have_gained_from_its_rung_on() -> None:
    bench = Bench()
    bench.ends(0, State.DONE, 10.0, 20.0, 30.0)
    bench.ends(2, State.DONE, 20.0, 30.0, 50.0)
    bench.ends(3, State.STOPPED, 5.0)
    bench.ends(4, State.STOPPED, 10.0, 16.0)
    bench.ends(5, State.FAILED, 90.0)
    bench.phase.on_report(bench.jobs[6], Report(25, {"accuracy": 70.0}))
    assert bench.phase.scores() == {0: 30.0, 2: 50.0, 3: 5.0 + 25.0, 4: 16.0 + 15.0}


def test_scores_of_proxies_that_ended_before_a_resume_are_known() -> None:
    ended = {
        "proxy/2": Outcome(
            State.DONE, "", [Report(25, {"accuracy": 1.0}), Report(100, {"accuracy": 9.0})]
        ),
        "proxy/3": Outcome(State.STOPPED, "", [Report(25, {"accuracy": 0.0})]),
    }
    assert Bench(ended).phase.scores() == {2: 9.0, 3: 8.0}
