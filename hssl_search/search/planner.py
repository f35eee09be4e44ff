"""From a measurement and a budget to a plan: how many heads, steps, seeds."""

from __future__ import annotations

import math
from dataclasses import replace

from hssl_search.errors import UserError
from hssl_search.search import ties
from hssl_search.search.costs import Costs, group_cost, proxy_cost, screening_cost
from hssl_search.search.phases.screen import repeats, shares
from hssl_search.search.plan import PROXY_CONTROLS, Plan

SHARES = {"screen": 0.20, "proxy": 0.45, "confirm": 0.14, "full": 0.20}
"""Of what is left after measuring; the remaining hundredth is for measuring itself."""
GROUP_SIZE = 8
"""Candidates in one joint screening, beside the identity and the noise head."""
SCREEN_STEPS = (20, 60, 200)
"""Fewest, wanted and most steps of a screening. Before about 20 steps its ranking is not stable; at 40 to 80 it agrees with long runs."""
PROXY_STEPS = (20, 150, 2000)
"""Fewest, wanted and most steps of a proxy."""
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
FITS = (0.8, 1.05)
"""Share of what is left for them within which planned proxies are left as they are."""


class BudgetTooSmall(UserError):
    """The budget does not suffice for any search."""


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
    screen_s = screening_cost(costs, math.ceil(candidates / group_size), group_size, screen_steps)
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
    one = proxy_cost(costs, plan.proxy_steps, len(plan.rungs))
    share = one * (plan.proxies + PROXY_CONTROLS + plan.confirm_jobs) / together_s if together_s else math.inf
    if ties.at_least(share, FITS[0]) and ties.at_least(FITS[1], share):
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
    one = proxy_cost(costs, rungs[-1], len(rungs))
    jobs = max(CONFIRM_JOBS, min(MOST_CONFIRM_JOBS, ties.floor(together_s / one) - proxies - PROXY_CONTROLS))
    return jobs, {"proxy": one * (proxies + PROXY_CONTROLS), "confirm": one * jobs}


def proxy_rungs(steps: int, count: int) -> list[int]:
    """All of the steps, before them half, before it a quarter: as many rungs as that."""
    return sorted({max(1, steps // parts) for parts in (1, 2, 4)[:count]})


def _rounds(remaining_s: float, costs: Costs, groups: int, proxies: int) -> int:
    """More than one where there is something to learn from, and where winding phases up and down costs next to nothing."""
    affordable = ties.at_least(ROUNDS_SHARE * remaining_s, 2 * (MOST_ROUNDS - 1) * costs.between_phases())
    return MOST_ROUNDS if groups >= MOST_ROUNDS and proxies >= LEARNABLE and affordable else 1


def _plan_screen(share_s: float, costs: Costs, space_size: int | None) -> tuple[int, int, int]:
    """(candidates, group size, steps)."""
    fewest, wanted, most = SCREEN_STEPS
    reach = min(space_size or MOST_CANDIDATES, MOST_CANDIDATES)
    groups = min(math.ceil(reach / GROUP_SIZE), ties.floor(share_s / group_cost(costs, GROUP_SIZE, wanted)))
    size = min(GROUP_SIZE, reach)
    if groups < 1:
        groups, size = 1, max((n for n in range(1, size + 1) if ties.at_least(share_s, group_cost(costs, n, fewest))), default=0)
    if size == 0:
        raise BudgetTooSmall(_too_small(costs))
    candidates = min(reach, groups * size)
    size = math.ceil(candidates / groups)
    steps = ties.floor((share_s - screening_cost(costs, groups, size, 0)) / (
        screening_cost(costs, groups, size, 1) - screening_cost(costs, groups, size, 0)))
    return candidates, size, max(fewest, min(most, steps))


def _plan_proxies(share_s: float, costs: Costs, candidates: int) -> tuple[int, list[int]]:
    """(proxies, rungs of each); the steps may come out too few, or none.

    An evaluation may cost as much as many steps do, so that it is done less often in short proxies.
    """
    fewest, wanted, most = PROXY_STEPS
    costs = costs.beside_others
    step_s = costs.step + costs.mean_head
    others = PROXY_CONTROLS + CONFIRM_JOBS
    affordable = ties.floor(share_s / costs.training(wanted, step_s, rungs=MOST_RUNGS)) - others
    proxies = max(min(FEWEST_PROXIES, candidates), min(affordable, MOST_PROXIES, math.ceil(candidates / 2)))
    each_s = share_s / (proxies + others)
    rungs = max(1, min(MOST_RUNGS, ties.floor(min(RUNGS_SHARE * each_s, each_s - costs.training(fewest, step_s, 0)) / costs.rung())))
    steps = ties.floor((each_s - costs.training(0, step_s, rungs)) / step_s)
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
    together_s = (proxies + PROXY_CONTROLS + CONFIRM_JOBS) * proxy_cost(costs, steps, rungs)
    shares_s = max(screen_s / SHARES["screen"], together_s / (SHARES["proxy"] + SHARES["confirm"]))
    return shares_s + len(SHARES) * costs.between_phases()


def _too_small(costs: Costs) -> str:
    return (f"the budget is too small for this base and these data: after measuring, a smallest search needs about "
            f"{math.ceil(smallest_s(costs) / 60)} more device-minutes; give a larger --budget, a smaller base or smaller images.")
