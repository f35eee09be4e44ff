"""What jobs of a search take: device-seconds as they were measured, and at the pace that the search has shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import mean

from hssl_search.search.candidates import Contender
from hssl_search.search.costs import LEAST_SHARE, REFERENCES, Costs, confirming_cost, proxies_cost
from hssl_search.search.execution.jobs import Job
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.jobmaker import Machine
from hssl_search.search.measured import Measured
from hssl_search.search.phases.full import Wanted
from hssl_search.search.plan import Plan

RATIO = "step_ratio"
"""Attribute of a screened head: how many times the seconds of the base's step one with this head alone takes, in the same worker."""


class Prices:
    """
    Args:
        typical: (family, multiply-adds) of heads as the space has them.
        pace: device-seconds taken for each one expected.
        machine: the whole.
    """

    def __init__(self, measured: Measured, setting: Setting, typical: Iterable[tuple[str, int]], pace: Callable[[], float],
                 machine: Machine) -> None:
        self.costs, self._measured, self._setting, self._pace, self._machine = measured.costs, measured, setting, pace, machine
        self.typical = list(typical)
        self.planned = replace(self.costs, heads={"typical": mean(measured.head_s(family, macs) for family, macs in self.typical)})
        """The costs with the mean of typical heads as the only head; once heads are promoted, with the mean of those."""

    @property
    def pace(self) -> float:
        """That of work which is to be on the safe side."""
        return max(1.0, self._pace())

    def at_pace(self) -> Costs:
        """The planned costs as they turned out."""
        return self.planned.scaled(self.pace)

    def promoted(self, heads: Sequence[Contender]) -> None:
        """Plan from now on with the mean of these heads as the only head."""
        self.expect(mean(map(self.head, heads)) if heads else None)

    def expect(self, head_s: float | None) -> None:
        """Plan from now on with a head that adds so much to a step; None: as before."""
        if head_s is not None:
            self.planned = replace(self.costs, heads={"promoted": head_s})

    def head(self, one: Contender) -> float:
        """What a head adds to a step: as its screening timed it, else what its family's default head adds, by multiply-adds."""
        if not one.heads:
            return 0.0
        by_family = self._measured.head_s(one.family, one.attributes["macs"])
        if (ratio := one.attributes.get(RATIO)) is None:
            return by_family
        return max(LEAST_SHARE * by_family, (ratio - 1) * self.costs.step)

    def step(self, together: Sequence[Contender]) -> float:
        """A step of the base with these heads together."""
        return self.costs.step + sum(map(self.head, together))

    def times_base(self, one: Contender) -> float:
        """How many times the base's step one with this head takes."""
        return self.step([one]) / self.costs.step

    def costly(self, most: float) -> dict[str, float]:
        """family -> how many times the base's step one with its costliest typical head takes, where that is more than so many."""
        found: dict[str, float] = {}
        for family, macs in self.typical:
            times = 1 + self._measured.head_s(family, macs) / self.costs.step
            if times > most:
                found[family] = max(times, found.get(family, 0.0))
        return found

    def training(self, job: Job, one: Contender) -> float:
        """A training of one contender, on a worker that is up."""
        factor = self._machine.cores_used(job.cpus, self._measured.side_by_side)
        return factor * self.costs.training(job.task["steps"], self.step([one]), len(job.task["rungs"]))

    def screening(self, job: Job, group: Sequence[Contender]) -> float:
        """A joint screening, on a worker that is up, as if it had all cores: beside others many heads gain little of having fewer."""
        step_s = self.costs.together(self.step(group) - self.costs.step + REFERENCES * self.planned.mean_head)
        return self.costs.training(job.task["steps"], step_s, len(job.task["rungs"])) + self.costs.profiles(len(group))

    def proxies(self, plan: Plan) -> float:
        """The proxies of the plan with their controls, as their heads were expected to cost."""
        return proxies_cost(self.planned, plan.proxies, plan.proxy_steps, len(plan.rungs))

    def confirming(self, plan: Plan, jobs: int) -> float:
        """So many confirming runs."""
        return confirming_cost(self.planned, jobs, plan.proxy_steps)

    def further_seeds(self, plan: Plan, contenders: Sequence[Contender]) -> dict[int, float]:
        """trial -> one more seed, at the pace of the search."""
        pace = self._pace() * self.costs.side_by_side
        return {one.trial: pace * self.costs.training(plan.proxy_steps, self.step([one]), 1) for one in contenders}

    def full(self, epochs: int | str) -> Wanted:
        """The full training of so many epochs; none of `off`."""
        steps = 0 if isinstance(epochs, str) else epochs * self._measured.full_steps(self._setting)
        return Wanted(steps, self._measured.full_step_s(self._setting, 1.0))

    def reserve(self) -> float:
        """What a worker keeps for its last evaluation and checkpoint, at the pace of the search."""
        return self.pace * (2 * self.costs.rung() + self.costs.last)
