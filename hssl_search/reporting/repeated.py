"""Do two screenings of a head, in groups of different composition, come to the same?"""

from __future__ import annotations

from dataclasses import dataclass

from optuna import Study

from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation, rank_correlation
from hssl_search.reporting.formats import plural
from hssl_search.reporting.record import RunRecord


@dataclass(frozen=True)
class Repeated:
    """Of the heads that were screened twice."""

    heads: int
    discrepancy: RankCorrelation
    """Of the first with the second discrepancy, over heads that are healthy both times."""
    same_gate: int
    """Heads of which the health gate judged the same both times."""

    def sentence(self) -> str:
        """Empty where no head was screened twice."""
        if not self.heads:
            return ""
        told = f"{plural(self.heads, 'head')} screened twice, in different groups: the gate judged {self.same_gate} the same"
        if self.discrepancy.n < LEAST:
            return f"{told}; {self.discrepancy.n} healthy both times are too few to say whether the order by discrepancy is."
        return f"{told}, and the order by discrepancy has a rank correlation of {self.discrepancy.words()}."


def repeated(study: Study | RunRecord) -> Repeated:
    held = [
        trial.user_attrs
        for trial in RunRecord.of(study).heads
        if "again" in trial.user_attrs and "gate" in trial.user_attrs
    ]
    healthy = [one for one in held if one["gate"] == one["again"]["gate"] == "healthy"]
    found = rank_correlation(
        [one["overlap_excess"] for one in healthy],
        [one["again"]["overlap_excess"] for one in healthy],
    )
    return Repeated(len(held), found, sum(one["gate"] == one["again"]["gate"] for one in held))
