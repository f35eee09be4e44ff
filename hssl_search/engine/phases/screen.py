"""screen: candidates in groups on one shared base; discrepancy and health of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from hssl_search.engine.execution.jobs import (
    REFERENCE_HEADS,
    Decision,
    Job,
    Metrics,
    Outcome,
    Report,
    State,
)
from hssl_search.engine.phases.context import Context
from hssl_search.engine.phases.runner import Phase, Runner
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records.results import final_metrics
from hssl_search.engine.records.state import Contender, HeadMeasures, TrialState
from hssl_search.heads.config import HeadConfig


def deal(candidates: Sequence[Contender], size: int) -> list[list[Contender]]:
    """Deal candidates like cards into groups of at most `size`, so that families which were drawn
    one after another are spread."""
    count = -(-len(candidates) // size)
    return [list(candidates[number::count]) for number in range(count)]


def heads_of(group: Sequence[Contender]) -> list[HeadConfig]:
    """Return what trains together: the candidates of the group, then the reference heads."""
    return [*(head for candidate in group for head in candidate.heads), *REFERENCE_HEADS]


def read(
    group: Sequence[Contender], metrics: Metrics, number: int
) -> tuple[dict[int, TrialState], dict[str, TrialState]]:
    """Read the metrics of the last report of the group of that number.

    `cka_excess` and `overlap_excess` are discrepancies above the identity head's in the same group;
    `discrepancy` is `overlap_excess`.

    Returns:
        (trial -> what to note, reference family -> what to note).
    """
    heads = [TrialState.model_validate(head) for head in metrics["heads"]]
    # From the end: an earlier version trained heads of another group between the two.
    *_, identity, noise = heads
    states = []
    for head in heads:
        overlap_excess = _above(head.overlap, identity.overlap)
        in_group = TrialState(
            group=number,
            cka_excess=_above(head.cka, identity.cka),
            overlap_excess=overlap_excess,
            discrepancy=overlap_excess,
            chance_loss=noise.head_loss,
        )
        states.append(head.with_set(in_group))
    # Not strict, since the reference heads behind the others belong to no candidate.
    of_trials = {candidate.trial: state for candidate, state in zip(group, states, strict=False)}
    return of_trials, {"identity": states[-2], "noise": states[-1]}


def _above(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


class _Groups(Phase):
    """Groups to be screened.

    Args:
        timed: told of each report.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        ended: Mapping[str, Outcome],
        timed: Callable[[Job, Sequence[Report]], None],
    ) -> None:
        super().__init__(jobs, ended)
        self._timed = timed

    def on_report(self, job: Job, report: Report) -> Decision:
        self._timed(job, [report])
        return super().on_report(job, report)


def screen(context: Context, plan: Plan, number: int) -> None:
    """Screen the groups of the round of that number, 0 for the first; later rounds draw their
    heads from what is known by then."""
    ends = plan.ends[: number + 1]
    candidates = context.trials.candidates(ends[-1])
    *before, dealt = (
        deal(candidates[start:end], plan.group_size) for start, end in pairwise([0, *ends])
    )
    at_once = context.machine.concurrency(len(dealt))
    jobs: list[Job] = []
    groups: dict[str, tuple[int, list[Contender]]] = {}
    expected: dict[str, float] = {}

    def expect(job: Job, reports: Sequence[Report]) -> None:
        """Expect of a group what its heads cost as they were timed, so that it tells how fast
        work gets done and nothing else."""
        _, group = groups[job.key]
        heads = reports[-1].metrics["heads"] if reports else [{}] * len(group)
        ratios = [HeadMeasures.model_validate(head).step_ratio for head in heads]
        timed = [
            Contender(candidate.trial, candidate.state.with_set(TrialState(step_ratio=ratio)))
            if ratio is not None
            else candidate
            for candidate, ratio in zip(group, ratios, strict=False)
        ]
        expected[job.key] = context.cost_model.screening(job, timed)

    for place, group in enumerate(dealt, start=sum(map(len, before))):
        reserve_s = context.cost_model.reserve() + context.cost_model.costs.profiles(len(group))
        job = context.jobs.group(
            place, heads_of(group), plan.screen_steps, context.seed, reserve_s, at_once
        )
        jobs.append(job)
        groups[job.key] = place, group
        # A group that ended in an earlier run may have died before its heads were noted, and
        # tells the pace by the same price.
        ended = context.ended.get(job.key)
        expect(job, ended.reports if ended else [])
    Runner(
        context,
        "screen",
        _Groups(jobs, context.ended, expect),
        expected,
        lambda job, outcome: _screened(context, job, outcome, *groups[job.key]),
        sole=len(jobs) == 1,
    ).run()


def _screened(
    context: Context, job: Job, outcome: Outcome, number: int, group: list[Contender]
) -> None:
    """Note what the screening of a group found; where it failed, so did its heads."""
    if outcome.state is State.CUT:
        return
    metrics = final_metrics(outcome, job.task.steps)
    if metrics is None:
        cause = f"its screening failed: {outcome.cause or 'it took too long'}"
        for candidate in group:
            context.attach(replace(job, trial=candidate.trial), outcome)
            context.trials.decide(candidate.trial, "FAIL", cause=cause)
        return
    # What was screened is known, and nothing continues from its weights.
    shutil.rmtree(job.folder, ignore_errors=True)
    found, references = read(group, metrics, number)
    for candidate in group:
        context.trials.note(candidate.trial, found[candidate.trial])
    for kind in ("identity", "noise"):
        control = context.trials.control(kind, HeadConfig(family=kind))
        if control.state.group is None:
            context.trials.note(control.trial, references[kind])
