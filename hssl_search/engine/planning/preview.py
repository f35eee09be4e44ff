"""Preview: what a search would do and cost, as plain data, and what would fit into a budget that
is too small."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hssl_search.engine.budget import Budget, written
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import (
    PHASE_OVERHEAD_S,
    PROXY_CONTROLS,
    Costs,
    FullTraining,
)
from hssl_search.engine.planning.plan import Plan, ranking_s, smallest_s
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.meter import OVERHEAD, DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.statistics import ties
from hssl_search.errors import UserError

RANKED = 20
"""Heads of the ranking whose cost is told where the budget buys a smaller one."""
CHECKPOINTS = 2
"""That a training which runs has; one that ended keeps its newest."""
PRECISION_GAIN = 2.5
"""How many times faster the base's step may turn out in a precision that was not tried yet."""
STARTUP_S = 15.0
"""Seconds, at most, in which a worker starts, where it is not known yet."""
VIEWS = 2_048
"""Views that the last evaluation of a training embeds at most."""
SIZES = (224, 192, 160, 128, 96, 64, 48, 32)
SMALLER = {
    "resnet": ("resnet50", "resnet34", "resnet18", "resnet10t", "test_resnet"),
    "vit": ("vit_base_patch16_224", "vit_small_patch16_224", "vit_tiny_patch16_224", "test_vit"),
    "convnext": (
        "convnext_base",
        "convnext_small",
        "convnext_tiny",
        "convnext_nano",
        "convnext_atto",
        "test_convnext",
    ),
    "efficientnet": ("efficientnet_b4", "efficientnet_b2", "efficientnet_b0", "test_efficientnet"),
}
"""Bases of one kind, the largest first."""
MacsOf = Callable[[str], int | None]
"""Multiply-adds of a base by its name; None for one that cannot be built like the given one."""

Page = dict[str, Any]
"""What the command `plan` prints as JSON."""


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


def planned_phases(
    plan: Plan, full: FullTraining, costs: Costs, machine: Machine, whole: Machine
) -> list[PlannedPhase]:
    """Return the phases after measuring.

    Args:
        machine: as the trainings of the search have it.
        whole: as measuring had it, and the full training has it.
    """
    startup_s = costs.startup / whole.charged(1)

    def phase(
        name: str, steps: int, jobs: int, device_s: float, machine: Machine, rounds: int = 1
    ) -> PlannedPhase:
        at_once = machine.concurrency(math.ceil(jobs / rounds))
        turns = rounds * math.ceil(math.ceil(jobs / rounds) / at_once)
        wall_s = turns * machine.wall_s(device_s / jobs, at_once)
        wall_s += rounds * (startup_s + PHASE_OVERHEAD_S)
        # Workers are started anew in each round.
        device_s += rounds * startup_s * machine.charged(at_once)
        return PlannedPhase(name, jobs, steps, at_once, device_s, wall_s)

    asked = {"screen": plan.screen_steps, "proxy": plan.proxy_steps, "confirm": plan.proxy_steps}
    phases = [
        phase(
            name,
            steps,
            plan.jobs[name],
            plan.expected_s[name],
            machine,
            # Confirming comes once, after the last round.
            1 if name == "confirm" else plan.rounds,
        )
        for name, steps in asked.items()
    ]
    if full.steps:
        phases.append(phase("full", full.steps, 1, full.device_s, whole))
    return phases


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
) -> Page:
    """Return what the command `plan` shows; times are seconds, and device-seconds where they are
    so named.

    Args:
        measuring_s: device-seconds until measuring was done.
        reserve_s: device-seconds kept for what comes after the last job.
        costs: with the typical head of the space as the only one.
        plan: None where the budget buys no search; what one would need is told all the same.
        fits: options with which one would fit.
        costly: family -> times the base's step, of heads that cost more than `max_head_cost`.
    """
    rows = [PlannedPhase("measure", 1, 0, 1, measuring_s, measuring_s), *phases]
    numbers = plan and {
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
    # Checkpoints that lie on the disk at the most: the newest of each training, and one more of
    # each that runs.
    checkpoints = sum(row.jobs for row in phases if row.phase != "screen")
    checkpoints += (CHECKPOINTS - 1) * max((row.at_once for row in phases), default=0)
    each_bytes = measured.checkpoint_bytes
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
        "plan": numbers,
        "phases": [asdict(row) for row in rows],
        "reserve_s": reserve_s,
        "device_s": sum(row.device_s for row in rows) + reserve_s,
        "eta_s": sum(row.wall_s for row in rows) + reserve_s,
        "memory_bytes": measured.memory_bytes,
        "checkpoint_bytes": each_bytes,
        "disk_bytes": None if each_bytes is None else each_bytes * checkpoints,
        "smallest_s": measuring_s + reserve_s + policy.enough * smallest_s(costs, policy),
        "fits": list(fits),
        "beyond": _beyond(plan, budget.seconds, measuring_s + reserve_s, costs, space_size, policy),
    }


