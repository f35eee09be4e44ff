"""Promotion: which screened head gets the next proxy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import mean
from typing import Literal

import numpy as np

from hssl_search.engine.candidates import surrogate as forecast
from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.candidates.prior_runs import EarlierSearch, kept, taught
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.config import PromotionRule
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.correlation import (
    LEAST,
    RankCorrelation,
    rank_correlation,
    spearman,
)
from hssl_search.engine.statistics.metrics import DISCREPANCY

WHY_NOT: Mapping[PromotionRule, str] = {
    "discrepancy": "other heads were more discrepant.",
    "learned": "better was expected of other heads.",
    "random": "other heads were drawn.",
}
ENOUGH = 5
"""Ended proxies that a forecast takes at least; before, the paper's rule promotes."""
SHARE = 3
"""One promotion in so many stays with the paper's rule. In 40 simulated searches with 12 proxies of 40 heads each, the chosen head is then
0.07 standard deviations short of the best instead of 0.05 where discrepancy is correlated with accuracy by 0.7, and 0.25 instead of 1.55
where by -0.7 (tests/engine/candidates/test_promotion.py)."""
ONE_BY_ONE, FOLDS = 50, 10
"""Most heads that are each left out alone, and the parts into which more are divided, so that the fits do not grow in number."""


def healthy(screened: Iterable[Contender]) -> list[Contender]:
    """The candidates that may be promoted."""
    return [
        one for one in screened if one.control is None and one.attributes.get("gate") == "healthy"
    ]


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
    return tuple(
        sorted(
            by_discrepancy(screened), key=lambda one: random.Random(f"{seed}/{one.trial}").random()
        )
    )


def choose(
    rule: PromotionRule,
    screened: tuple[Contender, ...],
    promoted: Sequence[int],
    scores: Mapping[int, float],
    seed: int,
    earlier: Sequence[EarlierSearch] = (),
) -> Contender | None:
    """The head to promote next; None when no healthy one is left. The same answer to the same arguments.

    Args:
        screened: the candidates and the controls.
        promoted: trials that are promoted already.
        scores: trial -> score of the proxies that have ended.
        earlier: searches to learn from too.
    """
    ranked, taken = (
        drawn(screened, seed) if rule == "random" else by_discrepancy(screened),
        set(promoted),
    )
    left = (one for one in ranked if one.trial not in taken)
    if (
        rule == "learned"
        and len(promoted) % SHARE
        and taught(earlier) + sum(one.trial in scores for one in ranked) >= ENOUGH
    ):
        gains = _gains(screened, scores, earlier)
        return _most_promising(ranked, list(left), gains, trusted(ranked, gains, earlier))
    return next(left, None)


def trusted(
    screened: Iterable[Contender], scores: Mapping[int, float], earlier: Sequence[EarlierSearch]
) -> list[EarlierSearch]:
    """The earlier searches but those that, alone, put this one's proxies into the wrong order; all before `ENOUGH` have ended.

    In 60 simulated searches after one that says the opposite the best head is promoted in 0.70 of cases, and in 0.62 were it trusted on;
    after one that tells the truth in 0.90 and 0.92 (`benchmarks/warm_start.py`).
    """
    ended = [one for one in healthy(screened) if one.trial in scores]
    if len(ended) < ENOUGH:
        return list(earlier)
    reached = [scores[one.trial] for one in ended]
    told = [
        (one, spearman(forecast.expect(ended, [None] * len(ended), [one])[0], reached))
        for one in earlier
    ]
    return [
        one
        for one, correlation in told
        if correlation is None or ties.at_least(correlation, 0.0, ties.RELATIVE)
    ]


def _gains(
    screened: Iterable[Contender], scores: Mapping[int, float], earlier: Sequence[EarlierSearch]
) -> Mapping[int, float]:
    """The scores; with earlier searches, above that of the control that theirs are above, or above their mean as long as it has none."""
    if not earlier or not scores:
        return scores
    level = next(
        (
            scores[one.trial]
            for one in screened
            if one.control == earlier[0].control and one.trial in scores
        ),
        None,
    )
    level = mean(scores.values()) if level is None else level
    return {trial: score - level for trial, score in scores.items()}


