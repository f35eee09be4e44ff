"""What would do where a budget is too small: how much more, and what smaller search would fit into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import smallest_s
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.statistics import ties
from hssl_search.errors import UserError

ENOUGH = 1.25
"""How many times what a smallest search was measured to need is named to a user: work may turn out slower than a few steps were."""
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


def after_first_step(known: Mapping[str, Any], typical_macs: float) -> tuple[Costs, Costs]:
    """Return the least and the most that a search can turn out to cost, by what measuring knows after a step of the base.

    Args:
        known: a report of the measure job.
        typical_macs: mean multiply-adds of the space's heads.
    """
    step_s = float(known["step_s"])
    head_s, images_a_second = (
        step_s * typical_macs / known["base_macs"],
        4 * known["batch_size"] / step_s,
    )
    least = Costs(step_s, {"typical": 0.5 * head_s}, 0.0, 0.0, 0.0)
    most = Costs(
        step_s,
        {"typical": 3.0 * head_s},
        evaluate=known["judged"] / images_a_second,
        checkpoint=0.5,
        startup=STARTUP_S,
        joint=1.5,
        last=min(VIEWS, 8 * known["judged"]) / images_a_second,
    )
    return (least.scaled(1 / PRECISION_GAIN) if known["open"] else least), most


def what_fits(
    available_s: float,
    costs: Costs,
    setting: Setting,
    macs_of: MacsOf,
    heads_of: Callable[[], float | None],
    policy: Policy = DEFAULT,
) -> list[str]:
    """Return the options with which a smallest search would fit into so many device-seconds after measuring, each alone.

    Args:
        costs: of the search that does not fit.
        macs_of: see `MacsOf`.
        heads_of: mean multiply-adds of the tiny space's heads, of those of this space; None where that is this one.
    """

    def fits(of_step: float, of_heads: float) -> bool:
        heads = {name: of_heads * seconds for name, seconds in costs.heads.items()}
        smaller = replace(
            costs,
            step=of_step * costs.step,
            heads=heads,
            evaluate=of_step * costs.evaluate,
            last=of_step * costs.last,
        )
        return ties.at_least(available_s, ENOUGH * smallest_s(smaller, policy))

    found = []
    base, size = setting.base, setting.image_size
    names = _smaller(base)
    whole = macs_of(base) if names else None
    bases = (
        [] if whole is None else [(name, macs / whole) for name in names if (macs := macs_of(name))]
    )
    if (
        name := next((name for name, share in bases if share < 1 and fits(share, share)), None)
    ) is not None:
        found.append(f"--base {name}")
    if (
        smaller := next(
            (
                side
                for side in SIZES
                if side < size and fits((side / size) ** 2, (side / size) ** 2)
            ),
            None,
        )
    ) is not None:
        found.append(f"--image-size {smaller}")
    if (share := heads_of()) is not None and fits(1.0, share):
        found.append("--space tiny")
    return found


def _smaller(base: str) -> list[str]:
    """Bases that may stand in for that one."""
    stem = (re.match(r"(?:test_)?([a-z]+)", base) or [base, base])[1]
    names = SMALLER.get(stem, ("test_resnet",))
    return list(names[names.index(base) + 1 :] if base in names else names)


def macs_like(setting: Setting) -> MacsOf:
    """Return what counts the multiply-adds of bases at the setting's image size, with its arguments where they take them."""

    def count(name: str) -> int | None:
        from hssl_search.backbones import (
            Base,
            base_macs,
        )  # torch and timm, which deciding does not need

        try:
            return base_macs(Base(name, setting.image_size, setting.base_args))
        except UserError:
            return None

    return count
