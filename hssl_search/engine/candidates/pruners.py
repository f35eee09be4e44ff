"""Pruning: which proxy is stopped at a rung. Pure functions of the scores of those that have been
there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from hssl_search.engine.config import PrunerName
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.statistics import ties


@dataclass(frozen=True)
class AtRung:
    """One who reaches a rung."""

    trial: int
    score: float
    control: bool = False
    """Never stopped, and counted for all."""


Others = Mapping[int, AtRung]
"""Those that have reached a rung before, by trial."""


@dataclass(frozen=True)
class Pruner:
    """A rule, and its reason for people."""

    rule: Callable[[AtRung, Others, float, Policy], bool]
    why: str
    """What follows `stopped at step 75: `."""
    policy: Policy = DEFAULT

    def stops(self, reached: AtRung, others: Others, resolution: float = 0.0) -> bool:
        """Return whether a proxy is stopped at a rung. One that ties with those that continue
        continues.

        Args:
            resolution: step in which scores move.
        """
        return self.rule(reached, others, resolution, self.policy)


def below_median(reached: AtRung, others: Others, resolution: float, policy: Policy) -> bool:
    """Return whether a score is below the median of those that reached the same rung before it
    (Vizier's median rule, KDD 2017)."""
    if len(others) < policy.pruner_startup:
        return False
    middle = median(other.score for other in others.values())
    # The median of an even number lies half a step between two scores.
    return ties.above(middle, reached.score, resolution / 2)


def below_half(reached: AtRung, others: Others, resolution: float, policy: Policy) -> bool:
    """Return whether a score is not among the better `1 / policy.halving` of those at the rung,
    itself counted (asynchronous successive halving as it stops, Li et al., MLSys 2020).

    The best so far always continues.
    """
    better = sum(ties.above(other.score, reached.score, resolution) for other in others.values())
    return better >= max(1, (1 + len(others)) // policy.halving)


PRUNERS: Mapping[PrunerName, Pruner] = {
    "median": Pruner(below_median, "below the median of that rung."),
    "asha": Pruner(below_half, "not in the better half of that rung (successive halving)."),
    "none": Pruner(lambda *_: False, "not at all."),
}
