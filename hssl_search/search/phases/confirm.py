"""confirm: the remaining controls, then more seeds where they decide most, chosen as results come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hssl_search.search.execution.jobs import Job, Outcome
from hssl_search.search.inference import Scores, TwoWay
from hssl_search.search.phases.phase import Phase
from hssl_search.search.posterior import Posterior, best

CONTENTION = 0.05
"""Probability of being better than the leader below which a trial gets no more seeds."""
PARTNERS = ("no head", "no head", "challenger", "identity")
"""Whom the leader is run beside, in turns: the two of a turn share their seeds."""


@dataclass(frozen=True)
class Field:
    """The trials that confirming is about."""

    candidates: tuple[int, ...]
    """With a score; at least one."""
    no_head: int | None
    """The control to beat; None where it has no score to compare."""
    identity: int
    unseen: tuple[int, ...]
    """Controls without a run so far."""


def choose(field: Field, scores: Scores, tried: Mapping[int, int], resolution: float = 0.0) -> int | None:
    """The trial to run next with a seed that it has not had; None when there is nothing left to settle.

    First the controls that had no run, then one of the leader and its partner: whichever has had fewer runs. Leader and challenger are
    those that the present scores expect to be the best two candidates; a challenger and the identity head are in it as long as they
    have a chance to be better than the leader.

    Args:
        tried: runs of each trial, those not ended and those that came to nothing too.
    """
    if unseen := [trial for trial in field.unseen if not tried.get(trial)]:
        return unseen[0]
    leader = best(scores, field.candidates, resolution)
    assert leader is not None
    chances = _chances(field, scores, leader, resolution)
    if settled(field, scores, leader, chances, resolution):
        return None
    runs = sum(tried.values())
    challenger = max((trial for trial in field.candidates if trial != leader), key=lambda trial: (chances[trial], -trial), default=None)
    partner = {"no head": field.no_head, "challenger": challenger, "identity": field.identity}[PARTNERS[runs % len(PARTNERS)]]
