"""Which run is chosen next, when confirming ends, and that the same results lead to the same
runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hssl_search.engine.execution.jobs import Job, Outcome, Report, State, Task
from hssl_search.engine.phases.confirm import Confirm, Field, choose
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Scores

NONE, IDENTITY, SAME, LONGER = range(4)
FIELD = Field((4, 5, 6), NONE, IDENTITY, (SAME,), lambda leader: LONGER)
PROXIES: Scores = {NONE: {0: 40.0}, IDENTITY: {0: 40.5}, 4: {0: 41.0}, 5: {0: 42.0}, 6: {0: 41.5}}
TRIED = dict.fromkeys(PROXIES, 1)


def job_of(trial: int, seed: int) -> Job:
    return Job(
        f"confirm/{trial:04d}/seed{seed}",
        "confirm",
        Task.model_construct(seed=seed),
        "/nowhere",
        trial,
    )


class Results:
    """What every run comes to: the same whenever it is asked."""

    def __init__(self, truth: dict[int, float], noise: float, fails: Iterable[str] = ()) -> None:
        self.truth, self.noise, self.fails = truth, noise, set(fails)

    def score(self, trial: int, seed: int) -> float:
        draws = np.random.default_rng([trial, seed])
        return self.truth.get(trial, 40.0) + 0.5 * seed + draws.normal(0, self.noise)

    def outcome(self, job: Job) -> Outcome:
        assert job.trial is not None
        state = State.FAILED if job.key in self.fails else State.DONE
        return Outcome(state, "", [Report(1, {"accuracy": self.score(job.trial, job.task.seed)})])

    def proxies(self) -> Scores:
        return {trial: {0: self.score(trial, 0)} for trial in PROXIES}

    def phase(
        self,
        most: int,
        at_once: int,
        ended: dict[str, Outcome] | None = None,
        field: Field = FIELD,
        chosen: list[int] | None = None,
    ) -> Confirm:
        """Return the phase. `chosen`: what was chosen before; it grows."""
        kept = [] if chosen is None else chosen
        return Confirm(
            field,
            self.proxies(),
            dict.fromkeys((NONE, IDENTITY, *field.candidates), 1),
            job_of,
            found,
            most,
            at_once,
            0.1,
            ended or {},
            list(kept),
            kept.append,
        )


def found(job: Job, outcome: Outcome) -> float | None:
    return outcome.reports[-1].metrics["accuracy"] if outcome.state is State.DONE else None


def run(
    phase: Confirm,
    results: Results,
    at_once: int,
    order: random.Random | None = None,
    stop_after: int = 10**6,
) -> dict[str, Outcome]:
    """Run until there was nothing left, or until so many had: with an order, any of those that run
    may end first."""
    live: list[Job] = []
    ended: dict[str, Outcome] = {}
    while len(ended) < stop_after:
        while len(live) < at_once and (job := phase.next_job()) is not None:
            live.append(job)
        if not live:
            break
        job = live.pop(order.randrange(len(live)) if order else 0)
        ended[job.key] = results.outcome(job)
        phase.on_end(job, ended[job.key])
    return ended


def keys(phase: Confirm) -> list[tuple[int, int]]:
    return [(job.trial or 0, job.task.seed) for job in phase.jobs]


NOISY = Results({4: 41.0, 5: 41.0, 6: 41.0}, 1.0)
SHARP = Results({4: 41.0, 5: 43.0, 6: 42.0}, 0.05)


def test_a_second_seed_of_leader_and_no_head_comes_first_then_controls_challenger_identity() -> (
    None
):
    scores = {trial: dict(row) for trial, row in PROXIES.items()}
    tried = Counter(TRIED)
    chosen = []
    for turn in (0, 1, 2, 2, 2, 3):
        trial = choose(FIELD, scores, tried, turn)
        assert trial is not None
        chosen.append(trial)
        # one of two runs in common tells too little of the noise to settle
        scores.setdefault(trial, {})[tried[trial]] = 40.0 + trial / 2.5
        tried[trial] += 1
    assert chosen == [5, NONE, SAME, LONGER, 6, IDENTITY]


def test_leader_and_no_head_share_two_seeds_before_anything_else_is_tried_again_and_again() -> None:
    tried: Counter[int] = Counter(TRIED)
    table = {trial: dict(row) for trial, row in PROXIES.items()}
    for turn, (expected, score) in enumerate([(5, 36.0), (NONE, 40.2), (6, 36.0), (4, 45.0)]):
        assert choose(FIELD, table, tried, turn) == expected, (
            "whoever leads by now lacks its second seed"
        )
        table[expected] = {**table[expected], 1: score}
        tried[expected] += 1
    assert choose(FIELD, table, tried, 4) == SAME


def test_runs_that_go_on_count_as_paired_and_those_that_failed_are_tried_for_again() -> None:
    one_each = {**TRIED, 5: 2}
    assert choose(FIELD, PROXIES, one_each, 1, running={5: [1]}) == NONE
    assert choose(FIELD, PROXIES, {**one_each, NONE: 2}, 2, running={5: [1], NONE: [1]}) == SAME
    assert choose(FIELD, {**PROXIES, NONE: {0: 40.0, 1: 40.1}}, {**one_each, NONE: 2}, 2) == 5, (
        "its second seed failed"
    )
    assert choose(FIELD, PROXIES, {**TRIED, 5: 4, NONE: 4}, 6) == SAME, "it is not tried for ever"


def test_whoever_leads_by_now_gets_the_seeds_that_it_lacks() -> None:
    table = {
        **PROXIES,
        5: {0: 42.0, 1: 38.0, 2: 38.2},
        NONE: {0: 40.0, 1: 40.6, 2: 40.3},
        6: {0: 41.5, 1: 42.1},
    }
    tried = {trial: len(table.get(trial, {0: 0})) for trial in (*table, SAME, LONGER)}
    assert Posterior(table).leader(FIELD.candidates) == 6
    assert [choose(FIELD, table, tried, turn) for turn in (0, 1)] == [6, 6], (
        "no head has three already"
    )


def test_the_control_of_the_same_device_time_has_one_run_whoever_leads_later() -> None:
    tried = {**TRIED, 5: 2, NONE: 2, SAME: 1}
    table = {**PROXIES, 5: {0: 42.0, 1: 38.0}, NONE: {0: 40.0, 1: 40.6}, 4: {0: 43.0, 1: 44.0}}
    assert Posterior(table).leader(FIELD.candidates) == 4
    assert [choose(FIELD, table, tried, turn) for turn in range(4)] == [LONGER] * 4
    later = {**tried, LONGER: 1}
    assert LONGER not in [choose(FIELD, table, later, turn) for turn in range(4)]
    settled = {
        NONE: dict(enumerate([40.0, 40.1, 40.0])),
        4: dict(enumerate([45.0, 45.0, 45.1])),
        5: {0: 42.0},
    }
    assert [choose(FIELD, settled, done, 0, 0.1) for done in (tried, later)] == [LONGER, None]


def test_runs_end_early_where_the_verdict_is_settled_and_go_on_where_it_is_not() -> None:
    sharp, noisy = SHARP.phase(30, 1), NOISY.phase(30, 1)
    assert 4 < len(run(sharp, SHARP, 1)) < 15
    assert len(run(noisy, NOISY, 1)) == 30
    assert (sharp.waiting(), sharp.next_job(), noisy.waiting()) == (0, None, 0)
    scores = Counter(trial for trial, _ in keys(sharp))
    assert scores[5] >= scores[4], "the last of the three is soon out of it"


def test_where_no_head_is_surely_better_it_is_settled_too() -> None:
    worse = Results({4: 38.0, 5: 37.0, 6: 37.5}, 0.05)
    assert len(run(worse.phase(30, 1), worse, 1)) < 15


def test_without_a_score_of_no_head_the_best_two_are_told_apart() -> None:
    field = Field((4, 5, 6), None, IDENTITY, (SAME,))
    phase = NOISY.phase(12, 1, field=field)
    run(phase, NOISY, 1)
    assert len(phase.jobs) == 12
    assert {trial for trial, _ in keys(phase)} <= {SAME, IDENTITY, 4, 5, 6}


def test_runs_that_fail_count_as_tried_and_leave_the_others_paired() -> None:
    failing = Results({4: 41.0, 5: 43.0, 6: 41.0}, 1.0, {job_of(5, 1).key, job_of(LONGER, 0).key})
    phase = failing.phase(14, 1)
    run(phase, failing, 1)
    assert len(phase.jobs) == len({job.key for job in phase.jobs}) == 14
    assert (5, 2) in keys(phase)


@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("results", [SHARP, NOISY], ids=["sharp", "noisy"])
def test_the_same_results_lead_to_the_same_runs_in_any_order_and_wherever_it_stopped(
    results: Results, at_once: int
) -> None:
    whole = results.phase(16, at_once)
    run(whole, results, at_once)
    for stop_after in range(17):
        order = random.Random(stop_after)
        chosen: list[int] = []
        first = results.phase(16, at_once, chosen=chosen)
        ended = run(first, results, at_once, order, stop_after)
        assert keys(first) == keys(whole)[: len(first.jobs)]
        second = results.phase(16, at_once, ended, chosen=chosen)
        again = run(second, results, at_once, order)
        assert keys(second) == keys(whole)
        assert not set(again) & set(ended), "a run that had ended was run again"


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_a_search_with_further_candidates_goes_on_after_what_was_chosen_wherever_it_stopped(
    at_once: int,
) -> None:
    few, chosen = replace(FIELD, candidates=(4, 5)), list[int]()
    ended = run(NOISY.phase(6, at_once, field=few, chosen=chosen), NOISY, at_once)
    whole = NOISY.phase(16, at_once, ended, chosen=list(chosen))
    run(whole, NOISY, at_once)
    assert [trial for trial, _ in keys(whole)][:6] == chosen and 6 in [
        trial for trial, _ in keys(whole)
    ][6:]
    for stop_after in range(11):
        order, again = random.Random(stop_after), list(chosen)
        known = ended | run(
            NOISY.phase(16, at_once, ended, chosen=again), NOISY, at_once, order, stop_after
        )
        second = NOISY.phase(16, at_once, known, chosen=again)
        run(second, NOISY, at_once, order)
        assert keys(second) == keys(whole)


@pytest.mark.parametrize("at_once", [1, 3])
def test_as_many_runs_as_fit_are_handed_out_at_once(at_once: int) -> None:
    phase = NOISY.phase(12, at_once)
    assert phase.waiting() == 12
    handed_out = [phase.next_job() for _ in range(at_once)]
    assert None not in handed_out
    assert phase.next_job() is None, "the next one waits for a result"
    first = handed_out[0]
    assert first is not None
    phase.on_end(first, NOISY.outcome(first))
    assert phase.next_job() is not None


def simulated(
    random: np.random.Generator, candidates: int, runs: int, spread: float
) -> tuple[dict[int, float], Scores]:
    """Return (truth, table) of a search whose confirming runs were chosen by what had been seen;
    noise 0.5."""
    truth = dict(enumerate([0.0] * 4 + random.normal(0, spread, candidates).tolist()))
    field = Field(tuple(range(4, 4 + candidates)), NONE, IDENTITY, (SAME,), lambda leader: LONGER)
    shared = random.normal(40, 1, 2 + runs)
    scores = {
        trial: {0: truth[trial] + shared[0] + random.normal(0, 0.5)}
        for trial in truth
        if trial not in (SAME, LONGER)
    }
    tried = Counter(dict.fromkeys(scores, 1))
    for turn in range(-2, runs - 2):
        if (trial := choose(field, scores, tried, max(0, turn))) is None:
            break
        scores.setdefault(trial, {})[tried[trial]] = (
            truth[trial] + shared[tried[trial]] + random.normal(0, 0.5)
        )
        tried[trial] += 1
    return truth, scores


@pytest.mark.parametrize(
    ("candidates", "runs", "spread", "searches"),
    [(4, 6, 0.0, 1000), (12, 10, 0.0, 400), (6, 10, 0.5, 400)],
)
def test_of_whole_searches_the_winners_interval_holds_and_few_are_called_better_by_chance(
    candidates: int, runs: int, spread: float, searches: int
) -> None:
    random, held, wrong = np.random.default_rng(0), 0, 0
    for _ in range(searches):
        truth, scores = simulated(random, candidates, runs, spread)
        posterior = Posterior(scores)
        winner = posterior.leader(range(4, 4 + candidates))
        assert winner is not None
        gap = posterior.fit.against(NONE)[winner]
        held += abs(gap.mean - (truth[winner] - truth[NONE])) <= (gap.half or 0)
        wrong += gap.decided and gap.mean > 0 >= truth[winner] - truth[NONE]
    assert stats.binomtest(held, searches, 0.95, "less").pvalue > 0.001
    assert stats.binomtest(wrong, searches, 0.025, "greater").pvalue > 0.001
