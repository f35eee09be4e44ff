from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hssl_search.engine.execution.dispatcher import Dispatcher, cause
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, State, Task
from hssl_search.errors import UserError


def job(key: str, cpus: float = 1.0, gpus: float = 0.0) -> Job:
    return Job(key, "proxy", Task.model_construct(), "/nowhere", cpus=cpus, gpus=gpus)


class Source:
    def __init__(
        self,
        *jobs: Job,
        report: Callable[[Job, Report], Decision] = lambda job, report: Decision.CONTINUE,
    ) -> None:
        self.jobs = list(jobs)
        self.report = report
        self.reports: list[tuple[str, int]] = []
        self.ended: list[tuple[str, State]] = []
        self.outcomes: dict[str, Outcome] = {}

    def next_job(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def on_report(self, job: Job, report: Report) -> Decision:
        self.reports.append((job.key, report.step))
        return self.report(job, report)

    def again(self, job: Job) -> Job:
        return replace(job, seconds=job.seconds and job.seconds - 30.0)

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.ended.append((job.key, outcome.state))
        self.outcomes[job.key] = outcome


class Meter:
    def __init__(self) -> None:
        self.ticks: list[list[str]] = []
        self.skips = 0
        self.spent = False

    def skip(self) -> None:
        self.skips += 1

    def tick(self, live: list[Job]) -> None:
        self.ticks.append([each.key for each in live])

    def exhausted(self) -> bool:
        return self.spent


def test_jobs_wait_until_they_fit_beside_those_that_run() -> None:
    source = Source(job("a", cpus=1, gpus=0.5), job("b", cpus=1, gpus=0.75), job("c", cpus=1))
    dispatcher = Dispatcher(source, Meter(), cpus=4, gpus=1)
    assert (dispatcher.next_job(), dispatcher.next_job(), dispatcher.idle) == (
        job("a", 1, 0.5),
        None,
        False,
    )
    dispatcher.end("a")
    assert dispatcher.next_job() == job("b", 1, 0.75)
    assert dispatcher.next_job() == job("c")


def test_a_job_larger_than_the_machine_stops_everything_with_one_sentence() -> None:
    source = Source(job("a"), job("b", gpus=2))
    dispatcher = Dispatcher(source, Meter(), cpus=4, gpus=1)
    dispatcher.next_job()
    assert dispatcher.next_job() is None
    assert dispatcher.stopping()
    with pytest.raises(UserError, match="b needs 2 GPUs and there are 1"):
        dispatcher.close()
    assert source.ended == [("a", State.CUT), ("b", State.CUT)]


def test_a_step_is_passed_on_once_whatever_attempts_repeat() -> None:
    source, meter = Source(job("a")), Meter()
    dispatcher = Dispatcher(source, meter)
    dispatcher.next_job()
    for step in (40, 80):
        dispatcher.report("a", step, {"accuracy": step})
    dispatcher.retry("a")
    assert dispatcher.report("a", 40, {"accuracy": 0}) is Decision.CONTINUE
    assert dispatcher.report("a", 120, {"accuracy": 120}) is Decision.CONTINUE
    assert dispatcher.attempt("a") == 2
    dispatcher.end("a")
    assert source.reports == [("a", 40), ("a", 80), ("a", 120)]
    assert [report.metrics["accuracy"] for report in source.outcomes["a"].reports] == [40, 80, 120]


def test_a_job_that_was_stopped_is_stopped_however_it_ends() -> None:
    source = Source(job("a"), job("b"), report=lambda job, report: Decision.STOP)
    dispatcher = Dispatcher(source, Meter())
    for key in ("a", "b"):
        dispatcher.next_job()
        assert dispatcher.report(key, 1, {}) is Decision.STOP
    assert dispatcher.report("b", 2, {}) is Decision.STOP
    dispatcher.end("a", State.FAILED, "too late")
    dispatcher.close()
    assert source.ended == [("a", State.STOPPED), ("b", State.STOPPED)]
    assert source.outcomes["a"].cause == ""
    assert source.reports == [("a", 1), ("b", 1)]


def test_a_job_ends_once() -> None:
    source = Source(job("a"))
    dispatcher = Dispatcher(source, Meter())
    dispatcher.next_job()
    dispatcher.end("a", State.FAILED, "first")
    dispatcher.end("a")
    dispatcher.close()
    assert source.ended == [("a", State.FAILED)]


def test_an_exhausted_meter_hands_nothing_out_and_cuts_what_is_open() -> None:
    source, meter = Source(job("a"), job("b")), Meter()
    dispatcher = Dispatcher(source, meter)
    dispatcher.next_job()
    meter.spent = True
    assert dispatcher.next_job() is None
    assert dispatcher.poll()
    dispatcher.close()
    assert source.ended == [("a", State.CUT)]
    assert len(source.jobs) == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_what_a_source_raises_is_raised_by_close_after_all_were_ended(error: BaseException) -> None:
    def fail(job: Job, report: Report) -> Decision:
        raise error

    source = Source(job("a"), job("b"), job("c"), report=fail)
    dispatcher = Dispatcher(source, Meter())
    dispatcher.next_job()
    dispatcher.next_job()
    assert dispatcher.report("a", 1, {}) is Decision.STOP
    assert dispatcher.next_job() is None
    with pytest.raises(type(error)) as raised:
        dispatcher.close()
    assert raised.value is error
    assert source.ended == [("a", State.CUT), ("b", State.CUT)]


def test_an_error_of_on_end_does_not_keep_the_others_from_ending() -> None:
    class Failing(Source):
        def on_end(self, job: Job, outcome: Outcome) -> None:
            super().on_end(job, outcome)
            raise ValueError(job.key)

    source = Failing(job("a"), job("b"))
    dispatcher = Dispatcher(source, Meter())
    dispatcher.next_job()
    dispatcher.next_job()
    with pytest.raises(ValueError, match="a"):
        dispatcher.close()
    assert source.ended == [("a", State.CUT), ("b", State.CUT)]


def test_the_meter_sees_every_change_and_a_new_attempt_as_a_gap() -> None:
    meter = Meter()
    dispatcher = Dispatcher(Source(job("a"), job("b")), meter)
    dispatcher.next_job()
    dispatcher.next_job()
    dispatcher.retry("a")
    dispatcher.end("b")
    dispatcher.close()
    assert meter.ticks == [
        [],
        ["a"],
        ["a"],
        ["a", "b"],
        ["a", "b"],
        ["b"],
        ["b", "a"],
        ["b", "a"],
        ["a"],
        ["a"],
        [],
    ]


def test_time_is_charged_every_half_second() -> None:
    now, meter = [0.0], Meter()
    dispatcher = Dispatcher(Source(), meter, clock=lambda: now[0])
    for now[0] in (0.1, 0.4, 0.6, 0.7, 1.0, 1.2):
        dispatcher.poll()
    assert len(meter.ticks) == 2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("do this."), "do this."),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (KeyError(), "KeyError"),
    ],
)
def test_a_cause_is_one_line(error: Exception, line: str) -> None:
    assert cause(error) == line


