"""The plan of a search: what will be run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from hssl_search.engine.planning.costs import (
    PROXY_CONTROLS,
    Costs,
    Wanted,
    confirming_cost,
    group_cost,
    proxies_cost,
    proxy_cost,
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
    """Why no full training is planned: it was not asked for, or would be shorter than a proxy. Its
    share goes to confirming."""
    batches: list[int] = field(default_factory=list)
    """Candidates planned at a time, where the budget was extended; together they are
    `candidates`."""

    def as_plain(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        return asdict(self)

    def runs_as(self, other: Plan) -> bool:
        """Return whether both run the same up to the full training, whatever they expect that to
        take."""
        return self == replace(other, expected_s=self.expected_s, without_full=self.without_full)

    @property
    def groups(self) -> int:
        """Return how many joint screenings there are."""
        return sum(math.ceil(batch / self.group_size) for batch in self.dealt)

    @property
    def jobs(self) -> dict[str, int]:
        """Return how many jobs each phase has; at the most, where it can end early."""
        return {
            "measure": 1,
            "screen": self.groups,
            "proxy": self.proxies + PROXY_CONTROLS,
            "confirm": self.confirm_jobs,
            "full": 0 if self.without_full else 1,
        }

    @property
    def dealt(self) -> list[int]:
        """Return how many candidates were planned at a time."""
        return self.batches or [self.candidates]

    @property
    def ends(self) -> list[int]:
        """Return how many candidates there are at the end of each round: of whole groups those of
        what was planned first, then one for each extension.

        What is drawn in a round is dealt together.
        """
        first, *more = self.dealt
        # The last round ends with all of them, also where its last group is not full.
        *within, _ = _by_round(math.ceil(first / self.group_size), self.rounds)
        return [*(groups * self.group_size for groups in within), *accumulate([first, *more])]

    def promoted_by(self, number: int) -> int:
        """Return how many heads are to be promoted by the end of that round, 0 for the first; where
        the budget was extended, more only in the last."""
        if number == len(self.ends) - 1:
            return self.proxies
        return 0 if self.batches else _by_round(self.proxies, self.rounds)[number]


def _by_round(count: int, rounds: int) -> list[int]:
    """Return how many of that many there are at the end of each round."""
    return [-(-count * number // rounds) for number in range(1, rounds + 1)]


class BudgetTooSmall(UserError):
    """The budget does not suffice for any search.

    Args:
        needed_s: device-seconds, after measuring, that would suffice.
    """

    def __init__(self, message: str = "", needed_s: float = 0.0) -> None:
        super().__init__(
            message
            or f"the budget is too small for a search, which needs {needed_s:.0f} device-seconds "
            "after measuring; give a larger --budget."
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
    """Return the plan for the device-seconds that are left after measuring.

    Args:
        space_size: how many heads there are, None for endless.
        learning: whether what draws heads learns from proxies, so that rounds may pay.
        full: where it would be shorter than a proxy, what it would have cost goes to confirming.

    Raises:
        BudgetTooSmall: when they do not suffice for any search.
    """
    # Phases are wound up and begun whatever is planned for them.
    left_s = max(0.0, remaining_s - len(policy.shares) * costs.between_phases())
    together_s = left_s * policy.shares.together
    screen = _plan_screen(left_s * policy.shares.screen, costs, space_size, policy)
    candidates, group_size, screen_steps = screen
    proxies, rungs = _plan_proxies(together_s, costs, candidates, policy)
    if rungs[-1] < policy.proxy_steps.fewest:
        raise BudgetTooSmall(needed_s=smallest_s(costs, policy))
    groups = math.ceil(candidates / group_size)
    screen_s = groups * group_cost(costs, group_size, screen_steps)
    # Rounds pay where there is something to learn from, and where winding phases up and down costs
    # next to nothing.
    winding_s = 2 * (policy.most_rounds - 1) * costs.between_phases()
    in_rounds = (
        learning
        and groups >= policy.most_rounds
        and proxies >= policy.learnable
        and ties.at_least(policy.rounds_share * left_s, winding_s)
    )
    plan = Plan(
        candidates,
        group_size,
        screen_steps,
        proxies,
        proxy_steps=rungs[-1],
        rungs=rungs,
        confirm_jobs=0,
        expected_s={"screen": screen_s},
        rounds=policy.most_rounds if in_rounds else 1,
    )
    return _with_the_rest(plan, together_s, left_s - screen_s, costs, full, policy)


def plan_again(
    plan: Plan,
    remaining_s: float,
    costs: Costs,
    full: Wanted = ENDLESS,
    policy: Policy = DEFAULT,
    more_screening: bool = True,
) -> Plan:
    """Return the plan after the first round's screening, when it is known how fast work gets done
    and what the heads cost that are promoted: the same where it fits, else with other proxies.

    Args:
        remaining_s: device-seconds that are left.
        costs: as they turned out, with the heads that will be promoted (`CostModel.at_pace`).
        more_screening: False where the budget does not last for what is left of screening, for
            which nothing is kept back then.
    """
    left_s = remaining_s - (len(policy.shares) - 1) * costs.between_phases()
    if more_screening:
        # Kept back: the screening of later rounds, and beginning their phases.
        groups = plan.groups - math.ceil(plan.ends[0] / plan.group_size)
        left_s -= groups * group_cost(costs, plan.group_size, plan.screen_steps)
        left_s -= 2 * (plan.rounds - 1) * costs.between_phases()
    left_s = max(0.0, left_s)
    together_s = left_s * policy.shares.together / (1 - policy.shares.screen)
    planned_s = _together(costs, plan.proxies, plan.confirm_jobs, plan.proxy_steps, len(plan.rungs))
    share_s, full_s = left_s if plan.without_full else together_s, max(0.0, left_s - planned_s)
    fits = (
        ties.at_least(planned_s, policy.fits_from * share_s)
        and ties.at_least(policy.fits_to * share_s, planned_s)
        and without_full(full_s, costs, plan.proxy_steps, full, policy) == plan.without_full
    )
    if fits:
        return _expecting(plan, costs, 0.0 if plan.without_full else full_s)
    proxies, rungs = _plan_proxies(together_s, costs, plan.candidates, policy)
    if rungs[-1] < policy.proxy_steps.fewest:
        rungs = [policy.proxy_steps.fewest]  # not all of it fits then: what does not is not started
    plan = replace(plan, proxies=proxies, proxy_steps=rungs[-1], rungs=rungs)
    return _with_the_rest(plan, together_s, left_s, costs, full, policy)


def _with_the_rest(
    plan: Plan, together_s: float, left_s: float, costs: Costs, full: Wanted, policy: Policy
) -> Plan:
    """Return the plan with its confirming runs, and with the full training where that is at least
    as long as a proxy.

    Args:
        together_s: device-seconds of proxies and confirming.
        left_s: of proxies, confirming and full training.
    """
    proxies_s = proxies_cost(costs, plan.proxies, plan.proxy_steps, len(plan.rungs))
    run_s = confirming_cost(costs, 1, plan.proxy_steps)

    def confirm_jobs(share_s: float) -> int:
        affordable = ties.floor((share_s - proxies_s) / run_s)
        return max(policy.fewest_confirm_jobs, min(policy.most_confirm_jobs, affordable))

    jobs = confirm_jobs(together_s)
    full_s = max(0.0, left_s - proxies_s - confirming_cost(costs, jobs, plan.proxy_steps))
    without = without_full(full_s, costs, plan.proxy_steps, full, policy)
    if without:
        jobs, full_s = confirm_jobs(left_s), 0.0
    return _expecting(replace(plan, confirm_jobs=jobs, without_full=without), costs, full_s)


def _expecting(plan: Plan, costs: Costs, full_s: float) -> Plan:
    """Return the plan with the device-seconds that each phase is expected to take; of screening
    they stand."""
    expected_s = {
        "screen": plan.expected_s["screen"],
        "proxy": proxies_cost(costs, plan.proxies, plan.proxy_steps, len(plan.rungs)),
        "confirm": confirming_cost(costs, plan.confirm_jobs, plan.proxy_steps),
        "full": full_s,
    }
    return replace(plan, expected_s=expected_s)


def without_full(
    full_s: float, costs: Costs, proxy_steps: int, full: Wanted, policy: Policy = DEFAULT
) -> Literal["", "off", "short"]:
    """Return why no full training of that many device-seconds is planned; empty where one is."""
    if not full.steps:
        return "off"
    step_s = costs.step + costs.mean_head
    left_s = full_s + costs.between_phases()
    affordable = full.affordable(left_s, costs, step_s, proxy_steps, policy)
    return "" if affordable.steps else "short"


def _together(costs: Costs, proxies: int, jobs: int, steps: int, rungs: int) -> float:
    """Return the device-seconds of proxies and of what confirms them."""
    return proxies_cost(costs, proxies, steps, rungs) + confirming_cost(costs, jobs, steps)


def proxy_rungs(steps: int, count: int) -> list[int]:
    """Return so many rungs: all of the steps, before them half, before it a quarter."""
    return sorted({max(1, steps // parts) for parts in (1, 2, 4)[:count]})


class _Screen(NamedTuple):
    candidates: int
    group_size: int
    steps: int


def _plan_screen(share_s: float, costs: Costs, space_size: int | None, policy: Policy) -> _Screen:
    """Return what screening so many device-seconds buy: whole groups first, then steps.

    Raises:
        BudgetTooSmall: when they buy no group of a single head.
    """
    wanted = policy.screen_steps
    reach = min(space_size or policy.most_candidates, policy.most_candidates)
    size = min(policy.group_size, reach)
    groups = min(
        math.ceil(reach / policy.group_size),
        ties.floor(share_s / group_cost(costs, policy.group_size, wanted.wanted)),
    )
    if groups < 1:
        # One group, as large as it can be with the fewest steps.
        groups = 1
        affordable = (
            heads
            for heads in range(1, size + 1)
            if ties.at_least(share_s, group_cost(costs, heads, wanted.fewest))
        )
        if (size := max(affordable, default=0)) == 0:
            raise BudgetTooSmall(needed_s=smallest_s(costs, policy))
    candidates = min(reach, groups * size)
    size = math.ceil(candidates / groups)
    # The steps that fit beside what a group costs without any.
    fixed_s = group_cost(costs, size, 0)
    steps = ties.floor((share_s / groups - fixed_s) / (group_cost(costs, size, 1) - fixed_s))
    return _Screen(candidates, size, max(wanted.fewest, min(wanted.most, steps)))


def _plan_proxies(
    share_s: float, costs: Costs, candidates: int, policy: Policy
) -> tuple[int, list[int]]:
    """Return (proxies, rungs of each); the steps may come out too few, or none.

    An evaluation may cost as much as many steps do, so that short proxies have fewer.
    """
    wanted, runs = policy.proxy_steps, policy.fewest_confirm_jobs
    beside = costs.beside_others
    spare_s = share_s - _together(costs, 0, runs, wanted.wanted, policy.most_rungs)
    # As many proxies of the wanted length as the share holds; then as long as it lasts for them.
    affordable = ties.floor(spare_s / proxy_cost(costs, wanted.wanted, policy.most_rungs))
    proxies = max(
        min(policy.fewest_proxies, candidates),
        min(affordable, policy.most_proxies, math.ceil(candidates / 2)),
    )
    each_s = share_s / (proxies + PROXY_CONTROLS + runs)
    shortest_s = beside.training(wanted.fewest, beside.step + beside.mean_head, 0)
    # Evaluations leave room for the fewest steps at least.
    rungs_s = min(policy.rungs_share * each_s, each_s - shortest_s)
    rungs = max(1, min(policy.most_rungs, ties.floor(rungs_s / beside.rung())))
    fixed_s = _together(costs, proxies, runs, 0, rungs)
    # Costs are linear in steps: one more costs the difference.
    step_s = _together(costs, proxies, runs, 1, rungs) - fixed_s
    steps = max(0, min(wanted.most, ties.floor((share_s - fixed_s) / step_s)))
    return proxies, proxy_rungs(steps, rungs)


def smallest_s(costs: Costs, policy: Policy = DEFAULT) -> float:
    """Return the device-seconds after measuring that suffice for a search."""
    screen_s = group_cost(costs, 1, policy.screen_steps.fewest)
    steps = policy.proxy_steps.fewest
    return _needed_s(costs, screen_s, policy.fewest_proxies, steps, 1, policy)


def ranking_s(heads: int, steps: int, costs: Costs, policy: Policy = DEFAULT) -> float:
    """Return the device-seconds after measuring from which on so many proxies of at least so many
    steps are planned, in a space that has twice as many heads."""
    groups = math.ceil((2 * heads - 1) / policy.group_size)
    screen_s = groups * group_cost(costs, policy.group_size, policy.screen_steps.wanted)
    return _needed_s(costs, screen_s, heads, steps, policy.most_rungs, policy)


def _needed_s(
    costs: Costs, screen_s: float, proxies: int, steps: int, rungs: int, policy: Policy
) -> float:
    """Return the device-seconds of a search whose screening, and whose proxies with what confirms
    them, fit into their shares."""
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
    """Return the plan with more candidates, proxies and confirming runs, as many as the budget left
    buys; the same where it buys none.

    Steps, rungs and the size of groups stay: results must be comparable with those that are known.
    Where the space has no candidate left, or no proxy of one would be affordable, what screening
    would cost goes to proxies of those that wait, and to confirming.

    Args:
        remaining_s: device-seconds that are left.
        costs: as they turned out (`Costs.scaled`).
        waiting: healthy candidates that were screened and had no proxy.
        full: where what is left for it makes less than a proxy, that goes to confirming.

    Returns:
        A plan whose numbers count all that the search is to do, and whose `expected_s` is of what
        is added alone.
    """
    left_s = max(0.0, remaining_s - len(policy.shares) * costs.between_phases())
    shares, run_s = policy.shares, proxy_cost(costs, plan.proxy_steps, len(plan.rungs))
    # What the space has left, and the budget screens.
    room = policy.most_candidates
    if space_size is not None:
        room = max(0, min(room, space_size - plan.candidates))
    group_s = group_cost(costs, plan.group_size, plan.screen_steps)
    heads = min(room, plan.group_size * ties.floor(left_s * shares.screen / group_s))

    def more_runs(heads: int) -> tuple[int, int]:
        """Return (proxies, confirming runs) beside so many further heads."""
        share = shares.together + (0.0 if heads else shares.screen)
        jobs = ties.floor(left_s / run_s * share)
        of_proxies = ties.floor(jobs * (shares.proxy / shares.together))
        proxies = min(policy.most_proxies, waiting + math.ceil(heads / 2), of_proxies)
        return proxies, min(policy.most_confirm_jobs, jobs - proxies)

    proxies, confirming = more_runs(heads)
    if not proxies:
        heads = 0  # they would be screened for nothing
        proxies, confirming = more_runs(0)
    screen_s = math.ceil(heads / plan.group_size) * group_s
    full_s = max(0.0, left_s - screen_s - run_s * (proxies + confirming))
    if without := without_full(full_s, costs, plan.proxy_steps, full, policy):
        confirming = min(policy.most_confirm_jobs, confirming + ties.floor(full_s / run_s))
        full_s = 0.0
    return replace(
        plan,
        candidates=plan.candidates + heads,
        batches=[*plan.dealt, heads] if heads else plan.batches,
        proxies=plan.proxies + proxies,
        confirm_jobs=plan.confirm_jobs + confirming,
        expected_s={
            "screen": screen_s,
            "proxy": run_s * proxies,
            "confirm": run_s * confirming,
            "full": full_s,
        },
        without_full=without,
    )
