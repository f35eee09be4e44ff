"""full: which training the winner gets, for as long as the budget lasts."""

from __future__ import annotations

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.execution.jobs import State
from hssl_search.engine.planning.costs import FullTraining
from hssl_search.engine.records.state import FullState


def to_run(
    known: FullState | None,
    ended: State,
    winner: Contender,
    chosen: Contender,
    affordable: FullTraining,
) -> FullState:
    """Return the full training that is planned, or was made; another where the winner is another,
    or where more of its steps are affordable now.

    Args:
        known: what was returned last.
        ended: how that ended; CUT where it is still to come to its end.
        chosen: who is trained: the winner, or no head where that is better.
        affordable: what is affordable now.
    """
    number, steps = 1 if known is None else known.number, affordable.steps
    if known is not None and known.steps:
        same = list(known.heads) == chosen.heads
        if same and (ended is State.CUT or steps <= known.steps):
            return known
        if steps == 0:
            return known.with_set(FullState(steps=0))
        number += 1
    return FullState(
        number=number,
        winner=winner.trial,
        steps=steps,
        rungs=tuple(affordable.rungs),
        heads=tuple(chosen.heads),
        name=f"full training with {chosen.name}",
    )
