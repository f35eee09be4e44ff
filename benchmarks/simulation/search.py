"""A whole search in virtual time: the real controller, study, ledger and dispatcher over simulated
workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulation.executor import SimulatedExecutor, VirtualClock
from benchmarks.simulation.worker import Answers, Faults, SimulatedWorker
from hssl_search.engine.budget import Budget
from hssl_search.engine.candidates.sampler import CandidateSampler
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.config import PromotionRule, PrunerName, SamplerName
from hssl_search.engine.controller import Controller
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.runner import Backend
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import ResolvedSearch, ResolvedSpace, Run
from hssl_search.engine.records.state import PlanState, SearchState, Verdict
from hssl_search.engine.records.study import StudyRecord
from hssl_search.heads.config import HeadConfig
from hssl_search.reporting.text import verdict_sentence
from hssl_search.spaces.space import Space

STUDY = "simulated"
SAME_ARCHITECTURE = HeadConfig(family="resnet", depth=2)
"""The control's head; that of any base of basic residual blocks."""


class Silent:
    """A watcher that tells nobody."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None


@dataclass(frozen=True)
class Simulation:
    """One search to be simulated. `start` makes its controller; started again on the same folder
    and storage, it continues.

    Args:
        map_shape: C x h x w of the map that heads are fed.
        plan: instead of what the planner makes of the budget.
        cost: (parameters, multiply-adds) of a head, where counting them takes too long or is not
            wanted.
    """

    folder: Path
    space: Space
    setting: Setting
    answers: Answers
    machine: Machine
    budget: Budget
    seed: int = 0
    map_shape: tuple[int, int, int] = (96, 4, 4)
    faults: Faults | None = None
    plan: Plan | None = None
    sampler: SamplerName = "tpe"
    promote: PromotionRule = "discrepancy"
    pruner: PrunerName = "median"
    full_epochs: int | Literal["off"] = "off"
    cost: Callable[[HeadConfig, tuple[int, int, int]], tuple[int, int]] | None = None
    heartbeat_s: float = 60.0
    same_architecture: HeadConfig = SAME_ARCHITECTURE

    def start(self, storage: BaseStorage | None = None) -> Started:
        storage = storage or InMemoryStorage()
        study, run, clock = self._study(storage), self._run(), VirtualClock()
        meter = DeviceMeter(
            Ledger(run.ledger, clock),
            self.budget,
            self.machine.cpus,
            self.machine.gpus,
            clock=clock,
            heartbeat_s=self.heartbeat_s,
        )
        if self.plan is not None and study.state.plan is None:
            numbers = self.plan.as_plain()
            plan = PlanState(
                budget_s=self.budget.seconds,
                phases=self.plan.expected_s,
                numbers=numbers,
                first=numbers,
            )
            study.write(SearchState(plan=plan))
        worker = SimulatedWorker(self.answers, self.machine, self.faults or Faults())
        backend = Backend(
            run=run,
            study=study,
            executor=SimulatedExecutor(worker, meter, clock),
            meter=meter,
            machine=self.machine,
            watcher=Silent(),
            ended=study.job_outcomes(),
            policy=DEFAULT,
        )
        trials = Trials(
            study,
            run,
            self.space,
            [self.map_shape],
            self.seed,
            meter.ledger.of_trial,
            self.cost,
            CandidateSampler(self.sampler, self.seed),
        )
        return Started(
            Controller(backend, run.resolved(), trials, verdict_sentence), meter, study, clock
        )

    def _study(self, storage: BaseStorage) -> StudyRecord:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True
        )
        return StudyRecord(study, storage, "simulated")

    def _run(self) -> Run:
        if (self.folder / "search.yaml").exists():
            return Run.open(self.folder)
        search = ResolvedSearch(
            name=self.folder.name,
            budget=replace(self.budget, text=f"{self.budget.seconds}{self.budget.device}-s"),
            rank_by="accuracy",
            sampler=self.sampler,
            promote=self.promote,
            pruner=self.pruner,
            seed=self.seed,
            gpus_per_trial=self.machine.gpus_per_trial,
            max_head_cost=None,
            policy=DEFAULT,
            storage=None,
            full_epochs=self.full_epochs,
            machine=self.machine,
            setting=self.setting,
            timm_args={},
            map_shapes=[self.map_shape],
            same_architecture=self.same_architecture,
            space=ResolvedSpace.of(self.space),
            images={},
        )
        return Run.create(self.folder, search.as_plain())


@dataclass(frozen=True)
class Started:
    controller: Controller
    meter: DeviceMeter
    study: StudyRecord
    clock: VirtualClock

    def search(self) -> Verdict:
        """Return the verdict; the ledger is closed."""
        try:
            return self.controller.search()
        finally:
            self.meter.close()
