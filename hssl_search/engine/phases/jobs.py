"""Makes the jobs of a search: what they train, how long, on how much of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hssl_search.engine.execution.jobs import MEASURE_REPORTS, CountedHead, Job, Setting, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.state import Contender
from hssl_search.heads.config import HeadConfig


@dataclass(frozen=True)
class JobMaker:
    """Makes jobs whose keys are the same after a resume. `reserve_s` is always in
    device-seconds."""

    setting: Setting
    folder: Path
    """The run's; each job has its checkpoints below."""
    machine: Machine
    labelfree_ranks: bool = False
    """Whether the search is ranked by label-free quality of the base, which is then measured at
    each rung of a proxy."""
    alone: Machine | None = None
    """The machine as a training has it that nothing runs beside, where that is another."""
    hung_s: float = DEFAULT.hung_s
    """See `Policy`."""

    @property
    def whole(self) -> Machine:
        """Return the machine as a training has it that nothing runs beside."""
        return self.alone or self.machine

    def measure(
        self,
        heads: Sequence[HeadConfig],
        seed: int,
        together: Sequence[CountedHead] = (),
        measure_s: float | None = None,
    ) -> Job:
        """Return the job that times a training; `heads`, `together` and `measure_s` as in
        `Task`."""
        fewest = int(self.machine.fewest_cpus) if self.machine.device == "cpu" else None
        task = Task(
            kind="measure",
            name="measuring",
            setting=self.setting,
            heads=list(heads),
            seed=seed,
            steps=MEASURE_REPORTS,  # as the progress line counts them
            measure_s=measure_s,
            labelfree_always=self.labelfree_ranks,
            together=list(together),
            cpus_beside=fewest if fewest != self.machine.cpus else None,
        )
        return self._job("measure", "measure", task, "measure", self.machine.resources(1))

    def group(
        self,
        number: int,
        heads: Sequence[HeadConfig],
        steps: int,
        seed: int,
        reserve_s: float,
        at_once: int,
    ) -> Job:
        """Return a joint screening of these heads, one of `at_once`. It reports twice, so that the
        last losses are those of its second half."""
        task = Task(
            name=f"group {number + 1}: {len(heads)} heads",
            setting=self.setting,
            heads=list(heads),
            steps=steps,
            rungs=sorted({max(1, steps // 2), steps}),  # of one step there is one
            seed=seed,
            # All heads have trained this base: its accuracy would tell nothing of one of them.
            accuracy=False,
            architecture=True,
            reserve_s=self.machine.wall_s(reserve_s, at_once),
        )
        key, folder = f"screen/group{number}", f"screening/group-{number:02d}"
        return self._job(key, "screen", task, folder, self.machine.resources(at_once))

    def training(
        self,
        phase: str,
        contender: Contender,
        seed: int,
        steps: int,
        rungs: Sequence[int],
        reserve_s: float,
        at_once: int,
    ) -> Job:
        """Return a training of one contender under one seed, one of `at_once`."""
        further_seed = "" if seed == self.setting.data_seed else f" (seed {seed})"
        task = Task(
            name=f"{contender.name}{further_seed}",
            setting=self.setting,
            heads=contender.heads,
            steps=steps,
            rungs=list(rungs),
            seed=seed,
            labelfree_always=self.labelfree_ranks,
            reserve_s=self.machine.wall_s(reserve_s, at_once),
        )
        trial = contender.trial
        checkpoint = "checkpoint" if phase == "proxy" else f"checkpoint-seed{seed}"
        return self._job(
            f"{phase}/{trial:04d}/seed{seed}",
            phase,
            task,
            f"trials/{trial:04d}/{checkpoint}",
            self.machine.resources(at_once),
            trial,
        )

    def full(
        self,
        name: str,
        heads: Sequence[HeadConfig],
        steps: int,
        rungs: Sequence[int],
        seed: int,
        reserve_s: float,
        number: int = 1,
    ) -> Job:
        """Return the full training of that number, from 1 on: an extended search may train another
        winner, or longer."""
        task = Task(
            name=name,
            setting=self.setting,
            heads=list(heads),
            stage="full",
            steps=steps,
            rungs=list(rungs),
            seed=seed,
            reserve_s=self.whole.wall_s(reserve_s, 1),
        )
        key, folder = full_key(number), full_folder(number)
        return self._job(key, "full", task, folder, self.whole.resources(1))

    def _job(
        self,
        key: str,
        phase: str,
        task: Task,
        folder: str,
        resources: tuple[float, float],
        trial: int | None = None,
    ) -> Job:
        cpus, gpus = resources
        # Measuring saves nothing that could show that it continues.
        still_s = self.hung_s + 2 * task.reserve_s if task.rungs else None
        return Job(key, phase, task, str(self.folder / folder), trial, cpus, gpus, still_s=still_s)


def full_key(number: int) -> str:
    """Return the key of the full training of that number, from 1 on."""
    # The first as earlier versions named it, which knew only one; its folder too.
    return "full" if number == 1 else f"full/{number}"


def full_folder(number: int) -> str:
    """Return the folder of its checkpoints, below the run's."""
    return "winner/checkpoint" if number == 1 else f"winner/checkpoint-{number}"
