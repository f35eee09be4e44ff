"""Promotion: which screened head gets the next proxy."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from hssl_search.engine.candidates import surrogate
from hssl_search.engine.candidates.surrogate import Lesson
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.config import PromotionRule
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.state import (
    HEALTHY,
    Contender,
    PromotionState,
    SearchState,
    TrialState,
)
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.correlation import (
    RankCorrelation,
    rank_correlation,
)
from hssl_search.engine.statistics.metrics import DISCREPANCY

WHY_NOT: Mapping[PromotionRule, str] = {
    "discrepancy": "other heads were more discrepant.",
    "learned": "better was expected of other heads.",
    "random": "other heads were drawn.",
}
ONE_BY_ONE, FOLDS = 50, 10
"""Most heads that are each left out alone, and the parts into which more are divided, so that the
fits do not grow in number."""


def healthy(screened: Iterable[Contender]) -> list[Contender]:
    """Return the candidates that may be promoted: those that passed the health gate and whose
    discrepancy is known."""
    return [
        contender
        for contender in screened
        if contender.control is None
        and contender.state.gate == HEALTHY
        and contender.state.discrepancy is not None
    ]


@lru_cache(maxsize=2)
def by_discrepancy(screened: tuple[Contender, ...]) -> tuple[Contender, ...]:
    """Rank healthy heads by the paper's rule: by discrepancy, the best of each family first, then
    the next of each."""
    candidates = {candidate.trial: candidate for candidate in healthy(screened)}
    discrepancies = {
        trial: candidate.state.discrepancy
        for trial, candidate in candidates.items()
        if candidate.state.discrepancy is not None
    }
    ranked = [candidates[n] for n in ties.rank(discrepancies, DISCREPANCY.resolution(None))]
    places = Counter[str]()
    place_in_family = {}
    for candidate in ranked:
        place_in_family[candidate.trial] = places[candidate.family]
        places[candidate.family] += 1
    # The sort is stable: equal places stay in the order of discrepancy.
    return tuple(sorted(ranked, key=lambda candidate: place_in_family[candidate.trial]))


@lru_cache(maxsize=2)
def shuffled(screened: tuple[Contender, ...], seed: int) -> tuple[Contender, ...]:
    """Return the healthy heads in random order; that of two heads does not depend on the others."""
    return tuple(
        sorted(
            by_discrepancy(screened),
            key=lambda candidate: random.Random(f"{seed}/{candidate.trial}").random(),
        )
    )


def choose(
    rule: PromotionRule,
    screened: tuple[Contender, ...],
    promoted: Sequence[int],
    scores: Mapping[int, float],
    seed: int,
    policy: Policy = DEFAULT,
    lessons: Sequence[Lesson] = (),
) -> Contender | None:
    """Return the head to promote next; the same answer to the same arguments.

    Args:
        screened: the candidates and the controls.
        promoted: trials that are promoted already.
        scores: trial -> score of the proxies that have ended.
        lessons: of earlier searches.

    Returns:
        None when no healthy head is left.
    """
    ranked = shuffled(screened, seed) if rule == "random" else by_discrepancy(screened)
    taken = set(promoted)
    left = (candidate for candidate in ranked if candidate.trial not in taken)
    ended = sum(candidate.trial in scores for candidate in ranked) + _taught(lessons)
    paper_rules = len(promoted) % policy.paper_rule_every == 0 or ended < policy.promotion_startup
    if rule != "learned" or paper_rules:
        return next(left, None)
    means, deviations = surrogate.predict(
        ranked, [scores.get(candidate.trial) for candidate in ranked], lessons
    )
    # One standard deviation above the mean (an upper confidence bound, Auer, JMLR 2002), so that
    # heads of which little is known are tried too.
    bounds = {
        candidate.trial: mean + deviation
        for candidate, mean, deviation in zip(ranked, means, deviations, strict=True)
    }
    rest = {candidate.trial: candidate for candidate in left}
    chosen = ties.best({trial: bounds[trial] for trial in rest})
    return None if chosen is None else rest[chosen]


def rank_correlations(
    screened: Iterable[Contender],
    scores: Mapping[int, float],
    policy: Policy = DEFAULT,
    lessons: Sequence[Lesson] = (),
) -> dict[str, RankCorrelation]:
    """Return how well the scores' order was predicted by the surrogate, each head left out in
    turn, and by discrepancy."""
    ended = [candidate for candidate in healthy(screened) if candidate.trial in scores]
    reached = [scores[candidate.trial] for candidate in ended]
    heads = len(ended) + _taught(lessons)
    enough = len(ended) > 1 and heads > policy.promotion_startup
    predicted = _left_out(ended, reached, lessons) if enough else []
    return {
        "forecast": rank_correlation(predicted, reached[: len(predicted)]),
        "discrepancy": rank_correlation(
            [candidate.state.discrepancy for candidate in ended], reached
        ),
    }


def _taught(lessons: Iterable[Lesson]) -> int:
    """Return how many heads earlier searches tell of."""
    return sum(len(lesson.scores) for lesson in lessons)


def _left_out(
    ended: Sequence[Contender], reached: Sequence[float], lessons: Sequence[Lesson]
) -> list[float]:
    """Return what the surrogate predicts of each head without its own score, above what the same
    fit predicts of the others on average.

    Above their average, because that falls as the score that is left out rises: a surrogate that
    says nothing but the mean would put the heads into exactly the reverse of their order.
    """
    predicted = np.zeros(len(ended))
    folds = len(ended) if len(ended) <= ONE_BY_ONE else FOLDS
    for fold in range(folds):
        seen: list[float | None] = list(reached)
        seen[fold::folds] = [None] * len(seen[fold::folds])
        means, _ = surrogate.predict(ended, seen, lessons)
        predicted[fold::folds] = means[fold::folds] - np.delete(means, np.s_[fold::folds]).mean()
    return predicted.tolist()


class Promotions(NamedTuple):
    """How the promotions of a search ended."""

    none: Literal["", "budget", "unhealthy", "unscreened"]
    """Why there were none: the budget ended before; no screened head was healthy; none was
    screened."""
    predictions: Mapping[str, RankCorrelation] = {}
    """How well the surrogate (`forecast`) and `discrepancy` predicted the proxies' scores."""
    left: tuple[str, ...] = ()
    """Earlier searches that no longer taught, having given the wrong order."""


