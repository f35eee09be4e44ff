"""proxy: each promoted head alone with the base, beside two controls; the weak ones are stopped at
a rung."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean

from hssl_search.engine.candidates.promotion import Promoter
from hssl_search.engine.candidates.pruners import AtRung, Pruner
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State
from hssl_search.engine.phases.context import Context
from hssl_search.engine.phases.runner import Phase, Runner
from hssl_search.engine.planning.costs import PROXY_CONTROLS
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records.state import Contender
from hssl_search.engine.statistics.metrics import Measure
from hssl_search.heads.config import HeadConfig


class Proxy(Phase):
    """Proxies with early stopping. Controls are never stopped, and count for the others.

    Args:
        jobs: those to begin with.
        total: how many there will be.
        choose: the next job, asked for when these are handed out; None when there is none. It may
            read `scores`.
        resolution: step in which scores move.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        ended: Mapping[str, Outcome],
        contenders: Mapping[int, Contender],
        ranked_by: Measure,
        on_score: Callable[[Job, int, float], None],
        pruner: Pruner,
        total: int,
        choose: Callable[[], Job | None],
        resolution: float = 0.0,
    ) -> None:
        self.contenders, self.ranked_by, self.on_score, self.pruner = (
            contenders,
            ranked_by,
            on_score,
            pruner,
        )
        self.total, self.choose, self.resolution = total, choose, resolution
        self._at_rung: dict[int, dict[int, AtRung]] = {}
        self._reached: dict[int, int] = {}
        """trial -> last rung with a score, of the proxies that `scores` counts."""
        super().__init__(jobs, ended)  # last: it calls `add`

    def add(self, job: Job) -> None:
        super().add(job)
        known = self.outcomes.get(job.key) or self.cut.get(job.key)
        for report in known.reports if known else []:
            self._note(job, report)
        if job.key in self.outcomes:
            self._count(job, self.outcomes[job.key])

    def waiting(self) -> int:
        return super().waiting() + self.total - len(self.jobs)

    def next_job(self) -> Job | None:
        while (
            (job := super().next_job()) is None
            and len(self.jobs) < self.total
            and (chosen := self.choose()) is not None
        ):
            self.add(chosen)
        return job

    def scores(self) -> dict[int, float]:
        """Return trial -> score of the proxies that have ended by themselves or were stopped.

        One that was stopped at a rung is taken to gain as much from there to the end as those that
        continued have, in the mean.
        """
        steps = set(self._reached.values())
        gains = {}
        for step in steps:
            at, last = self._at_rung[step], self._at_rung[max(steps)]
            gained = [last[trial].score - at[trial].score for trial in at.keys() & last.keys()]
            gains[step] = fmean(gained) if gained else 0.0
        return {
            trial: self._at_rung[step][trial].score + gains[step]
            for trial, step in self._reached.items()
        }

    def on_end(self, job: Job, outcome: Outcome) -> None:
        super().on_end(job, outcome)
        self._count(job, outcome)

    def _count(self, job: Job, outcome: Outcome) -> None:
        """Count a proxy among `scores`, by the last rung where it had one."""
        assert job.trial is not None
        steps = [step for step, at in self._at_rung.items() if job.trial in at]
        if steps and outcome.reports and outcome.state in (State.DONE, State.STOPPED):
            self._reached[job.trial] = max(steps)

    def on_report(self, job: Job, report: Report) -> Decision:
        if report.step not in job.task.rungs:  # where it ran out of time
            return Decision.CONTINUE
        at = self._at_rung.get(report.step, {})
        # Without itself: one that continues after a cut may report a rung again.
        others = {trial: other for trial, other in at.items() if trial != job.trial}
        reached = self._note(job, report)
        if reached is None:
            return Decision.CONTINUE
        self.on_score(job, report.step, reached.score)
        last = report.step >= job.task.steps
        if reached.control or last or not math.isfinite(reached.score):
            return Decision.CONTINUE
        stops = self.pruner.stops(reached, others, self.resolution)
        return Decision.STOP if stops else Decision.CONTINUE

    def _note(self, job: Job, report: Report) -> AtRung | None:
        """Keep the score of a report; None where it has none."""
        assert job.trial is not None
        if (score := self.ranked_by.score(report.metrics)) is None:
            return None
        reached = AtRung(job.trial, score, self.contenders[job.trial].control is not None)
        if math.isfinite(score):  # no other is judged beside a value that is no number
            self._at_rung.setdefault(report.step, {})[job.trial] = reached
        return reached


def run_proxies(
    context: Context, promoter: Promoter, pruner: Pruner, plan: Plan, number: int
) -> dict[int, float]:
    """Train the promoted heads of the round of that number and of those before, each chosen when
    there is a place for it, and return their scores."""
    promoter.reject()
    no_head = context.trials.control("none")
    identity = context.trials.control("identity", HeadConfig(family="identity"))
    # The first is promoted without scores: no proxy has ended yet.
    promoted = promoter.promoted() or list(filter(None, [promoter.promote(dict)]))
    total = PROXY_CONTROLS + max(len(promoted), min(plan.promoted_by(number), promoter.healthy()))
    at_once = context.machine.concurrency(total)
    contenders: dict[int, Contender] = {}
    expected: dict[str, float] = {}

    def job_of(contender: Contender) -> Job:
        job = context.jobs.training(
            "proxy",
            contender,
            context.seed,
            plan.proxy_steps,
            plan.rungs,
            context.cost_model.reserve(),
            at_once,
        )
        contenders[contender.trial] = contender
        expected[job.key] = context.cost_model.training(job, contender)
        context.recall(job)
        return job

    def choose() -> Job | None:
        enough = len(expected) >= PROXY_CONTROLS + context.policy.fewest_proxies
        if enough and sum(expected.values()) + max(expected.values()) > most_s:
            phase.total = len(phase.jobs)
            context.watcher.note(
                "The promoted heads cost more than was planned: "
                f"{total - phase.total} fewer proxies."
            )
            return None
        candidate = None if "proxy" in context.short else promoter.promote(phase.scores)
        return None if candidate is None else job_of(candidate)

    most_s = context.policy.proxies_overrun * context.cost_model.proxies(plan)
    # Should the budget end early, there is something to compare.
    first = [no_head, *promoted[:1], identity, *promoted[1:]]
    phase = Proxy(
        [job_of(contender) for contender in first],
        context.ended,
        contenders,
        context.board.results.ranked_by,
        context.board.report,
        pruner,
        total,
        choose,
        context.board.results.table().resolution,
    )
    keep_s = context.cost_model.confirming(plan, context.policy.fewest_confirm_jobs)
    Runner(context, "proxy", phase, expected, context.board.take, keep_s=keep_s).run()
    return phase.scores()
