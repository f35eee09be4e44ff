"""Sentences of a search, from the data that the engine returns."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from hssl_search.engine.candidates.promotion import Promotions
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records.state import (
    Agreement,
    Comparison,
    Level,
    NoWinner,
    Verdict,
    VerdictRow,
)
from hssl_search.engine.statistics.correlation import RankCorrelation, rank_correlation
from hssl_search.reporting.text import (
    agreement,
    plan_sentence,
    promotion_sentence,
    trend,
    verdict_sentence,
)

NOT_LABELLED = "Nothing was labelled, so whether it makes the base more accurate was not measured."
EXTEND = "hssl-search resume runs/x --budget +2cpu-min"


def gap(difference: float, half: float | None, seeds: int = 3, **more: Any) -> Comparison:
    interval = None if half is None else (difference - half, difference + half)
    return Comparison(
        **{
            "against": "no head",
            "difference": difference,
            "interval": interval,
            "seeds": seeds,
            **more,
        }
    )


def said(
    state: str = "undecided", comparison: Comparison | None = None, mean: float = 43.0, **more: Any
) -> str:
    row = VerdictRow(name="mlp depth 1", role="candidate", trial=3, seeds=3, mean=mean)
    return verdict_sentence(
        Verdict.model_validate(
            {
                "winner": 3,
                "name": "mlp depth 1",
                "state": state,
                "comparison": comparison,
                "rows": [row],
                **more,
            }
        )
    )


def test_a_decided_difference_is_told_with_its_interval() -> None:
    by = "by 3.0 ± 0.2 points (95 %, 3 paired seeds)."
    assert said("better", gap(3.0, 0.2)) == f"mlp depth 1 is better than no head {by}"
    assert said("no head", gap(-3.0, 0.2)) == (
        f"Training without a head is better than the best head found, mlp depth 1, {by}"
    )


@pytest.mark.parametrize(
    ("difference", "tied", "leads"),
    [
        (1.4, False, "mlp depth 1 leads no head by 1.4 points"),
        (
            -1.5,
            False,
            "training without a head leads the best head found, mlp depth 1, by 1.5 points",
        ),
        (0.0, True, "mlp depth 1 and no head are tied, 0.0 points apart"),
    ],
)
def test_before_two_paired_seeds_no_interval_is_told(
    difference: float, tied: bool, leads: str
) -> None:
    single = gap(difference, None, seeds=1, more_seeds=1, more_s=150.0)
    assert said(comparison=single, tied=tied, open="pairs") == (
        f"Undecided: {leads}, but one paired seed cannot tell a difference from chance, so there "
        "is no interval yet; a second seed of each (about 2 min 30 s of device-time) would give "
        "one."
    )


def test_what_would_settle_an_open_difference_is_told() -> None:
    leads = "Undecided: mlp depth 1 leads no head by 1.4 ± 7.6 points (95 %, 2 paired seeds)"
    few = gap(1.4, 7.6, seeds=2, more_seeds=4, more_s=600.0)
    assert said(comparison=few, open="noise") == (
        f"{leads}; about 4 more seeds of each (about 10 min 00 s of device-time) would settle it, "
        "if it stays as it is."
    )
    one = gap(1.4, 7.6, seeds=2, more_seeds=1)
    assert said(comparison=one, open="noise").endswith(
        "; about 1 more seed of each would settle it, if it stays as it is."
    )
    many = gap(1.4, 7.6, seeds=2)
    assert said(comparison=many, open="noise") == (
        f"{leads}; even 100 more seeds of each would not settle so small a difference."
    )


def test_a_tie_is_called_beyond_the_measure_only_where_its_whole_interval_is() -> None:
    tied = "Undecided: mlp depth 1 and no head are tied, 0.1 ± {} points (95 %, 3 paired seeds)"
    assert said(comparison=gap(0.1, 0.2), tied=True, open="tie") == (
        f"{tied.format(0.2)} apart; the measure does not resolve so small a difference, and no "
        "number of seeds would settle it."
    )
    assert said(comparison=gap(0.1, 2.7, more_seeds=40), tied=True, open="noise") == (
        f"{tied.format(2.7)} apart; about 40 more seeds of each would settle it, if it stays as "
        "it is."
    )


def test_an_interval_that_ends_where_no_difference_can_be_is_told_by_its_ends() -> None:
    behind = gap(-20.0, None, seeds=2, interval=(-100.0, 30.0))
    assert "by 20.0 [−30.0, +100.0] points (95 %, 2 paired seeds); " in said(
        comparison=behind, open="noise"
    )
    ahead = gap(97.0, None, seeds=2, interval=(2.0, 100.0))
    by = "by 97.0 [+2.0, +100.0] points (95 %, 2 paired seeds)"
    assert f"mlp depth 1 is better than no head {by}." in said("better", ahead)
    below = gap(-97.0, None, seeds=2, interval=(-100.0, -2.0))
    assert f"mlp depth 1, {by}." in said("no head", below)


def test_beside_another_control_a_difference_and_its_interval_keep_their_signs() -> None:
    behind = gap(-20.0, None, against="identity head", interval=(-100.0, 30.0))
    assert "controls: identity head (−20.0 [−100.0, +30.0])." in said(
        "better", gap(3.0, 0.2), others=[behind]
    )


def test_the_level_is_told_against_chance_and_raw_pixels() -> None:
    level = {
        "name": "mlp depth 1",
        "accuracy": 35.4,
        "chance": 33.3,
        "pixels": 47.9,
        "queries": 48,
        "above_chance": False,
        "of_both": True,
    }
    lies = (
        "lies 2.1 points above chance (33.3 %, the share of the most frequent class) and 12.5 "
        "points below raw pixels (47.9 %)"
    )
    low = said(comparison=gap(7.2, 9.0), open="chance", level=Level(**level))
    assert "; at chance level no number of seeds would settle it. " in low
    assert low.endswith(
        f" The better of the two, mlp depth 1 (35.4 %), {lies}, and 48 queries cannot tell it from "
        "chance: train for longer (a larger --budget), or try another --trainer, more images or "
        "other classes."
    )
    alone = said("unranked", level=Level(**{**level, "above_chance": True, "of_both": False}))
    assert alone.endswith(f" mlp depth 1 (35.4 %) {lies}.")
    unknown = Level(**{**level, "above_chance": True, "pixels": None})
    assert said("better", gap(3.0, 0.2), level=unknown).endswith(
        "lies 2.1 points above chance (33.3 %, the share of the most frequent class)."
    )


def test_controls_that_the_winner_does_not_clearly_beat_are_told() -> None:
    others = [
        gap(0.03, 0.2, against="identity head"),
        gap(2.9, None, seeds=1, against="same-architecture head"),
        gap(-0.12, None, seeds=1, against="no head, same device-time"),
        gap(2.0, 0.3, against="another"),
    ]
    told = said("better", gap(3.0, 0.2), others=others)
    assert told.endswith(
        " It is not clearly better than these controls: identity head (0.0 ± 0.2). With fewer "
        "than two paired seeds it cannot be compared yet with: same-architecture head (+2.9) and "
        "no head, same device-time (−0.1)."
    )
    assert "identity" not in said("no head", gap(-3.0, 0.2), others=others)


def test_without_the_control_nothing_is_compared() -> None:
    assert said("unranked") == (
        "mlp depth 1 had the best proxy (43.0 %), but the no-head control it must beat did not "
        "come to its end under the same seed."
    )


def test_without_labels_the_most_discrepant_head_is_named() -> None:
    assert said("unranked", mean=0.61, rank_by="discrepancy") == (
        f"mlp depth 1 is the most discrepant healthy head (discrepancy 0.610). {NOT_LABELLED}"
    )


def test_a_measure_of_the_base_is_named_with_its_differences() -> None:
    ranked = {"rank_by": "labelfree_rankme", "mean": 13.0}
    assert said("better", gap(3.0, 0.2), **ranked) == (
        "mlp depth 1 is better than no head by 3.0 ± 0.2 in RankMe (95 %, 3 paired seeds). "
        f"{NOT_LABELLED}"
    )
    assert said("unranked", **ranked).startswith("mlp depth 1 had the best proxy (RankMe 13.0), ")
    agrees = Agreement(correlation=0.8, interval=(0.1, 0.98), trials=5)
    assert said("better", gap(3.0, 0.2), agreement=agrees, **ranked).endswith(
        " Over 5 trials the rank correlation of RankMe with accuracy is +0.80 (Spearman, 95 % "
        "interval +0.10 to +0.98)."
    )


def test_images_that_are_at_fault_are_told() -> None:
    told = said("better", gap(3.0, 0.2), doubt="80 of 80 images are of one colour")
    assert told.endswith(" Do not rely on it: 80 of 80 images are of one colour.")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            RankCorrelation(0.3, -0.5, 0.9, 5),
            "Over 5 heads the rank correlation of RankMe with accuracy is +0.30 (Spearman, 95 % "
            "interval −0.50 to +0.90), which may be chance.",
        ),
        (
            RankCorrelation(1.0, None, None, 5),
            "Over 5 heads the rank correlation of RankMe with accuracy is +1.00 (Spearman).",
        ),
        (
            RankCorrelation(None, None, None, 1),
            "How well RankMe agrees with accuracy cannot be told from 1 head.",
        ),
        (
            RankCorrelation(None, None, None, 6),
            "The 6 heads do not differ in RankMe or in accuracy: there is no rank correlation.",
        ),
    ],
)
def test_an_agreement_claims_no_more_than_its_interval(
    found: RankCorrelation, sentence: str
) -> None:
    assert agreement(found, "RankMe", "accuracy", "head") == sentence


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (RankCorrelation(0.9, None, None, 4), "too few"),
        (RankCorrelation(None, None, None, 6), "all alike"),
        (RankCorrelation(1.0, None, None, 6), "the same order, too few to say how sure"),
        (RankCorrelation(-1.0, None, None, 6), "the reverse order, too few to say how sure"),
        (RankCorrelation(0.3, -0.5, 0.9, 6), "not clear"),
        (RankCorrelation(0.9, 0.5, 0.99, 10), "rises with accuracy"),
        (RankCorrelation(-0.9, -0.99, -0.5, 10), "falls with accuracy"),
    ],
)
def test_a_trend_is_a_few_words(found: RankCorrelation, words: str) -> None:
    assert trend(found, "accuracy") == words


def none(reason: str, **more: Any) -> str:
    why = NoWinner.model_validate({"reason": reason, **more})
    return verdict_sentence(Verdict(no_winner=why))


def test_where_no_head_was_healthy_the_likely_causes_are_named() -> None:
    gates = {"not learning": 2, "collapsed": 1}
    assert none("gates", gates=gates) == (
        "None of the 3 heads screened was healthy (2 not learning, 1 collapsed), so there is no "
        "winner. Likely causes: the images (look at a few of them), the recipe (try another "
        "--trainer), or too short a screening (a larger --budget under another --name makes it "
        "longer)."
    )
    assert none("gates", gates={"collapsed": 1}, extend=EXTEND).endswith(
        f" Not all heads were screened when the budget ended; continue with: {EXTEND}"
    )
    assert (
        "Most likely it is the images: 80 of 80 images are of one colour; look at them first. Else"
        in none("gates", gates=gates, images="80 of 80 images are of one colour")
    )


def test_where_the_budget_ended_the_command_that_extends_it_is_named() -> None:
    for sentence in (none("budget", extend=EXTEND), none("unscreened", extend=EXTEND)):
        assert sentence.startswith("The budget ended before a ")
        assert sentence.endswith(f"so there is no winner; continue with: {EXTEND}")
    tried = none("budget", heads=1, cause="stopped at step 5: below the median.", extend=EXTEND)
    assert (
        "proxy (1 promoted head came to nothing: stopped at step 5: below the median), so" in tried
    )
    assert "(2 promoted heads came to nothing; the first: a)" in none("budget", heads=2, cause="a.")


def test_where_all_came_to_nothing_the_first_cause_is_told() -> None:
    assert none("proxies", heads=1, cause="collapsed.") == (
        "The only promoted head did not come to the end of its proxy in good health, so there is "
        "no winner; the first: collapsed."
    )
    assert re.match(r"None of the 8 promoted heads came .* no winner\.$", none("proxies", heads=8))
    assert none("screening", cause="no memory.").endswith("the first: no memory.")
    assert none("screening").endswith("the first: no head was drawn.")


def test_a_verdict_without_a_reason_says_that_there_is_no_winner() -> None:
    assert verdict_sentence(Verdict()) == (
        "No head candidate was healthy and came to the end of its proxy, so there is no winner."
    )


PLAN = Plan(
    candidates=24,
    group_size=8,
    screen_steps=60,
    proxies=9,
    proxy_steps=100,
    rungs=[25, 50, 100],
    confirm_jobs=6,
    expected_s={},
)
PROXIES = "9 proxies and 2 controls of 100 steps, then about 6 confirming runs"


def test_a_plan_is_told_in_one_sentence() -> None:
    sentence = f"Plan: screen 24 heads in 3 groups for 60 steps, then {PROXIES}, then the full"
    assert plan_sentence(PLAN, "begun") == f"{sentence} training."
    assert plan_sentence(PLAN, "extended").startswith(f"The budget was extended. {sentence}")
    assert plan_sentence(PLAN, "done") == "The extended budget buys no more proxies."
    assert plan_sentence(PLAN, "screened").startswith(f"Planned anew after screening: {PROXIES}, ")
    one = replace(PLAN, candidates=1, proxies=1)
    assert plan_sentence(one, "begun").startswith(
        "Plan: screen 1 head in 1 group for 60 steps, then 1 proxy and 2 controls"
    )
    assert "3 groups and 3 rounds for" in plan_sentence(replace(PLAN, rounds=3), "begun")


def test_a_plan_without_a_full_training_says_why() -> None:
    assert plan_sentence(replace(PLAN, without_full="off"), "begun").endswith(f"{PROXIES}.")
    assert plan_sentence(replace(PLAN, without_full="short"), "begun").endswith(
        "; a full training would be shorter than a proxy, so its share of the budget goes to these "
        "runs."
    )


def test_what_predicted_the_scores_of_proxies_is_told() -> None:
    few = {"forecast": rank_correlation([], []), "discrepancy": rank_correlation([1], [2])}
    assert promotion_sentence(Promotions("", few)) == (
        "How well discrepancy agrees with the score cannot be told from 1 proxy."
    )
    left = promotion_sentence(Promotions("", few, ("runs/a", "runs/b")))
    assert left.endswith(
        " from 1 proxy. What runs/a and runs/b taught was left, having given the wrong order."
    )
    both = {
        "forecast": RankCorrelation(0.5, 0.1, 0.8, 9),
        "discrepancy": RankCorrelation(-0.2, -0.7, 0.5, 9),
    }
    assert promotion_sentence(Promotions("", both)) == (
        "Over 9 proxies the rank correlation of the surrogate (each proxy left out in turn) with "
        "the score is +0.50 (Spearman, 95 % interval +0.10 to +0.80). Over 9 proxies the rank "
        "correlation of discrepancy with the score is −0.20 (Spearman, 95 % interval −0.70 to "
        "+0.50), which may be chance."
    )


@pytest.mark.parametrize(
    ("none", "sentence"),
    [
        ("budget", "No head was promoted: the budget ended before that."),
        (
            "unhealthy",
            "No head candidate was healthy after screening; there is nothing to promote.",
        ),
        ("unscreened", "No head candidate was screened; there is nothing to promote."),
    ],
)
def test_where_no_head_was_promoted_the_cause_is_told(none: Any, sentence: str) -> None:
    assert promotion_sentence(Promotions(none)) == sentence
