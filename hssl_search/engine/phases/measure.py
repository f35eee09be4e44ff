"""measure: what training costs here, found out within a small part of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Plain, Report, State
from hssl_search.engine.phases.phase import Phase

SHARE = 0.05
"""Of the budget that measuring may take."""
MOST_S = 120.0
"""Seconds that it may take at most, of however large a budget, for what multiply-adds predict too."""
START_S = 10.0
"""Of those, what passes before a worker has loaded torch and timm."""
STAGES = 4
"""Reports: the base's first step, the base's step, the heads, all."""


def limit_s(budget_s: float) -> float:
    """Return the seconds in which a worker may time what multiply-adds predict too."""
    return max(1.0, min(SHARE * budget_s, MOST_S) - START_S)


class Measuring(Phase):
    """The one job that measures. It is done again where it did not come to its end before.

    Args:
        goes_on: told what is known by each report; whether it is worth to measure on.
    """

    def __init__(
        self, job: Job, ended: Mapping[str, Outcome], goes_on: Callable[[Plain], bool]
    ) -> None:
        super().__init__(
            [job], {key: outcome for key, outcome in ended.items() if outcome.state is State.DONE}
        )
        self._goes_on = goes_on

    def on_report(self, job: Job, report: Report) -> Decision:
        return (
            Decision.CONTINUE
            if report.step >= STAGES or self._goes_on(report.metrics)
            else Decision.STOP
        )
