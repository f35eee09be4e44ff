"""Who is promoted next, by the paper's rule and by what proxies have taught; synthetic searches
whose truth is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

from hssl_search.engine.candidates.promotion import (
    by_discrepancy,
    choose,
    rank_correlations,
)
from hssl_search.engine.candidates.surrogate import TOLD, Lesson, misleading, predict
from hssl_search.engine.config import PromotionRule
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig

PROXY_NOISE = 0.2
"""Standard deviation of a proxy's score about the truth, which has 1."""


NO_HEAD = Contender(999, TrialState(name="no head", family="none", control="none"))


def contender(
    trial: int, discrepancy: float | None, family: str = "mlp", gate: str | None = "healthy"
) -> Contender:
    return Contender(trial, described(trial, family, discrepancy=discrepancy, gate=gate))


def described(trial: int, family: str, depth: int = 1, **measured: Any) -> TrialState:
    """Return what is known of a head, whose family may be one that nobody has registered."""
    head = HeadConfig.model_construct(family=family, depth=depth)
    return TrialState(name=f"head {trial}", family=family, head=head, **measured)


def test_the_best_of_each_family_is_promoted_first_then_the_next_of_each() -> None:
    screened = [
        contender(0, 0.9, "convnext"),
        contender(1, 0.8, "convnext"),
        contender(2, 0.7, "convnext"),
        contender(3, 0.1, "mlp"),
        contender(4, 0.3, "resnet"),
        contender(5, 0.2, "resnet"),
    ]
    assert [one.trial for one in by_discrepancy(tuple(screened))] == [0, 4, 3, 1, 5, 2]
    assert [one.trial for one in by_discrepancy(tuple(screened))][:2] == [0, 4]
    assert by_discrepancy(()) == ()


def test_only_healthy_heads_are_promoted_however_discrepant_others_are() -> None:
    gates = ["not learning", "collapsed", "non-finite", None]
    screened = [
        contender(0, 0.01),
        *(contender(number, 0.99, "resnet", gate) for number, gate in enumerate(gates, start=1)),
    ]
    assert [one.trial for one in by_discrepancy(tuple(screened))] == [0]
    assert by_discrepancy(tuple(screened[1:])) == ()


def test_a_head_whose_discrepancy_was_not_measured_is_not_promoted() -> None:
    screened = (contender(0, None), contender(1, -0.2), contender(2, 0.1))
    assert [one.trial for one in by_discrepancy(screened)] == [2, 1]
    assert choose("random", screened, [1, 2], {}, 0) is None


def test_promotion_does_not_depend_on_the_order_of_screening() -> None:
    dice = random.Random(0)
    screened = [
        contender(trial, dice.choice([0.1, 0.2, 0.3]), dice.choice("abc")) for trial in range(12)
    ]
    first = by_discrepancy(tuple(screened))
    for _ in range(20):
        dice.shuffle(screened)
        assert by_discrepancy(tuple(screened)) == first


def world(
    seed: int, correlation: float, count: int = 40, favour: np.ndarray | None = None
) -> tuple[list[Contender], np.ndarray]:
    """Return screened heads of five families, and the true scores of their proxies.

    Discrepancy is correlated with the truth as given; the rest of the truth comes from the family,
    by `favour` where it is given, and from nothing that was measured.
    """
    draws = np.random.default_rng(seed)
    families = draws.integers(0, 5, count)
    discrepancy, drawn = draws.normal(size=count), draws.normal(size=5)
    hidden = (drawn if favour is None else favour)[families] + 0.7 * draws.normal(size=count)
    hidden = (hidden - hidden.mean()) / hidden.std()
    truth = correlation * discrepancy + np.sqrt(1 - correlation**2) * hidden
    heads = [
        Contender(
            trial,
            described(
                trial,
                f"family {family}",
                int(draws.integers(1, 5)),
                gate="healthy",
                discrepancy=gap,
                overlap_excess=gap,
                cka_excess=gap + draws.normal(),
                output=draws.normal(),
                parameters=int(draws.integers(1_000, 90_000)),
                macs=int(draws.integers(10_000, 900_000)),
                head_loss=3.0 + draws.normal(),
                chance_loss=4.5,
            ),
        )
        for trial, (family, gap) in enumerate(
            zip(families.tolist(), discrepancy.tolist(), strict=True)
        )
    ]
    return heads, truth


def promoted(
    rule: PromotionRule,
    heads: list[Contender],
    proxied: np.ndarray,
    count: int,
    earlier: Sequence[Lesson] = (),
) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        scores = {trial: float(proxied[trial]) for trial in found} | (
            {NO_HEAD.trial: 0.0} if found else {}
        )
        one = choose(rule, (*heads, NO_HEAD), found, scores, 0, lessons=earlier)
        assert one is not None
        found.append(one.trial)
    return found


