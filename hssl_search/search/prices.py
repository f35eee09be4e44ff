"""What jobs of a search take: device-seconds as they were measured, and at the pace that the search has shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import mean

from hssl_search.search.candidates import Contender
from hssl_search.search.costs import REFERENCES, Costs, proxy_cost
from hssl_search.search.execution.jobs import Job
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.jobmaker import Machine
from hssl_search.search.measured import Measured
from hssl_search.search.plan import Plan


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
        self.planned = replace(self.costs, heads={"typical": mean(measured.head_s(family, macs) for family, macs in typical)})
        """The costs with the mean of typical heads as the only head."""

    @property
    def pace(self) -> float:
        """That of work which is to be on the safe side."""
        return max(1.0, self._pace())

    def at_pace(self) -> Costs:
        """The planned costs as they turned out."""
        return self.planned.scaled(self.pace)

    def step(self, together: Sequence[Contender]) -> float:
        """A step of the base with these heads together."""
        return self.costs.step + sum(self._measured.head_s(one.family, one.attributes["macs"]) for one in together if one.heads)

    def training(self, job: Job, one: Contender) -> float:
        """A training of one contender, on a worker that is up."""
        factor = self._machine.cores_used(job.cpus, self._measured.side_by_side)
        return factor * self.costs.training(job.task["steps"], self.step([one]), len(job.task["rungs"]))

    def screening(self, job: Job, group: Sequence[Contender]) -> float:
        """A joint screening, on a worker that is up, as if it had all cores: beside others many heads gain little of having fewer."""
        step_s = self.costs.together(self.step(group) - self.costs.step + REFERENCES * self.planned.mean_head)
        return self.costs.training(job.task["steps"], step_s, len(job.task["rungs"])) + self.costs.profiles(len(group))

    def typical_proxy(self, plan: Plan) -> float:
        return proxy_cost(self.planned, plan.proxy_steps, len(plan.rungs))

    def further_seeds(self, plan: Plan, contenders: Sequence[Contender]) -> dict[int, float]:
        """trial -> one more seed, at the pace of the search."""
        pace = self._pace() * self.costs.side_by_side
        return {one.trial: pace * self.costs.training(plan.proxy_steps, self.step([one]), 1) for one in contenders}

    def full_step(self, step_s: float) -> float:
        """A step of the full training where one of a proxy takes so long."""
        return self._measured.full_step_s(self._setting, step_s)

    def full_steps(self, epochs: int | str) -> int:
        """Steps of a full training of so many epochs; none of `off`."""
        return 0 if isinstance(epochs, str) else epochs * self._measured.full_steps(self._setting)

    def reserve(self) -> float:
        """What a worker keeps for its last evaluation and checkpoint, at the pace of the search."""
        return self.pace * (2 * self.costs.rung() + self.costs.last)
