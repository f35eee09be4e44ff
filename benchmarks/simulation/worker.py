"""A worker without training: it looks up what a real one would find, and says how long it would
take.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from hssl_search.engine.execution.jobs import MEASURE_REPORTS, Job, Plain, Report, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.costs import ALONE
from hssl_search.heads.config import HeadConfig


class Answers(Protocol):
    """What workers would find; seconds are those of the whole machine on CPU, of the GPUs of one
    job otherwise.
    """

    def measured(self, heads: Sequence[HeadConfig]) -> Plain:
        """Return the metrics of a measure job (`hssl_search.engine.worker.measure.measure`) with
        these heads."""
        ...

    def step_s(self, heads: Sequence[HeadConfig]) -> float:
        """Return seconds of a proxy's step of the base with these heads together."""
        ...

    def metrics(self, heads: Sequence[HeadConfig], seed: int, step: int, task: Task) -> Plain:
        """Return what a worker reports of them at that step, without timing; several heads are a
        joint screening."""
        ...


@dataclass(frozen=True)
class Faults:
    """What goes wrong with workers."""

    dies: float = 0.0
    """Probability that a worker dies between two reports; the job is started again from its last
    rung."""
    retries: int = 2
    """How often; as `RayExecutor`."""
    straggling: float = 0.0
    """Sigma of the lognormal factor, its median 1, by which an attempt takes longer than it
    should."""
    startup_s: float = 0.0
    """Seconds until a new worker begins its first job; within a phase it is used again."""
    seed: int = 0


class Ending(Enum):
    """How an attempt ends."""

    OVER = "over"
    DIED = "died"


Attempt = Iterator[tuple[float, Report | Ending]]
"""(seconds since the last, what happens then); the last is an Ending."""


class SimulatedWorker:
    """Runs jobs as `worker.run_job` does, in no time. Checkpoints are remembered, so that a job
    continues where it was left.
    """

    def __init__(self, answers: Answers, machine: Machine, faults: Faults) -> None:
        self.answers, self.machine, self.faults = answers, machine, faults
        self.checkpoints: dict[str, int] = {}
        """Folder of a job -> step."""

    def attempt(self, job: Job, number: int, cold: bool) -> Attempt:
        """Return the attempt of that number at the job; the same whenever it is asked for with the
        same checkpoint.

        Args:
            cold: whether the worker must start first.
        """
        task, chance = job.task, random.Random(f"{self.faults.seed}/{job.key}/{number}")
        slow = chance.lognormvariate(0.0, self.faults.straggling)
        wait_s = self.faults.startup_s if cold else 0.0
        for seconds, report in (
            self._measuring(task) if task.kind == "measure" else self._training(job, task, slow)
        ):
            if chance.random() < self.faults.dies:
                yield wait_s + chance.random() * seconds, Ending.DIED
                return
            if task.kind == "train":
                self.checkpoints[job.folder] = report.step
            yield wait_s + seconds, report
            wait_s = 0.0
        yield 0.0, Ending.OVER

    def _measuring(self, task: Task) -> Iterator[tuple[float, Report]]:
        found = self.answers.measured(task.heads)
        yield found["worker_s"], Report(MEASURE_REPORTS, found)

    def _training(self, job: Job, task: Task, slow: float) -> Iterator[tuple[float, Report]]:
        """Yield (seconds, report) at each rung; it ends at a checkpoint before its seconds are
        over."""
        heads = task.heads
        # On a CPU the jobs that run side by side share the cores.
        slow /= self.machine.share(job) if self.machine.device == "cpu" else 1.0
        step_s = slow * self.answers.step_s(heads) * _batches(task)
        # It stops in time for its last evaluation and checkpoint.
        limit_s = float("inf") if job.seconds is None else job.seconds - task.reserve_s
        if limit_s <= 0:
            return
        at, spent_s = self.checkpoints.get(job.folder, 0), 0.0
        for rung in [rung for rung in task.rungs if rung >= at]:
            reached = int(min(rung, at + max(0.0, (limit_s - spent_s) / step_s)))
            train_s = (reached - at) * step_s
            seconds = train_s + slow * self._looking_s(task, heads, reached)
            found = self.answers.metrics(heads, task.seed, reached, task)
            if task.architecture and reached >= task.steps:
                timed = [
                    {"step_ratio": self.answers.step_s([head]) / self.answers.step_s([])}
                    for head in heads
                ]
                heads_found = zip(found["heads"], timed, strict=True)
                found = {**found, "heads": [{**head, **ratio} for head, ratio in heads_found]}
            held = {"recomputed": False, "gpus": job.gpus, "surroundings": {}}
            yield (
                seconds,
                Report(reached, {**found, **held, "train_s": train_s, "train_steps": reached - at}),
            )
            at, spent_s = reached, spent_s + seconds
            if reached < rung:
                # The checkpoint, where `Job.step_reached` looks for it.
                Path(job.folder, f"step-{reached}").mkdir(parents=True, exist_ok=True)
                return

    def _looking_s(self, task: Task, heads: Sequence[HeadConfig], step: int) -> float:
        """Return seconds of all that is done at a rung beside training."""
        costs, last = self.answers.measured([]), step >= task.steps
        profiles = 0.0
        if last and task.architecture:
            candidates = [[head] for head in heads if head.family not in ("identity", "noise")]
            profiles = (1 + len(heads)) * costs["profile_s"] + ALONE * sum(
                map(self.answers.step_s, [[], *candidates])
            )
        return float(
            costs["evaluate_s"]
            + costs["checkpoint_s"]
            + profiles
            + (costs["last_evaluate_s"] if last and task.accuracy else 0.0)
        )


def _batches(task: Task) -> float:
    """Return how many times larger the batches of the task are than a proxy's."""
    recipe = task.setting.recipe
    return float(recipe[task.stage]["batch_size"] / recipe["proxy"]["batch_size"])
