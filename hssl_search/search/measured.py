"""What the measure phase found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hssl_search.search.costs import Costs, head_cost_s
from hssl_search.search.execution.jobs import Outcome, Plain
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.jobmaker import Machine, packed
from hssl_search.search.measures import Measure
from hssl_search.search.plan import PROXY_CONTROLS
from hssl_search.search.planner import CONFIRM_JOBS, MOST_PROXIES


@dataclass(frozen=True)
class Measured:
    costs: Costs
    macs: Mapping[str, int]
    """Multiply-adds of each family's default head."""
    references: Mapping[str, Plain]
    """What was measured of raw pixels and of the untrained base."""
    precision: str
    images: int
    gpu_share: float = 1.0
    """Of a GPU, that one training has to hold for its memory."""
    memory_bytes: int | None = None
    """At the most, in training."""
    checkpoint_bytes: int | None = None
    """Of one checkpoint of the base with a head."""
    side_by_side: float = 1.0
    """How many times the core-seconds of a step on all cores it takes on the fewest that a job may have."""

    @classmethod
    def of(cls, outcome: Outcome, families: Sequence[str], machine: Machine) -> Measured:
        """Read the measure job's outcome; seconds become device-seconds."""
        found = outcome.reports[-1].metrics
        held = 1.0 if machine.device == "cpu" else machine.gpus_per_trial
        heads = {family: held * seconds for family, seconds in zip(families, found["head_step_s"], strict=True)}
        startup = max(0.0, (outcome.seconds if outcome.last_s is None else outcome.last_s) - found["worker_s"])
        costs = Costs(held * found["step_s"], heads, held * found["evaluate_s"], held * found["checkpoint_s"], held * startup,
                      held * found["profile_s"], found["joint"], held * found["last_evaluate_s"])
        ratio = found.get("side_by_side", 1.0)
        cores = {machine.resources(machine.concurrency(jobs))[0] for jobs in range(CONFIRM_JOBS, PROXY_CONTROLS + MOST_PROXIES + 1)}
        costs = replace(costs, side_by_side=max(machine.cores_used(cpus, ratio) for cpus in cores))
        macs = {family: cost[1] for family, cost in zip(families, found["costs"], strict=True)}
        gpu_bytes = found.get("gpu_bytes")
        share = packed(found["memory_bytes"], gpu_bytes) if gpu_bytes else 1.0
        return cls(costs, macs, _references(found["reference"]), found["precision"], found["images"], share,
                   found.get("memory_bytes"), found.get("checkpoint_bytes"), ratio)

    def reference(self, measure: Measure) -> dict[str, float]:
        """The score of each reference that has one: accuracies need labels, and pixels have nothing but an accuracy."""
        scores = {name: measure.score(metrics) for name, metrics in self.references.items()}
        return {name: found for name, found in scores.items() if found is not None}

    def head_s(self, family: str, macs: int) -> float:
        """Device-seconds that a head adds to a step."""
        if not self.macs.get(family):
            return 0.0 if family in ("identity", "noise", "none") else self.costs.mean_head
        return head_cost_s(self.costs.heads[family], self.macs[family], macs)

    def settle(self, setting: Setting) -> Setting:
        """The setting with `precision: auto` replaced by what was faster."""
        recipe = dict(setting.recipe)
        for stage in ("proxy", "full"):
            if recipe[stage]["precision"] == "auto":
                recipe[stage] = {**recipe[stage], "precision": self.precision}
        return setting.model_copy(update={"recipe": recipe})

    def full_step_s(self, setting: Setting, proxy_step_s: float) -> float:
        """Device-seconds of a step of the full training, whose batches may be larger than a proxy's."""
        full, proxy = (min(self.images, setting.recipe[stage]["batch_size"]) for stage in ("full", "proxy"))
        return proxy_step_s * full / proxy

    def full_steps(self, setting: Setting) -> int:
        """Steps of one epoch of the full training."""
        return max(1, self.images // setting.recipe["full"]["batch_size"])


def _references(found: Plain) -> dict[str, Plain]:
    """By names for people; a base's accuracy by another token than the one that ranks is a row of its own."""
    rows = {}
    for name, metrics in found.items():
        tokens = {key: key.removeprefix("accuracy_") for key in metrics if key.startswith("accuracy_")}
        rows[name] = {key: value for key, value in metrics.items() if key not in tokens}
        rows |= {f"{name}, {token} token": {"accuracy": metrics[key]} for key, token in tokens.items()}
    return rows
