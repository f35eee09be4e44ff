"""What a search would do and cost: the plan's content, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import PHASE_OVERHEAD_S, PROXY_CONTROLS, Costs, Wanted
from hssl_search.engine.planning.plan import Plan, ranking_s, smallest_s
from hssl_search.engine.planning.too_small import ENOUGH
from hssl_search.engine.policy import DEFAULT, Policy

RANKED = 20
"""Heads of the ranking whose cost is told where the budget buys a smaller one."""
CHECKPOINTS = 2
"""That a training which runs has; one that ended keeps its newest."""


@dataclass(frozen=True)
class PlannedPhase:
    """What one phase is planned to do and cost, the starting of its workers included."""

    phase: str
    jobs: int
    steps: int
    """Of each job."""
    at_once: int
    """Jobs that run side by side."""
    device_s: float
    wall_s: float


@dataclass(frozen=True)
class FullTraining:
    steps: int
    device_s: float

    @classmethod
    def within(
        cls, left_s: float, costs: Costs, step_s: float, wanted: Wanted, proxy_steps: int
    ) -> FullTraining:
        """That of the device-seconds which the phases before leave; none where they do not suffice for more than a proxy.

        Args:
            step_s: device-seconds of a step of a proxy.
        """
        steps, rungs = wanted.affordable(
            left_s + costs.between_phases(), costs, step_s, proxy_steps
        )
        return cls(
            steps, costs.training(steps, wanted.batches * step_s, len(rungs)) if steps else 0.0
        )


def planned_phases(
    plan: Plan, full: FullTraining, costs: Costs, machine: Machine, whole: Machine
) -> list[PlannedPhase]:
    """The phases after measuring.

    Args:
        machine: as the trainings of the search have it.
        whole: as measuring had it, and the full training has it.
    """
    asked = [
        ("screen", plan.screen_steps, plan.rounds),
        ("proxy", plan.proxy_steps, plan.rounds),
        ("confirm", plan.proxy_steps, 1),
    ]
    found = [
        _phase(
            name,
            plan.jobs[name],
            steps,
            plan.expected_s[name],
            costs.startup / whole.charged(1),
            machine,
            rounds,
        )
        for name, steps, rounds in asked
    ]
    if full.steps:
        found.append(
            _phase("full", 1, full.steps, full.device_s, costs.startup / whole.charged(1), whole, 1)
        )
    return found


def _phase(
    name: str,
    jobs: int,
    steps: int,
    device_s: float,
    startup_s: float,
    machine: Machine,
    rounds: int,
) -> PlannedPhase:
    """`device_s` without, `startup_s` the seconds for, the starting of workers, which is done in each round anew."""
    at_once = machine.concurrency(math.ceil(jobs / rounds))
    turns = rounds * math.ceil(math.ceil(jobs / rounds) / at_once)
    wall_s = turns * machine.wall_s(device_s / jobs, at_once) + rounds * (
        startup_s + PHASE_OVERHEAD_S
    )
    return PlannedPhase(
        name, jobs, steps, at_once, device_s + rounds * startup_s * machine.charged(at_once), wall_s
    )


def preview(
    budget: Budget,
    measuring_s: float,
    reserve_s: float,
    measured: Measurement,
    costs: Costs,
    plan: Plan | None,
    phases: Sequence[PlannedPhase],
    space_size: int | None,
    fits: Sequence[str] = (),
    costly: Mapping[str, float] | None = None,
    max_head_cost: float | None = None,
    policy: Policy = DEFAULT,
) -> Plain:
    """What the command `plan` shows; times are seconds, and device-seconds where they are so named.

    Args:
        measuring_s: device-seconds until measuring was done.
        reserve_s: device-seconds kept for what comes after the last job.
        costs: with the typical head of the space as the only one.
        plan: None where the budget buys no search; what one would need is told all the same.
        fits: options with which one would fit.
        costly: family -> times the base's step, of heads that cost more than `max_head_cost`.
    """
    measuring = PlannedPhase("measure", 1, 0, 1, measuring_s, measuring_s)
    rows = [measuring, *phases]
    return {
        "budget": budget.text,
        "device": budget.device,
        "budget_s": budget.seconds,
        "enough": plan is not None,
        "measured": {
            "step_s": costs.step,
            "head_step_s": costs.mean_head,
            "evaluate_s": costs.evaluate,
            "checkpoint_s": costs.checkpoint,
            "families": dict(measured.costs.heads),
            "precision": measured.precision,
        },
        "max_head_cost": max_head_cost,
        "costly": dict(costly or {}),
        "plan": None if plan is None else _numbers(plan),
        "phases": [asdict(row) for row in rows],
        "reserve_s": reserve_s,
        "device_s": sum(row.device_s for row in rows) + reserve_s,
        "eta_s": sum(row.wall_s for row in rows) + reserve_s,
        "memory_bytes": measured.memory_bytes,
        "checkpoint_bytes": measured.checkpoint_bytes,
        "disk_bytes": _disk_bytes(phases, measured.checkpoint_bytes),
        "smallest_s": measuring_s + reserve_s + ENOUGH * smallest_s(costs, policy),
        "fits": list(fits),
        "beyond": _beyond(plan, budget.seconds, measuring_s + reserve_s, costs, space_size, policy),
    }


def _numbers(plan: Plan) -> Plain:
    return {
        "candidates": plan.candidates,
        "groups": plan.groups,
        "group_size": plan.group_size,
        "screen_steps": plan.screen_steps,
        "rounds": plan.rounds,
        "proxies": plan.proxies,
        "controls": PROXY_CONTROLS,
        "proxy_steps": plan.proxy_steps,
        "rungs": list(plan.rungs),
        "confirming_runs": plan.confirm_jobs,
    }


def _disk_bytes(phases: Sequence[PlannedPhase], checkpoint_bytes: int | None) -> int | None:
    """Of the checkpoints that lie there at the most: the newest of each training, and one more of each that runs."""
    if checkpoint_bytes is None:
        return None
    kept = sum(row.jobs for row in phases if row.phase != "screen")
    return checkpoint_bytes * (
        kept + (CHECKPOINTS - 1) * max((row.at_once for row in phases), default=0)
    )


def _beyond(
    plan: Plan | None,
    budget_s: float,
    fixed_s: float,
    costs: Costs,
    space_size: int | None,
    policy: Policy,
) -> list[Plain]:
    """Rankings that the budget does not buy, by the planner's own costs: of more heads, and of the most at the greatest length."""
    most = (
        policy.most_proxies
        if space_size is None
        else min(policy.most_proxies, math.ceil(space_size / 2))
    )
    rankings = {(min(RANKED, most), policy.proxy_steps.wanted), (most, policy.proxy_steps.most)}
    found = [
        {
            "heads": heads,
            "steps": steps,
            "device_s": fixed_s + ranking_s(heads, steps, costs, policy),
        }
        for heads, steps in rankings
    ]
    better = [
        one
        for one in found
        if plan is None or one["heads"] > plan.proxies or one["steps"] > plan.proxy_steps
    ]
    return sorted(
        (one for one in better if one["device_s"] > budget_s), key=lambda one: one["device_s"]
    )
