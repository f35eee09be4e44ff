"""Promotion: which screened head gets the next proxy."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import mean
from typing import Literal

import numpy as np

from hssl_search.search import forecast, ties
from hssl_search.search.candidates import Contender
from hssl_search.search.correlation import RankCorrelation, rank_correlation, spearman
from hssl_search.search.earlier import EarlierSearch, taught
from hssl_search.search.measures import DISCREPANCY

Rule = Literal["discrepancy", "learned", "random"]
WHY_NOT: Mapping[Rule, str] = {
    "discrepancy": "other heads were more discrepant.",
    "learned": "better was expected of other heads.",
    "random": "other heads were drawn.",
}
ENOUGH = 5
"""Ended proxies that a forecast takes at least; before, the paper's rule promotes."""
SHARE = 3
"""One promotion in so many stays with the paper's rule. In 40 simulated searches with 12 proxies of 40 heads each, the chosen head is then
0.07 standard deviations short of the best instead of 0.05 where discrepancy is correlated with accuracy by 0.7, and 0.25 instead of 1.55
where by -0.7 (tests/search/test_promotion.py)."""
ONE_BY_ONE, FOLDS = 50, 10
"""Most heads that are each left out alone, and the parts into which more are divided, so that the fits do not grow in number."""


def healthy(screened: Iterable[Contender]) -> list[Contender]:
    """The candidates that may be promoted."""
    return [one for one in screened if one.control is None and one.attributes.get("gate") == "healthy"]


@lru_cache(maxsize=2)
def by_discrepancy(screened: tuple[Contender, ...]) -> tuple[Contender, ...]:
    """The paper's rule: healthy heads by discrepancy, families mixed: the best of each family first, then the next of each."""
    places: dict[str, int] = {}
    ranked = []
    candidates = {one.trial: one for one in healthy(screened)}
    discrepancies = {trial: one.attributes["discrepancy"] for trial, one in candidates.items()}
    for order, trial in enumerate(ties.rank(discrepancies, DISCREPANCY.resolution(None))):
        one = candidates[trial]
        places[one.family] = places.get(one.family, -1) + 1
        ranked.append((places[one.family], order, one))
    return tuple(one for _, _, one in sorted(ranked, key=lambda row: row[:2]))


@lru_cache(maxsize=2)
def drawn(screened: tuple[Contender, ...], seed: int) -> tuple[Contender, ...]:
    """Healthy heads in random order; that of two heads does not depend on the others."""
    return tuple(sorted(by_discrepancy(screened), key=lambda one: random.Random(f"{seed}/{one.trial}").random()))


def choose(rule: Rule, screened: tuple[Contender, ...], promoted: Sequence[int], scores: Mapping[int, float], seed: int,
           earlier: Sequence[EarlierSearch] = ()) -> Contender | None:
    """The head to promote next; None when no healthy one is left. The same answer to the same arguments.

    Args:
        screened: the candidates and the controls.
        promoted: trials that are promoted already.
        scores: trial -> score of the proxies that have ended.
        earlier: searches to learn from too.
    """
    ranked, taken = drawn(screened, seed) if rule == "random" else by_discrepancy(screened), set(promoted)
    left = (one for one in ranked if one.trial not in taken)
    if rule == "learned" and len(promoted) % SHARE and taught(earlier) + sum(one.trial in scores for one in ranked) >= ENOUGH:
        gains = _gains(screened, scores, earlier)
        return _most_promising(ranked, list(left), gains, trusted(ranked, gains, earlier))
    return next(left, None)


def trusted(screened: Iterable[Contender], scores: Mapping[int, float], earlier: Sequence[EarlierSearch]) -> list[EarlierSearch]:
    """The earlier searches but those that, alone, put this one's proxies into the wrong order; all before `ENOUGH` have ended.

    In 60 simulated searches after one that says the opposite the best head is promoted in 0.70 of cases, and in 0.62 were it trusted on;
    after one that tells the truth in 0.90 and 0.92 (`benchmarks/warm_start.py`).
    """
    ended = [one for one in healthy(screened) if one.trial in scores]
    if len(ended) < ENOUGH:
        return list(earlier)
    reached = [scores[one.trial] for one in ended]
    told = [(one, spearman(forecast.expect(ended, [None] * len(ended), [one])[0], reached)) for one in earlier]
    return [one for one, correlation in told if correlation is None or ties.at_least(correlation, 0.0, ties.RELATIVE)]


def _gains(screened: Iterable[Contender], scores: Mapping[int, float], earlier: Sequence[EarlierSearch]) -> Mapping[int, float]:
    """The scores; with earlier searches, above that of the control that theirs are above, or above their mean as long as it has none."""
    if not earlier or not scores:
        return scores
    level = next((scores[one.trial] for one in screened if one.control == earlier[0].control and one.trial in scores), None)
    level = mean(scores.values()) if level is None else level
    return {trial: score - level for trial, score in scores.items()}


def _most_promising(ranked: Sequence[Contender], left: Sequence[Contender], gains: Mapping[int, float],
                    earlier: Sequence[EarlierSearch]) -> Contender | None:
    """The head with the highest upper confidence bound, one standard deviation above what is expected (Auer, JMLR 2002): what little is
    known of is tried too."""
    means, deviations = forecast.expect(ranked, [gains.get(one.trial) for one in ranked], earlier)
    bounds = {one.trial: mean + deviation for one, mean, deviation in zip(ranked, means, deviations, strict=True)}
    chosen = ties.best({one.trial: bounds[one.trial] for one in left})
    return next((one for one in left if one.trial == chosen), None)


def foretold(screened: Sequence[Contender], scores: Mapping[int, float],
             earlier: Sequence[EarlierSearch] = ()) -> dict[str, RankCorrelation]:
    """How well the heads with a score were put into its order by the forecast, each left out in turn, and by discrepancy."""
    ended = [one for one in healthy(screened) if one.trial in scores]
    reached = [scores[one.trial] for one in ended]
    enough = len(ended) > 1 and len(ended) + taught(earlier) > ENOUGH
    told = _left_out(screened, ended, scores, earlier) if enough else []
    return {"forecast": rank_correlation(told, reached[:len(told)]),
            "discrepancy": rank_correlation([one.attributes["discrepancy"] for one in ended], reached)}


def _left_out(screened: Sequence[Contender], ended: Sequence[Contender], scores: Mapping[int, float],
              earlier: Sequence[EarlierSearch]) -> list[float]:
    """What would have been expected of each head without its own score, above what the same fit expects of those left in, on average.

    Above their average, because it falls as the score that is left out rises: a forecast that says nothing but the mean would put the
    heads into exactly the reverse of their order. Their expected average and not that of their scores, because what earlier searches lend
    holds the forecast still, which would put the heads into just their order. Without earlier searches both are the same.
    """
    found = np.zeros(len(ended))
    folds = len(ended) if len(ended) <= ONE_BY_ONE else FOLDS
    for fold in range(folds):
        out = {one.trial for one in ended[fold::folds]}
        gains = _gains(screened, {trial: score for trial, score in scores.items() if trial not in out}, earlier)
        means = forecast.expect(ended, [gains.get(one.trial) for one in ended], trusted(ended, gains, earlier))[0]
        found[fold::folds] = means[fold::folds] - np.delete(means, np.s_[fold::folds]).mean()
    return found.tolist()
