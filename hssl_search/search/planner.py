"""From a measurement and a budget to a plan: how many heads, steps, seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

from hssl_search.errors import UserError
from hssl_search.search.phases.screen import repeats, shares

SHARES = {"screen": 0.20, "proxy": 0.45, "confirm": 0.14, "full": 0.20}
"""Of what is left after measuring; the remaining hundredth is for measuring itself."""
GROUP_SIZE = 8
"""Candidates in one joint screening, beside the identity and the noise head."""
REFERENCES = 2
"""The identity and the noise head in every group."""
SCREEN_STEPS = (20, 60, 200)
"""Fewest, wanted and most steps of a screening. Before about 20 steps its ranking is not stable; at 40 to 80 it agrees with long runs."""
PROXY_STEPS = (20, 150, 2000)
"""Fewest, wanted and most steps of a proxy."""
PROXY_CONTROLS = 2
"""No head and identity head."""
CONFIRM_JOBS = 4
"""Fewest confirm jobs: the other two controls, and a second seed of the best candidate and of the control it must beat."""
MOST_CONFIRM_JOBS = 38
"""The other two controls, and nine more seeds of the best two candidates and of the two controls they are compared with."""
MOST_RUNGS = 3
MOST_ROUNDS = 3
LEARNABLE = 8
"""Proxies from which drawing heads in rounds pays."""
ROUNDS_SHARE = 0.02
"""Of what is left, which starting workers for further rounds may take."""
RUNGS_SHARE = 0.2
"""Of a proxy's time that its evaluations may take."""
FEWEST_PROXIES, MOST_PROXIES = 2, 24
MOST_CANDIDATES = 64
FULL_SHARE = 0.9
"""Of what is left, which the full training is planned for: it must end within it though steps vary."""
PHASE_OVERHEAD_S = 3.0
"""Seconds in which one phase is wound up and the next begun, workers not counted."""
FITS = (0.8, 1.05)
"""Share of what is left for them within which planned proxies are left as they are."""
EVALUATION_SHARE = 0.1
"""Of the full training's time that its evaluations may take."""


class BudgetTooSmall(UserError):
    """The budget does not suffice for any search."""


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

    @property
    def mean_head(self) -> float:
        return sum(self.heads.values()) / max(1, len(self.heads))

    def rung(self) -> float:
        return self.evaluate + self.checkpoint

    def profiles(self, candidates: int) -> float:
        """Device-seconds in which the structures of the base and of a group's heads are measured."""
        return (1 + candidates + REFERENCES) * self.profile

    def together(self, heads_s: float) -> float:
        """Device-seconds of a joint step with heads that add so much one by one."""
        return self.joint * (self.step + heads_s)

    def scaled(self, pace: float) -> Costs:
        """The costs of work that takes `pace` times what was measured."""
        heads = {family: pace * seconds for family, seconds in self.heads.items()}
        return replace(self, step=pace * self.step, heads=heads, evaluate=pace * self.evaluate, checkpoint=pace * self.checkpoint,
                       profile=pace * self.profile, last=pace * self.last)

    def training(self, steps: int, step_s: float, rungs: int) -> float:
        """Device-seconds of a job on a worker that is up."""
        return steps * step_s + rungs * self.rung() + self.last

    def between_phases(self) -> float:
        """Device-seconds from the end of one phase to the first steps of the next."""
        return self.startup + PHASE_OVERHEAD_S


@dataclass(frozen=True)
class Plan:
    """What will be run. Plain numbers, stored with the study, and the same after a resume."""

    candidates: int
    group_size: int
    screen_steps: int
    proxies: int
    """Candidates promoted to proxies."""
    proxy_steps: int
    rungs: list[int]
    confirm_jobs: int
    expected_s: Mapping[str, float]
    """Device-seconds that each phase is expected to take."""
    rounds: int = 1
    """Of screening and proxies: those after the first draw heads from what proxies have found."""
    batches: list[int] = field(default_factory=list)
    """Candidates planned at a time, where the budget was extended; together they are `candidates`."""

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)

    def runs_as(self, other: Plan) -> bool:
        """Whether both run the same, whatever they expect that to take."""
        return self == replace(other, expected_s=self.expected_s)

    @property
    def groups(self) -> int:
        return sum(math.ceil(batch / self.group_size) for batch in self.dealt)

    @property
    def first_groups(self) -> int:
        """Groups of what was planned first; how many heads a group screens again does not change with the budget."""
        return math.ceil(self.dealt[0] / self.group_size)

    @property
    def jobs(self) -> dict[str, int]:
        """By phase; at the most, where a phase can end early."""
        return {"measure": 1, "screen": self.groups, "proxy": self.proxies + PROXY_CONTROLS, "confirm": self.confirm_jobs, "full": 1}

    @property
    def dealt(self) -> list[int]:
        """Candidates planned at a time."""
        return self.batches or [self.candidates]

    @property
    def ends(self) -> list[int]:
        """How many candidates there are at the end of each round: of whole groups those of what was planned first, then one for each
        extension. What is drawn in a round is dealt together."""
        first, *more = self.dealt
        *within, _ = shares(self.first_groups, self.rounds)
        return [*(groups * self.group_size for groups in within), *accumulate([first, *more])]

    def sentence(self) -> str:
        heads, groups = _count(self.candidates, "head"), _count(self.groups, "group")
        in_rounds = f" and {self.rounds} rounds" if self.rounds > 1 else ""
        return f"Plan: screen {heads} in {groups}{in_rounds} for {self.screen_steps} steps, then {self.proxies_sentence()}"

    def proxies_sentence(self) -> str:
        return (f"{_count(self.proxies, 'proxy', 'proxies')} and {PROXY_CONTROLS} controls of {self.proxy_steps} steps, then about "
                f"{self.confirm_jobs} confirming runs, then the full training.")


