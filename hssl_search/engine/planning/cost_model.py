"""What the measure phase found, and what jobs therefore cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from hssl_search.engine.execution.jobs import Job, Metrics, Outcome, Setting
from hssl_search.engine.execution.machine import Machine, packed
from hssl_search.engine.planning.costs import (
    LEAST_SHARE,
    PROXY_CONTROLS,
    REFERENCES,
    Costs,
    Wanted,
    confirming_cost,
    head_cost_s,
    proxies_cost,
)
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.state import Contender
from hssl_search.engine.statistics.metrics import Measure


@dataclass(frozen=True)
class Measurement:
    """What the measure job found of this base, these heads and this machine."""

    costs: Costs
    macs: Mapping[str, int]
    """Multiply-adds of each family's default head."""
    references: Mapping[str, Metrics]
    """What was measured of raw pixels and of the untrained base."""
    precision: str
    images: int
    gpu_share: float = 1.0
    """Of a GPU, that one training has to hold for its memory."""
    memory_bytes: int | None = None
    """At the most, in training."""
    checkpoint_bytes: int | None = None
    """Of one checkpoint of the base with a head."""
    side_by_side: float = 1.0
    """How many times the core-seconds of a step on all cores it takes on the fewest that a job may
    have."""

    @classmethod
    def of(
        cls, outcome: Outcome, families: Sequence[str], machine: Machine, policy: Policy = DEFAULT
    ) -> Measurement:
        """Read the measure job's outcome; seconds become device-seconds."""
        metrics = outcome.reports[-1].metrics
        held = 1.0 if machine.device == "cpu" else machine.gpus_per_trial
        seconds = outcome.seconds if outcome.last_s is None else outcome.last_s
        ratio = metrics.get("side_by_side", 1.0)
        # Proxies have more or fewer cores by how many there are: the dearest share counts.
        at_once = range(policy.fewest_confirm_jobs, PROXY_CONTROLS + policy.most_proxies + 1)
        cores = {machine.resources(machine.concurrency(jobs))[0] for jobs in at_once}
        # The job's time without what its worker reports is what starting the worker takes.
        costs = Costs(
            step=held * metrics["step_s"],
            heads={
                family: held * head_s
                for family, head_s in zip(families, metrics["head_step_s"], strict=True)
            },
            evaluate=held * metrics["evaluate_s"],
            checkpoint=held * metrics["checkpoint_s"],
            startup=held * max(0.0, seconds - metrics["worker_s"]),
            profile=held * metrics["profile_s"],
            joint=metrics["joint"],
            last=held * metrics["last_evaluate_s"],
            side_by_side=max(machine.cores_used(cpus, ratio) for cpus in cores),
        )
        # None on a CPU: nothing is packed by memory there.
        gpu_bytes = metrics.get("gpu_bytes")
        return cls(
            costs,
            {family: cost[1] for family, cost in zip(families, metrics["costs"], strict=True)},
            _references(metrics["reference"]),
            metrics["precision"],
            metrics["images"],
            gpu_share=packed(metrics["memory_bytes"], gpu_bytes) if gpu_bytes else 1.0,
            memory_bytes=metrics.get("memory_bytes"),
            checkpoint_bytes=metrics.get("checkpoint_bytes"),
            side_by_side=ratio,
        )

    def reference(self, measure: Measure) -> dict[str, float]:
        """Return the score of each reference that has one: accuracies need labels, and pixels have
        nothing but an accuracy."""
        scores = {name: measure.score(metrics) for name, metrics in self.references.items()}
        return {name: score for name, score in scores.items() if score is not None}

    def head_s(self, family: str, macs: int) -> float:
        """Return the device-seconds that a head adds to a step."""
        # Controls add next to nothing; an unmeasured family is taken for a mean one.
        if not self.macs.get(family):
            return 0.0 if family in ("identity", "noise", "none") else self.costs.mean_head
        return head_cost_s(self.costs.heads[family], self.macs[family], macs)

    def settle(self, setting: Setting) -> Setting:
        """Return the setting with `precision: auto` replaced by what was faster."""
        recipe = dict(setting.recipe)
        for stage in ("proxy", "full"):
            if recipe[stage]["precision"] == "auto":
                recipe[stage] = {**recipe[stage], "precision": self.precision}
        return setting.model_copy(update={"recipe": recipe})

    def full(self, setting: Setting, epochs: int | str) -> Wanted:
        """Return the full training of so many epochs; none of `off`. Its batches may be larger than
        a proxy's."""
        batch, proxy_batch = (setting.recipe[stage]["batch_size"] for stage in ("full", "proxy"))
        steps = 0 if isinstance(epochs, str) else epochs * max(1, self.images // batch)
        return Wanted(steps, min(self.images, batch) / min(self.images, proxy_batch))


def _references(measured: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """Return the references by names for people; a base's accuracy by another token than the one
    that ranks is a row of its own."""
    rows = {}
    for name, metrics in measured.items():
        tokens = {
            key: key.removeprefix("accuracy_") for key in metrics if key.startswith("accuracy_")
        }
        rows[name] = {key: value for key, value in metrics.items() if key not in tokens}
        rows |= {
            f"{name}, {token} token": {"accuracy": metrics[key]} for key, token in tokens.items()
        }
    return rows


class CostModel:
    """What the jobs of a search cost.

    Args:
        typical: (family, multiply-adds) of heads as the space has them.
        pace: device-seconds taken for each one expected.
        machine: the whole.
    """

    def __init__(
        self,
        measured: Measurement,
        setting: Setting,
        typical: Iterable[tuple[str, int]],
        pace: Callable[[], float],
        machine: Machine,
    ) -> None:
        self._measured, self._setting, self._pace = measured, setting, pace
        self.costs, self._machine, self.typical = measured.costs, machine, list(typical)
        self._reference_s = mean(measured.head_s(*head) for head in self.typical)
        """What each reference head of a group adds to a step, whichever heads are promoted."""
        self.planned = replace(self.costs, heads={"typical": self._reference_s})
        """The costs with the mean of typical heads as the only head; once heads are promoted, with
        the mean of those."""

    @property
    def pace(self) -> float:
        """Return the pace of work that is to be on the safe side."""
        return max(1.0, self._pace())

    def at_pace(self) -> Costs:
        """Return the planned costs as they turned out."""
        return self.planned.scaled(self.pace)

    def promoted(self, heads: Sequence[Contender]) -> None:
        """Plan from now on with the mean of these heads as the only head."""
        self.expect(mean(map(self.head, heads)) if heads else None)

    def expect(self, head_s: float | None) -> None:
        """Plan from now on with a head that adds so much to a step; None: as before."""
        if head_s is not None:
            self.planned = replace(self.costs, heads={"promoted heads": head_s})

    def head(self, contender: Contender) -> float:
        """Return what a head adds to a step: as its screening timed it, else what its family's
        default head adds, by multiply-adds."""
        if not contender.heads:
            return 0.0
        # Also the floor of what a timing may say, below.
        by_family = self._measured.head_s(contender.family, contender.state.macs or 0)
        if (ratio := contender.state.step_ratio) is None:
            return by_family
        # Timed over two steps: a cheap head may have looked faster than none.
        return max(LEAST_SHARE * by_family, (ratio - 1) * self.costs.step)

    def step(self, together: Sequence[Contender]) -> float:
        """Return what a step of the base costs with these heads together."""
        return self.costs.step + sum(map(self.head, together))

    def times_base(self, contender: Contender) -> float:
        """Return how many times the base's step one with this head takes."""
        return self.step([contender]) / self.costs.step

    def costly(self, most: float) -> dict[str, float]:
        """Return family -> how many times the base's step one with its costliest typical head
        takes, where that is more than so many."""
        costliest: dict[str, float] = {}
        for family, macs in self.typical:
            times = 1 + self._measured.head_s(family, macs) / self.costs.step
            if times > most:
                costliest[family] = max(times, costliest.get(family, 0.0))
        return costliest

    def training(self, job: Job, contender: Contender) -> float:
        """Return what a training of one contender costs, on a worker that is up."""
        factor = self._machine.cores_used(job.cpus, self._measured.side_by_side)
        step_s = self.step([contender])
        return factor * self.costs.training(job.task.steps, step_s, len(job.task.rungs))

    def screening(self, job: Job, group: Sequence[Contender]) -> float:
        """Return what a joint screening costs, on a worker that is up, as if it had all cores:
        beside others many heads gain little of having fewer."""
        heads_s = sum(map(self.head, group)) + REFERENCES * self._reference_s
        step_s = self.costs.together(heads_s)
        training_s = self.costs.training(job.task.steps, step_s, len(job.task.rungs))
        return training_s + self.costs.profiles(len(group))

    def proxies(self, plan: Plan) -> float:
        """Return what the proxies of the plan cost with their controls, as their heads were
        expected to cost."""
        return proxies_cost(self.planned, plan.proxies, plan.proxy_steps, len(plan.rungs))

    def confirming(self, plan: Plan, jobs: int) -> float:
        """Return what so many confirming runs cost."""
        return confirming_cost(self.planned, jobs, plan.proxy_steps)

    def further_seeds(self, plan: Plan, contenders: Sequence[Contender]) -> dict[int, float]:
        """Return trial -> what one more seed costs, at the pace of the search."""
        # As it is and not on the safe side: it is told to a user, and starts nothing.
        pace = self._pace() * self.costs.side_by_side
        return {
            contender.trial: pace * self.costs.training(plan.proxy_steps, self.step([contender]), 1)
            for contender in contenders
        }

    def full(self, epochs: int | str) -> Wanted:
        """Return the full training of so many epochs; none of `off`."""
        return self._measured.full(self._setting, epochs)

    def reserve(self) -> float:
        """Return what a worker keeps for its last evaluation and checkpoint, at the pace of the
        search."""
        return self.pace * (2 * self.costs.rung() + self.costs.last)
