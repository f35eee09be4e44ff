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
    Decision,
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
from hssl_search.engine.phases.runner import Backend, Phase, Runner
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord

LEAVES = object()
PATIENCE = DEFAULT.patience, DEFAULT.patience_s
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

    Each act of a job is seconds of an equal part of its steps, an error, or LEAVES: its seconds are
    over.
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
            tell=watcher.device_time,
        )
        self.backend = Backend(
            run=self.run_folder,
            study=study,
            executor=InlineExecutor(self.work, self.meter),
            meter=self.meter,
            machine=machine,
            watcher=watcher,
            ended={},
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
        Runner(
            self.backend,
            "proxy",
            phase,
            expected or {},
            lambda job, outcome: self.ended.append((job.key, outcome.state, outcome.cause)),
            keep_s,
        ).run()
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

    def attach(job: Job, outcome: Outcome) -> None:
        shown.append(f"{job.key} {outcome.state.value} after {len(setup.ended)}")

    setup.backend = replace(setup.backend, attach=attach)
    setup.run(
        job("proxy/0"), job("proxy/1", acts=(1.0, 1.0)), ended={"proxy/0": Outcome(State.DONE)}
    )
    assert shown == ["proxy/0 done after 0", "proxy/1 done after 1"]
    assert [key for key, *_ in setup.ended] == ["proxy/0", "proxy/1"]


def seconds(
    setup: WorkerSetup, asked: Job, expected_s: float | None, concurrency: int = 1
) -> float | None:
    """Return the seconds that a job of a phase may take that runs so many at once, while another
    waits."""
    expected = {} if expected_s is None else {asked.key: expected_s}
    runner = Runner(setup.backend, "proxy", Phase([job("waits", gpus=asked.gpus)], {}), expected)
    runner.concurrency = concurrency
    fitting = runner.affordable(asked)
    return None if fitting is None else fitting.seconds


def test_a_job_may_take_a_few_times_what_was_expected_but_no_more_than_is_left(
    setup: WorkerSetup,
) -> None:
    factor, more = PATIENCE
    assert seconds(setup, job("a"), 100.0) == factor * 100 + more
    assert seconds(setup, job("a", reserve_s=200.0), 20.0) == factor * 20 + more + 200
    assert seconds(setup, job("a"), 500.0) == 1_000
    assert seconds(setup, job("a"), None) == 1_000
    setup.spend(600.0)
    assert seconds(setup, job("a"), 300.0) == 400
    assert seconds(setup, job("a"), None) == 400


def test_the_sole_job_of_a_phase_may_take_half_of_what_is_left(setup: WorkerSetup) -> None:
    """A search whose only group is slow would else end with its budget unspent."""
    alone = Runner(setup.backend, "screen", Phase([], {}), {"a": 100.0}, sole=True)
    fitting = alone.affordable(job("a"))
    assert fitting is not None and fitting.seconds == 500
    setup.spend(400.0)
    fitting = alone.affordable(job("a"))
    assert fitting is not None and fitting.seconds == 360, "its patience in any case"


def test_a_job_that_would_not_end_within_the_budget_does_not_fit(setup: WorkerSetup) -> None:
    setup.spend(600.0)
    assert seconds(setup, job("a"), 400.0) == 400
    assert seconds(setup, job("a"), 400.1) is None
    assert seconds(setup, job("a", reserve_s=10.0), 390.0) == 400
    assert seconds(setup, job("a", reserve_s=10.0), 390.1) is None
    setup.backend = replace(setup.backend, startup_s=30.0)
    assert seconds(setup, job("a", reserve_s=10.0), 360.0) == 370
    assert seconds(setup, job("a", reserve_s=10.0), 360.1) is None


def test_nothing_fits_when_nothing_is_left(setup: WorkerSetup) -> None:
    setup.spend(1_000.0)
    assert seconds(setup, job("a"), None) is None
    assert seconds(setup, job("a"), 0.1) is None


def test_a_job_with_a_part_of_the_cpus_needs_longer(setup: WorkerSetup) -> None:
    factor, more = PATIENCE
    assert seconds(setup, job("a", cpus=1), 10.0, concurrency=4) == factor * 40 + more
    assert seconds(setup, job("a", cpus=1), 250.1, concurrency=4) is None


def test_jobs_at_once_on_gpus_share_what_is_left(
    tmp_path: Path, study: StudyRecord, watcher: Any
) -> None:
    gpus = WorkerSetup(tmp_path, study, watcher, GPUS)
    factor, more = PATIENCE
    assert seconds(gpus, job("a", gpus=0.5), None, concurrency=8) == 250
    assert seconds(gpus, job("a", gpus=0.5), 10.0, concurrency=8) == factor * 20 + more
    assert seconds(gpus, job("a", gpus=0.5), 200.0, concurrency=8) == 400 + (2_000 - 400) / 8
    assert seconds(gpus, job("a", gpus=0.5), 1_000.0, concurrency=8) == 2_000
    assert seconds(gpus, job("a", gpus=0.5), 1_000.1, concurrency=8) is None


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
    setup = WorkerSetup(tmp_path, study, watcher, Machine("gpu", cpus=16, gpus=8))
    live = [job(f"proxy/{number}", gpus=1.0) for number in range(4)]
    expected = {**dict.fromkeys((started.key for started in live), 150.0), "a": expected_s}
    phase = Phase([*live, job("a", gpus=1.0, reserve_s=reserve_s)], {})
    runner = Runner(setup.backend, "proxy", phase, expected)
    runner.concurrency = 8
    assert [started.key for started in live] == [
        asked.key for asked in (runner.next_job() for _ in live) if asked
    ]
    fitting = runner.next_job()
    assert (fitting and fitting.seconds) == given_s


class SideBySide:
    """An executor that starts four jobs, lets seconds pass, and only then asks for another; all are
    cut then.
    """

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
    side_by_side = SideBySide(setup, passes_s)
    setup.backend = replace(setup.backend, executor=side_by_side)
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
    side_by_side = SideBySide(setup, 100.0)
    setup.backend = replace(setup.backend, executor=side_by_side)
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
    assert gpus.backend.short == {"proxy"}


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
    Runner(
        setup.backend,
        "proxy",
        phase,
        {},
        lambda job, outcome: known.append(list(setup.study.job_records())),
    ).run()
    assert known == [["proxy/a"]]


def test_what_ended_before_is_told_again_and_not_run(setup: WorkerSetup) -> None:
    before = {"proxy/a": Outcome(State.FAILED, "it broke"), "proxy/b": Outcome(State.CUT)}
    phase = setup.run(
        job("proxy/a"),
        job("proxy/b", acts=(1.0,)),
        ended=before,
        expected={"proxy/a": 100.0, "proxy/b": 50.0},
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
        phase = Phase([job("proxy/a"), job("proxy/b")], {})
        Runner(setup.backend, "proxy", phase, {}, never).run()
    assert [started.key for started in setup.started] == ["proxy/a"]


def test_jobs_that_take_longer_than_expected_make_later_ones_expected_to(
    setup: WorkerSetup,
) -> None:
    assert setup.backend.pace.now == 1
    setup.run(
        job("proxy/a", acts=(150.0,)),
        job("proxy/b", acts=(150.0,)),
        expected={"proxy/a": 100.0, "proxy/b": 50.0},
    )
    assert setup.backend.pace.now == pytest.approx(2.0)
    assert seconds(setup, job("c"), 350.0) == 700
    assert seconds(setup, job("c"), 350.1) is None


def test_pace_is_that_of_the_last_phase_that_tells(setup: WorkerSetup) -> None:
    setup.run(job("screen/a", acts=(300.0,)), expected={"screen/a": 100.0})
    assert setup.backend.pace.now == pytest.approx(3.0)
    setup.run(job("proxy/a", acts=(ValueError("no luck"),)), expected={"proxy/a": 100.0})
    assert setup.backend.pace.now == pytest.approx(3.0)
    setup.run(
        job("proxy/b", acts=(150.0,)),
        job("proxy/c", acts=(150.0,)),
        expected={"proxy/b": 100.0, "proxy/c": 100.0},
    )
    assert setup.backend.pace.now == pytest.approx(1.5)


def test_all_jobs_but_the_first_two_leave_later_phases_their_time(setup: WorkerSetup) -> None:
    jobs = [job(f"proxy/{number}", acts=(280.0,)) for number in range(4)]
    setup.run(*jobs, expected=dict.fromkeys((asked.key for asked in jobs), 280.0), keep_s=200.0)
    assert [started.key for started in setup.started] == ["proxy/0", "proxy/1"]
    assert setup.meter.remaining() == 440
    assert seconds(setup, job("confirm/0"), 280.0) == 440


def test_faster_jobs_are_no_reason_to_start_what_might_not_end(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(10.0,)), expected={"proxy/a": 100.0})
    assert setup.backend.pace.now == pytest.approx(0.1)
    assert seconds(setup, job("b"), 991.0) is None


def test_the_start_of_workers_is_no_part_of_the_pace(setup: WorkerSetup) -> None:
    setup.backend = replace(setup.backend, startup_s=30.0)
    acts = {"proxy/first": 130.0, "proxy/second": 100.0}
    setup.run(
        *(job(key, acts=(taken,)) for key, taken in acts.items()),
        expected=dict.fromkeys(acts, 100.0),
    )
    assert setup.backend.pace.now == pytest.approx(1.0)


def test_the_pace_is_learned_again_from_what_ended_before_a_resume(
    setup: WorkerSetup, tmp_path: Path, study: StudyRecord, watcher: Any
) -> None:
    setup.backend = replace(setup.backend, startup_s=30.0)
    jobs, expected = (
        [job(f"proxy/{number}", acts=(230.0 if number == 0 else 200.0,)) for number in range(2)],
        {"proxy/0": 100.0, "proxy/1": 100.0},
    )
    setup.run(*jobs, expected=expected)
    again = WorkerSetup(tmp_path / "again", study, watcher)
    again.backend = replace(again.backend, startup_s=30.0)
    again.run(*jobs, ended=study.job_outcomes(), expected=expected)
    assert again.backend.pace.now == setup.backend.pace.now == pytest.approx(2.0)


def test_a_job_teaches_the_pace_once_whatever_share_of_the_machine_a_later_round_would_give_it(
    setup: WorkerSetup,
) -> None:
    expected = {"proxy/0": 100.0, "proxy/1": 100.0}
    setup.run(job("proxy/0", cpus=2.0, acts=(400.0,)), expected=expected)
    assert setup.backend.pace.now == pytest.approx(2.0)
    setup.run(
        job("proxy/0", cpus=1.0),
        job("proxy/1", cpus=1.0, acts=(800.0,)),
        ended=setup.study.job_outcomes(),
        expected=expected,
    )
    assert setup.backend.pace.now == pytest.approx(2.0)


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


def test_a_job_that_failed_teaches_nothing_of_the_pace(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(300.0, ValueError("no luck"))), expected={"proxy/a": 100.0})
    assert setup.backend.pace.now == 1