def full_training(remaining_s: float, costs: Costs, step_s: float, wanted: int) -> tuple[int, list[int]]:
    """(steps, rungs) of the full training: as many of the wanted steps as the budget holds, with up to ten evaluations; 0 when none."""
    fixed = costs.between_phases() + 2 * costs.rung() + costs.last
    steps = min(wanted, math.floor((FULL_SHARE * remaining_s - fixed) / (step_s * (1 + EVALUATION_SHARE))))
    if steps < 1:
        return 0, []
    evaluations = max(1, min(10, math.floor(EVALUATION_SHARE * steps * step_s / costs.rung())))
    return steps, sorted({max(1, round(steps * number / evaluations)) for number in range(1, evaluations + 1)})


def make_plan(remaining_s: float, costs: Costs, space_size: int | None, learning: bool = True) -> Plan:
    """The plan for the device-seconds that are left after measuring. BudgetTooSmall when they do not suffice for any search.

    Args:
        learning: whether what draws heads learns from proxies, so that it may be worth to go in rounds.
    """
    remaining_s = max(0.0, remaining_s - len(SHARES) * costs.between_phases())
    candidates, group_size, screen_steps = _plan_screen(remaining_s * SHARES["screen"], costs, space_size)
    together_s = remaining_s * (SHARES["proxy"] + SHARES["confirm"])
    proxies, rungs = _plan_proxies(together_s, costs, candidates)
    if rungs[-1] < PROXY_STEPS[0]:
        raise BudgetTooSmall(_too_small(costs))
    screen_s = _screening_cost(costs, math.ceil(candidates / group_size), group_size, screen_steps)
    jobs, expected = _confirming(together_s, costs, proxies, rungs)
    left_s = max(0.0, remaining_s - screen_s - sum(expected.values()))
    expected = {"screen": screen_s, **expected, "full": left_s}
    rounds = _rounds(remaining_s, costs, math.ceil(candidates / group_size), proxies) if learning else 1
    return Plan(candidates, group_size, screen_steps, proxies, rungs[-1], rungs, jobs, expected, rounds)


def plan_again(plan: Plan, remaining_s: float, costs: Costs) -> Plan:
    """The plan after the first round's screening, when it is known how fast work gets done: it stays where it fits, else its proxies are
    planned anew. What the screening of later rounds costs is kept back.

    Args:
        remaining_s: device-seconds that are left.
        costs: as they turned out (`Costs.scaled`).
    """
    remaining_s = max(0.0, remaining_s - (len(SHARES) - 1) * costs.between_phases() - _later_rounds_s(plan, costs))
    together_s = remaining_s * (SHARES["proxy"] + SHARES["confirm"]) / (1 - SHARES["screen"])
    one = costs.training(plan.proxy_steps, costs.step + costs.mean_head, len(plan.rungs))
    if FITS[0] * together_s <= one * (plan.proxies + PROXY_CONTROLS + plan.confirm_jobs) <= FITS[1] * together_s:
        return plan
    proxies, rungs = _plan_proxies(together_s, costs, plan.candidates)
    if rungs[-1] < PROXY_STEPS[0]:
        rungs = [PROXY_STEPS[0]]  # not all of it fits then: what does not is not started
    jobs, expected = _confirming(together_s, costs, proxies, rungs)
    expected = {"screen": plan.expected_s["screen"], **expected, "full": max(0.0, remaining_s - sum(expected.values()))}
    return replace(plan, proxies=proxies, proxy_steps=rungs[-1], rungs=rungs, confirm_jobs=jobs, expected_s=expected)


def _later_rounds_s(plan: Plan, costs: Costs) -> float:
    """Device-seconds of the screening after the first round, and of beginning its phases."""
    groups = plan.first_groups - shares(plan.first_groups, plan.rounds)[0]
    screen_s = groups * group_cost(costs, plan.group_size + repeats(plan.first_groups), plan.screen_steps)
    return screen_s + 2 * (plan.rounds - 1) * costs.between_phases()


