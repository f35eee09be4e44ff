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


class Promoter:
    def __init__(self, roster: Roster, study: StudyRecord, rule: Rule, seed: int) -> None:
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
        """Prune the heads that are not healthy; to be called before promoting, once more have been screened."""
        self._round = None
        for one in self.roster.contenders():
            if one.attributes.get("gate", "healthy") != "healthy" and one.control in (None, "noise"):
                self._prune(one, f"{one.attributes['gate']}: {one.attributes['gate_reason']}")

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
        """All contenders, of a head with several trials the last."""
        contenders = self.roster.contenders()
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