def regrets(
    rule: PromotionRule, correlation: float, searches: int = 30, count: int = 12
) -> tuple[float, float]:
    """Return (share of searches that promote the best head, mean of what the head that proxies
    choose falls short of it)."""
    hits, short = [], []
    for seed in range(searches):
        heads, truth = world(seed, correlation)
        proxied = truth + PROXY_NOISE * np.random.default_rng(1_000 + seed).normal(size=len(truth))
        found = promoted(rule, heads, proxied, count)
        hits.append(int(truth.argmax()) in found)
        short.append(float(truth.max() - truth[max(found, key=lambda trial: proxied[trial])]))
    return mean(hits), mean(short)


def test_where_discrepancy_misleads_learning_finds_the_best_head_more_often_at_equal_proxies() -> (
    None
):
    (by_rule, rule_short), (learned, learned_short) = (
        regrets("discrepancy", -0.7),
        regrets("learned", -0.7),
    )
    assert learned > by_rule + 0.2
    assert learned_short < rule_short / 2


def test_where_discrepancy_is_right_learning_loses_less_than_a_quarter_of_a_proxys_noise() -> None:
    (by_rule, rule_short), (learned, learned_short) = (
        regrets("discrepancy", 0.7, 40),
        regrets("learned", 0.7, 40),
    )
    assert learned_short < rule_short + PROXY_NOISE / 4
    assert learned > by_rule - 0.15


def test_before_enough_proxies_have_ended_the_papers_rule_promotes() -> None:
    heads, truth = world(0, -0.7)
    order = [one.trial for one in by_discrepancy(tuple(heads))]
    assert (
        promoted("learned", heads, truth, DEFAULT.promotion_startup)
        == order[: DEFAULT.promotion_startup]
        == promoted("discrepancy", heads, truth, DEFAULT.promotion_startup)
    )
    assert promoted("discrepancy", heads, truth, 12) == order[:12]
    assert promoted("learned", heads, truth, 12) != order[:12]


@pytest.mark.parametrize("rule", ["discrepancy", "learned", "random"])
def test_every_healthy_head_is_promoted_once_and_the_same_arguments_have_the_same_answer(
    rule: PromotionRule,
) -> None:
    heads, truth = world(3, 0.0, count=12)
    ill = contender(99, 0.99, "family 1", "collapsed")
    found = promoted(rule, [*heads, ill], truth, 12)
    assert sorted(found) == list(range(12))
    assert found == promoted(rule, [ill, *reversed(heads)], truth, 12)
    assert choose(rule, (*heads, ill), found, {}, 0) is None


def test_random_promotion_depends_on_the_seed_and_on_no_measurement() -> None:
    heads, _ = world(0, 0.0)
    first = [choose("random", tuple(heads), [], {}, seed) for seed in range(30)]
    assert len({one.trial for one in first if one}) > 15


def test_a_head_that_lacks_a_measurement_can_be_learned_from_and_promoted() -> None:
    heads, truth = world(1, 0.5, count=12)
    tapped = [
        Contender(one.trial, one.state.with_set(TrialState(output=None))) for one in heads[::2]
    ]
    assert len(set(promoted("learned", [*tapped, *heads[1::2]], truth, 12))) == 12


def test_what_predicted_the_scores_is_told_of_surrogate_and_discrepancy() -> None:
    heads, truth = world(5, -0.9)
    found = rank_correlations(heads, dict(enumerate(truth.tolist())))
    value, told = found["discrepancy"], found["forecast"]
    assert (
        value.value is not None and value.high is not None and value.value < -0.8 and value.high < 0
    )
    assert told.value is not None and told.low is not None and told.value > 0.8 and told.low > 0
    assert (told.n, value.n) == (40, 40)


@pytest.mark.parametrize("searches", [0, 2])
def test_scores_that_nothing_predicts_have_a_prediction_without_correlation(searches: int) -> None:
    """The mean of the others' scores alone would have -1, and a surrogate that earlier searches
    hold still, above that mean, +1."""
    values = []
    for seed in range(60):
        heads, _ = world(seed, 0.0, count=DEFAULT.promotion_startup + 1)
        noise = np.random.default_rng([seed, 0]).normal(size=len(heads))
        earlier = [
            lesson(
                seed + 100 * number, 0.0, np.random.default_rng([seed, 1, number]).normal(size=5)
            )
            for number in range(searches)
        ]
        scores = {**dict(enumerate(noise.tolist())), NO_HEAD.trial: 0.0}
        found = rank_correlations([*heads, NO_HEAD], scores, lessons=earlier)
        values.append(found["forecast"].value or 0.0)
    assert abs(mean(values)) < 3 * stdev(values) / math.sqrt(len(values))