def _beyond(
    plan: Plan | None,
    budget_s: float,
    fixed_s: float,
    costs: Costs,
    space_size: int | None,
    policy: Policy,
) -> list[dict[str, float]]:
    """Return the rankings that the budget does not buy, by the planner's own costs: of more heads,
    and of the most at the greatest length."""
    most = policy.most_proxies
    if space_size is not None:
        # The planner promotes at most half of the heads that are screened.
        most = min(most, math.ceil(space_size / 2))
    # A set: in a small space both are the same.
    rankings = {(min(RANKED, most), policy.proxy_steps.wanted), (most, policy.proxy_steps.most)}
    beyond = []
    for heads, steps in rankings:
        device_s = fixed_s + ranking_s(heads, steps, costs, policy)
        better = plan is None or heads > plan.proxies or steps > plan.proxy_steps
        if better and device_s > budget_s:
            beyond.append({"heads": heads, "steps": steps, "device_s": device_s})
    return sorted(beyond, key=lambda ranking: ranking["device_s"])


def after_first_step(report: Mapping[str, Any], typical_macs: float) -> tuple[Costs, Costs]:
    """Return the least and the most that a search can turn out to cost, by what measuring knows
    after a step of the base.

    Args:
        report: a report of the measure job.
        typical_macs: mean multiply-adds of the space's heads.
    """
    step_s = float(report["step_s"])
    head_s = step_s * typical_macs / report["base_macs"]
    images_a_second = 4 * report["batch_size"] / step_s
    least = Costs(step_s, {"typical": 0.5 * head_s}, 0.0, 0.0, 0.0)
    most = Costs(
        step_s,
        {"typical": 3.0 * head_s},
        evaluate=report["judged"] / images_a_second,
        checkpoint=0.5,
        startup=STARTUP_S,
        joint=1.5,
        last=min(VIEWS, 8 * report["judged"]) / images_a_second,
    )
    # While precision is open, a faster one may still be found.
    return (least.scaled(1 / PRECISION_GAIN) if report["open"] else least), most


def too_small(
    run: Run,
    meter: DeviceMeter,
    needed_s: float,
    costs: Costs,
    fits: Callable[[float, Costs], list[str]],
    policy: Policy = DEFAULT,
) -> str:
    """Say that the budget is too small, by which command it becomes large enough, and what would
    fit into it as it is.

    Args:
        needed_s: device-seconds that a smallest search needs from now on.
        fits: options with which one would fit into so many device-seconds.
    """
    # A further start takes no longer than this one.
    overhead_s = meter.ledger.by_phase().get(OVERHEAD, 0.0)
    budget, wanted_s = meter.budget, policy.enough * needed_s + overhead_s + 2 * meter.reserve_s
    command = run.how_to_resume(written(wanted_s + meter.spent() - budget.seconds, budget.device))
    options = ", or with ".join(fits(budget.seconds - meter.reserve_s - meter.spent(), costs))
    within = f" (into {budget.text} a search would fit with {options})" if options else ""
    return (
        f"the budget {budget.text} is too small for this base and these data; extend it with: "
        f"{command}{within}."
    )


def what_fits(
    available_s: float,
    costs: Costs,
    setting: Setting,
    macs_of: MacsOf,
    heads_of: Callable[[], float | None],
    policy: Policy = DEFAULT,
) -> list[str]:
    """Return the options with which a smallest search would fit into so many device-seconds after
    measuring, each alone.

    Args:
        costs: of the search that does not fit.
        macs_of: see `MacsOf`.
        heads_of: mean multiply-adds of the tiny space's heads, of those of this space; None where
            that is this one.
    """

    def fits(of_step: float, of_heads: float) -> bool:
        smaller = replace(
            costs,
            step=of_step * costs.step,
            heads={name: of_heads * seconds for name, seconds in costs.heads.items()},
            evaluate=of_step * costs.evaluate,
            last=of_step * costs.last,
        )
        return ties.at_least(available_s, policy.enough * smallest_s(smaller, policy))

    options = []
    base, size = setting.base, setting.image_size
    # Bases that may stand in for this one: smaller ones of its kind.
    kind = re.match(r"(?:test_)?([a-z]+)", base)
    names = SMALLER.get(kind[1] if kind else base, ("test_resnet",))
    names = names[names.index(base) + 1 :] if base in names else names
    whole = macs_of(base) if names else None
    for name in names if whole else ():
        macs = macs_of(name)
        if macs and whole and macs < whole and fits(macs / whole, macs / whole):
            options.append(f"--base {name}")
            break
    # A step's work grows with the area of its images.
    shares = ((side, (side / size) ** 2) for side in SIZES if side < size)
    if side := next((side for side, share in shares if fits(share, share)), None):
        options.append(f"--image-size {side}")
    if (of_heads := heads_of()) is not None and fits(1.0, of_heads):
        options.append("--space tiny")
    return options


def macs_like(setting: Setting) -> MacsOf:
    """Return what counts the multiply-adds of bases at the setting's image size, with its arguments
    where they take them."""

    def count(name: str) -> int | None:
        # torch and timm, which deciding does not need
        from hssl_search.backbones import Base, base_macs

        try:
            return base_macs(Base(name, setting.image_size, setting.base_args))
        except UserError:
            return None

    return count
