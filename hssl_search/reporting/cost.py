"""What a run cost: device-seconds by phase, against the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hssl_search.reporting.formats import duration, known
from hssl_search.reporting.palette import phase_order
from hssl_search.reporting.record import RunRecord
from hssl_search.reporting.tables import phase_costs

Entries = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Cost:
    """`phases`: a row a phase with device_s, attempts and jobs that ended; planned_s and jobs_planned of the plan as it was in the end, and
    first_s of the one before screening (missing where the plan does not name the phase)."""

    phases: pd.DataFrame
    used_s: float
    budget_s: float | None

    def sentence(self) -> str:
        """`11.2 min of device-time, of a budget of 12.0 min (93 %)`."""
        text = f"{duration(self.used_s)} of device-time"
        if self.budget_s:
            text += f", of a budget of {duration(self.budget_s)} ({100 * self.used_s / self.budget_s:.0f} %)"
        return text


def cost(record: RunRecord, ledger: Entries) -> Cost:
    spent = phase_costs(ledger).set_index("phase")
    planned = planned_seconds(record.plan)
    names = phase_order([*spent.index, *planned])
    phases = spent.reindex(names).fillna({"device_s": 0.0, "attempts": 0})
    first = planned_seconds({"phases": record.plan.get("first_phases")}) or planned
    ended = Counter(job.phase for job in record.jobs if job.state != "cut")
    for column, values in (
        ("first_s", first),
        ("planned_s", planned),
        ("jobs_planned", record.plan.get("jobs") or {}),
    ):
        phases[column] = pd.Series(values, dtype=float).reindex(names)
    phases["jobs"] = [ended[name] for name in names]
    budget = record.plan.get("budget_s")
    return Cost(
        phases.reset_index(names="phase"),
        float(phases["device_s"].sum()),
        float(budget) if known(budget) else None,
    )


def planned_seconds(plan: Mapping[str, Any]) -> dict[str, float]:
    """Device-seconds by phase from `plan["phases"]`, whose values are seconds or mappings with `device_s`."""
    phases = plan.get("phases") or {}
    seconds = {
        name: value.get("device_s") if isinstance(value, Mapping) else value
        for name, value in phases.items()
    }
    return {name: float(value) for name, value in seconds.items() if known(value)}