def _confirming(together_s: float, costs: Costs, proxies: int, rungs: list[int]) -> tuple[int, dict[str, float]]:
    """(confirm jobs, device-seconds of proxies and of confirming)."""
    one = costs.training(rungs[-1], costs.step + costs.mean_head, len(rungs))
    jobs = max(CONFIRM_JOBS, min(MOST_CONFIRM_JOBS, math.floor(together_s / one) - proxies - PROXY_CONTROLS))
    return jobs, {"proxy": one * (proxies + PROXY_CONTROLS), "confirm": one * jobs}


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def proxy_rungs(steps: int, count: int) -> list[int]:
    """All of the steps, before them half, before it a quarter: as many rungs as that."""
    return sorted({max(1, steps // parts) for parts in (1, 2, 4)[:count]})


def group_cost(costs: Costs, size: int, steps: int) -> float:
    """Device-seconds of the screening of one group."""
    return costs.training(steps, costs.together((size + REFERENCES) * costs.mean_head), rungs=2) + costs.profiles(size)


def _screening_cost(costs: Costs, groups: int, size: int, steps: int) -> float:
    """Of groups, those after the first of which screen a few heads of the one before again."""
    return group_cost(costs, size, steps) + (groups - 1) * group_cost(costs, size + repeats(groups), steps)


def _rounds(remaining_s: float, costs: Costs, groups: int, proxies: int) -> int:
    """More than one where there is something to learn from, and where winding phases up and down costs next to nothing."""
    affordable = 2 * (MOST_ROUNDS - 1) * costs.between_phases() <= ROUNDS_SHARE * remaining_s
    return MOST_ROUNDS if groups >= MOST_ROUNDS and proxies >= LEARNABLE and affordable else 1


def _plan_screen(share_s: float, costs: Costs, space_size: int | None) -> tuple[int, int, int]:
    """(candidates, group size, steps)."""
    fewest, wanted, most = SCREEN_STEPS
    reach = min(space_size or MOST_CANDIDATES, MOST_CANDIDATES)
    groups = min(math.ceil(reach / GROUP_SIZE), math.floor(share_s / group_cost(costs, GROUP_SIZE, wanted)))
    size = min(GROUP_SIZE, reach)
    if groups < 1:
        groups, size = 1, max((n for n in range(1, size + 1) if group_cost(costs, n, fewest) <= share_s), default=0)
    if size == 0:
        raise BudgetTooSmall(_too_small(costs))
    candidates = min(reach, groups * size)
    size = math.ceil(candidates / groups)
    steps = math.floor((share_s - _screening_cost(costs, groups, size, 0)) / (
        _screening_cost(costs, groups, size, 1) - _screening_cost(costs, groups, size, 0)))
    return candidates, size, max(fewest, min(most, steps))


def _plan_proxies(share_s: float, costs: Costs, candidates: int) -> tuple[int, list[int]]:
    """(proxies, rungs of each); the steps may come out too few, or none.

    An evaluation may cost as much as many steps do, so that it is done less often in short proxies.
    """
    fewest, wanted, most = PROXY_STEPS
    step_s = costs.step + costs.mean_head
    others = PROXY_CONTROLS + CONFIRM_JOBS
    affordable = math.floor(share_s / costs.training(wanted, step_s, rungs=MOST_RUNGS)) - others
    proxies = max(min(FEWEST_PROXIES, candidates), min(affordable, MOST_PROXIES, math.ceil(candidates / 2)))
    each_s = share_s / (proxies + others)
    rungs = max(1, min(MOST_RUNGS, math.floor(min(RUNGS_SHARE * each_s, each_s - costs.training(fewest, step_s, 0)) / costs.rung())))
    steps = math.floor((each_s - costs.training(0, step_s, rungs)) / step_s)
    return proxies, proxy_rungs(max(0, min(most, steps)), rungs)


def smallest_s(costs: Costs) -> float:
    """Device-seconds after measuring that suffice for a search."""
    return _needed(costs, group_cost(costs, 1, SCREEN_STEPS[0]), FEWEST_PROXIES, PROXY_STEPS[0], rungs=1)


def ranking_s(heads: int, steps: int, costs: Costs) -> float:
    """Device-seconds after measuring from which on so many proxies of at least so many steps are planned, in a space that has twice
    as many heads."""
    groups = math.ceil((2 * heads - 1) / GROUP_SIZE)
    return _needed(costs, groups * group_cost(costs, GROUP_SIZE, SCREEN_STEPS[1]), heads, steps, MOST_RUNGS)


def _needed(costs: Costs, screen_s: float, proxies: int, steps: int, rungs: int) -> float:
    """Device-seconds of a search whose screening, and whose proxies with what confirms them, fit into their shares."""
    together_s = (proxies + PROXY_CONTROLS + CONFIRM_JOBS) * costs.training(steps, costs.step + costs.mean_head, rungs)
    shares_s = max(screen_s / SHARES["screen"], together_s / (SHARES["proxy"] + SHARES["confirm"]))
    return shares_s + len(SHARES) * costs.between_phases()


def _too_small(costs: Costs) -> str:
    return (f"the budget is too small for this base and these data: after measuring, a smallest search needs about "
            f"{math.ceil(smallest_s(costs) / 60)} more device-minutes; give a larger --budget, a smaller base or smaller images.")
