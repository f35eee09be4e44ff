"""full: which training the winner gets, for as long as the budget lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.execution.jobs import Plain, State
from hssl_search.engine.planning.costs import FullTraining


def to_run(
    known: Mapping[str, Any] | None,
    ended: State,
    winner: Contender,
    chosen: Contender,
    affordable: FullTraining,
) -> Plain:
    """Return the full training that is planned, or was made; another where the winner is another,
    or where more of its steps are affordable now.

    Args:
        known: what was returned last.
        ended: how that ended; CUT where it is still to come to its end.
        chosen: who is trained: the winner, or no head where that is better.
        affordable: what is affordable now.

    Returns:
        Plain data with `steps`, 0 where nothing is affordable, `rungs`, `heads`, `name`, `winner`,
        and `number`, from 1 on.
    """
    known = known or {"number": 0, "steps": 0, "heads": None}
    number, steps = known.get("number", 1), affordable.steps
    if (
        known["steps"]
        and known["heads"] == chosen.heads
        and (ended is State.CUT or steps <= known["steps"])
    ):
        return dict(known)
    if steps == 0 and known["steps"]:
        return {**known, "steps": 0}
    return {
        "number": max(1, number + bool(known["steps"])),
        "winner": winner.trial,
        "steps": steps,
        "rungs": list(affordable.rungs),
        "heads": chosen.heads,
        "name": f"full training with {chosen.name}",
    }
