"""measure: what training costs here, found out within a small part of the budget."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import (
    MEASURE_REPORTS,
    Decision,
    Job,
    Metrics,
    Outcome,
    Report,
    State,
)
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.phases.runner import Backend, Phase, Runner
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import BudgetTooSmall, smallest_s
from hssl_search.engine.planning.preview import after_first_step, too_small
from hssl_search.engine.policy import Policy
from hssl_search.engine.statistics import ties
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

START_S = 10.0
"""Seconds of measuring that pass before a worker has loaded torch and timm."""


def limit_s(budget_s: float, policy: Policy) -> float:
    """Return the seconds in which a worker may time what multiply-adds predict too."""
    return max(1.0, min(policy.measure_share * budget_s, policy.measure_most_s) - START_S)


class Measuring(Phase):
    """The one job that measures. It is done again where it did not come to its end before.

    Args:
        continues: told what is known by each report; whether it is worth to measure on.
    """

    def __init__(
        self, job: Job, ended: dict[str, Outcome], continues: Callable[[Metrics], bool]
    ) -> None:
        done = {key: outcome for key, outcome in ended.items() if outcome.state is State.DONE}
        super().__init__([job], done)
        self._continues = continues

    def on_report(self, job: Job, report: Report) -> Decision:
        """Stop where the search is refused by what is known; the last report has all of it."""
        if report.step >= MEASURE_REPORTS or self._continues(report.metrics):
            return Decision.CONTINUE
        return Decision.STOP


def measure(
    backend: Backend,
    trials: Trials,
    jobs: JobMaker,
    seed: int,
    budget_s: float,
    fits: Callable[[float, Costs], list[str]],
    when_mended: str,
    to_the_end: bool = False,
) -> Measurement:
    """Measure what training costs here.

    Args:
        budget_s: the budget that a search will have.
        fits: options with which a smallest search would fit into so many device-seconds.
        when_mended: what a user is told to do after a failure.
        to_the_end: whether also where the first step shows that the budget is too small.

    Raises:
        BudgetTooSmall: where it is, unless `to_the_end` or the search has a plan already.
        UserError: where measuring failed, or the budget ended before it was done.
    """
    families, policy, meter = list(trials.space.families), backend.policy, backend.meter
    refused: list[tuple[float, Costs]] = []

    def continues(measured: Metrics) -> bool:
        backend.watcher.note(f"measure: {measured['doing']}.")
        # No heads are drawn yet: what is typical of the space stands for them.
        least, most = after_first_step(measured, mean(macs for _, macs in trials.typical()))
        planned = backend.study.state.plan is not None
        affordable = ties.at_least(meter.remaining(), smallest_s(least, policy))
        if to_the_end or planned or affordable:
            return True
        measuring_s = policy.measure_share * meter.budget.seconds
        # Refused where even the least does not fit, and told what suffices even at the most.
        refused.append((smallest_s(most, policy) + measuring_s, most))
        return False

    heads = [HeadConfig(family=family) for family in families]
    job = jobs.measure(heads, seed, trials.group(policy.group_size), limit_s(budget_s, policy))
    phase = Measuring(job, backend.ended, continues)
    Runner(backend, "measure", phase, {}).run()
    if refused:
        raise BudgetTooSmall(too_small(backend.run, meter, *refused[0], fits, policy))
    outcome = phase.outcomes.get(job.key, Outcome(State.CUT))
    if outcome.state is not State.DONE:
        remedy = f"extend it with: {backend.run.how_to_resume(meter.budget.newest)}"
        if outcome.cause:  # which no larger budget mends
            remedy = f"mend the cause, then {when_mended}"
        cause = outcome.cause or "the budget ended before it was done"
        raise UserError(f"measuring a few training steps did not succeed ({cause}); {remedy}.")
    return Measurement.of(outcome, families, backend.machine, policy)
