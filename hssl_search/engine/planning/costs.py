"""Costs: device-seconds of work, as they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.statistics import ties

REFERENCES = 2
"""The identity and the noise head in every group."""
PROXY_CONTROLS = 2
"""No head and identity head."""
LEAST_SHARE = 0.25
"""Of the default head's time that a smaller head of its family costs at least."""
ALONE = 2
"""Steps of each screened head alone with the base, after its group's screening, so that a proxy's
cost is known before it is promoted."""
CONFIRMED_HEADS = 0.75
"""Heads in a confirming run on average: of the first four runs, three train a head or as long as
with one."""
PHASE_OVERHEAD_S = 3.0
"""Seconds in which one phase is wound up and the next begun, workers not counted."""


@dataclass(frozen=True)
class Costs:
    """Measured costs in device-seconds: of the whole machine on CPU, of the GPUs that one trial
    holds otherwise."""

    step: float
    """One step of the base without head."""
    heads: Mapping[str, float]
    """What a default head of each family adds to a step."""
    evaluate: float
    checkpoint: float
    startup: float
    """From launching a worker to its first step. Workers are used again within a phase."""
    profile: float = 0.0
    """Measuring the structure of one base or head."""
    joint: float = 1.0
    """How many times longer a step with several heads at once takes than the base's step and what
    each head adds alone."""
    last: float = 0.0
    """What the last evaluation of a training takes more than those before it."""
    side_by_side: float = 1.0
    """How many times the device-seconds of a step that has the machine to itself one takes in a
    proxy beside others, at the most: on a CPU fewer, since a few threads wait less for each other
    than many."""

    @property
    def mean_head(self) -> float:
        """Return what a head adds to a step, in the mean over families."""
        return sum(self.heads.values()) / max(1, len(self.heads))

    def rung(self) -> float:
        """Return what an evaluation with its checkpoint costs."""
        return self.evaluate + self.checkpoint

    def profiles(self, candidates: int) -> float:
        """Return what it costs to measure the structures of the base and of a group's heads, and to
        time each candidate alone."""
        # The base is timed alone too: a head's cost is the ratio of the two.
        alone_s = ALONE * ((1 + candidates) * self.step + candidates * self.mean_head)
        return (1 + candidates + REFERENCES) * self.profile + alone_s

    def together(self, heads_s: float) -> float:
        """Return what a joint step costs with heads that add so much one by one."""
        return self.joint * (self.step + heads_s)

    def scaled(self, pace: float) -> Costs:
        """Return the costs of work that takes `pace` times what was measured."""
        heads = {family: pace * seconds for family, seconds in self.heads.items()}
        return replace(
            self,
            step=pace * self.step,
            heads=heads,
            evaluate=pace * self.evaluate,
            checkpoint=pace * self.checkpoint,
            profile=pace * self.profile,
            last=pace * self.last,
        )

    @property
    def beside_others(self) -> Costs:
        """Return the costs of jobs that run side by side."""
        # Counted once: what is scaled already is not to be scaled again.
        return replace(self.scaled(self.side_by_side), side_by_side=1.0)

    def training(self, steps: int, step_s: float, rungs: int) -> float:
        """Return what a job costs on a worker that is up."""
        return steps * step_s + rungs * self.rung() + self.last

    def between_phases(self) -> float:
        """Return what passes from the end of one phase to the first steps of the next."""
        return self.startup + PHASE_OVERHEAD_S


def head_cost_s(default_s: float, default_macs: int, macs: int) -> float:
    """Return the seconds that a head adds to a step: what its family's default head adds, in
    proportion to the multiply-adds."""
    return default_s * max(LEAST_SHARE, macs / max(1, default_macs))


def proxy_cost(costs: Costs, steps: int, rungs: int) -> float:
    """Return what a proxy of a typical head, or a further seed of it, costs beside others."""
    costs = costs.beside_others
    return costs.training(steps, costs.step + costs.mean_head, rungs)


def proxies_cost(costs: Costs, proxies: int, steps: int, rungs: int) -> float:
    """Return what so many proxies of a typical head cost with the two controls, which add nothing
    to the base's step."""
    beside = costs.beside_others
    controls_s = PROXY_CONTROLS * beside.training(steps, beside.step, rungs)
    return proxies * proxy_cost(costs, steps, rungs) + controls_s


def confirming_cost(costs: Costs, jobs: int, steps: int) -> float:
    """Return what so many confirming runs cost, which are evaluated at their end alone."""
    beside = costs.beside_others
    return jobs * beside.training(steps, beside.step + CONFIRMED_HEADS * beside.mean_head, rungs=1)


def group_cost(costs: Costs, size: int, steps: int) -> float:
    """Return what the screening of one group of so many candidates costs."""
    step_s = costs.together((size + REFERENCES) * costs.mean_head)
    return costs.training(steps, step_s, rungs=2) + costs.profiles(size)


class FullTraining(NamedTuple):
    """A full training that is affordable; without steps where none is."""

    steps: int = 0
    rungs: tuple[int, ...] = ()
    """Steps at which it is evaluated, the last included."""
    device_s: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """The full training as it was asked for."""

    steps: int
    """0 for none."""
    batches: float = 1.0
    """How many times larger its batches are than a proxy's."""

    def least(self, proxy_steps: int) -> int:
        """Return the steps below which it would be shorter than a proxy, in steps or in images: it
        comes out worse then."""
        return max(proxy_steps, ties.ceil(proxy_steps / self.batches))

    def affordable(
        self,
        remaining_s: float,
        costs: Costs,
        step_s: float,
        proxy_steps: int,
        policy: Policy = DEFAULT,
    ) -> FullTraining:
        """Return as much of it as the device-seconds left hold, with up to ten evaluations; none
        where that is shorter than a proxy.

        Args:
            remaining_s: the start of its worker included.
            step_s: device-seconds of a step of a proxy.
        """
        step_s = self.batches * step_s
        # Two rungs, as `CostModel.reserve` keeps them back for the end of a running job.
        fixed_s = costs.between_phases() + 2 * costs.rung() + costs.last
        spare_s = policy.full_share * remaining_s - fixed_s
        evaluating = policy.full_evaluations_share
        steps = min(self.steps, ties.floor(spare_s / (step_s * (1 + evaluating))))
        if steps < max(1, self.least(proxy_steps)):
            return FullTraining()
        evaluations = ties.floor(evaluating * steps * step_s / costs.rung())
        count = max(1, min(10, evaluations))
        # A set: of few steps several fractions round to the same one.
        rungs = {max(1, round(steps * number / count)) for number in range(1, count + 1)}
        device_s = costs.training(steps, step_s, len(rungs))
        return FullTraining(steps, tuple(sorted(rungs)), device_s)
