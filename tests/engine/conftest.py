"""What the tests of the deciding layer share: a study in memory that can die, and a search without
training.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.candidates.sampler import CandidateSampler
from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.controller import Controller
from hssl_search.engine.execution import inline as inline_executor
from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.jobs import Job, Outcome, Plain, Send, Setting, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.runner import Backend, attach_nothing
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.ledger import Charge, Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import ResolvedSearch, ResolvedSpace, Run
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import LABELFREE, RANK_BY, RANKINGS
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import head_cost
from hssl_search.reporting import text
from hssl_search.spaces.space import Space

MAP_SHAPE = (16, 4, 4)
MACHINE = Machine("cpu", cpus=1, gpus=0)
"""The inline executor runs one job at a time, so that one job has all of the machine."""
CONTROLS = {"none": 70.0, "identity": 71.0, "noise": 10.0}
"""Accuracy at the end of a proxy."""
QUALITY = {"none": 20.0, "identity": 20.5, "noise": 1.0}
"""Score without labels at the end of a proxy, as `LABELFREE` has it."""
UNTRAINED = 5.0
STEP_S, HEAD_S, EVALUATE_S, CHECKPOINT_S, STARTUP_S = 0.1, 0.02, 0.5, 0.1, 3.0
"""Seconds on the CPUs of the whole machine, or on the GPUs of one job."""
COSTS = lru_cache(head_cost)
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


class Killed(BaseException):
    """What `kill -9` does, as far as one process can do it to itself."""


class MortalStorage(InMemoryStorage):
    """Counts writes. From the write `dies_at` on, nothing is written any more, as if the process
    had ended just before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.dies_at: int | None = None

    @property
    def dead(self) -> bool:
        return self.dies_at is not None and self.writes >= self.dies_at


