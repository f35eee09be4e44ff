"""A phase within the budget, recorded and watched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution import inline as inline_executor
from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import (
    DeviceFull,
    Job,
    JobSource,
    Outcome,
    Report,
    Send,
    State,
    Task,
)
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.phase import Phase
from hssl_search.engine.phases.runner import PATIENCE, Runner
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord

LEAVES = object()
ACTS: dict[str, tuple[Any, ...]] = {}
"""What each job does, by its key."""
CPU = Machine("cpu", cpus=4, gpus=0)
GPUS = Machine("gpu", cpus=16, gpus=4, gpus_per_trial=0.5)


def job(
    key: str,
    cpus: float = 4.0,
    gpus: float = 0.0,
    trial: int | None = None,
    reserve_s: float = 0.0,
    acts: tuple[Any, ...] = (),
) -> Job:
    task = Task.model_construct(name=f"the {key}", steps=100, rungs=[50, 100], reserve_s=reserve_s)
    ACTS[key] = acts
    return Job(key, key.split("/")[0], task, "/nowhere", trial, cpus, gpus)


class WorkerSetup:
    """A runner with a budget of 1,000 device-seconds, and a clock that only its worker moves.

    Each act of a job is seconds of an equal part of its steps, an error, or LEAVES: its seconds are over.
    """

    def __init__(
        self, folder: Path, study: StudyRecord, watcher: Any, machine: Machine = CPU
    ) -> None:
        self.now, self.watcher, self.study = 0.0, watcher, study
        self.run_folder = Run.create(folder / "demo", {})
        self.meter = DeviceMeter(
            Ledger(self.run_folder.ledger, self.clock),
            parse_budget(f"1000{machine.device}-s"),
            machine.cpus,
            machine.gpus,
            clock=self.clock,
        )
        self.runner = Runner(
            self.run_folder,
            InlineExecutor(self.work, self.meter),
            self.meter,
            study,
            watcher,
            machine,
        )
        self.started: list[Job] = []
        self.ended: list[tuple[str, State, str]] = []

    def clock(self) -> float:
        return self.now

    def spend(self, device_s: float) -> None:
        self.meter.ledger.charge("before#1", "proxy", device_s)

    def work(self, job: Job, send: Send) -> None:
        self.started.append(job)
        for number, act in enumerate(ACTS[job.key], start=1):
            if act is LEAVES:
                return
            if isinstance(act, BaseException):
                raise act
            self.now += act
            send(100 * number // len(ACTS[job.key]), {"accuracy": 40.0 + number})

    def run(
        self,
        *jobs: Job,
        ended: dict[str, Outcome] | None = None,
        expected: dict[str, float] | None = None,
        keep_s: float = 0.0,
        kind: type[Phase] = Phase,
    ) -> Phase:
        phase = kind(jobs, ended or {})
        self.runner.run(
            "proxy",
            phase,
            expected or {},
            lambda job, outcome: self.ended.append((job.key, outcome.state, outcome.cause)),
            keep_s,
        )
        return phase


@pytest.fixture
def setup(
    tmp_path: Path, study: StudyRecord, watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> WorkerSetup:
    made = WorkerSetup(tmp_path, study, watcher)
    monkeypatch.setattr(inline_executor, "Dispatcher", partial(Dispatcher, clock=made.clock))
    return made


def test_each_job_that_has_ended_is_shown_before_it_decides_anything(setup: WorkerSetup) -> None:
    shown: list[str] = []
    setup.runner.show = lambda job, outcome: shown.append(
        f"{job.key} {outcome.state.value} after {len(setup.ended)}"
    )
    setup.run(
        job("proxy/0"), job("proxy/1", acts=(1.0, 1.0)), ended={"proxy/0": Outcome(State.DONE)}
    )
    assert shown == ["proxy/0 done after 0", "proxy/1 done after 1"]
    assert [key for key, *_ in setup.ended] == ["proxy/0", "proxy/1"]


def seconds(
    runner: Runner, asked: Job, expected_s: float | None, concurrency: int = 1
) -> float | None:
    fitting = runner.affordable(asked, expected_s, concurrency)
    return None if fitting is None else fitting.seconds


def test_a_job_may_take_a_few_times_what_was_expected_but_no_more_than_is_left(
    setup: WorkerSetup,
) -> None:
    factor, more = PATIENCE
    assert seconds(setup.runner, job("a"), 100.0) == factor * 100 + more
    assert seconds(setup.runner, job("a"), 500.0) == 1_000
    assert seconds(setup.runner, job("a"), None) == 1_000
    setup.spend(600.0)
    assert seconds(setup.runner, job("a"), 300.0) == 400
    assert seconds(setup.runner, job("a"), None) == 400


def test_a_job_that_would_not_end_within_the_budget_does_not_fit(setup: WorkerSetup) -> None:
    setup.spend(600.0)
    assert seconds(setup.runner, job("a"), 400.0) == 400
    assert seconds(setup.runner, job("a"), 400.1) is None
    assert seconds(setup.runner, job("a", reserve_s=10.0), 390.0) == 400
    assert seconds(setup.runner, job("a", reserve_s=10.0), 390.1) is None
    setup.runner.startup_s = 30.0
    assert seconds(setup.runner, job("a", reserve_s=10.0), 360.0) == 370
    assert seconds(setup.runner, job("a", reserve_s=10.0), 360.1) is None


def test_nothing_fits_when_nothing_is_left(setup: WorkerSetup) -> None:
    setup.spend(1_000.0)
    assert seconds(setup.runner, job("a"), None) is None
    assert seconds(setup.runner, job("a"), 0.1) is None


def test_a_job_with_a_part_of_the_cpus_needs_longer(setup: WorkerSetup) -> None:
    factor, more = PATIENCE
    assert seconds(setup.runner, job("a", cpus=1), 10.0, concurrency=4) == factor * 40 + more
    assert seconds(setup.runner, job("a", cpus=1), 250.1, concurrency=4) is None


def test_jobs_at_once_on_gpus_share_what_is_left(
    tmp_path: Path, study: StudyRecord, watcher: Any
) -> None:
    runner = WorkerSetup(tmp_path, study, watcher, GPUS).runner
    factor, more = PATIENCE
    assert seconds(runner, job("a", gpus=0.5), None, concurrency=8) == 250
    assert seconds(runner, job("a", gpus=0.5), 10.0, concurrency=8) == factor * 20 + more
    assert seconds(runner, job("a", gpus=0.5), 200.0, concurrency=8) == 400 + (2_000 - 400) / 8
    assert seconds(runner, job("a", gpus=0.5), 1_000.0, concurrency=8) == 2_000
    assert seconds(runner, job("a", gpus=0.5), 1_000.1, concurrency=8) is None


@pytest.mark.parametrize(
    ("expected_s", "reserve_s", "given_s"),
    [
        (200.0, 0.0, 200 + (400 - 200) / 8),
        (200.0, 40.0, 240 + (400 - 240) / 8),
        (400.0, 0.0, 400.0),
        (400.1, 0.0, None),
        (390.0, 10.0, 400.0),
        (390.1, 10.0, None),
    ],
)
def test_a_job_on_gpus_fits_beside_what_those_that_run_should_still_take(
    tmp_path: Path,
    study: StudyRecord,
    watcher: Any,
    expected_s: float,
    reserve_s: float,
    given_s: float | None,
) -> None:
    runner = WorkerSetup(tmp_path, study, watcher, Machine("gpu", cpus=16, gpus=8)).runner
    fitting = runner.affordable(
        job("a", gpus=1.0, reserve_s=reserve_s), expected_s, concurrency=8, live_s=4 * 150.0
    )
    assert (fitting and fitting.seconds) == given_s


class SideBySide:
    """An executor that starts four jobs, lets seconds pass, and only then asks for another; all are cut then."""

    def __init__(self, setup: WorkerSetup, passes_s: float) -> None:
        self.setup, self.passes_s = setup, passes_s
        self.started: list[Job] = []

    def run(self, source: JobSource, concurrency: int) -> None:
        self.started = [asked for _ in range(4) if (asked := source.next_job())]
        self.setup.meter.tick(self.started)
        self.setup.now += self.passes_s
        self.setup.meter.tick(self.started)
        self.started += [asked for asked in [source.next_job()] if asked]
        for asked in self.started:
            source.on_end(asked, Outcome(State.CUT))


@pytest.mark.parametrize(
    ("passes_s", "last_s", "fits"),
    [
        (0.0, 400.0, True),
        (0.0, 401.0, False),
        (100.0, 400.0, True),
        (100.0, 401.0, False),
        (200.0, 200.0, True),
        (200.0, 201.0, False),
    ],
    ids=str,
)
def test_what_jobs_on_gpus_have_done_is_no_longer_kept_for_them(
    tmp_path: Path, study: StudyRecord, watcher: Any, passes_s: float, last_s: float, fits: bool
) -> None:
    setup = WorkerSetup(tmp_path, study, watcher, Machine("gpu", cpus=16, gpus=8))
    setup.runner.executor = side_by_side = SideBySide(setup, passes_s)
    jobs = [job(f"proxy/{number}", gpus=1.0) for number in range(8)]
    setup.run(
        *jobs,
        expected={
            asked.key: 150.0 if number < 4 else last_s if number == 4 else 5_000.0
            for number, asked in enumerate(jobs)
        },
    )
    assert [asked.key for asked in side_by_side.started] == [
        f"proxy/{number}" for number in range(5 if fits else 4)
    ]
    assert setup.meter.remaining() == 1_000 - 4 * passes_s


def test_jobs_side_by_side_on_a_cpu_take_nothing_from_each_other(setup: WorkerSetup) -> None:
    setup.runner.executor = side_by_side = SideBySide(setup, 100.0)
    jobs = [job(f"proxy/{number}", cpus=1.0) for number in range(5)]
    setup.run(*jobs, expected=dict.fromkeys((asked.key for asked in jobs), 225.0))
    assert [asked.seconds for asked in side_by_side.started] == [1_000.0] * 4 + [900.0]


def test_a_job_that_ends_early_so_that_others_can_end_was_cut_by_the_budget(
    tmp_path: Path, study: StudyRecord, watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = WorkerSetup(tmp_path, study, watcher, GPUS)
    monkeypatch.setattr(inline_executor, "Dispatcher", partial(Dispatcher, clock=gpus.clock))
    jobs = [
        job(f"proxy/{number}", gpus=0.5, acts=(442.5, LEAVES) if number == 0 else (1.0, 1.0))
        for number in range(8)
    ]
    gpus.run(*jobs, expected=dict.fromkeys((asked.key for asked in jobs), 110.0))
    assert gpus.started[0].seconds == 220 + (2_000 - 220) / 8 == 442.5
    assert [state for _, state, _ in gpus.ended[:2]] == [State.CUT, State.DONE]
    assert gpus.runner.short == {"proxy"}


def test_a_job_that_does_not_fit_is_not_started_and_said_so_and_a_smaller_one_is(
    setup: WorkerSetup,
) -> None:
    phase = setup.run(
        job("proxy/large", acts=(9.0,)),
        job("proxy/small", acts=(9.0,)),
        expected={"proxy/large": 1_001.0, "proxy/small": 9.0},
    )
    assert [started.key for started in setup.started] == ["proxy/small"]
    assert setup.ended == [
        ("proxy/large", State.CUT, "the budget left would not last to its end"),
        ("proxy/small", State.DONE, ""),
    ]
    assert setup.watcher.of("note") == [
        ("the proxy/large is not started: the budget left would not last to its end.",)
    ]
    assert list(setup.study.job_records()) == list(phase.outcomes) == ["proxy/small"]


def test_what_a_job_takes_is_taken_from_the_next(setup: WorkerSetup) -> None:
    setup.run(
        *(job(f"proxy/{number}", acts=(400.0,)) for number in range(4)),
        expected={f"proxy/{number}": 400.0 for number in range(4)},
    )
    assert [(started.key, started.seconds) for started in setup.started] == [
        ("proxy/0", 1_000.0),
        ("proxy/1", 600.0),
    ]
    assert setup.meter.spent() == 800


def test_every_job_that_ended_is_recorded_and_what_one_that_was_cut_had_reported(
    setup: WorkerSetup,
) -> None:
    jobs = [
        job("proxy/done", acts=(1.0, 1.0)),
        job("proxy/failed", acts=(1.0, ValueError("no luck"))),
        job("proxy/cut", acts=(1.0, KeyboardInterrupt())),
    ]
    with pytest.raises(KeyboardInterrupt):
        setup.run(*jobs)
    assert setup.ended == [
        ("proxy/done", State.DONE, ""),
        ("proxy/failed", State.FAILED, "ValueError: no luck"),
        ("proxy/cut", State.CUT, ""),
    ]
    assert {
        key: (record["state"], record["name"]) for key, record in setup.study.job_records().items()
    } == {
        "proxy/done": ("done", "the proxy/done"),
        "proxy/failed": ("failed", "the proxy/failed"),
        "proxy/cut": ("cut", "the proxy/cut"),
    }
    assert setup.study.job_outcomes()["proxy/done"].reports == [
        Report(50, {"accuracy": 41.0}),
        Report(100, {"accuracy": 42.0}),
    ]


def test_a_job_is_recorded_before_anyone_decides_by_it(setup: WorkerSetup) -> None:
    known: list[list[str]] = []
    phase = Phase([job("proxy/a", acts=(1.0, 1.0))], {})
    setup.runner.run(
        "proxy", phase, {}, lambda job, outcome: known.append(list(setup.study.job_records()))
    )
    assert known == [["proxy/a"]]


def test_what_ended_before_is_told_again_and_not_run(setup: WorkerSetup) -> None:
    before = {"proxy/a": Outcome(State.FAILED, "it broke"), "proxy/b": Outcome(State.CUT)}
    phase = setup.run(
        job("proxy/a"), job("proxy/b"), ended=before, expected={"proxy/a": 100.0, "proxy/b": 50.0}
    )
    assert setup.ended == [("proxy/a", State.FAILED, "it broke"), ("proxy/b", State.DONE, "")]
    assert [started.key for started in setup.started] == ["proxy/b"]
    assert phase.outcomes["proxy/a"] == before["proxy/a"]
    assert setup.watcher.of("phase_started") == [("proxy", 1, 0.05)]


def test_a_phase_that_has_ended_is_not_shown(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a"), ended={"proxy/a": Outcome(State.DONE)})
    assert (setup.started, setup.watcher.told) == ([], [])


def test_reports_become_lines_of_the_trials_metrics(setup: WorkerSetup) -> None:
    setup.run(job("proxy/0003/seed0", trial=3, acts=(1.0, 2.0)), job("screen/group0", acts=(1.0,)))
    lines = (setup.run_folder.trial_folder(3) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"job": "proxy/0003/seed0", "step": 50, "accuracy": 41.0},
        {"job": "proxy/0003/seed0", "step": 100, "accuracy": 42.0},
    ]
    assert [path.name for path in setup.run_folder.trials.iterdir()] == ["0003"]


def test_what_happens_is_watched_in_its_order(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(7.0,)), expected={"proxy/a": 10.0})
    assert [(name, values) for name, values in setup.watcher.told if name != "device_time"] == [
        ("phase_started", ("proxy", 1, 0.01)),
        ("job_started", ("the proxy/a",)),
        ("report", ("the proxy/a", 100, 100, 41.0)),
        ("job_ended", ("the proxy/a", "done")),
        ("phase_ended", ()),
    ]
    assert setup.watcher.of("device_time")[-1] == (7.0, 1_000.0)


def test_a_phase_whose_cost_is_not_known_has_no_share_of_the_budget(setup: WorkerSetup) -> None:
    setup.run(job("measure"))
    assert setup.watcher.of("phase_started") == [("proxy", 1, None)]


@pytest.fixture
def never() -> Callable[..., Any]:
    def call(*values: Any) -> None:
        raise AssertionError("must not be called")

    return call


def test_an_error_in_a_decision_stops_the_phase_and_comes_out(
    setup: WorkerSetup, never: Callable[..., Any]
) -> None:
    with pytest.raises(AssertionError, match="must not be called"):
        setup.runner.run("proxy", Phase([job("proxy/a"), job("proxy/b")], {}), {}, never)
    assert [started.key for started in setup.started] == ["proxy/a"]


def test_jobs_that_take_longer_than_expected_make_later_ones_expected_to(
    setup: WorkerSetup,
) -> None:
    assert setup.runner.pace == 1
    setup.run(
        job("proxy/a", acts=(150.0,)),
        job("proxy/b", acts=(150.0,)),
        expected={"proxy/a": 100.0, "proxy/b": 50.0},
    )
    assert setup.runner.pace == pytest.approx(2.0)
    assert seconds(setup.runner, job("c"), 350.0) == 700
    assert seconds(setup.runner, job("c"), 350.1) is None


def test_pace_is_that_of_the_last_phase_that_tells(setup: WorkerSetup) -> None:
    setup.run(job("screen/a", acts=(300.0,)), expected={"screen/a": 100.0})
    assert setup.runner.pace == pytest.approx(3.0)
    setup.run(job("proxy/a", acts=(ValueError("no luck"),)), expected={"proxy/a": 100.0})
    assert setup.runner.pace == pytest.approx(3.0)
    setup.run(
        job("proxy/b", acts=(150.0,)),
        job("proxy/c", acts=(150.0,)),
        expected={"proxy/b": 100.0, "proxy/c": 100.0},
    )
    assert setup.runner.pace == pytest.approx(1.5)


def test_all_jobs_but_the_first_two_leave_later_phases_their_time(setup: WorkerSetup) -> None:
    phase = Phase([job(f"proxy/{number}", acts=(280.0,)) for number in range(4)], {})
    expected = {f"proxy/{number}": 280.0 for number in range(4)}
    setup.runner.run("proxy", phase, expected, lambda job, outcome: None, keep_s=200.0)
    assert [started.key for started in setup.started] == ["proxy/0", "proxy/1"]
    assert setup.meter.remaining() == 440
    assert seconds(setup.runner, job("confirm/0"), 280.0) == 440


def test_faster_jobs_are_no_reason_to_start_what_might_not_end(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(10.0,)), expected={"proxy/a": 100.0})
    assert setup.runner.pace == pytest.approx(0.1)
    assert seconds(setup.runner, job("b"), 991.0) is None


def test_the_start_of_workers_is_no_part_of_the_pace(setup: WorkerSetup) -> None:
    setup.runner.startup_s = 30.0
    acts = {"proxy/first": 130.0, "proxy/second": 100.0}
    setup.run(
        *(job(key, acts=(taken,)) for key, taken in acts.items()),
        expected=dict.fromkeys(acts, 100.0),
    )
    assert setup.runner.pace == pytest.approx(1.0)


def test_the_pace_is_learned_again_from_what_ended_before_a_resume(
    setup: WorkerSetup, tmp_path: Path, study: StudyRecord, watcher: Any
) -> None:
    setup.runner.startup_s = 30.0
    jobs, expected = (
        [job(f"proxy/{number}", acts=(230.0 if number == 0 else 200.0,)) for number in range(2)],
        {"proxy/0": 100.0, "proxy/1": 100.0},
    )
    setup.run(*jobs, expected=expected)
    again = WorkerSetup(tmp_path / "again", study, watcher)
    again.runner.startup_s = 30.0
    again.run(*jobs, ended=study.job_outcomes(), expected=expected)
    assert again.runner.pace == setup.runner.pace == pytest.approx(2.0)


def test_a_job_teaches_the_pace_once_whatever_share_of_the_machine_a_later_round_would_give_it(
    setup: WorkerSetup,
) -> None:
    expected = {"proxy/0": 100.0, "proxy/1": 100.0}
    setup.run(job("proxy/0", cpus=2.0, acts=(400.0,)), expected=expected)
    assert setup.runner.pace == pytest.approx(2.0)
    setup.run(
        job("proxy/0", cpus=1.0),
        job("proxy/1", cpus=1.0, acts=(800.0,)),
        ended=setup.study.job_outcomes(),
        expected=expected,
    )
    assert setup.runner.pace == pytest.approx(2.0)


FULL = DeviceFull("no memory")


@pytest.mark.parametrize(
    ("expected_s", "held_s", "again_s"),
    [
        (100.0, 10.0, PATIENCE[0] * 100 + PATIENCE[1]),
        (100.0, 1_000.0, PATIENCE[0] * 100 + PATIENCE[1]),
        (600.0, 400.0, 800.0),
        (600.0, 1_000.0, 0.0),
        (None, 600.0, 700.0),
    ],
    ids=["soon", "after a hang", "as the budget allows", "too late", "unknown"],
)
def test_a_job_that_begins_again_is_given_what_it_needs_and_what_is_left(
    tmp_path: Path,
    study: StudyRecord,
    watcher: Any,
    monkeypatch: pytest.MonkeyPatch,
    expected_s: float | None,
    held_s: float,
    again_s: float,
) -> None:
    gpus = WorkerSetup(tmp_path, study, watcher, GPUS)
    monkeypatch.setattr(inline_executor, "Dispatcher", partial(Dispatcher, clock=gpus.clock))
    asked = job("proxy/a", gpus=0.5, acts=(held_s, FULL))
    gpus.run(asked, expected={} if expected_s is None else {"proxy/a": expected_s})
    assert [(started.gpus, started.seconds) for started in gpus.started][1] == (1.0, again_s)


def test_only_what_came_to_its_end_teaches_the_pace(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(300.0, ValueError("no luck"))), expected={"proxy/a": 100.0})
    assert setup.runner.pace == 1


def test_a_job_with_a_checkpoint_needs_the_rest_of_its_time(
    setup: WorkerSetup, tmp_path: Path
) -> None:
    begun = replace(job("proxy/a", acts=(50.0,)), folder=str(tmp_path / "checkpoint"))
    for step in (25, 75):
        (tmp_path / "checkpoint" / f"step-{step:09d}").mkdir(parents=True)
    setup.spend(600.0)
    assert seconds(setup.runner, begun, 1_600.0) == 400
    assert seconds(setup.runner, begun, 1_601.0) is None
    setup.run(begun, expected={"proxy/a": 200.0})
    assert setup.runner.pace == pytest.approx(1.0)


def test_a_job_that_goes_on_is_recorded_with_what_it_reported_before_it_was_cut(
    setup: WorkerSetup,
) -> None:
    before = {
        "proxy/a": Outcome(
            State.CUT,
            "",
            [Report(25, {"accuracy": 1.0}), Report(37, {}), Report(50, {"accuracy": 2.0})],
            5.0,
        )
    }
    asked = job("proxy/a", acts=(1.0, 1.0))
    going_on = replace(asked, task=asked.task.model_copy(update={"rungs": [25, 50, 100]}))
    setup.run(going_on, ended=before)
    outcome = setup.study.job_outcomes()["proxy/a"]
    assert [(report.step, report.metrics["accuracy"]) for report in outcome.reports] == [
        (25, 1.0),
        (50, 41.0),
        (100, 42.0),
    ]
    assert (outcome.state, outcome.seconds) == (State.DONE, 7.0)


def test_a_job_that_ends_early_was_cut_where_the_budget_left_does_not_buy_the_rest(
    setup: WorkerSetup,
) -> None:
    setup.run(job("proxy/a", acts=(950.0, LEAVES)), expected={"proxy/a": 100.0})
    assert setup.ended == [("proxy/a", State.CUT, "")]
    assert setup.runner.short == {"proxy"}


class Steady:
    """Jobs whose steps take the seconds that they are told, which leave at a checkpoint when theirs are over, and go on from there."""

    def __init__(self, setup: WorkerSetup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        setup.runner.executor = InlineExecutor(self.work, setup.meter)

    def job(self, name: str, step_s: float, **more: Any) -> Job:
        return replace(job(f"proxy/{name}", acts=(step_s,), **more), folder=str(self.folder / name))

    def work(self, asked: Job, send: Send) -> None:
        if asked.folder == "/nowhere":
            return self.setup.work(asked, send)
        self.setup.started.append(asked)
        (step_s,), begun = ACTS[asked.key], asked.step_reached()
        assert asked.seconds is not None
        reached = min(100, begun + max(0, int((asked.seconds - asked.task.reserve_s) / step_s)))
        self.setup.now += (
            self.setup.runner.startup_s * (len(self.setup.started) == 1)
            + (reached - begun) * step_s
        )
        (Path(asked.folder) / f"step-{reached}").mkdir(parents=True, exist_ok=True)
        for step in sorted({50, 100, reached}):
            if begun < step <= reached:
                send(step, {"accuracy": 0.1 * step})

    def run(self, *jobs: Job, expected_s: float = 20.0, **more: Any) -> Phase:
        return self.setup.run(
            *jobs, expected=dict.fromkeys((asked.key for asked in jobs), expected_s), **more
        )

    def started(self) -> list[str]:
        return [asked.key.removeprefix("proxy/") for asked in self.setup.started]


@pytest.fixture
def steady(setup: WorkerSetup, tmp_path: Path) -> Steady:
    return Steady(setup, tmp_path)


def test_a_job_that_runs_out_of_patience_goes_on_after_the_others(steady: Steady) -> None:
    phase = steady.run(steady.job("slow", 2.0), steady.job("quick", 0.2))
    assert steady.started() == ["slow", "quick", "slow"]
    assert steady.setup.started[0].seconds == PATIENCE[0] * 20 + PATIENCE[1] == 120.0
    assert [(key, state) for key, state, _ in steady.setup.ended] == [
        ("proxy/quick", State.DONE),
        ("proxy/slow", State.DONE),
    ]
    assert [report.step for report in phase.outcomes["proxy/slow"].reports] == [50, 100]
    assert steady.setup.runner.short == set()


def test_a_phase_that_is_slow_throughout_ends_no_job_before_its_time(steady: Steady) -> None:
    phase = steady.run(*(steady.job(name, 2.0) for name in "abcd"))
    assert [phase.outcomes[f"proxy/{name}"].reports[-1].step for name in "abcd"] == [100] * 4
    assert steady.setup.meter.spent() == pytest.approx(800.0)
    assert steady.setup.runner.pace == pytest.approx(10.0)


def test_a_slow_job_that_the_budget_does_not_last_for_ends_with_what_it_has(steady: Steady) -> None:
    phase = steady.run(
        steady.job("slower", 60.0),
        steady.job("slow", 2.4),
        steady.job("quick", 0.2),
        steady.job("other", 7.0),
    )
    assert steady.started() == ["slower", "slow", "slow", "quick", "other"]
    assert {
        key: [report.step for report in outcome.reports] for key, outcome in phase.outcomes.items()
    } == {
        "proxy/slower": [2],
        "proxy/slow": [50, 100],
        "proxy/quick": [50, 100],
        "proxy/other": [50, 64],
    }
    assert steady.setup.runner.short == set()
    assert [values[1] for values in steady.setup.watcher.of("job_ended")].count("done") == 4
    assert steady.setup.watcher.of("job_waits") == [
        ("the proxy/slower",),
        ("the proxy/slow",),
        ("the proxy/other",),
    ]


def test_where_all_jobs_are_slow_the_budget_brings_some_to_their_end(steady: Steady) -> None:
    phase = steady.run(*(steady.job(name, 4.0) for name in "abcdefgh"), expected_s=100.0)
    assert [(name, phase.outcomes[f"proxy/{name}"].state) for name in "ab"] == [
        ("a", State.DONE),
        ("b", State.DONE),
    ]
    assert steady.started() == ["a", "b", "a", "b"], (
        "of the others it is known then what they would need"
    )
    assert steady.setup.meter.spent() == 800


@pytest.mark.parametrize("startup_s", [0.0, 30.0])
@pytest.mark.parametrize("cpus", [2.0, 4.0])
def test_a_job_in_two_parts_teaches_the_pace_of_both_without_the_start_of_its_worker(
    steady: Steady, startup_s: float, cpus: float
) -> None:
    steady.setup.runner.startup_s = startup_s
    steady.run(steady.job("slow", 4.0, cpus=cpus))
    assert steady.started() == ["slow", "slow"]
    assert steady.setup.runner.pace == pytest.approx(4.0 * 100 * cpus / 4 / 20)


def test_a_slow_job_near_its_end_is_given_time_beside_its_reserve(steady: Steady) -> None:
    phase = steady.run(steady.job("slow", 1.3, reserve_s=200.0), expected_s=20.0)
    assert steady.setup.started[0].seconds == 120.0 + 200.0
    assert phase.outcomes["proxy/slow"].reports[-1].step == 100


@pytest.mark.parametrize(
    ("first", "steps"), [(0, 100), (2, 72)], ids=["one of the first two", "a later one"]
)
def test_a_slow_job_takes_from_later_phases_only_what_it_might_at_first(
    steady: Steady, first: int, steps: int
) -> None:
    before = {f"proxy/{number}": Outcome(State.DONE) for number in range(first)}
    jobs = [steady.job(str(number), 0.0) for number in range(first)] + [steady.job("slow", 5.0)]
    phase = steady.run(*jobs, ended=before, expected_s=100.0, keep_s=550.0)
    assert phase.outcomes["proxy/slow"].reports[-1].step == steps


def test_of_two_slow_jobs_the_less_slow_goes_on_first(steady: Steady) -> None:
    steady.run(steady.job("slower", 4.0), steady.job("slow", 2.0))
    assert steady.started() == ["slower", "slow", "slow", "slower"]


class EndsWhileOneWaits:
    """An executor in which the budget ends when the first job has run out of patience."""

    def run(self, source: JobSource, concurrency: int) -> None:
        asked = source.next_job()
        assert asked is not None
        source.on_end(
            asked, Outcome(State.DONE, reports=[Report(60, {})], seconds=asked.seconds or 0.0)
        )


def test_a_phase_is_short_where_the_budget_ends_while_a_slow_job_waits(setup: WorkerSetup) -> None:
    setup.runner.executor = EndsWhileOneWaits()
    phase = setup.run(job("proxy/slow"), expected={"proxy/slow": 20.0})
    assert phase.outcomes == {} and setup.runner.short == {"proxy"}
    assert setup.study.job_outcomes()["proxy/slow"].state is State.CUT


class OneByOne(Phase):
    """Hands a job out when the one before has ended, as confirming does."""

    def next_job(self) -> Job | None:
        handed_out = len(self.jobs) - len(self._waiting)
        return super().next_job() if len(self.outcomes) == handed_out else None


@pytest.mark.parametrize("step_s", [2.0, 60.0], ids=["goes on", "cannot go on"])
def test_what_waits_for_a_slow_job_is_handed_out_when_that_has_ended(
    steady: Steady, step_s: float
) -> None:
    phase = steady.run(
        steady.job("quick", 0.2),
        steady.job("slow", step_s),
        *(steady.job(name, 0.2) for name in "abc"),
        kind=OneByOne,
    )
    assert [report.step for report in phase.outcomes["proxy/slow"].reports] == (
        [50, 100] if step_s == 2.0 else [2]
    )
    assert [phase.outcomes[f"proxy/{name}"].state for name in "abc"] == [State.DONE] * 3
    assert steady.setup.runner.short == set()


class TwoAtOnce:
    """An executor of two jobs that run side by side on GPUs; what the second does is told it."""

    def __init__(self, setup: WorkerSetup, second_s: float) -> None:
        self.setup, self.second_s = setup, second_s
        self.started: list[str] = []

    def run(self, source: JobSource, concurrency: int) -> None:
        slow, other = source.next_job(), source.next_job()
        assert slow is not None and other is not None and slow.seconds is not None
        self._pass(slow.seconds, slow, other)
        source.on_end(slow, Outcome(State.DONE, reports=[Report(60, {})], seconds=slow.seconds))
        asked = source.next_job()
        assert asked is None, "it would not end beside the other"
        self._pass(self.second_s, other)
        source.on_end(
            other,
            Outcome(State.STOPPED, reports=[Report(50, {})], seconds=slow.seconds + self.second_s),
        )
        while (asked := source.next_job()) is not None:
            self.started.append(asked.key)
            source.on_end(
                asked, Outcome(State.DONE, reports=[Report(100, {})], seconds=asked.seconds or 0.0)
            )

    def _pass(self, seconds: float, *live: Job) -> None:
        self.setup.meter.tick(list(live))
        self.setup.now += seconds
        self.setup.meter.tick(list(live))


@pytest.mark.parametrize(
    ("second_s", "goes_on"),
    [(10.0, True), (300.0, False)],
    ids=["leaves enough", "leaves too little"],
)
def test_a_slow_job_on_gpus_is_given_up_only_when_nothing_runs_that_may_leave_it_time(
    tmp_path: Path, study: StudyRecord, watcher: Any, second_s: float, goes_on: bool
) -> None:
    setup = WorkerSetup(tmp_path, study, watcher, Machine("gpu", cpus=16, gpus=2))
    setup.runner.executor = two = TwoAtOnce(setup, second_s)
    setup.run(
        job("proxy/slow", gpus=1.0),
        job("proxy/other", gpus=1.0),
        expected={"proxy/slow": 50.0, "proxy/other": 600.0},
    )
    assert two.started == (["proxy/slow"] if goes_on else [])
    assert setup.ended[-1] == ("proxy/slow", State.DONE if goes_on else State.CUT, "")


class SlowOneFirst:
    """An executor of two jobs side by side on a CPU, of which the first runs out of patience before the second comes to its end."""

    def run(self, source: JobSource, concurrency: int) -> None:
        slow, other = source.next_job(), source.next_job()
        assert slow is not None and other is not None and slow.seconds is not None
        source.on_end(slow, Outcome(State.DONE, reports=[Report(5, {})], seconds=slow.seconds))
        assert source.next_job() is None, (
            "whether it straggles is not known before the other has ended"
        )
        source.on_end(other, Outcome(State.DONE, reports=[Report(100, {})], seconds=700.0))
        assert source.next_job() is None


def test_a_slow_job_is_not_given_up_before_it_is_known_how_slow_the_others_are(
    setup: WorkerSetup,
) -> None:
    setup.runner.executor = SlowOneFirst()
    setup.run(
        job("proxy/slow", cpus=2.0),
        job("proxy/other", cpus=2.0),
        expected={"proxy/slow": 20.0, "proxy/other": 400.0},
    )
    assert setup.ended == [("proxy/other", State.DONE, ""), ("proxy/slow", State.DONE, "")]
    assert setup.runner.short == set()


def test_where_all_jobs_are_slow_those_that_the_budget_does_not_last_for_are_cut(
    steady: Steady,
) -> None:
    phase = steady.run(*(steady.job(name, 6.0) for name in "ab"))
    assert [phase.outcomes[f"proxy/{name}"].state for name in "ab"] == [State.DONE, State.CUT]
    assert steady.setup.runner.short == {"proxy"}
    assert [record["state"] for record in steady.setup.study.job_records().values()] == [
        "done",
        "cut",
    ]


def test_a_slow_job_that_waits_when_the_search_is_stopped_is_cut_and_goes_on_later(
    steady: Steady,
) -> None:
    asked, stopped = steady.job("slow", 2.0), job("proxy/stopped", acts=(KeyboardInterrupt(),))
    with pytest.raises(KeyboardInterrupt):
        steady.run(asked, stopped)
    assert steady.setup.study.job_outcomes()["proxy/slow"].state is State.CUT
    phase = steady.run(asked, ended=steady.setup.study.job_outcomes())
    assert [report.step for report in phase.outcomes["proxy/slow"].reports] == [50, 100]
    assert steady.started() == ["slow", "stopped", "slow"]


def test_a_phase_is_short_whose_jobs_the_budget_does_not_last_for(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(1.0, 1.0)))
    assert setup.runner.short == set()
    setup.run(job("proxy/b"), expected={"proxy/b": 5_000.0})
    assert setup.runner.short == {"proxy"}


def test_a_job_that_goes_on_after_a_cut_teaches_the_pace_of_what_it_had_left(
    setup: WorkerSetup, tmp_path: Path
) -> None:
    (tmp_path / "step-50").mkdir()
    asked = replace(job("proxy/a", acts=(0.0, 50.0)), folder=str(tmp_path))
    before = {"proxy/a": Outcome(State.CUT, "", [Report(50, {})], 50.0)}
    phase = setup.run(asked, ended=before, expected={"proxy/a": 100.0})
    assert phase.outcomes["proxy/a"].seconds == pytest.approx(100.0), "both parts"
    assert setup.runner.pace == pytest.approx(1.0)
