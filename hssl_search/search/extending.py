"""What an extended budget adds to a plan whose work is done."""

from __future__ import annotations

import math
from dataclasses import replace

from hssl_search.search import ties
from hssl_search.search.costs import Costs, group_cost, proxy_cost
from hssl_search.search.phases.full import Wanted
from hssl_search.search.phases.screen import repeats
from hssl_search.search.plan import Plan
from hssl_search.search.planner import ENDLESS, MOST_CANDIDATES, MOST_CONFIRM_JOBS, MOST_PROXIES, SHARES, without_full


def extend_plan(plan: Plan, remaining_s: float, costs: Costs, space_size: int | None, waiting: int, full: Wanted = ENDLESS) -> Plan:
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
    remaining_s = max(0.0, remaining_s - len(SHARES) * costs.between_phases())
    one = proxy_cost(costs, plan.proxy_steps, len(plan.rungs))
    heads, screen_s = _more_candidates(plan, remaining_s * SHARES["screen"], costs, space_size)
    proxies, confirming = _more_runs(remaining_s / one, heads, waiting)
    if not proxies:
        heads, screen_s = 0, 0.0  # they would be screened for nothing
        proxies, confirming = _more_runs(remaining_s / one, 0, waiting)
    full_s = max(0.0, remaining_s - screen_s - one * (proxies + confirming))
    if without := without_full(full_s, costs, plan.proxy_steps, full):
        confirming, full_s = min(MOST_CONFIRM_JOBS, confirming + ties.floor(full_s / one)), 0.0
    expected = {"screen": screen_s, "proxy": one * proxies, "confirm": one * confirming, "full": full_s}
    batches = [*plan.dealt, heads] if heads else plan.batches
    return replace(plan, candidates=plan.candidates + heads, batches=batches, proxies=plan.proxies + proxies,
                   confirm_jobs=plan.confirm_jobs + confirming, expected_s=expected, without_full=without)


def _more_runs(runs: float, heads: int, waiting: int) -> tuple[int, int]:
    """(proxies, confirming runs), where what is left would suffice for so many runs."""
    jobs = ties.floor(runs * (SHARES["proxy"] + SHARES["confirm"] + (0.0 if heads else SHARES["screen"])))
    of_proxies = SHARES["proxy"] / (SHARES["proxy"] + SHARES["confirm"])
    proxies = min(MOST_PROXIES, waiting + math.ceil(heads / 2), ties.floor(jobs * of_proxies))
    return proxies, min(MOST_CONFIRM_JOBS, jobs - proxies)


def _more_candidates(plan: Plan, share_s: float, costs: Costs, space_size: int | None) -> tuple[int, float]:
    """(how many, device-seconds of screening them)."""
    room = MOST_CANDIDATES if space_size is None else min(MOST_CANDIDATES, space_size - plan.candidates)
    group_s = group_cost(costs, plan.group_size + repeats(plan.first_groups), plan.screen_steps)
    heads = max(0, min(room, plan.group_size * ties.floor(share_s / group_s)))
    return heads, math.ceil(heads / plan.group_size) * group_s