def _most_promising(
    ranked: Sequence[Contender],
    left: Sequence[Contender],
    gains: Mapping[int, float],
    earlier: Sequence[EarlierSearch],
) -> Contender | None:
    """The head with the highest upper confidence bound, one standard deviation above what is expected (Auer, JMLR 2002): what little is
    known of is tried too."""
    means, deviations = forecast.expect(ranked, [gains.get(one.trial) for one in ranked], earlier)
    bounds = {
        one.trial: mean + deviation
        for one, mean, deviation in zip(ranked, means, deviations, strict=True)
    }
    chosen = ties.best({one.trial: bounds[one.trial] for one in left})
    return next((one for one in left if one.trial == chosen), None)


def foretold(
    screened: Sequence[Contender],
    scores: Mapping[int, float],
    earlier: Sequence[EarlierSearch] = (),
) -> dict[str, RankCorrelation]:
    """How well the heads with a score were put into its order by the forecast, each left out in turn, and by discrepancy."""
    ended = [one for one in healthy(screened) if one.trial in scores]
    reached = [scores[one.trial] for one in ended]
    enough = len(ended) > 1 and len(ended) + taught(earlier) > ENOUGH
    told = _left_out(screened, ended, scores, earlier) if enough else []
    return {
        "forecast": rank_correlation(told, reached[: len(told)]),
        "discrepancy": rank_correlation([one.attributes["discrepancy"] for one in ended], reached),
    }


def _left_out(
    screened: Sequence[Contender],
    ended: Sequence[Contender],
    scores: Mapping[int, float],
    earlier: Sequence[EarlierSearch],
) -> list[float]:
    """What would have been expected of each head without its own score, above what the same fit expects of those left in, on average.

    Above their average, because it falls as the score that is left out rises: a forecast that says nothing but the mean would put the
    heads into exactly the reverse of their order. Their expected average and not that of their scores, because what earlier searches lend
    holds the forecast still, which would put the heads into just their order. Without earlier searches both are the same.
    """
    found = np.zeros(len(ended))
    folds = len(ended) if len(ended) <= ONE_BY_ONE else FOLDS
    for fold in range(folds):
        out = {one.trial for one in ended[fold::folds]}
        gains = _gains(
            screened, {trial: score for trial, score in scores.items() if trial not in out}, earlier
        )
        means = forecast.expect(
            ended, [gains.get(one.trial) for one in ended], trusted(ended, gains, earlier)
        )[0]
        found[fold::folds] = means[fold::folds] - np.delete(means, np.s_[fold::folds]).mean()
    return found.tolist()


PROMOTED, PROMOTION = "promoted", "promotion"
"""The study's attributes: trials in the order of their promotion, and how well they were foretold."""


COSTLY = "too_costly"
"""Attribute of a head that is left out for its cost: how many times the base's step one with it takes."""


