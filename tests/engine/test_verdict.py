"""The verdict in each of its states, as data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from scipy import stats

from hssl_search.engine.execution.jobs import Outcome, Report, State
from hssl_search.engine.records.results import ScoreTable, final_metrics
from hssl_search.engine.records.state import (
    Comparison,
    Contender,
    Level,
    NoWinner,
    TrialState,
    Verdict,
)
from hssl_search.engine.statistics.metrics import (
    ACCURACY,
    DISCREPANCY,
    RANKINGS,
    RANKME,
    Chance,
    Measure,
)
from hssl_search.engine.verdict import image_flaw, judge, why_no_winner
from hssl_search.heads.config import HeadConfig

NO_HEAD = Contender(0, TrialState(name="no head", family="none", control="none"))
IDENTITY = Contender(
    1,
    TrialState(
        name="identity head",
        family="identity",
        head=HeadConfig(family="identity"),
        control="identity",
    ),
)
SAME = Contender(
    5,
    TrialState(
        name="same-architecture head",
        family="resnet",
        head=HeadConfig(family="resnet"),
        control="same_architecture",
    ),
)
LONGER = Contender(
    6, TrialState(name="no head, same device-time", family="none", control="none_same_time")
)
NOISE = Contender(
    2,
    TrialState(name="noise head", family="noise", head=HeadConfig(family="noise"), control="noise"),
)
MLP = Contender(3, TrialState(name="mlp depth 1", family="mlp", head=HeadConfig(family="mlp")))
RESNET = Contender(
    4, TrialState(name="resnet depth 2", family="resnet", head=HeadConfig(family="resnet"))
)
ALL = [NO_HEAD, IDENTITY, NOISE, MLP, RESNET, SAME, LONGER]
SEED_S = {one.trial: 60.0 + 30.0 * len(one.heads) for one in ALL}
REFERENCE = {"raw pixels": 39.8, "untrained base": 29.3}
Table = Mapping[int, Mapping[int, float]]
Lab = Any


def verdict(
    scores: Table,
    ranked_by: Measure = ACCURACY,
    accuracies: Table | None = None,
    resolution: float = 0.0,
) -> Verdict:
    reference = REFERENCE if ranked_by == ACCURACY else {}
    found = judge(
        ALL, ScoreTable(ranked_by, scores, resolution), accuracies or {}, reference, SEED_S
    )
    stored = json.dumps(found.model_dump(mode="json", by_alias=True))
    assert Verdict.model_validate(json.loads(stored)) == found
    return found


def compared(found: Verdict) -> Comparison:
    assert found.comparison is not None
    return found.comparison


def between(found: Verdict) -> tuple[float, float]:
    interval = compared(found).interval
    assert interval is not None
    return interval


def test_a_head_that_is_surely_above_no_head_is_better() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}})
    assert (found.winner, found.name, found.state) == (3, "mlp depth 1", "better")
    assert compared(found).model_dump() == {
        "against": "no head",
        "difference": pytest.approx(3.0),
        "interval": pytest.approx(stats.ttest_1samp([3.0, 2.9, 3.1], 0).confidence_interval()),
        "seeds": 3,
        "more_seeds": None,
        "more_s": None,
    }
    assert (found.tied, found.open) == (False, "")


def test_the_more_heads_a_winner_was_picked_from_the_less_sure_it_is() -> None:
    table = {0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}}
    alone, beside = between(verdict(table)), between(verdict({**table, 4: {0: 41.0}}))
    assert beside[0] < alone[0] < alone[1] < beside[1]


def test_a_head_that_is_surely_below_no_head_is_worse_and_still_the_best_head() -> None:
    found = verdict({0: {0: 46.0, 1: 47.0, 2: 45.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}})
    assert (found.winner, found.state) == (3, "no head")


@pytest.mark.parametrize(("accuracy", "tied"), [(41.4, False), (38.5, False), (40.0, True)])
def test_one_seed_alone_is_undecided(accuracy: float, tied: bool) -> None:
    found = verdict({0: {0: 40.0}, 3: {0: accuracy}})
    gap = compared(found)
    assert (found.state, found.open, found.tied) == ("undecided", "pairs", tied)
    assert (gap.interval, gap.seeds, gap.more_seeds, gap.more_s) == (None, 1, 1, 150.0)
    assert {row.best for row in found.rows} == {None}


def test_an_interval_around_zero_is_undecided_and_what_would_settle_it_is_told() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0}, 3: {0: 42.0, 1: 41.8}})
    half = stats.t.ppf(0.975, 1) * 0.6
    enough = next(
        more
        for more in range(1, 99)
        if stats.t.ppf(0.975, 1 + more) * 0.6 * math.sqrt(2 / (2 + more)) < 1.4
    )
    assert (found.state, found.open) == ("undecided", "noise")
    assert between(found) == pytest.approx((1.4 - half, 1.4 + half))
    assert (compared(found).more_seeds, compared(found).more_s) == (enough, enough * 150.0)


def test_equal_gaps_of_two_seeds_are_undecided() -> None:
    equal = {0: {0: 40.0, 1: 41.4}, 3: {0: 38.6, 1: 40.0}}
    found = verdict(equal, resolution=0.5)
    assert (found.state, compared(found).difference) == ("undecided", pytest.approx(-1.4))
    assert between(found)[1] > 0


def test_a_difference_that_no_budget_settles_is_called_so() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 42.0, 1: 39.3, 2: 39.0}})
    assert (found.tied, found.open) == (False, "noise")
    assert (compared(found).more_seeds, compared(found).more_s) == (None, None)


def test_a_tie_is_settled_where_nothing_that_the_measure_resolves_is_left_in_its_interval() -> None:
    table = {0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 40.3, 1: 40.8, 2: 39.2}}
    found = verdict(table, resolution=0.5)
    low, high = between(found)
    error = (high - low) / 2 / stats.t.ppf(0.975, 2)
    enough = next(
        more
        for more in range(1, 99)
        if stats.t.ppf(0.975, 2 + more) * error * math.sqrt(3 / (3 + more)) < 0.4
    )
    assert compared(found).difference == pytest.approx(0.1) and high > 0.5
    assert (found.state, found.tied, found.open) == ("undecided", True, "noise")
    assert compared(found).more_seeds == enough
    assert not verdict(table, resolution=0.05).tied


def test_a_tie_whose_whole_interval_the_measure_does_not_resolve_is_settled() -> None:
    gaps = [0.3, -0.2, 0.2, -0.1, 0.3]
    table = {
        0: {seed: 40.0 + seed for seed in range(5)},
        3: {seed: 40.0 + seed + gap for seed, gap in enumerate(gaps)},
    }
    found = verdict(table, resolution=5.0)
    assert (found.state, found.tied, found.open) == ("undecided", True, "tie")
    assert compared(found).more_seeds is None


def test_a_difference_that_is_clear_and_below_what_is_told_of_it_is_no_lead() -> None:
    near = {0: {0: 40.0, 1: 41.0, 2: 39.0, 3: 42.0}, 3: {0: 40.02, 1: 41.02, 2: 39.02, 3: 42.02}}
    found = verdict(near)
    assert between(found)[0] > 0
    assert (found.state, found.tied, found.open) == ("undecided", True, "tie")


def test_before_two_paired_seeds_there_is_no_interval_though_others_tell_the_noise() -> None:
    others = {1: {0: 40.0, 1: 44.0}, 4: {0: 30.0, 1: 20.0}}
    found = verdict({**others, 0: {0: 40.0, 1: 41.0}, 3: {0: 42.0}})
    gap = compared(found)
    assert (found.winner, found.open, gap.interval, gap.seeds) == (3, "pairs", None, 1)


def test_intervals_reach_no_further_than_accuracies_and_their_differences_can() -> None:
    found = verdict({0: {0: 90.0, 1: 99.0}, 3: {0: 99.0, 1: 98.0}})
    low, high = between(found)
    assert -100 < low < 0 and high <= 100
    wide = verdict({0: {0: 10.0, 1: 70.0}, 3: {0: 60.0, 1: 40.0}})
    assert between(wide) == (-100.0, 100.0)
    for each in (found, wide):
        assert all(0 <= end <= 100 for row in each.rows if row.interval for end in row.interval)


def judged(table: Table) -> Verdict:
    chance, pixels = Chance(33.3, 48), {"raw pixels": 47.9}
    return judge(ALL, ScoreTable(ACCURACY, table, 100 / 48), table, pixels, SEED_S, chance=chance)


def test_at_chance_level_no_seeds_settle_anything() -> None:
    found = judged({0: {0: 27.1, 1: 29.2}, 3: {0: 35.4, 1: 35.4}})
    assert (found.state, found.open, compared(found).more_seeds) == ("undecided", "chance", None)
    assert found.level == Level(
        name="mlp depth 1",
        accuracy=35.4,
        chance=33.3,
        pixels=47.9,
        queries=48,
        above_chance=False,
        of_both=True,
    )


def test_above_chance_seeds_settle_a_difference() -> None:
    found = judged({0: {0: 60.4, 1: 64.6}, 3: {0: 66.7, 1: 66.7}})
    assert found.open == "noise" and found.level is not None and found.level.above_chance


def test_the_level_of_a_winner_without_the_control_is_told_too() -> None:
    level = judged({3: {0: 35.4}}).level
    assert level is not None and (level.name, level.of_both) == ("mlp depth 1", False)


def test_the_winner_is_compared_with_the_other_controls() -> None:
    table = {
        0: {0: 40.0, 1: 41.0, 2: 39.0},
        3: {0: 43.0, 1: 43.9, 2: 42.1},
        1: {0: 42.9, 1: 44.0, 2: 42.0},
        5: {0: 40.1},
        6: {0: 43.1},
    }
    others = verdict(table).others
    assert [(gap.against, gap.seeds) for gap in others] == [
        ("identity head", 3),
        ("same-architecture head", 1),
        ("no head, same device-time", 1),
    ]
    assert [gap.difference for gap in others] == pytest.approx(
        [0.033, 42.978 - 40.1, 42.978 - 43.1], abs=0.001
    ), "without its own noise the winner would have had 42.978 under the first seed"
    assert others[0].interval is not None
    assert sum(others[0].interval) / 2 == pytest.approx(others[0].difference)
    assert [gap.interval for gap in others[1:]] == [None, None]


def test_a_control_with_one_paired_seed_gets_no_interval_whatever_others_tell_of_noise() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0}, 3: {0: 47.3, 1: 43.9}, 1: {0: 40.0}})
    [identity] = found.others
    assert (identity.seeds, identity.interval) == (1, None)


def test_rows_have_the_probability_of_being_best() -> None:
    rows = verdict(
        {
            0: {0: 40.0, 1: 41.0, 2: 39.0},
            1: {0: 40.2, 1: 41.0, 2: 38.9},
            3: {0: 43.0, 1: 43.9, 2: 42.1},
        }
    ).rows
    chances = {row.name: row.best or 0.0 for row in rows if row.role != "reference"}
    assert sum(chances.values()) == pytest.approx(1)
    assert chances["mlp depth 1"] > 0.99
    assert {row.best for row in rows if row.role == "reference"} == {None}


def test_seeds_that_only_one_has_do_not_count() -> None:
    gap = compared(verdict({0: {0: 40.0, 1: 41.0, 2: 0.0}, 3: {0: 42.0, 1: 43.5}}))
    assert (gap.seeds, gap.difference) == (2, pytest.approx(2.25))


@pytest.mark.parametrize("no_head", [{}, {0: {1: 40.0}}])
def test_without_the_control_under_the_same_seed_nothing_is_compared(
    no_head: dict[int, dict[int, float]],
) -> None:
    found = verdict({**no_head, 1: {0: 50.0}, 3: {0: 42.0}, 4: {0: 43.0}})
    assert (found.winner, found.state, found.comparison) == (4, "unranked", None)


def test_without_labels_the_most_discrepant_head_wins_unjudged() -> None:
    found = verdict({1: {0: 0.9}, 3: {0: 0.61}, 4: {0: 0.5}}, DISCREPANCY)
    assert (found.winner, found.state, found.rank_by) == (3, "unranked", "discrepancy")
    assert (found.comparison, found.others, found.agreement) == (None, [], None)


@pytest.mark.parametrize(
    ("no_head", "state"),
    [
        ([10.0, 11.0, 9.0], "better"),
        ([16.0, 17.0, 15.0], "no head"),
        ([11.6], "undecided"),
        ([], "unranked"),
    ],
)
def test_a_measure_of_the_base_is_compared_with_no_head_as_accuracy_is(
    no_head: list[float], state: str
) -> None:
    control = {0: dict(enumerate(no_head))} if no_head else {}
    found = verdict({**control, 3: {0: 13.0, 1: 13.9, 2: 12.1}}, RANKME)
    assert (found.winner, found.state, found.rank_by) == (3, state, "labelfree_rankme")
    assert found.agreement is None


RISING = {trial: {0: 10.0 + trial} for trial in range(5)}


@pytest.mark.parametrize("ranked_by", [RANKME, DISCREPANCY])
@pytest.mark.parametrize(
    ("places", "correlation"), [([0, 2, 1, 4, 3], 0.8), ([2, 0, 4, 1, 3], 0.3)]
)
def test_with_labels_it_is_told_how_well_the_ranking_agreed_with_accuracy(
    ranked_by: Measure, places: list[int], correlation: float
) -> None:
    accuracies = {trial: {0: 40.0 + place} for trial, place in enumerate(places)}
    found = verdict(RISING, ranked_by, accuracies).agreement
    assert found is not None and found.interval is not None
    assert (found.correlation, found.trials) == (pytest.approx(correlation), 5)
    assert found.interval[0] < correlation < found.interval[1]
    assert found.model_dump(by_alias=True)["with"] == "accuracy"


def test_agreement_is_of_means_over_seeds_and_of_trials_that_have_both() -> None:
    scores = {0: {0: 1.0, 1: 3.0}, 1: {0: 3.0}, 3: {0: 4.0, 1: 6.0}, 4: {0: 4.0}}
    accuracies = {0: {0: 50.0, 1: 30.0}, 1: {0: 41.0}, 3: {0: 60.0, 1: 28.0}, 2: {0: 99.0}}
    found = verdict(scores, RANKME, accuracies).agreement
    assert found is not None and found.correlation == pytest.approx(1.0)
    assert (found.interval, found.trials) == (None, 3)


def test_ranked_by_accuracy_nothing_is_told_of_agreement() -> None:
    scores = {0: {0: 40.0}, 3: {0: 41.4}}
    assert verdict(scores, ACCURACY, scores).agreement is None


@pytest.mark.parametrize("ranked_by", RANKINGS.values(), ids=list(RANKINGS))
def test_no_candidate_at_the_end_of_its_proxy_is_no_winner(ranked_by: Measure) -> None:
    found = verdict({0: {0: 40.0}, 1: {0: 41.0}}, ranked_by)
    assert (found.winner, found.name, found.state) == (None, None, "unranked")
    assert found.comparison is None


def test_rows_hold_the_references_then_controls_and_candidates_by_their_means() -> None:
    rows = verdict({0: {0: 40.0, 1: 42.0}, 1: {0: 45.0}, 3: {0: 43.0, 1: 43.0}}).rows
    assert [(row.name, row.role, row.seeds, row.mean) for row in rows] == [
        ("raw pixels", "reference", 1, 39.8),
        ("untrained base", "reference", 1, 29.3),
        ("identity head", "control", 1, 45.0),
        ("mlp depth 1", "candidate", 2, 43.0),
        ("no head", "control", 2, 41.0),
    ]
    assert [row.trial for row in rows] == [None, None, 1, 3, 0]
    # The gaps of the two with two seeds are 1 to both sides of their mean.
    half = stats.t.ppf(0.975, 1) * math.sqrt(0.5) * 2 / 2
    wide = math.sqrt(2) * half
    assert rows[3].interval == pytest.approx((43.0 - half, 43.0 + half))
    assert rows[2].interval == pytest.approx((45.0 - wide, 45.0 + wide))


def test_final_metrics_are_those_of_a_job_that_came_to_its_last_step() -> None:
    reports = [Report(50, {"accuracy": 30.0}), Report(100, {"accuracy": 40.0})]
    assert final_metrics(Outcome(State.DONE, "", reports), 100) == {"accuracy": 40.0}
    assert final_metrics(Outcome(State.DONE, "", reports), 101) is None
    assert final_metrics(Outcome(State.DONE), 100) is None
    for state in (State.STOPPED, State.FAILED, State.CUT):
        assert final_metrics(Outcome(state, "why", reports), 100) is None


def head(trial: int, **attributes: Any) -> Contender:
    return Contender(trial, TrialState(name=f"head {trial}", family="mlp", **attributes))


EXTEND = "hssl-search resume runs/x --budget +2cpu-min"
SICK = [head(0, gate="not learning"), head(1, gate="not learning"), head(2, gate="collapsed")]
WELL = head(3, gate="healthy", promoted=True)


def without_winner(
    *heads: Contender,
    short: tuple[str, ...] = (),
    causes: dict[int, str] | None = None,
    images: str = "",
) -> NoWinner:
    control = head(9, gate="not learning", control="noise")
    return why_no_winner([*heads, control], causes or {}, short, images, EXTEND)


def test_where_no_head_was_healthy_the_gates_are_counted() -> None:
    gates = {"not learning": 2, "collapsed": 1}
    assert without_winner(*SICK, images="all are black") == NoWinner(
        reason="gates", gates=gates, images="all are black"
    )


def test_images_of_one_colour_are_a_flaw() -> None:
    black = {"looked_at": {"images": 80, "one_colour": 80, "same": 80}}
    assert image_flaw(black) == "80 of 80 images are of one colour"
    assert image_flaw({}) == ""


def test_where_the_budget_ended_that_is_the_cause_and_health_is_not_blamed() -> None:
    found = without_winner(WELL, *SICK, short=("proxy", "full"))
    assert (found.reason, found.heads, found.extend) == ("budget", 0, EXTEND)
    found = without_winner(head(0), short=("screen",))
    assert (found.reason, found.extend) == ("unscreened", EXTEND)
    found = without_winner(*SICK, head(4), short=("screen",))
    assert (found.reason, found.extend) == ("gates", EXTEND)


def test_where_all_proxies_came_to_nothing_the_first_cause_is_told() -> None:
    cause = "collapsed: its embeddings are one point."
    assert without_winner(WELL, causes={3: cause}) == NoWinner(
        reason="proxies", heads=1, cause=cause
    )
    cause = "its screening failed: no memory."
    assert without_winner(head(0), causes={0: cause}) == NoWinner(reason="screening", cause=cause)


def test_of_the_healthy_heads_those_that_were_promoted_are_counted() -> None:
    waiting = [head(trial, gate="healthy", promoted=False) for trial in range(10, 26)]
    tried = [head(trial, gate="healthy", promoted=True) for trial in range(30, 38)]
    causes = {one.trial: f"collapsed: {one.name}." for one in tried} | {
        one.trial: "others were expected to be better." for one in waiting
    }
    found = without_winner(*waiting, *tried, causes=causes)
    assert (found.reason, found.heads, found.cause) == ("proxies", 8, "collapsed: head 30.")


def test_where_screening_ended_with_the_budget_nothing_is_said_of_proxies_that_did_not_run() -> (
    None
):
    screened = [head(trial, gate="healthy") for trial in range(10, 26)]
    found = without_winner(*screened, head(4), short=("screen",))
    assert found == NoWinner(reason="budget", extend=EXTEND)
    cause = "stopped at step 5: below the median."
    found = without_winner(WELL, *screened, short=("screen",), causes={3: cause})
    assert (found.heads, found.cause) == (1, cause)


def test_a_search_without_a_healthy_head_says_so_and_one_whose_budget_ended_says_that(
    make_lab: Callable[..., Lab],
) -> None:
    sick = make_lab()
    sick.gate = dict.fromkeys(sick.accuracy, "not learning")
    assert "None of the 6 heads screened was healthy (6 not learning)" in sick.search()["sentence"]
    cut = make_lab(budget="90cpu-s")
    cut.slow["proxy"] = 50.0
    found = cut.search()
    assert found["winner"] is None
    assert found["no_winner"]["reason"] == "budget"
    extend = cut.run.how_to_resume("90cpu-s")
    assert found["sentence"].endswith(f"; continue with: {extend}")
    assert f"Continue with: {extend}" in cut.watcher.notes()
