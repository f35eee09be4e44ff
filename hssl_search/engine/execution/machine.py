"""What one search may use of machines, and how much of it each job gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hssl_search.engine.execution.jobs import Job
from hssl_search.engine.statistics import ties

MOST_AT_ONCE_ON_CPU = 8
MOST_WAITING = 1.25
"""How many times longer jobs may take together because cores have nothing to do at the end: a CPU
budget pays for idle cores too."""
MOST_ON_A_GPU = 4
MEMORY_MARGIN = 1.3
"""Of a training's peak memory: what other heads, and holes in the memory, may need beside what was
measured."""
CONTEXT_BYTES = 2**30
"""What a process takes of a GPU's memory before it allocates any: CUDA's context and kernels."""


def packed(peak_bytes: int, gpu_bytes: int) -> float:
    """Return the share of a GPU that one training holds: as many lie side by side as fit by
    measured peak memory, at most four."""
    at_once = gpu_bytes // round(MEMORY_MARGIN * peak_bytes + CONTEXT_BYTES)
    return 1 / max(1, min(MOST_ON_A_GPU, at_once))


@dataclass(frozen=True)
class Machine:
    """What one search may use."""

    device: str
    """`cpu` or `gpu`."""
    cpus: int
    gpus: int
    gpus_per_trial: float = 1.0

    def concurrency(self, jobs: int) -> int:
        """Return how many of that many jobs run at once.

        On CPU each takes an equal part of the cores, as many as leave few cores idle: threads
        waiting for each other cost more than jobs side by side.
        """
        if self.device != "cpu":
            # Counted on one GPU, since no job lies on two.
            return max(1, min(jobs, self.gpus * ties.floor(1 / self.gpus_per_trial)))
        most = max(1, min(jobs, self.cpus, MOST_AT_ONCE_ON_CPU))
        for at_once in range(most, 1, -1):
            needed = math.ceil(jobs / at_once) * self.wall_s(1.0, at_once)
            if ties.at_least(MOST_WAITING * jobs, needed):
                return at_once
        return 1

    def places(self, job: Job) -> int:
        """Return how many such jobs fit side by side."""
        if self.device == "cpu":
            return max(1, ties.floor(self.cpus / job.cpus))
        return max(1, self.gpus * ties.floor(1 / job.gpus))  # a job's share lies on one GPU

    def resources(self, at_once: int) -> tuple[float, float]:
        """Return (cpus, gpus) of one of `at_once` jobs."""
        if self.device == "cpu":
            return float(max(1, self.cpus // at_once)), 0.0
        cpus = ties.floor(self.cpus * self.gpus_per_trial / max(1, self.gpus))
        return float(max(1, cpus)), self.gpus_per_trial

    @property
    def fewest_cpus(self) -> float:
        """Return the cores of a job that runs beside as many others as may."""
        return self.resources(min(self.cpus, MOST_AT_ONCE_ON_CPU))[0]

    def cores_used(self, cpus: float, ratio: float) -> float:
        """Return how many times the core-seconds of a step on all cores it takes on so many.

        By t(c) = a + b / c, what does not gain from more cores and what does: linear in
        core-seconds.

        Args:
            ratio: how many times as many it takes on the fewest.
        """
        if self.device != "cpu" or self.fewest_cpus == self.cpus:
            return 1.0
        return ratio + (1 - ratio) * (cpus - self.fewest_cpus) / (self.cpus - self.fewest_cpus)

    def charged(self, at_once: int) -> float:
        """Return the devices charged while `at_once` jobs run: all of the machine on CPU."""
        return 1.0 if self.device == "cpu" else at_once * self.gpus_per_trial

    def wall_s(self, device_s: float, at_once: int) -> float:
        """Return the seconds in which one of `at_once` jobs takes that many device-seconds."""
        cpus, gpus = self.resources(at_once)
        return device_s / (cpus / self.cpus if self.device == "cpu" else gpus)

    def share(self, job: Job) -> float:
        """Return the devices that one job is charged."""
        return job.cpus / self.cpus if self.device == "cpu" else job.gpus

    def paid(self, job: Job) -> float:
        """Return the devices that the budget pays for while that job runs, whatever runs beside it:
        all of the machine on CPU."""
        return 1.0 if self.device == "cpu" else job.gpus
