"""Earlier searches that a search is warm-started from: what their heads have taught, as its study keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import mean, pstdev
from typing import Any

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.statistics import ties

ATTRIBUTE = "warm_start"
"""The study's attribute: nothing of the earlier run folders is needed once it is there."""
ROUNDED = 1e-7
"""Gains are differences of scores of up to some hundreds: those that are closer to each other differ by rounding alone."""
DOUBT = 0.5
"""Scores that an earlier search's spread counts for beside the spread of this search's own."""
APART = 0.5
"""Standard deviations by which the mean gains of an earlier search and of this one may lie apart. After a search that tells the truth, but
whose gains lie eight lower, the best head is promoted in 0.87 of cases with it and in 0.57 without (`benchmarks/warm_start.py`)."""


@dataclass(frozen=True)
class EarlierHead:
    """One head of an earlier search that has a result, and is in the space of this one."""

    head: Plain
    """Its HeadConfig."""
    gain: float | None
    """Its score above that of its search's control at the same step; None of a head that fell ill."""
    measured: Plain
    """What screening found, as `forecast.features` reads it."""

    @cached_property
    def contender(self) -> Contender:
        return Contender(-1, "", [self.head], self.head["family"], None, self.measured)


@dataclass(frozen=True)
class EarlierSearch:
    """What one earlier search teaches. Its gains count in its own standard deviations: scores are not comparable between searches."""

    name: str
    """Of its run folder, as a person reads it."""
    control: str
    """Which control its gains are above: `none`, or `identity` where heads are ranked and not bases."""
    same_space: bool
    others: Mapping[str, str]
    """What else is not that of this search: `base` -> `resnet18`."""
    heads: Sequence[EarlierHead]
    left_out: Mapping[str, int]
    """What this space lacks, such as `depth=6`, -> heads with results that are left out for it."""

    @classmethod
    def from_plain(cls, plain: Plain) -> EarlierSearch:
        # By name: studies of an earlier version also hold what a step of each head cost.
        heads = [
            EarlierHead(head["head"], head["gain"], head["measured"]) for head in plain["heads"]
        ]
        return cls(**{**plain, "heads": heads})

    def as_plain(self) -> Plain:
        return asdict(self)

    @cached_property
    def trained(self) -> list[EarlierHead]:
        """Its heads that were trained alone."""
        return [head for head in self.heads if head.gain is not None]

    @property
    def gains(self) -> list[float]:
        return [head.gain for head in self.trained if head.gain is not None]

    @property
    def spread(self) -> float:
        """Standard deviation of its gains; 1 where they are all the same."""
        gains = self.gains or [0.0]
        return 1.0 if ties.tie(max(gains), min(gains), ROUNDED) else pstdev(gains)

    def words(self) -> str:
        """What is used of it: `runs/a: 14 of 20 heads with results fit this space (the same space)`."""
        fitting, out = len(self.heads), sum(self.left_out.values())
        told = f"{self.name}: {fitting} of {_heads(fitting + out)} with results {'fits' if fitting == 1 else 'fit'} this space"
        told += " (the same space)" if self.same_space else ""
        if out:
            told += f"; {out} left out, which it lacks: {', '.join(f'{count} with {why}' for why, count in self.left_out.items())}"
        if self.others:
            told += f"; it had {', '.join(f'another {what} ({which})' for what, which in self.others.items())}"
        return told


def kept(attributes: Mapping[str, Any]) -> list[EarlierSearch]:
    """Those that a study's attributes hold; none without a warm start."""
    return [EarlierSearch.from_plain(plain) for plain in attributes.get(ATTRIBUTE) or []]


def taught(searches: Iterable[EarlierSearch]) -> int:
    """Heads of all of them that were trained alone."""
    return sum(len(one.trained) for one in searches)


def on_scale(searches: Sequence[EarlierSearch], own: Sequence[float]) -> list[list[float]]:
    """The gains of each earlier search, as far apart and about as high as the gains of this search are.

    Args:
        own: gains of this search so far.
    """
    spread = _spread(searches, own)
    found = []
    for one in searches:
        level = mean(one.gains) if one.gains else 0.0
        near = (
            level
            if not own
            else mean(own) + max(-APART * spread, min(APART * spread, level - mean(own)))
        )
        found.append([near + spread * (gain - level) / one.spread for gain in one.gains])
    return found


def _spread(searches: Sequence[EarlierSearch], own: Sequence[float]) -> float:
    """Standard deviation of this search's gains: that of earlier ones until there are own ones, and less and less so with each."""
    before = math.sqrt(mean([one.spread**2 for one in searches] or [1.0]))
    if len(own) < 2:
        return before
    return math.sqrt((len(own) * pstdev(own) ** 2 + DOUBT * before**2) / (len(own) + DOUBT))


def _heads(count: int) -> str:
    return "1 head" if count == 1 else f"{count} heads"
