"""What the controller knows of each trial of the study, and what may rank them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hssl_search.engine.execution.jobs import Outcome, Plain, State

SAME_TIME = "none_same_time"
"""The control without head for the device-time of the proxy that led when confirming began."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A head candidate or a control, as the phases see it; equal to itself alone, so that what is made of it can be remembered."""

    trial: int
    name: str
    heads: list[Plain]
    """Its HeadConfig in a list; empty for a control without head."""
    family: str
    control: str | None = None
    """Which control it is, None for a candidate."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """The trial's: cost, and what screening found."""


def final_metrics(outcome: Outcome, steps: int) -> Plain | None:
    """The metrics of a job that came to its last step; None when it ended before."""
    last = outcome.reports[-1] if outcome.reports else None
    return (
        last.metrics
        if outcome.state is State.DONE and last is not None and last.step >= steps
        else None
    )


def ailment(metrics: Mapping[str, Any]) -> str:
    """Which gate a head of a training did not pass, and why; empty where all are healthy. A candidate's training then does not count."""
    sick = [head for head in metrics.get("heads") or [] if head.get("gate", "healthy") != "healthy"]
    return f"{sick[0]['gate']}: {sick[0]['gate_reason']}" if sick else ""
