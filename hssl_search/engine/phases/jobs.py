"""Makes the jobs of a search: what they train, how long, on how much of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hssl_search.engine.budget import written
from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.execution.jobs import (
    CountedHead,
    Job,
    Outcome,
    Plain,
    Report,
    Setting,
    State,
    Task,
)
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.measure import STAGES
from hssl_search.engine.phases.phase import Phase
from hssl_search.engine.phases.runner import Runner
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.preview import ENOUGH
from hssl_search.engine.records.meter import OVERHEAD
from hssl_search.engine.records.run import Run
from hssl_search.heads.config import HeadConfig

STILL_S = 900.0
"""A training is taken for hung when it makes no checkpoint, which it does about every minute, for so long and twice its reserve."""


class JobMaker:
    """Makes jobs whose keys are the same after a resume. `reserve_s` is always in device-seconds.

    Args:
        labelfree_ranks: whether the search is ranked by label-free quality of the base, which is then measured at each rung of a proxy.
    """

    def __init__(
        self, setting: Setting, folder: Path, machine: Machine, labelfree_ranks: bool = False
    ) -> None:
        self.setting, self.folder, self.machine, self.labelfree_ranks = (
            setting,
            folder,
            machine,
            labelfree_ranks,
        )

    def measure(
        self,
        heads: Sequence[HeadConfig],
        seed: int,
        together: Sequence[CountedHead] = (),
        measure_s: float | None = None,
    ) -> Job:
        """`heads`, `together`, `measure_s`: see `Task`."""
        beside = int(self.machine.fewest_cpus) if self.machine.device == "cpu" else None
        task = Task(
            kind="measure",
            name="measuring",
            setting=self.setting,
            heads=list(heads),
            seed=seed,
            steps=STAGES,
            measure_s=measure_s,
            labelfree_always=self.labelfree_ranks,
            together=list(together),
            cpus_beside=beside if beside != self.machine.cpus else None,
        )
        return self._job("measure", "measure", task, "measure", 1)

    def group(
        self,
        number: int,
        heads: Sequence[HeadConfig],
        steps: int,
        seed: int,
        reserve_s: float,
        at_once: int,
    ) -> Job:
        """A joint screening; it reports twice, so that the last losses are those of its second half."""
        task = Task(
            name=f"group {number + 1}: {len(heads)} heads",
            setting=self.setting,
            heads=list(heads),
            steps=steps,
            rungs=sorted({max(1, steps // 2), steps}),
            seed=seed,
            accuracy=False,
            architecture=True,
            reserve_s=self.machine.wall_s(reserve_s, at_once),
        )
        return self._job(
            f"screen/group{number}", "screen", task, f"screening/{number:02d}", at_once
        )

    def training(
        self,
        phase: str,
        one: Contender,
        seed: int,
        steps: int,
        rungs: Sequence[int],
        reserve_s: float,
        at_once: int,
    ) -> Job:
        """A proxy of one contender under one seed."""
        name = one.name if seed == self.setting.data_seed else f"{one.name} (seed {seed})"
        task = Task(
            name=name,
            setting=self.setting,
            heads=one.heads,
            steps=steps,
            rungs=list(rungs),
            seed=seed,
            labelfree_always=self.labelfree_ranks,
            reserve_s=self.machine.wall_s(reserve_s, at_once),
        )
        place = "checkpoint" if phase == "proxy" else f"checkpoint-seed{seed}"
        return self._job(
            f"{phase}/{one.trial:04d}/seed{seed}",
            phase,
            task,
            f"trials/{one.trial:04d}/{place}",
            at_once,
            one.trial,
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
        """`number`: which full training of the search; an extended search may train another winner, or longer."""
        task = Task(
            name=name,
            setting=self.setting,
            heads=list(heads),
            stage="full",
            steps=steps,
            rungs=list(rungs),
            seed=seed,
            reserve_s=self.machine.wall_s(reserve_s, 1),
        )
        return self._job(full_key(number), "full", task, full_place(number), 1)

    def _job(
        self, key: str, phase: str, task: Task, place: str, at_once: int, trial: int | None = None
    ) -> Job:
        cpus, gpus = self.machine.resources(at_once)
        still_s = STILL_S + 2 * task.reserve_s if task.rungs else None
        return Job(
            key,
            phase,
            task,
            str(self.folder / place),
            trial,
            cpus,
            gpus,
            still_s=still_s,
        )


def full_key(number: int) -> str:
    """Key of the full training of that number, from 1 on."""
    return "full" if number == 1 else f"full/{number}"


def full_place(number: int) -> str:
    """Its checkpoints, below the run folder."""
    return "winner/checkpoint" if number == 1 else f"winner/checkpoint-{number}"


class Workshop:
    """
    Args:
        labelfree_ranks: see `JobMaker`.
    """

    def __init__(self, run: Run, runner: Runner, setting: Setting, labelfree_ranks: bool) -> None:
        self.runner, self.setting = runner, setting
        self.whole = runner.machine
        """The machine as a training has it that nothing runs beside."""
        self.ended = runner.study.job_outcomes()
        self._run, self._labelfree_ranks = run, labelfree_ranks
        self.use(runner.machine)

    def use(self, machine: Machine) -> None:
        """Make and run jobs for this machine from now on."""
        self.machine = self.runner.machine = machine
        self.maker = JobMaker(self.setting, self._run.folder, machine, self._labelfree_ranks)

    def settle(self, measured: Measurement, gpus_per_trial: float | None) -> Plain:
        """Take what measuring found for what was left open; what is settled by now, as search.yaml has it.

        Args:
            gpus_per_trial: None: as many trainings share a GPU as its memory holds.
        """
        self.setting = measured.settle(self.setting)
        self.use(
            replace(
                self.machine,
                gpus_per_trial=measured.gpu_share if gpus_per_trial is None else gpus_per_trial,
            )
        )
        return {
            "gpus_per_trial": self.machine.gpus_per_trial,
            "setting": self.setting.model_dump(mode="json"),
        }

    def too_small(
        self, needed_s: float, costs: Costs, fits: Callable[[float, Costs], list[str]]
    ) -> str:
        """Say that the budget is too small, by which command it becomes large enough, and what would fit into it as it is.

        Args:
            needed_s: device-seconds that a smallest search needs from now on.
            fits: options with which one would fit into so many device-seconds.
        """
        meter = self.runner.meter
        overhead_s = meter.ledger.by_phase().get(
            OVERHEAD, 0.0
        )  # of a further start, which takes no longer than this one
        more_s = (
            ENOUGH * needed_s
            + overhead_s
            + meter.spent()
            + 2 * meter.reserve_s
            - meter.budget.seconds
        )
        command = self._run.how_to_resume(written(more_s, meter.budget.device))
        within = fits(meter.budget.seconds - meter.reserve_s - meter.spent(), costs)
        return (
            f"the budget {meter.budget.text} is too small for this base and these data; extend it with: {command}"
            + (
                f" (into {meter.budget.text} a search would fit with {', or with '.join(within)})."
                if within
                else "."
            )
        )

    def run(
        self,
        name: str,
        phase: Phase,
        expected: Mapping[str, float],
        on_end: Callable[[Job, Outcome], None],
        keep_s: float = 0.0,
    ) -> None:
        """Run a phase (`Runner.run`); what comes later in this search does not run its jobs again."""
        self.runner.run(name, phase, expected, on_end, keep_s)
        self.ended |= phase.outcomes

    def recall(self, job: Job) -> None:
        """Know what the job of a search that was killed had reported: the study holds how jobs ended, and that one did not."""
        before = self.ended.get(job.key, Outcome(State.CUT))
        if before.state is not State.CUT or job.trial is None:
            return
        reports = {report.step: report for report in before.reports}
        for line in self._run.metrics(job.trial):
            if line["job"] == job.key:
                metrics = {key: value for key, value in line.items() if key not in ("job", "step")}
                reports.setdefault(line["step"], Report(line["step"], metrics))
        if reports:
            self.ended[job.key] = replace(
                before, reports=[reports[step] for step in sorted(reports)]
            )