def test_a_prediction_from_noise_does_not_put_the_scores_left_out_into_their_reverse_order() -> (
    None
):
    values = []
    for seed in range(20):
        heads, _ = world(seed, 0.0, count=16)
        noise = np.random.default_rng(seed).normal(size=16)
        values.append(
            rank_correlations(heads, dict(enumerate(noise.tolist())))["forecast"].value or 0.0
        )
    assert abs(mean(values)) < 0.2, "the mean of the others alone would have -1"


def test_too_few_proxies_predict_nothing() -> None:
    heads, truth = world(0, 0.5)
    found = rank_correlations(heads, dict(enumerate(truth[: DEFAULT.promotion_startup].tolist())))
    assert (found["forecast"].value, found["forecast"].n) == (None, 0)


def lesson(
    seed: int, correlation: float, favour: np.ndarray, scale: float = 1.0, shift: float = 0.0
) -> Lesson:
    """Return an earlier search of 20 heads, with scores in another unit and about another level."""
    heads, truth = world(10_000 + seed, correlation, 20, favour)
    scores = truth + PROXY_NOISE * np.random.default_rng(20_000 + seed).normal(size=20)
    return Lesson(tuple(heads), tuple((shift + scale * scores).tolist()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"scale": 5.0}, {"shift": -20.0}],
    ids=["same unit", "another unit", "another level"],
)
def test_what_an_earlier_search_taught_promotes_better_heads_first_and_misleads_little(
    changes: dict[str, float],
) -> None:
    hits, short = {}, {}
    for name, factor in {"nothing": 0.0, "the truth": 1.0, "the opposite": -1.0}.items():
        its_hits, its_short = [], []
        for seed in range(30):
            favour = np.random.default_rng(seed).normal(size=5)
            heads, truth = world(seed, -0.6, favour=favour)
            earlier = [lesson(seed, -0.6 * factor, factor * favour, **changes)] if factor else []
            noise = PROXY_NOISE * np.random.default_rng(seed).normal(size=40)
            first = promoted("learned", heads, truth + noise, 10, earlier)
            its_hits.append(int(truth.argmax()) in first)
            its_short.append(float(truth.max() - max(truth[first[:3]])))
        hits[name], short[name] = mean(its_hits), mean(its_short)
    assert hits["the truth"] > hits["nothing"] + 0.1
    assert short["the truth"] < short["nothing"] - 0.5
    assert hits["the opposite"] > hits["nothing"] - 0.15


def test_scores_that_an_earlier_search_predicts_have_a_prediction_with_correlation() -> None:
    values = []
    for seed in range(20):
        favour = np.random.default_rng(seed).normal(size=5)
        heads, truth = world(seed, -0.8, count=8, favour=favour)
        scores = {**dict(enumerate(truth.tolist())), NO_HEAD.trial: 0.0}
        found = rank_correlations([*heads, NO_HEAD], scores, lessons=[lesson(seed, -0.8, favour)])
        values.append(found["forecast"].value or 0.0)
    assert mean(values) > 0.4


def test_heads_of_an_earlier_search_count_for_enough_but_are_not_predicted() -> None:
    heads, truth = world(1, -0.7)
    earlier = [lesson(1, -0.7, np.zeros(5))]
    warm, cold = (promoted("learned", heads, truth, 3, each) for each in (earlier, []))
    assert warm[0] == by_discrepancy(tuple(heads))[0].trial and warm[1:] != cold[1:]
    enough = DEFAULT.promotion_startup
    few = {trial: float(truth[trial]) for trial in range(enough)}
    found = rank_correlations(heads, few, lessons=earlier)
    assert (found["forecast"].n, found["discrepancy"].n) == (enough, enough)
    assert rank_correlations(heads, {0: 1.0}, lessons=earlier)["forecast"].n == 0
    assert promoted("discrepancy", heads, truth, 6, earlier) == promoted(
        "discrepancy", heads, truth, 6
    )


def test_a_lesson_is_left_when_it_puts_enough_proxies_into_the_wrong_order() -> None:
    favour = np.random.default_rng(3).normal(size=5)
    heads, truth = world(3, -0.7, favour=favour)
    right, wrong = lesson(3, -0.7, favour), lesson(3, 0.7, -favour)

    def predicted(count: int, earlier: Sequence[Lesson]) -> list[float]:
        scores = [float(score) if n < count else None for n, score in enumerate(truth)]
        return predict(heads, scores, earlier)[0].tolist()

    assert predicted(TOLD, [wrong, right]) == predicted(TOLD, [right])
    assert predicted(TOLD - 1, [wrong, right]) != predicted(TOLD - 1, [right])
    named, reached = [wrong._replace(name="runs/a"), right._replace(name="runs/b")], truth.tolist()
    assert misleading(named, heads[:TOLD], reached[:TOLD]) == {0: "runs/a"}
    assert misleading(named, heads[: TOLD - 1], reached[: TOLD - 1]) == {}