def test_outcomes_tell_how_long_a_job_held_its_devices() -> None:
    now: list[Any] = [10.0]
    source = Source(job("a"))
    dispatcher = Dispatcher(source, Meter(), clock=lambda: now[0])
    dispatcher.next_job()
    now[0] = 25.0
    dispatcher.retry("a")
    now[0] = 30.0
    dispatcher.end("a")
    assert source.outcomes["a"].seconds == 20.0


def test_outcomes_tell_how_long_the_last_of_several_attempts_was() -> None:
    now: list[float] = [0.0]
    source = Source(job("a"), job("b"))
    dispatcher = Dispatcher(source, Meter(), clock=lambda: now[0])
    dispatcher.next_job(), dispatcher.next_job()
    now[0] = 20.0
    dispatcher.retry("a")
    now[0] = 27.0
    dispatcher.end("a"), dispatcher.end("b")
    assert [(source.outcomes[key].seconds, source.outcomes[key].last_s) for key in ("a", "b")] == [
        (27.0, 7.0),
        (27.0, None),
    ]


def test_a_job_that_begins_again_runs_as_its_source_says_then() -> None:
    source = Source(replace(job("a", gpus=0.5), seconds=100.0), replace(job("b"), seconds=100.0))
    dispatcher = Dispatcher(source, Meter(), gpus=1)
    dispatcher.next_job(), dispatcher.next_job()
    assert dispatcher.retry("b") == replace(job("b"), seconds=70.0)
    assert dispatcher.retry("b") == replace(job("b"), seconds=40.0)
    dispatcher.end("a", device_full=True)
    assert dispatcher.next_job() == replace(job("a"), seconds=70.0, gpus=1.0)


