"""The plan of a search: what will be run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

from hssl_search.engine.planning.costs import (
    PROXY_CONTROLS,
    Costs,
    Wanted,
    confirming_cost,
    group_cost,
    proxies_cost,
    proxy_cost,
    shares,
)
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.statistics import ties
from hssl_search.errors import UserError


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
    without_full: Literal["", "off", "short"] = ""
    """Why no full training is planned: it was not asked for, or would be shorter than a proxy. Its share goes to confirming."""
    batches: list[int] = field(default_factory=list)
    """Candidates planned at a time, where the budget was extended; together they are `candidates`."""

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)

    def runs_as(self, other: Plan) -> bool:
        """Whether both run the same up to the full training, whatever they expect that to take."""
        return self == replace(other, expected_s=self.expected_s, without_full=self.without_full)

    @property
    def groups(self) -> int:
        return sum(math.ceil(batch / self.group_size) for batch in self.dealt)

    @property
    def first_groups(self) -> int:
        """Groups of what was planned first."""
        return math.ceil(self.dealt[0] / self.group_size)

    @property
    def jobs(self) -> dict[str, int]:
        """By phase; at the most, where a phase can end early."""
        return {
            "measure": 1,
            "screen": self.groups,
            "proxy": self.proxies + PROXY_CONTROLS,
            "confirm": self.confirm_jobs,
            "full": 0 if self.without_full else 1,
        }

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
        return (
            f"{_count(self.proxies, 'proxy', 'proxies')} and {PROXY_CONTROLS} controls of {self.proxy_steps} steps, then about "
            f"{self.confirm_jobs} confirming runs{_FULL[self.without_full]}"
        )


_FULL = {
    "": ", then the full training.",
    "off": ".",
    "short": "; a full training would be shorter than a proxy, so its share of the budget goes to these runs.",
}
"""How the plan ends, by `Plan.without_full`."""


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


class BudgetTooSmall(UserError):
    """The budget does not suffice for any search.

    Args:
        needed_s: device-seconds, after measuring, that would suffice.
    """

    def __init__(self, message: str = "", needed_s: float = 0.0) -> None:
        super().__init__(
            message
            or f"the budget is too small for a search, which needs {needed_s:.0f} device-seconds after measuring; "
            "give a larger --budget."
        )
        self.needed_s = needed_s


ENDLESS = Wanted(10**9)
"""A full training as long as the budget lasts."""


def make_plan(
    remaining_s: float,
    costs: Costs,
    space_size: int | None,
    learning: bool = True,
    full: Wanted = ENDLESS,
    policy: Policy = DEFAULT,
) -> Plan:
    """The plan for the device-seconds that are left after measuring. BudgetTooSmall when they do not suffice for any search.

    Args:
        learning: whether what draws heads learns from proxies, so that it may be worth to go in rounds.
        full: where it would be shorter than a proxy, what it would have cost goes to confirming.
    """
    remaining_s = max(0.0, remaining_s - len(policy.shares) * costs.between_phases())
    candidates, group_size, screen_steps = _plan_screen(
        remaining_s * policy.shares.screen, costs, space_size, policy
    )
    together_s = remaining_s * policy.shares.together
    proxies, rungs = _plan_proxies(together_s, costs, candidates, policy)
    if rungs[-1] < policy.proxy_steps.fewest:
        raise BudgetTooSmall(needed_s=smallest_s(costs, policy))
    screen_s = math.ceil(candidates / group_size) * group_cost(costs, group_size, screen_steps)
    rounds = (
        _rounds(remaining_s, costs, math.ceil(candidates / group_size), proxies, policy)
        if learning
        else 1
    )
    plan = Plan(
        candidates,
        group_size,
        screen_steps,
        proxies,
        rungs[-1],
        rungs,
        0,
        {"screen": screen_s},
        rounds,
    )
    return _with_the_rest(plan, together_s, remaining_s - screen_s, costs, full, policy)


def plan_again(
    plan: Plan,
    remaining_s: float,
    costs: Costs,
    full: Wanted = ENDLESS,
    policy: Policy = DEFAULT,
    more_screening: bool = True,
) -> Plan:
    """The plan after the first round's screening, when it is known how fast work gets done and what the heads cost that are promoted:
    it stays where it fits, else its proxies are planned anew. What the screening of later rounds costs is kept back.

    Args:
        remaining_s: device-seconds that are left.
        costs: as they turned out, with the heads that will be promoted (`CostModel.at_pace`).
        more_screening: False where the budget does not last for what is left of screening, for which nothing is kept back then.
    """
    later_s = _later_rounds_s(plan, costs) if more_screening else 0.0
    remaining_s = max(
        0.0, remaining_s - (len(policy.shares) - 1) * costs.between_phases() - later_s
    )
    together_s = remaining_s * policy.shares.together / (1 - policy.shares.screen)
    share_s = remaining_s if plan.without_full else together_s
    planned_s = _together(costs, plan.proxies, plan.confirm_jobs, plan.proxy_steps, len(plan.rungs))
    full_s = max(0.0, remaining_s - planned_s)
    fits = ties.at_least(planned_s, policy.fits_from * share_s) and ties.at_least(
        policy.fits_to * share_s, planned_s
    )
    if fits and without_full(full_s, costs, plan.proxy_steps, full) == plan.without_full:
        return replace(
            plan, expected_s=_expected(plan, costs, 0.0 if plan.without_full else full_s)
        )
    proxies, rungs = _plan_proxies(together_s, costs, plan.candidates, policy)
    if rungs[-1] < policy.proxy_steps.fewest:
        rungs = [policy.proxy_steps.fewest]  # not all of it fits then: what does not is not started
    return _with_the_rest(
        replace(plan, proxies=proxies, proxy_steps=rungs[-1], rungs=rungs),
        together_s,
        remaining_s,
        costs,
        full,
        policy,
    )


def _with_the_rest(
    plan: Plan, together_s: float, left_s: float, costs: Costs, full: Wanted, policy: Policy
) -> Plan:
    """The plan with its confirming runs, and with the full training where that is at least as long as a proxy.

    Args:
        together_s: device-seconds of proxies and confirming.
        left_s: of proxies, confirming and full training.
    """
    proxies_s = proxies_cost(costs, plan.proxies, plan.proxy_steps, len(plan.rungs))
    jobs = _confirm_jobs(together_s - proxies_s, costs, plan.proxy_steps, policy)
    full_s = max(0.0, left_s - proxies_s - confirming_cost(costs, jobs, plan.proxy_steps))
    without = without_full(full_s, costs, plan.proxy_steps, full)
    if without:
        jobs, full_s = _confirm_jobs(left_s - proxies_s, costs, plan.proxy_steps, policy), 0.0
    plan = replace(plan, confirm_jobs=jobs, without_full=without)
    return replace(plan, expected_s=_expected(plan, costs, full_s))


def _expected(plan: Plan, costs: Costs, full_s: float) -> dict[str, float]:
    """Device-seconds of each phase; of screening as they stand."""
    return {
        "screen": plan.expected_s["screen"],
        "proxy": proxies_cost(costs, plan.proxies, plan.proxy_steps, len(plan.rungs)),
        "confirm": confirming_cost(costs, plan.confirm_jobs, plan.proxy_steps),
        "full": full_s,
    }


def without_full(
    full_s: float, costs: Costs, proxy_steps: int, full: Wanted
) -> Literal["", "off", "short"]:
    """Say why no full training of that many device-seconds is planned; empty where one is."""
    if not full.steps:
        return "off"
    steps, _ = full.affordable(
        full_s + costs.between_phases(), costs, costs.step + costs.mean_head, proxy_steps
    )
    return "" if steps else "short"


def _confirm_jobs(share_s: float, costs: Costs, steps: int, policy: Policy) -> int:
    return max(
        policy.fewest_confirm_jobs,
        min(policy.most_confirm_jobs, ties.floor(share_s / confirming_cost(costs, 1, steps))),
    )


def _together(costs: Costs, proxies: int, jobs: int, steps: int, rungs: int) -> float:
    """Device-seconds of proxies and of what confirms them."""
    return proxies_cost(costs, proxies, steps, rungs) + confirming_cost(costs, jobs, steps)


def _later_rounds_s(plan: Plan, costs: Costs) -> float:
    """Device-seconds of the screening after the first round, and of beginning its phases."""
    groups = plan.first_groups - shares(plan.first_groups, plan.rounds)[0]
    screen_s = groups * group_cost(costs, plan.group_size, plan.screen_steps)
    return screen_s + 2 * (plan.rounds - 1) * costs.between_phases()


def proxy_rungs(steps: int, count: int) -> list[int]:
    """All of the steps, before them half, before it a quarter: as many rungs as that."""
    return sorted({max(1, steps // parts) for parts in (1, 2, 4)[:count]})


def _rounds(remaining_s: float, costs: Costs, groups: int, proxies: int, policy: Policy) -> int:
    """More than one where there is something to learn from, and where winding phases up and down costs next to nothing."""
    affordable = ties.at_least(
        policy.rounds_share * remaining_s, 2 * (policy.most_rounds - 1) * costs.between_phases()
    )
    return (
        policy.most_rounds
        if groups >= policy.most_rounds and proxies >= policy.learnable and affordable
        else 1
    )


def _plan_screen(
    share_s: float, costs: Costs, space_size: int | None, policy: Policy
) -> tuple[int, int, int]:
    """(candidates, group size, steps)."""
    fewest, wanted, most = (
        policy.screen_steps.fewest,
        policy.screen_steps.wanted,
        policy.screen_steps.most,
    )
    reach = min(space_size or policy.most_candidates, policy.most_candidates)
    groups = min(
        math.ceil(reach / policy.group_size),
        ties.floor(share_s / group_cost(costs, policy.group_size, wanted)),
    )
    size = min(policy.group_size, reach)
    if groups < 1:
        groups, size = (
            1,
            max(
                (
                    n
                    for n in range(1, size + 1)
                    if ties.at_least(share_s, group_cost(costs, n, fewest))
                ),
                default=0,
            ),
        )
    if size == 0:
        raise BudgetTooSmall(needed_s=smallest_s(costs, policy))
    candidates = min(reach, groups * size)
    size = math.ceil(candidates / groups)
    fixed_s = group_cost(costs, size, 0)
    steps = ties.floor((share_s / groups - fixed_s) / (group_cost(costs, size, 1) - fixed_s))
    return candidates, size, max(fewest, min(most, steps))


def _plan_proxies(
    share_s: float, costs: Costs, candidates: int, policy: Policy
) -> tuple[int, list[int]]:
    """(proxies, rungs of each); the steps may come out too few, or none.

    An evaluation may cost as much as many steps do, so that it is done less often in short proxies.
    """
    fewest, wanted, most = (
        policy.proxy_steps.fewest,
        policy.proxy_steps.wanted,
        policy.proxy_steps.most,
    )
    beside = costs.beside_others
    others = PROXY_CONTROLS + policy.fewest_confirm_jobs
    spare_s = share_s - _together(costs, 0, policy.fewest_confirm_jobs, wanted, policy.most_rungs)
    affordable = ties.floor(spare_s / proxy_cost(costs, wanted, policy.most_rungs))
    proxies = max(
        min(policy.fewest_proxies, candidates),
        min(affordable, policy.most_proxies, math.ceil(candidates / 2)),
    )
    each_s = share_s / (proxies + others)
    shortest_s = beside.training(fewest, beside.step + beside.mean_head, 0)
    rungs = max(
        1,
        min(
            policy.most_rungs,
            ties.floor(min(policy.rungs_share * each_s, each_s - shortest_s) / beside.rung()),
        ),
    )
    fixed_s = _together(costs, proxies, policy.fewest_confirm_jobs, 0, rungs)
    steps = ties.floor(
        (share_s - fixed_s)
        / (_together(costs, proxies, policy.fewest_confirm_jobs, 1, rungs) - fixed_s)
    )
    return proxies, proxy_rungs(max(0, min(most, steps)), rungs)


def smallest_s(costs: Costs, policy: Policy = DEFAULT) -> float:
    """Device-seconds after measuring that suffice for a search."""
    return _needed(
        costs,
        group_cost(costs, 1, policy.screen_steps.fewest),
        policy.fewest_proxies,
        policy.proxy_steps.fewest,
        1,
        policy,
    )


def ranking_s(heads: int, steps: int, costs: Costs, policy: Policy = DEFAULT) -> float:
    """Device-seconds after measuring from which on so many proxies of at least so many steps are planned, in a space that has twice
    as many heads."""
    groups = math.ceil((2 * heads - 1) / policy.group_size)
    screen_s = groups * group_cost(costs, policy.group_size, policy.screen_steps.wanted)
    return _needed(costs, screen_s, heads, steps, policy.most_rungs, policy)


def _needed(
    costs: Costs, screen_s: float, proxies: int, steps: int, rungs: int, policy: Policy
) -> float:
    """Device-seconds of a search whose screening, and whose proxies with what confirms them, fit into their shares."""
    together_s = _together(costs, proxies, policy.fewest_confirm_jobs, steps, rungs)
    shares_s = max(screen_s / policy.shares.screen, together_s / policy.shares.together)
    return shares_s + len(policy.shares) * costs.between_phases()


def extend_plan(
    plan: Plan,
    remaining_s: float,
    costs: Costs,
    space_size: int | None,
    waiting: int,
    full: Wanted = ENDLESS,
    policy: Policy = DEFAULT,
) -> Plan:
    """The plan with more candidates, proxies and confirming runs, as many as the budget left buys; the same where it buys none.

    Steps, rungs and the size of groups stay: results must be comparable with those that are known. Where the space has no candidate
    left, or no proxy of one would be affordable, what screening would cost goes to proxies of those that wait, and to confirming.

    Args:
        remaining_s: device-seconds that are left.
        costs: as they turned out (`Costs.scaled`).
        waiting: healthy candidates that were screened and had no proxy.
        full: where what is left for it makes less than a proxy, that goes to confirming.

    Returns:
        A plan whose numbers count all that the search is to do, and whose `expected_s` is of what is added alone.
    """
    remaining_s = max(0.0, remaining_s - len(policy.shares) * costs.between_phases())
    one = proxy_cost(costs, plan.proxy_steps, len(plan.rungs))
    heads, screen_s = _more_candidates(
        plan, remaining_s * policy.shares.screen, costs, space_size, policy
    )
    proxies, confirming = _more_runs(remaining_s / one, heads, waiting, policy)
    if not proxies:
        heads, screen_s = 0, 0.0  # they would be screened for nothing
        proxies, confirming = _more_runs(remaining_s / one, 0, waiting, policy)
    full_s = max(0.0, remaining_s - screen_s - one * (proxies + confirming))
    if without := without_full(full_s, costs, plan.proxy_steps, full):
        confirming, full_s = (
            min(policy.most_confirm_jobs, confirming + ties.floor(full_s / one)),
            0.0,
        )
    expected = {
        "screen": screen_s,
        "proxy": one * proxies,
        "confirm": one * confirming,
        "full": full_s,
    }
    batches = [*plan.dealt, heads] if heads else plan.batches
    return replace(
        plan,
        candidates=plan.candidates + heads,
        batches=batches,
        proxies=plan.proxies + proxies,
        confirm_jobs=plan.confirm_jobs + confirming,
        expected_s=expected,
        without_full=without,
    )


def _more_runs(runs: float, heads: int, waiting: int, policy: Policy) -> tuple[int, int]:
    """(proxies, confirming runs), where what is left would suffice for so many runs."""
    jobs = ties.floor(
        runs
        * (policy.shares.proxy + policy.shares.confirm + (0.0 if heads else policy.shares.screen))
    )
    of_proxies = policy.shares.proxy / policy.shares.together
    proxies = min(
        policy.most_proxies, waiting + math.ceil(heads / 2), ties.floor(jobs * of_proxies)
    )
    return proxies, min(policy.most_confirm_jobs, jobs - proxies)


def _more_candidates(
    plan: Plan, share_s: float, costs: Costs, space_size: int | None, policy: Policy
) -> tuple[int, float]:
    """(how many, device-seconds of screening them)."""
    room = (
        policy.most_candidates
        if space_size is None
        else min(policy.most_candidates, space_size - plan.candidates)
    )
    group_s = group_cost(costs, plan.group_size, plan.screen_steps)
    heads = max(0, min(room, plan.group_size * ties.floor(share_s / group_s)))
    return heads, math.ceil(heads / plan.group_size) * group_s
