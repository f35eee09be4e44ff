"""The verdict in each of its states."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
from scipy import stats

from hssl_search.engine.budget import format_duration
from hssl_search.engine.candidates.candidate import Contender, final_metrics
from hssl_search.engine.execution.jobs import Outcome, Report, State
from hssl_search.engine.statistics.metrics import (
    ACCURACY,
    DISCREPANCY,
    RANKINGS,
    RANKME,
    Chance,
    Measure,
)
from hssl_search.engine.verdict import judge

NO_HEAD = Contender(0, "no head", [], "none", "none")
IDENTITY = Contender(1, "identity head", [{"family": "identity"}], "identity", "identity")
SAME = Contender(5, "same-architecture head", [{"family": "resnet"}], "resnet", "same_architecture")
LONGER = Contender(6, "no head, same device-time", [], "none", "none_same_time")
NOISE = Contender(2, "noise head", [{"family": "noise"}], "noise", "noise")
MLP = Contender(3, "mlp depth 1", [{"family": "mlp"}], "mlp")
RESNET = Contender(4, "resnet depth 2", [{"family": "resnet"}], "resnet")
ALL = [NO_HEAD, IDENTITY, NOISE, MLP, RESNET, SAME, LONGER]
SEED_S = {one.trial: 60.0 + 30.0 * len(one.heads) for one in ALL}
REFERENCE = {"raw pixels": 39.8, "untrained base": 29.3}


NOT_LABELLED = "Nothing was labelled, so whether it makes the base more accurate was not measured."
Table = Mapping[int, Mapping[int, float]]


def verdict(
    scores: Table, ranked_by: Measure = ACCURACY, accuracies: Table | None = None
) -> dict[str, Any]:
    found = judge(
        ALL,
        scores,
        accuracies or {},
        REFERENCE if ranked_by == ACCURACY else {},
        ranked_by,
        0.0,
        SEED_S,
    )
    assert json.loads(json.dumps(found)) == found
    return found


def test_a_head_that_is_surely_above_no_head_is_better() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}})
    assert (found["winner"], found["name"], found["state"]) == (3, "mlp depth 1", "better")
    assert (
        found["sentence"]
        == "mlp depth 1 is better than no head by 3.0 ± 0.2 points (95 %, 3 paired seeds)."
    )
    assert found["comparison"] == {
        "against": "no head",
        "difference": pytest.approx(3.0),
        "interval": pytest.approx(
            list(stats.ttest_1samp([3.0, 2.9, 3.1], 0).confidence_interval())
        ),
        "seeds": 3,
    }


def test_the_more_heads_a_winner_was_picked_from_the_less_sure_it_is() -> None:
    table = {0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}}
    alone, beside = verdict(table), verdict({**table, 4: {0: 41.0}})
    low, high = beside["comparison"]["interval"]
    assert low < alone["comparison"]["interval"][0] < alone["comparison"]["interval"][1] < high


def test_a_head_that_is_surely_below_no_head_is_worse_and_still_the_best_head() -> None:
    found = verdict({0: {0: 46.0, 1: 47.0, 2: 45.0}, 3: {0: 43.0, 1: 43.9, 2: 42.1}})
    assert (found["winner"], found["state"]) == (3, "no head")
    assert found["sentence"] == (
        "No head is better than the best head found, mlp depth 1, by 3.0 ± 0.2 points (95 %, 3 paired seeds)."
    )


@pytest.mark.parametrize(
    ("accuracy", "leads"),
    [
        (41.4, "mlp depth 1 leads no head by 1.4"),
        (38.5, "no head leads the best head found, mlp depth 1, by 1.5"),
        (40.0, "mlp depth 1 and no head are tied, 0.0"),
    ],
)
def test_one_seed_alone_is_undecided(accuracy: float, leads: str) -> None:
    found = verdict({0: {0: 40.0}, 3: {0: accuracy}})
    comparison = found["comparison"]
    assert (
        found["state"],
        comparison["interval"],
        comparison["seeds"],
        comparison["more_seeds"],
    ) == ("undecided", None, 1, 1)
    assert found["sentence"] == (
        f"Undecided: {leads} points{' apart' if accuracy == 40.0 else ''}, but one paired seed does not tell chance from difference, and "
        "there is no interval yet; a second seed of each (about 2 min 30 s of device-time) would begin to."
    )
    assert {row["best"] for row in found["rows"]} == {None}


def test_an_interval_around_zero_is_undecided_and_what_would_settle_it_is_told() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0}, 3: {0: 42.0, 1: 41.8}})
    half = stats.t.ppf(0.975, 1) * 0.6
    enough = next(
        more
        for more in range(1, 99)
        if stats.t.ppf(0.975, 1 + more) * 0.6 * math.sqrt(2 / (2 + more)) < 1.4
    )
    assert found["state"] == "undecided"
    assert found["comparison"]["interval"] == pytest.approx([1.4 - half, 1.4 + half])
    assert (found["comparison"]["more_seeds"], found["comparison"]["more_s"]) == (
        enough,
        enough * 150.0,
    )
    assert found["sentence"] == (
        f"Undecided: mlp depth 1 leads no head by 1.4 ± {half:.1f} points (95 %, 2 paired seeds); about {enough} more seeds of each "
        f"(about {format_duration(enough * 150.0)} of device-time) would settle it, if it stays so."
    )


def test_equal_gaps_of_two_seeds_are_undecided() -> None:
    equal = {0: {0: 40.0, 1: 41.4}, 3: {0: 38.6, 1: 40.0}}
    found = judge(ALL, equal, equal, REFERENCE, ACCURACY, 0.5, SEED_S)
    assert (found["state"], found["comparison"]["difference"]) == ("undecided", pytest.approx(-1.4))
    assert found["comparison"]["interval"][1] > 0


def test_a_difference_that_no_budget_settles_is_called_so() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 42.0, 1: 39.3, 2: 39.0}})
    assert (found["comparison"]["more_seeds"], found["comparison"]["more_s"]) == (None, None)
    assert found["sentence"].endswith(
        "; even 100 more seeds of each would not settle so small a difference."
    )


def test_a_difference_within_what_the_measure_resolves_is_a_tie() -> None:
    table = {0: {0: 40.0, 1: 41.0, 2: 39.0}, 3: {0: 42.0, 1: 39.0, 2: 39.3}}
    tied = judge(ALL, table, table, REFERENCE, ACCURACY, 0.5, SEED_S)
    half = tied["comparison"]["interval"][1] - tied["comparison"]["difference"]
    assert (tied["state"], tied["comparison"]["more_seeds"]) == ("undecided", None)
    assert tied["sentence"].startswith(
        f"Undecided: mlp depth 1 and no head are tied, 0.1 ± {half:.1f} points (95 %, 3 paired seeds) apart; the measure does not resolve "
        "so small a difference, and no number of seeds would settle it."
    )
    assert (
        "mlp depth 1 leads no head by 0.1 ± "
        in judge(ALL, table, table, REFERENCE, ACCURACY, 0.05, SEED_S)["sentence"]
    )


def test_a_difference_that_is_clear_and_below_what_is_told_of_it_is_no_lead() -> None:
    near = {0: {0: 40.0, 1: 41.0, 2: 39.0, 3: 42.0}, 3: {0: 40.02, 1: 41.02, 2: 39.02, 3: 42.02}}
    assert verdict(near)["state"] == "undecided"
    assert " are tied, 0.0 ± 0.0 points (95 %, 4 paired seeds) apart; " in verdict(near)["sentence"]


def test_before_two_paired_seeds_there_is_no_interval_though_others_tell_the_noise() -> None:
    others = {1: {0: 40.0, 1: 44.0}, 4: {0: 30.0, 1: 20.0}}
    found = verdict({**others, 0: {0: 40.0, 1: 41.0}, 3: {0: 42.0}})
    assert (found["winner"], found["comparison"]["interval"], found["comparison"]["seeds"]) == (
        3,
        None,
        1,
    )
    assert (
        "one paired seed does not tell chance from difference, and there is no interval yet; a second seed of each"
        in found["sentence"]
    )
    assert "±" not in found["sentence"].split(". ")[0]


def test_intervals_reach_no_further_than_accuracies_and_their_differences_can() -> None:
    found = verdict({0: {0: 90.0, 1: 99.0}, 3: {0: 99.0, 1: 98.0}})
    low, high = found["comparison"]["interval"]
    assert -100 < low < 0 and high <= 100
    wide = verdict({0: {0: 10.0, 1: 70.0}, 3: {0: 60.0, 1: 40.0}})
    assert wide["comparison"]["interval"] == [-100.0, 100.0]
    assert (
        "leads no head by 10.0 points (95 %: -100.0 to +100.0, 2 paired seeds); "
        in wide["sentence"]
    )
    behind = verdict({0: {0: 90.0, 1: 70.0}, 3: {0: 60.0, 1: 60.0}})
    assert "by 20.0 points (95 %: -100.0 to +100.0, 2 paired seeds); " in behind["sentence"]
    for told in (found, wide, behind):
        assert all(
            0 <= end <= 100 for row in told["rows"] if row["interval"] for end in row["interval"]
        )


CHANCE = Chance(33.3, 48)


def judged(table: Table) -> dict[str, Any]:
    return judge(ALL, table, table, {"raw pixels": 47.9}, ACCURACY, 100 / 48, SEED_S, chance=CHANCE)


def test_at_chance_level_no_seeds_settle_anything_and_it_is_said_how_far_that_is_from_chance_and_raw_pixels() -> (
    None
):
    found = judged({0: {0: 27.1, 1: 29.2}, 3: {0: 35.4, 1: 35.4}})
    assert (found["state"], found["comparison"]["more_seeds"]) == ("undecided", None)
    assert "; at chance level no number of seeds would settle it. " in found["sentence"]
    assert found["sentence"].endswith(
        "The better of the two, mlp depth 1 (35.4 %), lies 2.1 points above chance (33.3 %, the share of the most frequent class) and 12.5 "
        "points below raw pixels (47.9 %), and 48 queries cannot tell it from chance: train for longer (a larger --budget), or try another "
        "--trainer, more images or other classes."
    )


def test_above_chance_it_is_said_how_far_and_what_would_settle_it() -> None:
    found = judged({0: {0: 60.4, 1: 64.6}, 3: {0: 66.7, 1: 66.7}})
    assert "would settle it" in found["sentence"] and "at chance level" not in found["sentence"]
    assert found["sentence"].endswith(
        "mlp depth 1 (66.7 %), lies 33.4 points above chance (33.3 %, the share of the most frequent class) "
        "and 18.8 points above raw pixels (47.9 %)."
    )


def test_of_a_winner_without_the_control_it_is_said_too() -> None:
    assert (
        " mlp depth 1 (35.4 %) lies 2.1 points above chance " in judged({3: {0: 35.4}})["sentence"]
    )


def test_controls_that_the_winner_does_not_clearly_beat_are_told() -> None:
    table = {
        0: {0: 40.0, 1: 41.0, 2: 39.0},
        3: {0: 43.0, 1: 43.9, 2: 42.1},
        1: {0: 42.9, 1: 44.0, 2: 42.0},
        5: {0: 40.1},
        6: {0: 43.1},
    }
    found = verdict(table)
    assert [(one["against"], one["seeds"]) for one in found["others"]] == [
        ("identity head", 3),
        ("same-architecture head", 1),
        ("no head, same device-time", 1),
    ]
    assert [one["difference"] for one in found["others"]] == pytest.approx(
        [0.033, 42.978 - 40.1, 42.978 - 43.1], abs=0.001
    ), "without its own noise the winner would have had 42.978 under the first seed"
    low, high = found["others"][0]["interval"]
    assert (low + high) / 2 == pytest.approx(found["others"][0]["difference"])
    assert [one["interval"] for one in found["others"][1:]] == [None, None]
    assert "better than no head by 3.0 ± " in found["sentence"]
    assert re.search(
        r" It is not clearly better than these controls: identity head \(\+0\.0 ± [\d.]+\)\. "
        r"Fewer than two paired seeds do not tell how it compares with: same-architecture head \(\+2\.9\) and no head, same "
        r"device-time \(-0\.1\)\.$",
        found["sentence"],
    )


def test_a_control_with_one_paired_seed_is_given_no_interval_whatever_others_tell_of_the_noise() -> (
    None
):
    found = verdict({0: {0: 40.0, 1: 41.0}, 3: {0: 47.3, 1: 43.9}, 1: {0: 40.0}})
    [identity] = found["others"]
    assert (identity["seeds"], identity["interval"]) == (1, None)
    assert found["sentence"].count("±") + found["sentence"].count("95 %") == 2, (
        "those of the difference to no head alone"
    )
    assert found["sentence"].endswith(
        f" compares with: identity head ({identity['difference']:+.1f})."
    )


def test_rows_have_the_probability_of_being_best() -> None:
    rows = verdict(
        {
            0: {0: 40.0, 1: 41.0, 2: 39.0},
            1: {0: 40.2, 1: 41.0, 2: 38.9},
            3: {0: 43.0, 1: 43.9, 2: 42.1},
        }
    )["rows"]
    chances = {row["name"]: row["best"] for row in rows if row["role"] != "reference"}
    assert sum(chances.values()) == pytest.approx(1)
    assert chances["mlp depth 1"] > 0.99
    assert {row["best"] for row in rows if row["role"] == "reference"} == {None}


def test_seeds_that_only_one_has_do_not_count() -> None:
    found = verdict({0: {0: 40.0, 1: 41.0, 2: 0.0}, 3: {0: 42.0, 1: 43.5}})
    assert (found["comparison"]["seeds"], found["comparison"]["difference"]) == (
        2,
        pytest.approx(2.25),
    )


@pytest.mark.parametrize("no_head", [{}, {0: {1: 40.0}}])
def test_without_the_control_under_the_same_seed_nothing_is_compared(
    no_head: dict[int, dict[int, float]],
) -> None:
    found = verdict({**no_head, 1: {0: 50.0}, 3: {0: 42.0}, 4: {0: 43.0}})
    assert (found["winner"], found["state"], found["comparison"]) == (4, "unranked", None)
    assert found["sentence"] == (
        "resnet depth 2 had the best proxy (43.0 %), but the no-head control it must beat did not come to its end under the same seed."
    )


def test_without_labels_the_most_discrepant_head_wins_unjudged() -> None:
    found = verdict({1: {0: 0.9}, 3: {0: 0.61}, 4: {0: 0.5}}, DISCREPANCY)
    assert (found["winner"], found["state"], found["comparison"], found["rank_by"]) == (
        3,
        "unranked",
        None,
        "discrepancy",
    )
    assert (
        found["sentence"]
        == f"mlp depth 1 is the most discrepant healthy head (discrepancy 0.610). {NOT_LABELLED}"
    )
    assert found["agreement"] is None


@pytest.mark.parametrize(
    ("no_head", "state", "told"),
    [
        (
            [10.0, 11.0, 9.0],
            "better",
            "mlp depth 1 is better than no head by 3.0 ± 0.2 in RankMe (95 %, 3 paired seeds).",
        ),
        (
            [16.0, 17.0, 15.0],
            "no head",
            "No head is better than the best head found, mlp depth 1, by 3.0 ± 0.2 in RankMe (95 %, 3 paired seeds).",
        ),
        (
            [11.6],
            "undecided",
            "Undecided: mlp depth 1 leads no head by 1.4 in RankMe, but one paired seed does not tell chance from "
            "difference, and there is no interval yet; a second seed of each (about 2 min 30 s of device-time) would begin to.",
        ),
        (
            [],
            "unranked",
            "mlp depth 1 had the best proxy (RankMe 13.0), but the no-head control it must beat did not come to its end under "
            "the same seed.",
        ),
    ],
)
def test_a_measure_of_the_base_is_compared_with_no_head_as_accuracy_is(
    no_head: list[float], state: str, told: str
) -> None:
    found = verdict(
        {**({0: dict(enumerate(no_head))} if no_head else {}), 3: {0: 13.0, 1: 13.9, 2: 12.1}},
        RANKME,
    )
    assert (found["winner"], found["state"], found["rank_by"], found["agreement"]) == (
        3,
        state,
        "labelfree_rankme",
        None,
    )
    assert found["sentence"] == f"{told} {NOT_LABELLED}"


RISING = {trial: {0: 10.0 + trial} for trial in range(5)}


@pytest.mark.parametrize("ranked_by", [RANKME, DISCREPANCY])
@pytest.mark.parametrize(
    ("places", "correlation", "chance"),
    [([0, 2, 1, 4, 3], 0.8, ""), ([2, 0, 4, 1, 3], 0.3, ", which may be chance")],
)
def test_with_labels_it_is_told_how_well_the_ranking_agreed_with_accuracy(
    ranked_by: Measure, places: list[int], correlation: float, chance: str
) -> None:
    found = verdict(
        RISING, ranked_by, {trial: {0: 40.0 + place} for trial, place in enumerate(places)}
    )
    low, high = found["agreement"].pop("interval")
    assert found["agreement"] == {
        "with": "accuracy",
        "correlation": pytest.approx(correlation),
        "trials": 5,
    }
    assert found["sentence"].endswith(
        f" Over 5 trials the rank correlation of {ranked_by.name} with accuracy is {correlation:+.2f} "
        f"(Spearman, 95 % interval {low:+.2f} to {high:+.2f}){chance}."
    )


def test_agreement_is_of_means_over_seeds_and_of_trials_that_have_both() -> None:
    scores = {0: {0: 1.0, 1: 3.0}, 1: {0: 3.0}, 3: {0: 4.0, 1: 6.0}, 4: {0: 4.0}}
    accuracies = {0: {0: 50.0, 1: 30.0}, 1: {0: 41.0}, 3: {0: 60.0, 1: 28.0}, 2: {0: 99.0}}
    assert verdict(scores, RANKME, accuracies)["agreement"] == {
        "with": "accuracy",
        "correlation": pytest.approx(1.0),
        "interval": None,
        "trials": 3,
    }


@pytest.mark.parametrize(("trials", "counted"), [([3], "1 trial"), ([0, 3, 4], "3 trials")])
def test_agreement_of_too_few_trials_is_not_told_as_a_number(
    trials: list[int], counted: str
) -> None:
    found = verdict(RISING, RANKME, {trial: {0: 40.0 + trial} for trial in trials})
    assert found["sentence"].endswith(
        f" How well RankMe agrees with accuracy cannot be told from {counted}."
    )


def test_an_order_that_agrees_wholly_has_no_interval() -> None:
    found = verdict(RISING, RANKME, {trial: {0: 40.0 + trial} for trial in range(5)})
    assert found["sentence"].endswith("with accuracy is +1.00 (Spearman).")


def test_ranked_by_accuracy_nothing_is_told_of_agreement() -> None:
    scores = {0: {0: 40.0}, 3: {0: 41.4}}
    assert verdict(scores, ACCURACY, scores)["agreement"] is None


@pytest.mark.parametrize("ranked_by", RANKINGS.values(), ids=list(RANKINGS))
def test_no_candidate_at_the_end_of_its_proxy_is_no_winner(ranked_by: Measure) -> None:
    found = verdict({0: {0: 40.0}, 1: {0: 41.0}}, ranked_by)
    assert (found["winner"], found["name"], found["state"], found["comparison"]) == (
        None,
        None,
        "unranked",
        None,
    )
    assert (
        found["sentence"]
        == "No head candidate was healthy and came to the end of its proxy, so there is no winner."
    )


def test_rows_hold_the_references_then_controls_and_candidates_by_their_means() -> None:
    rows = verdict({0: {0: 40.0, 1: 42.0}, 1: {0: 45.0}, 3: {0: 43.0, 1: 43.0}})["rows"]
    assert [(row["name"], row["role"], row["seeds"], row["mean"]) for row in rows] == [
        ("raw pixels", "reference", 1, 39.8),
        ("untrained base", "reference", 1, 29.3),
        ("identity head", "control", 1, 45.0),
        ("mlp depth 1", "candidate", 2, 43.0),
        ("no head", "control", 2, 41.0),
    ]
    assert [row.get("trial") for row in rows] == [None, None, 1, 3, 0]
    half = (
        stats.t.ppf(0.975, 1) * math.sqrt(0.5) * 2 / 2
    )  # the gaps of the two with two seeds are 1 to both sides of their mean
    assert rows[3]["interval"] == pytest.approx([43.0 - half, 43.0 + half])
    assert rows[2]["interval"] == pytest.approx(
        [45.0 - math.sqrt(2) * half, 45.0 + math.sqrt(2) * half]
    )


def test_final_metrics_are_those_of_a_job_that_came_to_its_last_step() -> None:
    reports = [Report(50, {"accuracy": 30.0}), Report(100, {"accuracy": 40.0})]
    assert final_metrics(Outcome(State.DONE, "", reports), 100) == {"accuracy": 40.0}
    assert final_metrics(Outcome(State.DONE, "", reports), 101) is None
    assert final_metrics(Outcome(State.DONE), 100) is None
    for state in (State.STOPPED, State.FAILED, State.CUT):
        assert final_metrics(Outcome(state, "why", reports), 100) is None