class Promoter:
    """
    Args:
        most: how many times the base's step one with a promoted head may take; None: any number of times.
        times_base: how many times it does.
    """

    def __init__(
        self,
        trials: Trials,
        study: StudyRecord,
        rule: PromotionRule,
        seed: int,
        most: float | None = None,
        times_base: Callable[[Contender], float] = lambda one: 1.0,
    ) -> None:
        self.most, self.times_base = most, times_base
        self.trials, self.study, self.rule, self.seed = trials, study, rule, seed
        self.earlier = [
            one for one in kept(study.study_attributes()) if one.trained and rule == "learned"
        ]
        self._round: tuple[Contender, ...] | None = None
        """All contenders as screening left them: what proxies add says nothing of who is promoted, but for their scores."""

    def promoted(self) -> list[Contender]:
        """In the order of their promotion."""
        return [self.trials.contender(trial) for trial in self._promoted()]

    def healthy(self) -> int:
        """How many heads may be promoted, those included that are."""
        return len(healthy(self._screened()))

    def likely(self, count: int) -> list[Contender]:
        """That many heads: those that are promoted, and those that would be next by what screening found alone."""
        self.reject()
        screened, promoted = self._screened(), self._promoted()
        rule: PromotionRule = "random" if self.rule == "random" else "discrepancy"
        while (
            len(promoted) < count
            and (one := choose(rule, screened, promoted, {}, self.seed)) is not None
        ):
            promoted.append(one.trial)
        return [self.trials.contender(trial) for trial in promoted]

    def promote(self, scores: Callable[[], Mapping[int, float]]) -> Contender | None:
        """The next head, from now on promoted; None when no healthy one is left. One that was pruned before is given another trial.

        Args:
            scores: trial -> score of the proxies that have ended; asked for where they count.
        """
        known = scores() if self.rule == "learned" else {}
        self._round, promoted = self._round or self._screened(), self._promoted()
        if (
            chosen := choose(self.rule, self._round, promoted, known, self.seed, self.earlier)
        ) is None:
            return None
        if (one := self.trials.undecided(chosen)) is not chosen:
            self._round = tuple(one if each is chosen else each for each in self._round)
        self.study.set_study(PROMOTED, [*promoted, one.trial])
        self.trials.note(one.trial, {"promoted": True})
        return one

    def reject(self) -> None:
        """Prune the heads that are not healthy, and those that cost too much while there are others; to be called before promoting, once
        more have been screened."""
        self._round = None
        self._reject_costly()
        for one in self.trials.contenders():
            if one.attributes.get("gate", "healthy") != "healthy" and one.control in (
                None,
                "noise",
            ):
                self._prune(one, f"{one.attributes['gate']}: {one.attributes['gate_reason']}")

    def _reject_costly(self) -> None:
        """Prune the waiting heads that cost too much, unless all do, those included that are promoted: then none is left out."""
        times = {one.trial: self.times_base(one) for one in healthy(self._screened())}
        if (most := self.most) is None or not any(
            ties.at_least(most, each) for each in times.values()
        ):
            return
        for trial in sorted(times.keys() - set(self._promoted())):
            if ties.above(times[trial], most):
                self.trials.note(trial, {COSTLY: round(times[trial], 2)})
                self._prune(
                    self.trials.contender(trial),
                    f"too costly: a step with it takes {times[trial]:.1f} times as long as without a head, and "
                    f"--max-head-cost is {most:g}.",
                )

    def close(self, scores: Mapping[int, float], final: bool = True) -> str:
        """Keep how well the scores were foretold, and tell it; prune what was not promoted, where that is final."""
        promoted = self._promoted()
        contenders = self._screened()
        candidates = [one for one in contenders if one.control is None]
        for one in candidates:
            if one.trial in promoted:
                self.trials.note(one.trial, {"promoted": True})
            elif final:
                self._prune(
                    one,
                    WHY_NOT[self.rule]
                    if "gate" in one.attributes
                    else "the budget ended before it was screened.",
                )
        if not promoted and self.healthy():
            return "No head was promoted: the budget ended before that."
        if not promoted:
            screened = any("gate" in one.attributes for one in candidates)
            return (
                "No head candidate was healthy after screening; there is nothing to promote."
                if screened
                else "No head candidate was screened; there is nothing to promote."
            )
        found = foretold(contenders, scores, self.earlier)
        believed = trusted(contenders, scores, self.earlier)
        left = [one.name for one in self.earlier if one not in believed]
        self.study.set_study(
            PROMOTION,
            {
                "rule": self.rule,
                "left": left,
                **{name: one.as_plain() for name, one in found.items()},
            },
        )
        return sentence(found) + (
            f" What {' and '.join(left)} taught was left, having given the wrong order."
            if left
            else ""
        )

    def _prune(self, one: Contender, cause: str) -> None:
        self.trials.note(one.trial, {"promoted": False})
        self.trials.decide(one.trial, "PRUNED", cause=cause)

    def _screened(self) -> tuple[Contender, ...]:
        """All contenders but the too costly ones, of a head with several trials the last."""
        contenders = [one for one in self.trials.contenders() if COSTLY not in one.attributes]
        earlier = {one.attributes.get("retry_of") for one in contenders}
        return tuple(one for one in contenders if one.trial not in earlier)

    def _promoted(self) -> list[int]:
        return list(self.study.study_attributes().get(PROMOTED, []))


def sentence(found: Mapping[str, RankCorrelation]) -> str:
    """What foretold the proxies' scores, and how well."""
    proxies = found["discrepancy"].n
    if proxies < LEAST:
        return f"Whether discrepancy foretells the score of a proxy cannot be told from {proxies}."
    told = ", ".join(f"{one.words()} for {_NAMES[name]}" for name, one in found.items() if one.n)
    return f"Rank correlation with the scores of {proxies} proxies: {told}."


_NAMES: Plain = {
    "forecast": "the forecast (each proxy left out in turn)",
    "discrepancy": "discrepancy",
}
