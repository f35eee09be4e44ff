"""Makes the jobs of a search: what they train, how long, on how much of the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hssl_search.search import ties
from hssl_search.search.candidates import Contender
from hssl_search.search.execution.jobs import Job, Plain
from hssl_search.search.execution.tasks import Setting, Task
from hssl_search.search.phases.measure import STAGES

MOST_AT_ONCE_ON_CPU = 8
MOST_WAITING = 1.25
"""How many times longer jobs may take together because cores have nothing to do at the end: a CPU budget pays for idle cores too."""

STILL_S = 900.0
"""A training is taken for hung when it makes no checkpoint, which it does about every minute, for so long and twice its reserve."""

MOST_ON_A_GPU = 4
MEMORY_MARGIN = 1.3
"""Of a training's peak memory: what other heads, and holes in the memory, may need beside what was measured."""
CONTEXT_BYTES = 2**30
"""What a process takes of a GPU's memory before it allocates any: CUDA's context and kernels."""


def packed(peak_bytes: int, gpu_bytes: int) -> float:
    """Share of a GPU that one training holds: as many lie side by side as fit by measured peak memory, at most four."""
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
        """How many of that many jobs run at once. On CPU each takes an equal part of the cores, as many as leave few cores idle:
        threads waiting for each other cost more than jobs side by side."""
        if self.device != "cpu":
            return max(1, min(jobs, self.gpus * ties.floor(1 / self.gpus_per_trial)))
        most = max(1, min(jobs, self.cpus, MOST_AT_ONCE_ON_CPU))
        rounds = {at_once: math.ceil(jobs / at_once) * self.wall_s(1.0, at_once) for at_once in range(most, 0, -1)}
        return next(at_once for at_once, needed in rounds.items() if ties.at_least(MOST_WAITING * jobs, needed))

    def places(self, job: Job) -> int:
        """How many such jobs fit side by side."""
        if self.device == "cpu":
            return max(1, ties.floor(self.cpus / job.cpus))
        return max(1, self.gpus * ties.floor(1 / job.gpus))  # a job's share lies on one GPU

    def resources(self, at_once: int) -> tuple[float, float]:
        """(cpus, gpus) of one of `at_once` jobs."""
        if self.device == "cpu":
            return float(max(1, self.cpus // at_once)), 0.0
        return float(max(1, ties.floor(self.cpus * self.gpus_per_trial / max(1, self.gpus)))), self.gpus_per_trial

    @property
    def fewest_cpus(self) -> float:
        """Cores of a job that runs beside as many others as may."""
        return self.resources(min(self.cpus, MOST_AT_ONCE_ON_CPU))[0]

    def cores_used(self, cpus: float, ratio: float) -> float:
        """How many times the core-seconds of a step on all cores it takes on so many, where on the fewest it takes `ratio` times as many.

        By t(c) = a + b / c, what does not gain from more cores and what does: linear in core-seconds.
        """
        if self.device != "cpu" or self.fewest_cpus == self.cpus:
            return 1.0
        return ratio + (1 - ratio) * (cpus - self.fewest_cpus) / (self.cpus - self.fewest_cpus)

    def charged(self, at_once: int) -> float:
        """Devices charged while `at_once` jobs run: all of the machine on CPU."""
        return 1.0 if self.device == "cpu" else at_once * self.gpus_per_trial

    def wall_s(self, device_s: float, at_once: int) -> float:
        """Seconds in which one of `at_once` jobs takes that many device-seconds."""
        cpus, gpus = self.resources(at_once)
        return device_s / (cpus / self.cpus if self.device == "cpu" else gpus)

    def share(self, job: Job) -> float:
        """Devices that one job is charged."""
        return job.cpus / self.cpus if self.device == "cpu" else job.gpus

    def paid(self, job: Job) -> float:
        """Devices that the budget pays for while that job runs, whatever runs beside it: all of the machine on CPU."""
        return 1.0 if self.device == "cpu" else job.gpus


class JobMaker:
    """Makes jobs whose keys are the same after a resume. `reserve_s` is always in device-seconds.

    Args:
        labelfree_ranks: whether the search is ranked by label-free quality of the base, which is then measured at each rung of a proxy.
    """

    def __init__(self, setting: Setting, folder: Path, machine: Machine, labelfree_ranks: bool = False) -> None:
        self.setting, self.folder, self.machine, self.labelfree_ranks = setting, folder, machine, labelfree_ranks

    def measure(self, heads: list[Plain], seed: int, together: Sequence[Plain] = (), measure_s: float | None = None) -> Job:
        """`heads`, `together`, `measure_s`: see `Task`."""
        beside = int(self.machine.fewest_cpus) if self.machine.device == "cpu" else None
        task = Task(kind="measure", name="measuring", setting=self.setting, heads=heads, seed=seed, steps=STAGES, measure_s=measure_s,
                    labelfree_always=self.labelfree_ranks,
                    together=list(together), cpus_beside=beside if beside != self.machine.cpus else None)
        return self._job("measure", "measure", task, "measure", 1)

    def group(self, number: int, heads: list[Plain], steps: int, seed: int, reserve_s: float, at_once: int) -> Job:
        """A joint screening; it reports twice, so that the last losses are those of its second half."""
        task = Task(name=f"group {number + 1}: {len(heads)} heads", setting=self.setting, heads=heads, steps=steps,
                    rungs=sorted({max(1, steps // 2), steps}), seed=seed, accuracy=False, architecture=True,
                    reserve_s=self.machine.wall_s(reserve_s, at_once))
        return self._job(f"screen/group{number}", "screen", task, f"screening/{number:02d}", at_once)

    def training(self, phase: str, one: Contender, seed: int, steps: int, rungs: Sequence[int], reserve_s: float, at_once: int) -> Job:
        """A proxy of one contender under one seed."""
        name = one.name if seed == self.setting.data_seed else f"{one.name} (seed {seed})"
        task = Task(name=name, setting=self.setting, heads=one.heads, steps=steps, rungs=list(rungs), seed=seed,
                    labelfree_always=self.labelfree_ranks, reserve_s=self.machine.wall_s(reserve_s, at_once))
        place = "checkpoint" if phase == "proxy" else f"checkpoint-seed{seed}"
        return self._job(f"{phase}/{one.trial:04d}/seed{seed}", phase, task, f"trials/{one.trial:04d}/{place}", at_once, one.trial)

    def full(self, name: str, heads: list[Plain], steps: int, rungs: Sequence[int], seed: int, reserve_s: float, number: int = 1) -> Job:
        """`number`: which full training of the search; an extended search may train another winner, or longer."""
        task = Task(name=name, setting=self.setting, heads=heads, stage="full", steps=steps, rungs=list(rungs), seed=seed,
                    reserve_s=self.machine.wall_s(reserve_s, 1))
        return self._job(full_key(number), "full", task, full_place(number), 1)

    def _job(self, key: str, phase: str, task: Task, place: str, at_once: int, trial: int | None = None) -> Job:
        cpus, gpus = self.machine.resources(at_once)
        still_s = STILL_S + 2 * task.reserve_s if task.rungs else None
        return Job(key, phase, task.model_dump(mode="json"), str(self.folder / place), trial, cpus, gpus, still_s=still_s)


def full_key(number: int) -> str:
    """Key of the full training of that number, from 1 on."""
    return "full" if number == 1 else f"full/{number}"


def full_place(number: int) -> str:
    """Its checkpoints, below the run folder."""
    return "winner/checkpoint" if number == 1 else f"winner/checkpoint-{number}"

