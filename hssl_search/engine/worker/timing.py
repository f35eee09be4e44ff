"""Times training steps inside a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hssl_search.engine.execution.jobs import REFERENCE_HEADS, Plain
from hssl_search.engine.planning.costs import ALONE
from hssl_search.engine.worker.memory import in_memory
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.heads.config import HeadConfig
from hssl_search.training.recipe import Stage
from hssl_search.training.trainer import Trainer

TIMED = 4
"""Steps timed at most; the fastest counts: what else runs on the machine can only slow a step down, and so does the first step's set-up."""
LONG_S = 1.0
"""A step that takes so long is timed twice at most."""


def step_seconds(
    setup: WorkerSetup,
    stage: Stage,
    heads: Sequence[HeadConfig],
    spare_s: float = float("inf"),
    most: int = TIMED,
    least: int = 1,
    told: Callable[[float], None] | None = None,
) -> float:
    """Return the seconds of the fastest of a few training steps, the device waited for.

    Args:
        spare_s: no further step is begun once so many seconds are over.
        least: steps that are made in any case. The first of a process may take ten times as long as those after it.
        told: told of the fastest of those.
    """

    def use(trainer: Trainer) -> float:
        seconds: list[float] = []
        while len(seconds) < least or (
            len(seconds) < most
            and sum(seconds) < spare_s
            and (len(seconds) < 2 or seconds[-1] < LONG_S)
        ):
            began = time.monotonic()
            trainer.advance(len(seconds) + 1)
            seconds.append(time.monotonic() - began)
            if told and len(seconds) == least:
                told(min(seconds))
        return min(seconds)

    return in_memory(lambda: setup.trainer_of(heads, stage, most, seed=0), use)


def alone(
    setup: WorkerSetup, stage: Stage, heads: Sequence[HeadConfig], healthy: list[bool]
) -> list[Plain]:
    """Return for each head of a group how many times the base's step one with that head alone takes, as its proxy will; nothing for
    reference heads and for those that are not healthy, which have no proxy."""
    base_s = step_seconds(setup, stage, [], most=ALONE)
    return [
        {"step_ratio": step_seconds(setup, stage, [head], most=ALONE) / base_s}
        if well and head not in REFERENCE_HEADS
        else {}
        for head, well in zip(heads, healthy, strict=True)
    ]
