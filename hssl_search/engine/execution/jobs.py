"""The contract between the phases, which decide, and the executors, which run.

A phase of the search is run by a `JobSource`. Its life, seen from an executor:

1. `next_job()` is asked whenever a place is free, until it returns None and nothing runs any more.
2. The job runs somewhere. After each rung the worker reports, and `on_report(job, report)` answers
   CONTINUE or STOP.
3. When its worker died, hung or filled its device, `again(job)` says what the job may take now that
   it begins again.
4. `on_end(job, outcome)` is called exactly once for every job that was handed out, whatever
   happened to it. A later run of the search may hand it out again, to continue from its checkpoint.

All four are called from one thread. A job can be written as JSON; one with the same key and content
can be run again, anywhere, and continues from the checkpoint in its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer

from hssl_search.data.sources import Contents
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

Plain = dict[str, Any]
"""What JSON can hold."""
Metrics = dict[str, Any]
"""What a worker reports at a step, by name: JSON, and open, for each kind of job has its own."""
# In this order at the end of each group: `phases.screen.read` finds them by their places.
REFERENCE_HEADS = (HeadConfig(family="identity"), HeadConfig(family="noise"))
"""In every group: what no discrepancy is, and what no learning is."""
TaskHead = Annotated[
    HeadConfig, PlainSerializer(lambda head: head.model_dump(mode="json", exclude_none=True))
]
"""A head as a task holds it: in JSON it has only the parameters that its family reads."""
MEASURE_REPORTS = 4
"""Of a `measure` job: the base's first step, the base's step, the heads, all."""


class Setting(BaseModel):
    """What all jobs of a search have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    base_args: dict[str, Any]
    image_size: int
    data: str
    probe_data: str | None
    data_seed: int
    """Of the probe split; the same for all jobs."""
    images: dict[str, Contents] = {}  # pydantic copies a default
    """What the search began with, by part of the data (`hssl_search.data.splits`); empty in a run
    of an earlier version."""
    recipe: dict[str, Any]
    """As `hssl_search.training.recipe.Recipe` reads it, which loads torch: deciding does
    without."""
    device: Literal["cpu", "cuda"]


class CountedHead(BaseModel):
    """A head and its multiply-adds on the map that it is fed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: TaskHead
    macs: int


class Task(BaseModel):
    """One training of a base with N >= 0 heads, or with `kind: measure` a timing of it."""

    # A field that is misspelt must not train something else than was meant.
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["train", "measure"] = "train"
    name: str = ""
    """For people: what is trained."""
    setting: Setting
    heads: list[TaskHead] = []
    """For `measure`: those whose step is timed."""
    stage: Literal["proxy", "full"] = "proxy"
    steps: int = 1
    rungs: list[int] = []
    """Steps after which the worker evaluates and reports; the last is `steps`."""
    seed: int = 0
    accuracy: bool = True
    """Whether to evaluate the base: its accuracy at each rung where there are labels, its
    label-free quality at the last."""
    labelfree_always: bool = False
    """Whether to measure label-free quality, which costs as much as all else of an evaluation, at
    each rung: where it ranks."""
    architecture: bool = False
    """Whether to measure, at the last rung, how different the structures of base and heads are."""
    together: list[CountedHead] = []
    """For `measure`: heads as the space has them, whose joint step is timed."""
    measure_s: float | None = None
    """For `measure`: seconds in which may be timed what multiply-adds predict too; None: no
    limit."""
    cpus_beside: int | None = None
    """For `measure`: cores of a job that runs beside as many others as may, where those are fewer
    than all."""
    reserve_s: float = 0.0
    """Seconds that evaluation and checkpoint need at the end."""


@dataclass(frozen=True)
class Job:
    """What to train or measure, where, and on how much of the machine."""

    key: str
    """Unique and stable within a run, e.g. `proxy/0007/seed0`; the same after a resume."""
    phase: str
    """The phase that the device-time is charged to."""
    task: Task
    folder: str
    """Absolute path of the folder for this job's checkpoint."""
    trial: int | None = None
    """Number of the study's trial that this job belongs to."""
    cpus: float = 1.0
    gpus: float = 0.0
    seconds: float | None = None
    """Wall-clock seconds that the worker may use; it stops at a checkpoint before they are over."""
    still_s: float | None = None
    """Seconds without a report or a new checkpoint after which its worker counts as hung; None:
    never."""

    def as_plain(self) -> dict[str, object]:
        """Return the job as JSON can hold it, for the worker's process."""
        # `asdict` would copy the task and leave it a model, which JSON cannot hold.
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "task": self.task.model_dump(mode="json")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the job that `as_plain` wrote.

        Raises:
            pydantic.ValidationError: where its task is none.
        """
        return cls(**{**plain, "task": Task.model_validate(plain["task"])})

    def step_reached(self) -> int:
        """Return the step of the newest checkpoint in its folder; 0 without one."""
        # By names alone, since `CheckpointFolder` would load torch into the controller.
        names = (path.name.removeprefix("step-") for path in Path(self.folder).glob("step-*"))
        return max(map(int, names), default=0)


class Halt(UserError):
    """Raised by a worker: no job can continue before the user has mended this. The search stops,
    and its jobs can be taken up again."""


class DeviceFull(UserError):
    """Raised by a worker: the device's memory does not hold the job, at least not beside others."""