class Promoter:
    """Promotes heads one by one, and keeps in the study who was promoted.

    Args:
        most: how many times the base's step one with a promoted head may take; None: any number of
            times.
        times_base: how many times it does.
        lessons: of earlier searches.
    """

    def __init__(
        self,
        trials: Trials,
        study: StudyRecord,
        rule: PromotionRule,
        seed: int,
        most: float | None = None,
        times_base: Callable[[Contender], float] = lambda candidate: 1.0,
        policy: Policy = DEFAULT,
        lessons: Sequence[Lesson] = (),
    ) -> None:
        self.most, self.times_base = most, times_base
        self.policy, self.lessons = policy, lessons
        self.trials, self.study, self.rule, self.seed = trials, study, rule, seed
        self._round: tuple[Contender, ...] | None = None
        """All contenders as screening left them: what proxies add says nothing of who is promoted,
        but for their scores."""

    def promoted(self) -> list[Contender]:
        """Return the promoted heads in the order of their promotion."""
        return [self.trials.contender(trial) for trial in self._promoted()]

    def healthy(self) -> int:
        """Return how many heads may be promoted, those included that are."""
        return len(healthy(self._screened()))

    def likely(self, count: int) -> list[Contender]:
        """Return that many heads: those that are promoted, and those that would be next by what
        screening found alone."""
        self.reject()
        screened, promoted = self._screened(), self._promoted()
        rule: PromotionRule = "random" if self.rule == "random" else "discrepancy"
        while len(promoted) < count:
            candidate = choose(rule, screened, promoted, {}, self.seed, self.policy)
            if candidate is None:
                break
            promoted.append(candidate.trial)
        return [self.trials.contender(trial) for trial in promoted]

    def promote(self, scores: Callable[[], Mapping[int, float]]) -> Contender | None:
        """Promote the next head; one that was pruned before is given another trial.

        Args:
            scores: trial -> score of the proxies that have ended; asked for where they count.

        Returns:
            The head; None when no healthy one is left.
        """
        ended = scores() if self.rule == "learned" else {}
        self._round, promoted = self._round or self._screened(), self._promoted()
        chosen = choose(
            self.rule, self._round, promoted, ended, self.seed, self.policy, self.lessons
        )
        if chosen is None:
            return None
        candidate = self.trials.undecided(chosen)
        if candidate is not chosen:
            # In its place, so that the round's ranking stays as it was.
            self._round = tuple(candidate if each is chosen else each for each in self._round)
        # The study's list first: `close` notes what a crash between the two leaves out.
        self.study.write(SearchState(promoted=(*promoted, candidate.trial)))
        self.trials.note(candidate.trial, TrialState(promoted=True))
        return candidate

    def reject(self) -> None:
        """Prune the heads that are not healthy, and those that cost too much while there are
        others; to be called before promoting, once more have been screened."""
        # What was screened since then joins the next round.
        self._round = None
        times = {
            candidate.trial: self.times_base(candidate) for candidate in healthy(self._screened())
        }
        most = self.most
        # Where all cost too much, those included that are promoted, none is left out.
        if most is not None and any(ties.at_least(most, each) for each in times.values()):
            for trial in sorted(times.keys() - set(self._promoted())):
                if ties.above(times[trial], most):
                    self.trials.note(trial, TrialState(too_costly=round(times[trial], 2)))
                    cause = (
                        f"too costly: a step with it takes {times[trial]:.1f} times as long as "
                        f"without a head, and --max-head-cost is {most:g}."
                    )
                    self._prune(self.trials.contender(trial), cause)
        for contender in self.trials.contenders():
            if contender.control in (None, "noise") and (cause := contender.state.ailment()):
                self._prune(contender, cause)

    def close(self, scores: Mapping[int, float], final: bool = True) -> Promotions:
        """Keep how well the scores were predicted, and return it; prune what was not promoted,
        where that is final."""
        promoted, contenders = self._promoted(), self._screened()
        candidates = [contender for contender in contenders if contender.control is None]
        for candidate in candidates:
            if candidate.trial in promoted:
                self.trials.note(candidate.trial, TrialState(promoted=True))
            elif final:
                screened = candidate.state.gate is not None
                unscreened = "the budget ended before it was screened."
                self._prune(candidate, WHY_NOT[self.rule] if screened else unscreened)
        # The causes in this order: a healthy head could have been promoted with more budget.
        if not promoted and self.healthy():
            return Promotions("budget")
        if not promoted:
            screened = any(candidate.state.gate for candidate in candidates)
            return Promotions("unhealthy" if screened else "unscreened")
        correlations = rank_correlations(contenders, scores, self.policy, self.lessons)
        ended = [each for each in healthy(contenders) if each.trial in scores]
        reached = [scores[each.trial] for each in ended]
        left = tuple(surrogate.misleading(self.lessons, ended, reached).values())
        promotion = PromotionState(rule=self.rule, left=left, **correlations)
        self.study.write(SearchState(promotion=promotion))
        return Promotions("", correlations, left)

    def _prune(self, contender: Contender, cause: str) -> None:
        self.trials.note(contender.trial, TrialState(promoted=False))
        self.trials.decide(contender.trial, "PRUNED", cause=cause)

    def _screened(self) -> tuple[Contender, ...]:
        """Return all contenders but the too costly ones, of a head with several trials the last."""
        contenders = [
            contender
            for contender in self.trials.contenders()
            if contender.state.too_costly is None
        ]
        earlier = {contender.state.retry_of for contender in contenders}
        return tuple(contender for contender in contenders if contender.trial not in earlier)

    def _promoted(self) -> list[int]:
        return list(self.study.state.promoted)