def test_a_job_with_a_checkpoint_needs_the_rest_of_its_time(
    setup: WorkerSetup, tmp_path: Path
) -> None:
    begun = replace(job("proxy/a", acts=(50.0,)), folder=str(tmp_path / "checkpoint"))
    for step in (25, 75):
        (tmp_path / "checkpoint" / f"step-{step:09d}").mkdir(parents=True)
    setup.spend(600.0)
    assert seconds(setup, begun, 1_600.0) == 400
    assert seconds(setup, begun, 1_601.0) is None
    setup.run(begun, expected={"proxy/a": 200.0})
    assert setup.backend.pace.now == pytest.approx(1.0)


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


class Steady:
    """Jobs whose steps take the seconds that they are told, which leave at a checkpoint when theirs
    are over, and continue from there.
    """

    def __init__(self, setup: WorkerSetup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        executor = InlineExecutor(self.work, setup.meter)
        setup.backend = replace(setup.backend, executor=executor)

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
            self.setup.backend.startup_s * (len(self.setup.started) == 1)
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


def test_a_job_that_runs_out_of_its_seconds_is_cut_and_a_later_run_takes_it_up_at_its_checkpoint(
    steady: Steady,
) -> None:
    asked = [steady.job("slow", 2.0), steady.job("quick", 0.2)]
    steady.run(*asked)
    setup = steady.setup
    assert steady.started() == ["slow", "quick"]
    assert setup.started[0].seconds == PATIENCE[0] * 20 + PATIENCE[1] == 120.0
    assert [(key, state) for key, state, _ in setup.ended] == [
        ("proxy/slow", State.CUT),
        ("proxy/quick", State.DONE),
    ]
    assert setup.watcher.of("note") == [
        ("the proxy/slow used up the time that it was given, and was cut at a checkpoint.",)
    ]
    outcomes = setup.study.job_outcomes()
    assert [report.step for report in outcomes["proxy/slow"].reports] == [50, 60]
    assert (setup.backend.late, setup.backend.short) == ({"proxy"}, set()), "the budget lasts"
    assert setup.backend.pace.now == 1, "a slow job is no reason to expect others to be"
    phase = steady.run(*asked, ended=outcomes)
    assert steady.started() == ["slow", "quick", "slow"]
    assert phase.outcomes["proxy/slow"].state is State.DONE
    assert [report.step for report in phase.outcomes["proxy/slow"].reports] == [50, 100]


def test_a_job_that_the_end_of_the_budget_cuts_is_not_taken_for_a_slow_one(
    setup: WorkerSetup,
) -> None:
    """It was given all that is borne of it, and the budget ended first, by what others took."""
    asked = job("proxy/a", acts=(10.0, 10.0))
    runner = Runner(setup.backend, "proxy", Phase([asked], {}), {"proxy/a": 20.0})
    started = runner.next_job()
    assert started is not None and started.seconds == PATIENCE[0] * 20 + PATIENCE[1]
    runner.on_end(started, Outcome(State.CUT))
    assert (setup.backend.short, setup.backend.late) == ({"proxy"}, set())


def test_a_phase_is_short_whose_jobs_the_budget_does_not_last_for(setup: WorkerSetup) -> None:
    setup.run(job("proxy/a", acts=(1.0, 1.0)))
    assert setup.backend.short == set()
    setup.run(job("proxy/b"), expected={"proxy/b": 5_000.0})
    assert setup.backend.short == {"proxy"}


def test_a_job_that_goes_on_after_a_cut_teaches_the_pace_of_what_it_had_left(
    setup: WorkerSetup, tmp_path: Path
) -> None:
    (tmp_path / "step-50").mkdir()
    asked = replace(job("proxy/a", acts=(0.0, 50.0)), folder=str(tmp_path))
    before = {"proxy/a": Outcome(State.CUT, "", [Report(50, {})], 50.0)}
    phase = setup.run(asked, ended=before, expected={"proxy/a": 100.0})
    assert phase.outcomes["proxy/a"].seconds == pytest.approx(100.0), "both parts"
    assert setup.backend.pace.now == pytest.approx(1.0)


def handed_out(phase: Phase) -> list[str]:
    found = []
    while (asked := phase.next_job()) is not None:
        found.append(asked.key)
    return found


def test_jobs_are_handed_out_once_in_their_order() -> None:
    phase = Phase([job("c"), job("a"), job("b")], {})
    assert phase.waiting() == 3
    assert handed_out(phase) == ["c", "a", "b"]
    assert (phase.waiting(), phase.next_job()) == (0, None)


@pytest.mark.parametrize("state", list(State))
def test_what_ended_before_is_not_handed_out_unless_it_was_cut(state: State) -> None:
    outcome = Outcome(state, "cause", [Report(50, {})])
    phase = Phase([job("a"), job("b")], {"a": outcome, "elsewhere": outcome})
    again = state is State.CUT
    assert phase.waiting() == 1 + again
    assert handed_out(phase) == (["a", "b"] if again else ["b"])
    assert phase.outcomes == ({} if again else {"a": outcome})


def test_a_phase_goes_on_at_reports_and_keeps_how_its_jobs_ended() -> None:
    phase = Phase([job("a")], {})
    asked = phase.next_job()
    assert asked is not None
    assert phase.on_report(asked, Report(1, {"accuracy": 0.0})) is Decision.CONTINUE
    phase.on_end(asked, Outcome(State.DONE))
    assert phase.outcomes == {"a": Outcome(State.DONE)}