def _mortal(name: str) -> Callable[..., Any]:
    def write(self: MortalStorage, *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        if self.dead:
            raise Killed
        return getattr(InMemoryStorage, name)(self, *args, **kwargs)

    return write


for _name in (
    "create_new_trial",
    "set_trial_param",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_study_user_attr",
    "set_study_system_attr",
):
    setattr(MortalStorage, _name, _mortal(_name))


class MortalLedger(Ledger):
    """A ledger that the same end ends; its writes count as the study's do."""

    def __init__(self, path: Path, clock: Callable[[], float], storage: MortalStorage) -> None:
        super().__init__(path, clock)
        self._storage = storage

    def append(self, charges: Iterable[Charge], durable: bool = True) -> None:
        self._storage.writes += 1
        if self._storage.dead:
            raise Killed
        super().append(charges, durable)


def open_study(storage: MortalStorage) -> StudyRecord:
    """The study in this storage, as `StudyRecord.open` opens it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name="demo", direction="maximize", load_if_exists=True
    )
    return StudyRecord(study, storage, "memory")


class Watcher:
    """Writes down what the progress display is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: self.told.append((name, values))

    def planned(self, *values: Any) -> None:
        self.note(text.plan_sentence(*values))

    def promoted(self, promotions: Any) -> None:
        self.note(text.promotion_sentence(promotions))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [values for told, values in self.told if told == name]

    def notes(self) -> str:
        return "\n".join(note for (note,) in self.of("note"))


class Lab:
    """A search whose worker looks results up in a table instead of training, on a clock that only
    training moves.

    Run folder, study, checkpoints and clock outlive a controller; `controller()` makes the next
    one.
    """

    def __init__(self, folder: Path, setting: Setting, space: Space, **changes: Any) -> None:
        options = {
            "budget": "10cpu-min",
            "rank_by": "accuracy",
            "full_epochs": 110,
            "machine": MACHINE,
            **changes,
        }
        self.setting, self.space, self.budget, self.machine = (
            setting,
            space,
            parse_budget(options["budget"]),
            options["machine"],
        )
        search = ResolvedSearch(
            name="demo",
            budget=self.budget,
            rank_by=RANK_BY[options["rank_by"]].key,
            sampler=options.get("sampler", "tpe"),
            promote=options.get("promote", "learned"),
            pruner=options.get("pruner", "median"),
            seed=0,
            gpus_per_trial=options.get("gpus_per_trial", self.machine.gpus_per_trial),
            max_head_cost=options.get("max_head_cost"),
            warm_start=options.get("warm_start", []),
            policy=DEFAULT,
            storage=None,
            full_epochs=options["full_epochs"],
            machine=self.machine,
            setting=setting,
            timm_args={},
            map_shapes=[MAP_SHAPE],
            same_architecture=HeadConfig(family="resnet", depth=2),
            space=ResolvedSpace.of(space),
            images={},
        )
        self.run = Run.create(folder / "demo", search.as_plain())
        self.storage = MortalStorage()
        self.record: StudyRecord | None = None
        """A study elsewhere, instead of the one in `storage`."""
        self.now = 100.0
        self.attach: Callable[[Job, Outcome], None] = attach_nothing
        self.watcher = Watcher()
        heads = [head.label() for head in space.enumerate()]
        self.accuracy = {head: 72.0 + number for number, head in enumerate(heads)}
        """Of each candidate at the end of a proxy, in per cent."""
        self.quality = {head: 30.0 - number for number, head in enumerate(heads)}
        """The base's score without labels, which puts heads the other way round."""
        self.overlap = {head: 0.5 + 0.03 * number for number, head in enumerate(heads)}
        self.gate: dict[str, str] = {}
        self.gate_alone: dict[str, str] = {}
        """What is not healthy in its screening, and in its proxy."""
        self.labelled: bool = options.get("labelled", options["rank_by"] != "discrepancy")
        self.noise = 0.0
        """Standard deviation of an accuracy from one seed to the next."""
        self.weight: dict[str, float] = {}
        """Head -> how many times longer its part of a step takes than a head's."""
        self.slow: dict[str, float] = {}
        """Phase, or key of a job -> how many times longer its steps take than was measured."""
        self.first_step = 1.0
        """How many times longer the first step that is measured takes than those after it."""
        self.start_s = 0.0
        """Seconds in which a controller starts."""
        self.memory: Plain = {}
        """What measuring says of a GPU's memory."""
        self.deaf = False
        """Whether the worker continues when its seconds are over."""
        self.raises: set[str] = set()
        """Keys of jobs that raise at their last rung, or `phase/`."""
        self.at_rung: Callable[[str, int], None] = lambda key, step: None
        self.checkpoints: dict[str, int] = {}
        self.lengths: dict[str, tuple[int, int]] = {}
        self.starts: list[str] = []
        self.ends: Counter[str] = Counter()
        self._up = ""
        """The phase whose worker is up; it is used again within the phase."""

    def clock(self) -> float:
        return self.now

    def controller(self) -> Controller:
        self._up = ""
        study = self.study
        ledger = MortalLedger(self.run.ledger, self.clock, self.storage)
        self.meter = DeviceMeter(
            ledger, self.budget, self.machine.cpus, self.machine.gpus, clock=self.clock
        )
        self.now += self.start_s
        executor = inline_executor.InlineExecutor(self.work, self.meter)
        resolved = self.run.resolved()
        sampler = CandidateSampler(resolved.sampler)
        trials = Trials(
            study, self.run, self.space, [MAP_SHAPE], 0, self.meter.ledger.of_trial, sampler=sampler
        )
        backend = Backend(
            run=self.run,
            study=study,
            executor=executor,
            meter=self.meter,
            machine=self.machine,
            watcher=self.watcher,
            ended=study.job_outcomes(),
            policy=resolved.policy,
            attach=self.attach,
        )
        return Controller(backend, resolved, trials, text.verdict_sentence)

    def search(self) -> Plain:
        """One controller's life."""
        controller = self.controller()
        try:
            return controller.search().model_dump(mode="json", by_alias=True)
        finally:
            if not self.storage.dead:
                self.meter.close()

    @property
    def study(self) -> StudyRecord:
        return self.record or open_study(self.storage)

    def trial(self, name: str) -> FrozenTrial:
        return next(trial for trial in self.study.trials() if trial.user_attrs["name"] == name)

    def charged(self) -> float:
        return Ledger(self.run.ledger).total()

    def check(self, within: bool = True) -> None:
        """What holds at the end of every search, however it went."""
        trials = self.study.trials()
        names = [trial.user_attrs["name"] for trial in trials]
        assert len(set(names)) == len(names)
        heads = [
            json.dumps(trial.user_attrs["head"], sort_keys=True)
            for trial in trials
            if trial.user_attrs["role"] == "candidate"
        ]
        assert len(set(heads)) == len(heads)
        for trial in trials:
            self._check_trial(trial)
        assert self.charged() <= self.budget.seconds + 1e-3 or not within

    def _check_trial(self, trial: FrozenTrial) -> None:
        attributes = trial.user_attrs
        if trial.state is TrialState.RUNNING:
            assert "The budget did not last for all of" in self.watcher.notes(), (
                "only what the budget did not last for is undecided"
            )
            return
        assert trial.state in (COMPLETE, PRUNED, FAIL)
        assert trial.state is COMPLETE or attributes["cause"].strip(), (
            "what did not come to its end has a cause"
        )
        assert attributes["device_s"] >= 0
        if trial.state is COMPLETE:
            assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
            assert "cause" not in attributes
        if attributes.get("control") == "noise":
            assert trial.state is PRUNED
            assert trial.intermediate_values == {}
        if attributes.get("promoted"):
            assert attributes["gate"] == "healthy"
        if attributes["role"] == "candidate" and trial.intermediate_values:
            assert attributes["promoted"]
        metrics = self.run.trial_folder(trial.number) / "metrics.jsonl"
        lines = (
            [json.loads(line) for line in metrics.read_text().splitlines()]
            if metrics.exists()
            else []
        )
        measure = RANKINGS[self.run.config()["rank_by"]]
        rungs = self.study.study_attributes()["plan"]["numbers"]["rungs"]
        own = {
            line["step"]: measure.score(line)
            for line in lines
            if line["job"].startswith("proxy/")
            and line["step"] in rungs
            and measure.score(line) is not None
        }
        if own:
            assert own == trial.intermediate_values

    def work(self, job: Job, send: Send) -> None:
        """What a worker does, without training."""
        task = job.task
        self.now += STARTUP_S if self._up != job.phase else 0.0
        self._up = job.phase
        self.starts.append(job.key)
        began, share = (
            self.now,
            job.cpus / self.machine.cpus if self.machine.device == "cpu" else 1.0,
        )
        if task.kind == "measure":
            self._raise(job)
            self.now += 1.0
            send(
                1,
                {
                    "doing": "timing",
                    "step_s": STEP_S * self.first_step,
                    "open": False,
                    "base_macs": 300_000,
                    "judged": 500,
                    "batch_size": 128,
                },
            )
            self.now += 3.0
            send(4, self._measured(task))
        limit = (1e9 if job.seconds is None or self.deaf else job.seconds) - task.reserve_s
        step_s = (
            self._step_s(task)
            * (2 if task.stage == "full" else 1)
            * self.slow.get(job.key, self.slow.get(job.phase, 1.0))
            / share
        )
        assert self.lengths.setdefault(job.folder, (task.steps, task.seed)) == (
            task.steps,
            task.seed,
        ), "the checkpoint is of another training"
        at = self.checkpoints.get(job.folder, 0)
        for rung in [rung for rung in task.rungs if rung >= at]:
            reached = min(rung, at + max(0, int((limit - (self.now - began)) / step_s)))
            timed = {"train_s": (reached - at) * step_s, "train_steps": reached - at}
            self.now += timed["train_s"]
            at = self.checkpoints[job.folder] = reached
            if reached == task.steps:
                self._raise(job)
            self.now += (EVALUATE_S + CHECKPOINT_S) / share
            if task.architecture and reached == task.steps:
                self.now += (
                    sum(2 * self._alone_s(head) for head in [None, *task.heads[:-2]])
                    * self.slow.get(job.phase, 1.0)
                    / share
                )
            self.at_rung(job.key, reached)
            send(reached, {**timed, **self._metrics(task, reached)})
            if reached < rung:
                Path(job.folder, f"step-{reached}").mkdir(parents=True, exist_ok=True)
                break
        self.ends[job.key] += 1

    def _step_s(self, task: Task) -> float:
        return STEP_S + HEAD_S * sum(self.weight.get(head.label(), 1.0) for head in task.heads)

    def _joint(self, task: Task) -> float:
        """Return how many times longer a step with the timed group's heads takes than default heads
        would make it.
        """
        heavier = sum(self.weight.get(each.head.label(), 1.0) - 1.0 for each in task.together)
        return 1.0 + HEAD_S * heavier / (STEP_S + HEAD_S * len(task.together))

    def _alone_s(self, head: HeadConfig | None) -> float:
        """Seconds of a step of the base with this head alone, or without one."""
        return STEP_S + (HEAD_S * self.weight.get(head.label(), 1.0) if head else 0.0)

    def _raise(self, job: Job) -> None:
        if job.key in self.raises or f"{job.phase}/" in self.raises:
            raise RuntimeError(f"{job.key} came to nothing")

    def _measured(self, task: Task) -> Plain:
        return {
            "precision": "fp32",
            "step_s": STEP_S,
            "head_step_s": [HEAD_S] * len(task.heads),
            "joint": self._joint(task),
            "profile_s": 0.0,
            "evaluate_s": EVALUATE_S,
            "last_evaluate_s": 0.0,
            "checkpoint_s": CHECKPOINT_S,
            "images": 1_000,
            "worker_s": 4.0,
            "costs": [[10, 0] for _ in task.heads],
            **self.memory,
            "reference": {
                "raw pixels": self._base(60.0 if self.labelled else None),
                "untrained base": self._base(50.0 if self.labelled else None, UNTRAINED),
            },
        }

    def _metrics(self, task: Task, step: int) -> Plain:
        train_s = step * self._step_s(task)
        metrics: Plain = {
            "loss": 1.0,
            "train_s": train_s,
            "train_steps": step,
            "heads": [
                self._head(head, any(each.family == "noise" for each in task.heads))
                for head in task.heads
            ],
        }
        if task.accuracy:
            head = task.heads[0] if task.heads else None
            accuracy, quality = (
                self._table(self.accuracy, CONTROLS, head),
                self._table(self.quality, QUALITY, head),
            )
            written = head and head.model_dump(exclude_none=True)
            accuracy += random.Random(f"{written}/{task.seed}").gauss(0.0, self.noise)
            share, asked = step / task.steps, task.labelfree_always or step == task.steps
            metrics |= self._base(
                50.0 + (accuracy + 0.1 * task.seed - 50.0) * share if self.labelled else None,
                UNTRAINED + (quality + 0.1 * task.seed - UNTRAINED) * share if asked else None,
            )
        return metrics

    def _base(self, accuracy: float | None, quality: float | None = None) -> Plain:
        """What is measured of a base."""
        found = {} if accuracy is None else {"accuracy": accuracy}
        return (
            found
            if quality is None
            else found | {LABELFREE.key: -quality if LABELFREE.good == "low" else quality}
        )

    def _head(self, config: HeadConfig, gated: bool) -> Plain:
        overlap = self.overlap.get(
            config.label(), {"identity": 0.3, "noise": 0.99}.get(config.family, 0.45)
        )
        gate = self.gate.get(
            config.label(), "not learning" if config.family == "noise" else "healthy"
        )
        found = {
            "cka": overlap / 2,
            "overlap": overlap,
            "head_loss": 4.5 if config.family == "noise" else 3.0,
        }
        gate = gate if gated else self.gate_alone.get(config.label(), "healthy")
        return found | {
            "gate": gate,
            "gate_reason": f"found {gate}.",
            "step_ratio": self._alone_s(config) / STEP_S,
        }

    def _table(
        self, table: Mapping[str, float], controls: Mapping[str, float], config: HeadConfig | None
    ) -> float:
        return (
            table.get(config.label(), controls.get(config.family, controls["none"] - 1.0))
            if config
            else controls["none"]
        )


@pytest.fixture(scope="session")
def small_space() -> Space:
    """Six heads of three families."""
    parameters = {"family": {"choice": ["convnext", "resnet", "mlp"]}, "depth": {"choice": [1, 2]}}
    return Space.from_plain({"parameters": parameters}, "small")


@pytest.fixture(scope="session")
def wide_space() -> Space:
    """Twenty-four heads of four families."""
    parameters = {
        "family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]},
        "depth": {"int": [1, 6]},
    }
    return Space.from_plain({"parameters": parameters}, "wide")


@pytest.fixture
def mortal() -> Callable[[], MortalStorage]:
    return MortalStorage


@pytest.fixture
def opened() -> Callable[[MortalStorage], StudyRecord]:
    return open_study


@pytest.fixture
def killed() -> type[Killed]:
    return Killed


@pytest.fixture
def study() -> StudyRecord:
    """A study in memory."""
    return open_study(MortalStorage())


@pytest.fixture
def make_lab(
    tmp_path: Path, setting: Setting, small_space: Space, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Lab]:
    """Makes searches without training: `make_lab(budget=..., rank_by=..., labelled=...,
    full_epochs=..., machine=..., space=...)`.
    """
    monkeypatch.setattr("hssl_search.heads.head.head_cost", COSTS)
    monkeypatch.setattr("os.fsync", lambda file: None)
    made: list[Lab] = []

    def make(space: Space = small_space, **changes: Any) -> Lab:
        made.append(Lab(tmp_path / str(len(made)), setting, space, **changes))
        monkeypatch.setattr(
            inline_executor, "Dispatcher", partial(Dispatcher, clock=made[-1].clock)
        )
        return made[-1]

    return make


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