def test_an_error_of_again_stops_everything() -> None:
    source = Source(job("a"))
    source.again = lambda job: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    dispatcher = Dispatcher(source, Meter())
    dispatcher.next_job()
    dispatcher.retry("a")
    assert dispatcher.stopping()
    with pytest.raises(ZeroDivisionError):
        dispatcher.close()
    assert source.ended == [("a", State.CUT)]


def test_a_job_that_fills_a_shared_gpu_is_handed_out_again_with_a_whole_one() -> None:
    now: list[float] = [0.0]
    source, meter = Source(job("a", gpus=0.5), job("b", gpus=0.5), job("c", gpus=0.5)), Meter()
    dispatcher = Dispatcher(source, meter, cpus=4, gpus=1, clock=lambda: now[0])
    assert dispatcher.next_job() == job("a", gpus=0.5) and dispatcher.next_job() == job(
        "b", gpus=0.5
    )
    dispatcher.report("a", 10, {})
    now[0] = 5.0
    dispatcher.end("a", State.FAILED, "no memory", device_full=True)
    assert source.ended == [] and meter.ticks[-1] == ["b"]
    assert dispatcher.next_job() is None, "b holds a part of the GPU"
    now[0] = 8.0
    dispatcher.end("b")
    assert dispatcher.next_job() == job("a", gpus=1.0)
    assert dispatcher.next_job() is None and dispatcher.attempt("a") == 2
    assert dispatcher.report("a", 10, {}) is dispatcher.report("a", 20, {}) is Decision.CONTINUE
    now[0] = 9.0
    dispatcher.end("a", State.FAILED, "no memory", device_full=True)
    assert source.ended == [("b", State.DONE), ("a", State.FAILED)]
    assert (source.outcomes["a"].cause, source.outcomes["a"].seconds) == ("no memory", 6.0)
    assert [report.step for report in source.outcomes["a"].reports] == [10, 20]
    assert dispatcher.next_job() == job("c", gpus=0.5)


def test_a_job_that_waits_for_a_whole_gpu_keeps_its_place_and_is_cut_once_with_it() -> None:
    source = Source(job("a", gpus=0.5), job("b", gpus=0.5), job("c", gpus=0.75))
    dispatcher = Dispatcher(source, Meter(), gpus=1)
    assert dispatcher.next_job() and dispatcher.next_job() and dispatcher.next_job() is None
    dispatcher.end("a", State.FAILED, "no memory", device_full=True)
    assert dispatcher.next_job() is None
    dispatcher.end("b")
    assert not dispatcher.idle
    dispatcher.close()
    assert source.ended == [("b", State.DONE), ("a", State.CUT), ("c", State.CUT)]


@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_a_job_without_others_beside_it_fails_when_memory_runs_out(gpus: float) -> None:
    source = Source(job("a", gpus=gpus))
    dispatcher = Dispatcher(source, Meter())
    dispatcher.next_job()
    dispatcher.end("a", State.FAILED, "no memory", device_full=True)
    assert source.ended == [("a", State.FAILED)] and dispatcher.idle