@dataclass(frozen=True)
class Report:
    """What a worker says after a rung."""

    step: int
    metrics: Metrics


class Decision(Enum):
    """What becomes of a job after a report."""

    CONTINUE = "continue"
    STOP = "stop"


class State(str, Enum):
    """How a job ended."""

    DONE = "done"
    """The worker came to its end."""
    STOPPED = "stopped"
    """`on_report` answered STOP."""
    FAILED = "failed"
    """The worker raised, or died or hung more often than it is retried."""
    CUT = "cut"
    """It was ended before it was done: by the budget, by its seconds, by Ctrl-C."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and what it reported."""

    state: State
    cause: str = ""
    """For FAILED: the last line of the error."""
    reports: list[Report] = field(default_factory=list)
    """All reports of all attempts, by step, each step once."""
    seconds: float = 0.0
    """Wall-clock seconds that the job held its devices, all attempts together."""
    last_s: float | None = None
    """Of them, those of the last attempt; None where there was only one."""


class JobSource(Protocol):
    """Who decides: `hssl_search.engine.phases.runner.Runner`."""

    def next_job(self) -> Job | None:
        """Return the next job to start; None where there is none at present."""
        ...

    def on_report(self, job: Job, report: Report) -> Decision:
        """Decide whether the job continues; called once for each step that it reports."""
        ...

    def again(self, job: Job) -> Job:
        """Return the job with the seconds that it may take from its newest checkpoint on; with
        none, it ends where it is."""
        ...

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """Hear how the job ended; called once for each that was handed out."""
        ...


Send = Callable[[int, Metrics], None]
"""How a worker reports: `send(step, metrics)`."""
Worker = Callable[[Job, Send], None]
"""Runs one job to its end, inside a trial; an importable function."""


class Meter(Protocol):
    """Charges device-time while jobs run."""

    def tick(self, live: list[Job]) -> None:
        """Charge the time since the last tick to these jobs; called about every half second and at
        every start and end."""
        ...

    def skip(self) -> None:
        """Charge nothing for the time since the last tick: no job ran, since what they need is held
        by others."""
        ...

    def exhausted(self) -> bool:
        """Return whether nothing may run any longer."""
        ...


class Executor(Protocol):
    """Who runs: inline, through Ray Tune, or in virtual time (`benchmarks.simulation`)."""

    def run(self, source: JobSource, concurrency: int) -> None:
        """Run the source until it has no job and none runs, the meter is exhausted, or
        KeyboardInterrupt, which is raised again after every open job was ended as CUT."""
        ...
