"""full: which training the winner gets, for as long as the budget holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hssl_search.search import ties
from hssl_search.search.candidates import Contender
from hssl_search.search.costs import Costs
from hssl_search.search.execution.jobs import Plain, State

FULL_SHARE = 0.9
"""Of what is left, which the full training is planned for: it must end within it though steps vary."""
EVALUATION_SHARE = 0.1
"""Of the full training's time that its evaluations may take."""


@dataclass(frozen=True)
class Wanted:
    """The full training as it was asked for."""

    steps: int
    """0 for none."""
    batches: float = 1.0
    """How many times larger its batches are than a proxy's."""

    def least(self, proxy_steps: int) -> int:
        """Return the steps below which it would be shorter than a proxy, in steps or in images: it comes out worse then."""
        return max(proxy_steps, ties.ceil(proxy_steps / self.batches))

    def affordable(self, remaining_s: float, costs: Costs, step_s: float, proxy_steps: int) -> tuple[int, list[int]]:
        """Return (steps, rungs) of what the device-seconds left hold of it; (0, []) where that is shorter than a proxy.

        Args:
            step_s: device-seconds of a step of a proxy.
        """
        steps, rungs = affordable(remaining_s, costs, self.batches * step_s, self.steps)
        return (steps, rungs) if steps >= self.least(proxy_steps) else (0, [])


def affordable(remaining_s: float, costs: Costs, step_s: float, wanted: int) -> tuple[int, list[int]]:
    """(steps, rungs) of the full training: as many of the wanted steps as the budget holds, with up to ten evaluations; 0 when none."""
    fixed = costs.between_phases() + 2 * costs.rung() + costs.last
    steps = min(wanted, ties.floor((FULL_SHARE * remaining_s - fixed) / (step_s * (1 + EVALUATION_SHARE))))
    if steps < 1:
        return 0, []
    evaluations = max(1, min(10, ties.floor(EVALUATION_SHARE * steps * step_s / costs.rung())))
    return steps, sorted({max(1, round(steps * number / evaluations)) for number in range(1, evaluations + 1)})


def to_run(known: Mapping[str, Any] | None, ended: State, winner: Contender, chosen: Contender, steps: int, rungs: list[int]) -> Plain:
    """The full training that is planned, or was made; another where the winner is, or where more of its steps are affordable now.

    Args:
        known: what was returned last.
        ended: how that ended; CUT where it is still to come to its end.
        chosen: who is trained: the winner, or no head where that is better.
        steps: that are affordable now, 0 for none; with the rungs where they are evaluated.

    Returns:
        Plain data with `steps`, 0 where nothing is affordable, `rungs`, `heads`, `name`, `winner`, and `number`, from 1 on.
    """
    known = known or {"number": 0, "steps": 0, "heads": None}
    number = known.get("number", 1)
    if known["steps"] and known["heads"] == chosen.heads and (ended is State.CUT or steps <= known["steps"]):
        return dict(known)
    if steps == 0 and known["steps"]:
        return {**known, "steps": 0}
    return {"number": max(1, number + bool(known["steps"])), "winner": winner.trial, "steps": steps, "rungs": rungs,
            "heads": chosen.heads, "name": f"full training with {chosen.name}"}