def test_a_job_is_hung_when_it_neither_reports_nor_saves_for_too_long(tmp_path: Path) -> None:
    now: list[float] = [0.0]
    patient = replace(job("a"), folder=str(tmp_path), still_s=100.0)
    dispatcher = Dispatcher(Source(patient, job("b")), Meter(), clock=lambda: now[0])
    dispatcher.next_job(), dispatcher.next_job()

    def hung_at(time: float) -> list[str]:
        now[0] = time
        return dispatcher.hung()

    assert [hung_at(100.0), hung_at(100.1)] == [[], ["a"]]
    dispatcher.retry("a")
    assert [hung_at(200.0), hung_at(200.2)] == [[], ["a"]]
    dispatcher.report("a", 10, {})
    assert hung_at(300.0) == []
    (tmp_path / "step-00000012").mkdir()
    assert [hung_at(301.0), hung_at(401.0), hung_at(401.1)] == [[], [], ["a"]], (
        "the checkpoint is a sign of life, once"
    )
    (tmp_path / "step-00000024").mkdir()
    assert hung_at(500.0) == []
    dispatcher.end("a")
    assert hung_at(9_999.0) == [], "b says nothing of how long it may be still"


@pytest.mark.parametrize("begun", ["resumed", "retried", "reported"])
def test_a_checkpoint_from_before_is_no_sign_of_life(tmp_path: Path, begun: str) -> None:
    now: list[float] = [0.0]
    dispatcher = Dispatcher(
        Source(replace(job("a"), folder=str(tmp_path), still_s=100.0)),
        Meter(),
        clock=lambda: now[0],
    )
    if begun == "resumed":
        (tmp_path / "step-00000012").mkdir()
    dispatcher.next_job()
    (tmp_path / "step-00000012").mkdir(exist_ok=True)
    if begun == "retried":
        dispatcher.retry("a")
    if begun == "reported":
        dispatcher.report("a", 12, {})
    now[0] = 100.1
    assert dispatcher.hung() == ["a"]


def test_a_job_that_waits_for_a_place_is_not_charged_nor_taken_for_hung() -> None:
    now, meter, source = [10.0], Meter(), Source(replace(job("a"), still_s=60.0), job("b"))
    dispatcher = Dispatcher(source, meter, clock=lambda: now[0])
    dispatcher.next_job(), dispatcher.next_job()
    assert dispatcher.place(["a"]) is None
    assert meter.ticks[-1] == ["b"]
    now[0] = 12.0
    dispatcher.end("b")
    now[0] = 100.0
    assert dispatcher.hung() == []
    waits = dispatcher.place(["a"])
    assert waits is not None and waits.key == "a"
    dispatcher.tick()
    assert meter.skips > 0
    before = len(meter.ticks)
    now[0] = 130.0
    assert dispatcher.place([]) is None
    assert meter.ticks[before:] == [["a"]]
    now[0] = 150.0
    dispatcher.end("a")
    assert source.outcomes["a"].seconds == 20.0
    assert source.outcomes["b"].seconds == 2.0


def test_a_job_whose_new_attempt_waits_keeps_the_seconds_that_it_held_its_devices() -> None:
    now, source = [0.0], Source(job("a"))
    dispatcher = Dispatcher(source, Meter(), clock=lambda: now[0])
    dispatcher.next_job()
    now[0] = 5.0
    dispatcher.retry("a")
    dispatcher.place(["a"])
    now[0] = 1000.0
    dispatcher.place([])
    now[0] = 1007.0
    dispatcher.end("a")
    assert (source.outcomes["a"].seconds, source.outcomes["a"].last_s) == (12.0, 7.0)


def test_a_job_that_is_cut_while_it_waits_has_taken_nothing() -> None:
    now, source = [7.0], Source(job("a"))
    dispatcher = Dispatcher(source, Meter(), clock=lambda: now[0])
    dispatcher.next_job()
    dispatcher.place(["a"])
    now[0] = 90.0
    dispatcher.close()
    assert source.outcomes["a"] == Outcome(State.CUT)


def test_another_thread_can_stop_it() -> None:
    asked, source = threading.Event(), Source(job("a"), job("b"))
    dispatcher = Dispatcher(source, Meter(), asked=asked)
    dispatcher.next_job()
    assert not dispatcher.poll()
    asked.set()
    assert dispatcher.poll()
    assert dispatcher.next_job() is None
    with pytest.raises(KeyboardInterrupt):
        dispatcher.close()
    assert source.ended == [("a", State.CUT)]
