"""screen: candidates in groups on one shared base; discrepancy and health of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from hssl_search.engine.candidates.candidate import Contender, final_metrics
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.execution.jobs import (
    REFERENCE_HEADS,
    Decision,
    Job,
    Outcome,
    Plain,
    Report,
    State,
)
from hssl_search.engine.phases import screen
from hssl_search.engine.phases.jobs import Workshop
from hssl_search.engine.phases.phase import Phase
from hssl_search.engine.planning.cost_model import RATIO, CostModel
from hssl_search.engine.planning.costs import repeats
from hssl_search.engine.planning.plan import Plan
from hssl_search.heads.config import HeadConfig


@dataclass(frozen=True)
class Group:
    """What is screened together, beside the reference heads."""

    number: int
    own: list[Contender]
    again: list[Contender]
    """Heads of the group before, screened a second time in other company."""

    @property
    def members(self) -> list[Contender]:
        return [*self.own, *self.again]


def groups(candidates: Sequence[Contender], size: int) -> Iterator[tuple[int, list[Contender]]]:
    """(number, members): dealt like cards, so that families sampled one after another are spread."""
    count = -(-len(candidates) // size)
    yield from ((number, list(candidates[number::count])) for number in range(count))


def heads_of(group: Sequence[Contender]) -> list[HeadConfig]:
    """What trains together: the candidates of the group, then the reference heads."""
    return [*(HeadConfig(**one.heads[0]) for one in group), *REFERENCE_HEADS]


def read(group: Sequence[Contender], metrics: Plain) -> tuple[dict[int, Plain], dict[str, Plain]]:
    """(trial -> attributes, reference family -> attributes) from the metrics of a group's last report.

    `cka_excess` and `overlap_excess` are discrepancies above the identity head's in the same group; `discrepancy` is `overlap_excess`.
    """
    measured = metrics["heads"]
    identity, noise = measured[len(group)], measured[len(group) + 1]
    attributes = [_attributes(one, identity, noise) for one in measured]
    references = {"identity": attributes[len(group)], "noise": attributes[len(group) + 1]}
    return {one.trial: found for one, found in zip(group, attributes, strict=False)}, references


def briefly(attributes: Plain, number: int) -> Plain:
    """What is kept of a head's second screening, in the group of that number."""
    return {
        "group": number,
        **{name: attributes[name] for name in ("overlap_excess", "cka_excess", "gate")},
    }


def _attributes(one: Plain, identity: Plain, noise: Plain) -> Plain:
    excess = {f"{name}_excess": one[name] - identity[name] for name in ("cka", "overlap")}
    return {
        **one,
        **excess,
        "discrepancy": excess["overlap_excess"],
        "chance_loss": noise["head_loss"],
    }


class _Groups(Phase):
    """Groups to be screened.

    Args:
        timed: told of each report.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        ended: Mapping[str, Outcome],
        timed: Callable[[Job, Report], None],
    ) -> None:
        super().__init__(jobs, ended)
        self._timed = timed

    def on_report(self, job: Job, report: Report) -> Decision:
        self._timed(job, report)
        return super().on_report(job, report)


def _timed(members: Sequence[Contender], reports: Sequence[Report]) -> list[Contender]:
    """Return the contenders with what their heads were timed at in the last of these reports, as far as they were."""
    if not reports:
        return list(members)
    return [
        replace(
            one, attributes={**one.attributes, **({RATIO: head[RATIO]} if RATIO in head else {})}
        )
        for one, head in zip(members, reports[-1].metrics["heads"], strict=False)
    ]


class Screening:
    def __init__(
        self, trials: Trials, workshop: Workshop, cost_model: CostModel, seed: int
    ) -> None:
        self.trials, self.workshop, self.cost_model, self.seed = trials, workshop, cost_model, seed

    def run(self, plan: Plan, number: int) -> None:
        """Screen the groups of the round of that number, 0 for the first; later ones draw their heads from what is known by then."""
        groups = self._groups(plan, plan.ends[: number + 1])
        at_once = self.workshop.machine.concurrency(len(groups))
        jobs: dict[str, tuple[Job, screen.Group]] = {}
        expected = {}
        for group in groups:
            reserve_s = self.cost_model.reserve() + self.cost_model.costs.profiles(
                len(group.members)
            )
            job = self.workshop.maker.group(
                group.number,
                screen.heads_of(group.members),
                plan.screen_steps,
                self.seed,
                reserve_s,
                at_once,
            )
            jobs[job.key] = job, group
            # A group that ended in an earlier run may have died before its heads were noted, and tells the pace by the same price.
            before = self.workshop.ended.get(job.key)
            expected[job.key] = self.cost_model.screening(
                job, _timed(group.members, before.reports if before else [])
            )

        def timed(job: Job, report: Report) -> None:
            """Expect of a group what its heads cost as they were timed, so that it tells how fast work gets done and nothing else."""
            expected[job.key] = self.cost_model.screening(
                job, _timed(jobs[job.key][1].members, [report])
            )

        self.workshop.run(
            "screen",
            _Groups([job for job, _ in jobs.values()], self.workshop.ended, timed),
            expected,
            lambda job, outcome: self._screened(job, outcome, jobs[job.key][1]),
        )

    def _groups(self, plan: Plan, ends: Sequence[int]) -> list[screen.Group]:
        """The groups of one round; of all groups, those after the first screen a few heads of the one before again.

        Not the first of an extension: heads of before are decided by then, and what is found of them could not be kept.
        """
        candidates = self.trials.candidates(ends[-1])
        dealt = [
            [own for _, own in screen.groups(candidates[start:end], plan.group_size)]
            for start, end in pairwise([0, *ends])
        ]
        *before, last = accumulate(dealt)
        earlier, again = len(before[-1]) if before else 0, repeats(plan.first_groups)
        alone = earlier if len(ends) > plan.first_rounds else 0
        return [
            screen.Group(place, last[place], [] if place == alone else last[place - 1][:again])
            for place in range(earlier, len(last))
        ]

    def _screened(self, job: Job, outcome: Outcome, group: screen.Group) -> None:
        if outcome.state is State.CUT:
            return
        metrics = final_metrics(outcome, job.task.steps)
        if metrics is None:
            for one in group.own:
                self.workshop.runner.show(replace(job, trial=one.trial), outcome)
                self.trials.decide(
                    one.trial,
                    "FAIL",
                    cause=f"its screening failed: {outcome.cause or 'it took too long'}",
                )
            return
        shutil.rmtree(
            job.folder, ignore_errors=True
        )  # what was screened is known, and nothing goes on from its weights
        found, references = screen.read(group.members, metrics)
        for one in group.own:
            self.trials.note(one.trial, {**found[one.trial], "group": group.number})
        for one in group.again:
            self.trials.note(one.trial, {"again": screen.briefly(found[one.trial], group.number)})
        for kind in ("identity", "noise"):
            control = self.trials.control(kind, {"family": kind})
            if "group" not in control.attributes:
                self.trials.note(control.trial, {**references[kind], "group": group.number})
