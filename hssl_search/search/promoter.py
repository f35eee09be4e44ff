"""The promoter: promotes heads one after another, and keeps in the study who was."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hssl_search.search.candidates import Contender
from hssl_search.search.correlation import LEAST, RankCorrelation
from hssl_search.search.earlier import kept
from hssl_search.search.execution.jobs import Plain
from hssl_search.search.promotion import WHY_NOT, Rule, choose, foretold, healthy, trusted
from hssl_search.search.records.study import StudyRecord
from hssl_search.search.roster import Roster

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

    def __init__(self, roster: Roster, study: StudyRecord, rule: Rule, seed: int, most: float | None = None,
                 times_base: Callable[[Contender], float] = lambda one: 1.0) -> None:
        self.most, self.times_base = most, times_base
        self.roster, self.study, self.rule, self.seed = roster, study, rule, seed
        self.earlier = [one for one in kept(study.study_attributes()) if one.trained and rule == "learned"]
        self._round: tuple[Contender, ...] | None = None
        """All contenders as screening left them: what proxies add says nothing of who is promoted, but for their scores."""

    def promoted(self) -> list[Contender]:
        """In the order of their promotion."""
        return [self.roster.contender(trial) for trial in self._trials()]

    def healthy(self) -> int:
        """How many heads may be promoted, those included that are."""
        return len(healthy(self._screened()))

    def likely(self, count: int) -> list[Contender]:
        """That many heads: those that are promoted, and those that would be next by what screening found alone."""
        self.reject()
        screened, trials = self._screened(), self._trials()
        rule: Rule = "random" if self.rule == "random" else "discrepancy"
        while len(trials) < count and (one := choose(rule, screened, trials, {}, self.seed)) is not None:
            trials.append(one.trial)
        return [self.roster.contender(trial) for trial in trials]

    def promote(self, scores: Callable[[], Mapping[int, float]]) -> Contender | None:
        """The next head, from now on promoted; None when no healthy one is left. One that was pruned before is given another trial.

        Args:
            scores: trial -> score of the proxies that have ended; asked for where they count.
        """
        known = scores() if self.rule == "learned" else {}
        self._round, trials = self._round or self._screened(), self._trials()
        if (chosen := choose(self.rule, self._round, trials, known, self.seed, self.earlier)) is None:
            return None
        if (one := self.roster.undecided(chosen)) is not chosen:
            self._round = tuple(one if each is chosen else each for each in self._round)
        self.study.set_study(PROMOTED, [*trials, one.trial])
        self.roster.note(one.trial, {"promoted": True})
        return one

    def reject(self) -> None:
        """Prune the heads that are not healthy, and those that cost too much while there are others; to be called before promoting, once
        more have been screened."""
        self._round = None
        self._reject_costly()
        for one in self.roster.contenders():
            if one.attributes.get("gate", "healthy") != "healthy" and one.control in (None, "noise"):
                self._prune(one, f"{one.attributes['gate']}: {one.attributes['gate_reason']}")

    def _reject_costly(self) -> None:
        """Where all heads cost too much, none is left out for it."""
        trials = self._trials()
        waiting = [one for one in healthy(self._screened()) if one.trial not in trials]
        times = {one.trial: self.times_base(one) for one in waiting}
        if self.most is None or not (trials or any(each <= self.most for each in times.values())):
            return
        for one in waiting:
            if times[one.trial] > self.most:
                self.roster.note(one.trial, {COSTLY: round(times[one.trial], 2)})
                self._prune(one, f"too costly: a step with it takes {times[one.trial]:.1f} times as long as without a head, and "
                                 f"--max-head-cost is {self.most:g}.")

    def close(self, scores: Mapping[int, float], final: bool = True) -> str:
        """Keep how well the scores were foretold, and tell it; prune what was not promoted, where that is final."""
        trials = self._trials()
        contenders = self._screened()
        candidates = [one for one in contenders if one.control is None]
        for one in candidates:
            if one.trial in trials:
                self.roster.note(one.trial, {"promoted": True})
            elif final:
                self._prune(one, WHY_NOT[self.rule] if "gate" in one.attributes else "the budget ended before it was screened.")
        if not trials:
            screened = any("gate" in one.attributes for one in candidates)
            return ("No head candidate was healthy after screening; there is nothing to promote." if screened
                    else "No head candidate was screened; there is nothing to promote.")
        found = foretold(contenders, scores, self.earlier)
        believed = trusted(contenders, scores, self.earlier)
        left = [one.name for one in self.earlier if one not in believed]
        self.study.set_study(PROMOTION, {"rule": self.rule, "left": left, **{name: one.as_plain() for name, one in found.items()}})
        return sentence(found) + (f" What {' and '.join(left)} taught was left, having given the wrong order." if left else "")

    def _prune(self, one: Contender, cause: str) -> None:
        self.roster.note(one.trial, {"promoted": False})
        self.roster.decide(one.trial, "PRUNED", cause=cause)

    def _screened(self) -> tuple[Contender, ...]:
        """All contenders but the too costly ones, of a head with several trials the last."""
        contenders = [one for one in self.roster.contenders() if COSTLY not in one.attributes]
        earlier = {one.attributes.get("retry_of") for one in contenders}
        return tuple(one for one in contenders if one.trial not in earlier)

    def _trials(self) -> list[int]:
        return list(self.study.study_attributes().get(PROMOTED, []))

def sentence(found: Mapping[str, RankCorrelation]) -> str:
    """What foretold the proxies' scores, and how well."""
    proxies = found["discrepancy"].n
    if proxies < LEAST:
        return f"Whether discrepancy foretells the score of a proxy cannot be told from {proxies}."
    told = ", ".join(f"{one.words()} for {_NAMES[name]}" for name, one in found.items() if one.n)
    return f"Rank correlation with the scores of {proxies} proxies: {told}."


_NAMES: Plain = {"forecast": "the forecast (each proxy left out in turn)", "discrepancy": "discrepancy"}
