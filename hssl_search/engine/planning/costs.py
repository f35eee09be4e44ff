"""What work costs: device-seconds, as they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hssl_search.engine.statistics import ties

REFERENCES = 2
"""The identity and the noise head in every group."""
LEAST_SHARE = 0.25
"""Of the default head's time that a smaller head of its family costs at least."""
ALONE = 2
"""Steps of each screened head alone with the base, after its group's screening: so a proxy's cost is known before it is promoted."""
CONFIRMED_HEADS = 0.75
"""Heads in a confirming run on average: of the first four, three train a head or as long as with one."""
PHASE_OVERHEAD_S = 3.0
"""Seconds in which one phase is wound up and the next begun, workers not counted."""


@dataclass(frozen=True)
class Costs:
    """Measured costs in device-seconds: of the whole machine on CPU, of the GPUs that one trial holds otherwise."""

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
    """How many times longer a step with several heads at once takes than the base's step and what each head adds alone."""
    last: float = 0.0
    """What the last evaluation of a training takes more than those before it."""
    side_by_side: float = 1.0
    """How many times the device-seconds of a step that has the machine to itself one takes in a proxy beside others, at the most: on a CPU
    fewer, since a few threads wait less for each other than many."""

    @property
    def mean_head(self) -> float:
        return sum(self.heads.values()) / max(1, len(self.heads))

    def rung(self) -> float:
        return self.evaluate + self.checkpoint

    def profiles(self, candidates: int) -> float:
        """Device-seconds in which the structures of the base and of a group's heads are measured, and each candidate alone is timed."""
        alone_s = ALONE * ((1 + candidates) * self.step + candidates * self.mean_head)
        return (1 + candidates + REFERENCES) * self.profile + alone_s

    def together(self, heads_s: float) -> float:
        """Device-seconds of a joint step with heads that add so much one by one."""
        return self.joint * (self.step + heads_s)

    def scaled(self, pace: float) -> Costs:
        """The costs of work that takes `pace` times what was measured."""
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
        """The costs of jobs that run side by side."""
        return replace(self.scaled(self.side_by_side), side_by_side=1.0)

    def training(self, steps: int, step_s: float, rungs: int) -> float:
        """Device-seconds of a job on a worker that is up."""
        return steps * step_s + rungs * self.rung() + self.last

    def between_phases(self) -> float:
        """Device-seconds from the end of one phase to the first steps of the next."""
        return self.startup + PHASE_OVERHEAD_S


def head_cost_s(default_s: float, default_macs: int, macs: int) -> float:
    """Seconds that a head adds to a step: what its family's default head adds, in proportion to the multiply-adds."""
    return default_s * max(LEAST_SHARE, macs / max(1, default_macs))


def proxy_cost(costs: Costs, steps: int, rungs: int) -> float:
    """Device-seconds of a proxy of a typical head, or of a further seed of it, beside others."""
    costs = costs.beside_others
    return costs.training(steps, costs.step + costs.mean_head, rungs)


def proxies_cost(costs: Costs, proxies: int, steps: int, rungs: int) -> float:
    """Device-seconds of so many proxies of a typical head and of the two controls, which add nothing to the base's step."""
    beside = costs.beside_others
    return proxies * proxy_cost(costs, steps, rungs) + PROXY_CONTROLS * beside.training(
        steps, beside.step, rungs
    )


def confirming_cost(costs: Costs, jobs: int, steps: int) -> float:
    """Device-seconds of so many confirming runs, which are evaluated at their end alone."""
    beside = costs.beside_others
    return jobs * beside.training(steps, beside.step + CONFIRMED_HEADS * beside.mean_head, rungs=1)


def group_cost(costs: Costs, size: int, steps: int) -> float:
    """Device-seconds of the screening of one group."""
    return costs.training(
        steps, costs.together((size + REFERENCES) * costs.mean_head), rungs=2
    ) + costs.profiles(size)


def shares(count: int, rounds: int) -> list[int]:
    """How many of that many are there at the end of each round."""
    return [-(-count * number // rounds) for number in range(1, rounds + 1)]


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

    def affordable(
        self, remaining_s: float, costs: Costs, step_s: float, proxy_steps: int
    ) -> tuple[int, list[int]]:
        """Return (steps, rungs) of what the device-seconds left hold of it; (0, []) where that is shorter than a proxy.

        Args:
            step_s: device-seconds of a step of a proxy.
        """
        steps, rungs = affordable(remaining_s, costs, self.batches * step_s, self.steps)
        return (steps, rungs) if steps >= self.least(proxy_steps) else (0, [])


def affordable(
    remaining_s: float, costs: Costs, step_s: float, wanted: int
) -> tuple[int, list[int]]:
    """(steps, rungs) of the full training: as many of the wanted steps as the budget holds, with up to ten evaluations; 0 when none."""
    fixed = costs.between_phases() + 2 * costs.rung() + costs.last
    steps = min(
        wanted, ties.floor((FULL_SHARE * remaining_s - fixed) / (step_s * (1 + EVALUATION_SHARE)))
    )
    if steps < 1:
        return 0, []
    evaluations = max(1, min(10, ties.floor(EVALUATION_SHARE * steps * step_s / costs.rung())))
    return steps, sorted(
        {max(1, round(steps * number / evaluations)) for number in range(1, evaluations + 1)}
    )


PROXY_CONTROLS = 2
"""No head and identity head."""
