"""The workshop: makes the jobs of a search for its machine, runs its phases, and knows how jobs ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from hssl_search.search.budget import written
from hssl_search.search.costs import Costs
from hssl_search.search.execution.jobs import Job, Outcome, Plain, Report, State
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.fitting import ENOUGH
from hssl_search.search.jobmaker import JobMaker, Machine
from hssl_search.search.measured import Measured
from hssl_search.search.phases.phase import Phase
from hssl_search.search.records.meter import OVERHEAD
from hssl_search.search.records.run import Run
from hssl_search.search.runner import Runner


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

    def settle(self, measured: Measured, gpus_per_trial: float | None) -> Plain:
        """Take what measuring found for what was left open; what is settled by now, as search.yaml has it.

        Args:
            gpus_per_trial: None: as many trainings share a GPU as its memory holds.
        """
        self.setting = measured.settle(self.setting)
        self.use(replace(self.machine, gpus_per_trial=measured.gpu_share if gpus_per_trial is None else gpus_per_trial))
        return {"gpus_per_trial": self.machine.gpus_per_trial, "setting": self.setting.model_dump(mode="json")}

    def too_small(self, needed_s: float, costs: Costs, fits: Callable[[float, Costs], list[str]]) -> str:
        """Say that the budget is too small, by which command it becomes large enough, and what would fit into it as it is.

        Args:
            needed_s: device-seconds that a smallest search needs from now on.
            fits: options with which one would fit into so many device-seconds.
        """
        meter = self.runner.meter
        overhead_s = meter.ledger.by_phase().get(OVERHEAD, 0.0)  # of a further start, which takes no longer than this one
        more_s = ENOUGH * needed_s + overhead_s + meter.spent() + 2 * meter.reserve_s - meter.budget.seconds
        command = f"hssl-search resume {os.path.relpath(self._run.folder)} --budget +{written(more_s, meter.budget.device)}"
        within = fits(meter.budget.seconds - meter.reserve_s - meter.spent(), costs)
        return (f"the budget {meter.budget.text} is too small for this base and these data; extend it with: {command}"
                + (f" (into {meter.budget.text} a search would fit with {', or with '.join(within)})." if within else "."))

    def run(self, name: str, phase: Phase, expected: Mapping[str, float], on_end: Callable[[Job, Outcome], None],
            keep_s: float = 0.0) -> None:
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
            self.ended[job.key] = replace(before, reports=[reports[step] for step in sorted(reports)])
