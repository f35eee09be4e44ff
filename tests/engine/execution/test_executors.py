"""The contract of `jobs.Executor`, which every executor passes, and what only Ray's can do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hssl_search.engine.execution import dispatcher as dispatcher_module
from hssl_search.engine.execution.dispatcher import Dispatcher
from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import (
    Decision,
    Executor,
    Job,
    Outcome,
    Report,
    Send,
    Setting,
    State,
    Task,
)
from hssl_search.engine.execution.ray_tune import executor as executor_module
from hssl_search.engine.execution.ray_tune import executor as ray_executor_module
from hssl_search.engine.execution.ray_tune.executor import RayExecutor
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.errors import UserError


def task(acts: list[Any]) -> Task:
    """Return a task whose name says what `work` is to do."""
    nothing = Setting(
        base="",
        base_args={},
        image_size=1,
        data="",
        probe_data=None,
        data_seed=0,
        recipe={},
        device="cpu",
    )
    return Task(setting=nothing, name=json.dumps(acts))


def work(job: Job, send: Send) -> None:
    """What test jobs do; runs in worker processes, to which it is sent whole."""
    import json
    import os
    import signal
    import time
    from pathlib import Path

    from hssl_search.engine.execution.jobs import DeviceFull, Halt

    Path(job.folder).mkdir(parents=True, exist_ok=True)
    life = 1 + len(list(Path(job.folder).iterdir()))
    first = life == 1
    (Path(job.folder) / f"life {life}").touch()
    for act in json.loads(job.task.name):
        if act == "raise":
            raise ValueError("no luck\nat all")
        if act == "die" or (act == "die once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "sleep" or (act == "sleep once" and first):
            time.sleep(10_000)
        elif act == "needs a GPU" and job.gpus < 1:
            raise DeviceFull("no memory")
        elif act == "disk full":
            raise Halt("no space")
        elif act == "life":
            send(life, {})
        elif isinstance(act, int):
            held = {
                "seconds": job.seconds,
                "pid": os.getpid(),
                "threads": os.environ.get("OMP_NUM_THREADS"),
            }
            send(act, {"first": first, **held, "deep": {"a": [act, None]}})


class Source:
    """Hands out jobs, writes down what it hears, and checks the contract while it listens."""

    def __init__(
        self,
        folder: Path,
        jobs: dict[str, list[Any]],
        on_report: Callable[[str, int], Decision | None] | None = None,
    ) -> None:
        self.jobs = [Job(key, "proxy", task(acts), str(folder / key)) for key, acts in jobs.items()]
        self.open: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.heard: dict[str, list[int]] = {}
        self.answer = on_report or (lambda key, step: None)

    def next_job(self) -> Job | None:
        job = self.jobs.pop(0) if self.jobs else None
        if job is not None:
            self.open.add(job.key)
        return job

    def on_report(self, job: Job, report: Report) -> Decision:
        assert job.key in self.open
        assert threading.current_thread() is threading.main_thread()
        self.heard.setdefault(job.key, []).append(report.step)
        return self.answer(job.key, report.step) or Decision.CONTINUE

    def again(self, job: Job) -> Job:
        assert job.key in self.open
        return replace(job, seconds=job.seconds and job.seconds - 30.0)

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.open.remove(job.key)
        assert [report.step for report in outcome.reports] == self.heard.get(job.key, [])
        self.outcomes[job.key] = outcome

    def states(self) -> dict[str, State]:
        return {key: outcome.state for key, outcome in self.outcomes.items()}

    def seen(self, key: str, name: str) -> list[Any]:
        return [report.metrics[name] for report in self.outcomes[key].reports]


class Meter:
    def __init__(self) -> None:
        self.live: list[list[str]] = []
        self.skips = 0
        self.spent = False

    def skip(self) -> None:
        self.skips += 1

    def tick(self, live: list[Job]) -> None:
        self.live.append(sorted(job.key for job in live))

    def exhausted(self) -> bool:
        return self.spent


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture(scope="module")
def session() -> Iterator[RaySession]:
    with RaySession(cpus=2, gpus=1) as session:
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield session


@pytest.fixture
def ray_executor(session: RaySession, meter: Meter, tmp_path: Path) -> RayExecutor:
    (tmp_path / "tune").mkdir()
    return RayExecutor(meter, work, session, storage=tmp_path / "tune")


@pytest.fixture(params=["inline", "ray"])
def executor(request: pytest.FixtureRequest, meter: Meter) -> Executor:
    return (
        InlineExecutor(work, meter)
        if request.param == "inline"
        else request.getfixturevalue("ray_executor")
    )


def test_each_job_ends_once_in_its_true_state_with_all_its_reports(
    executor: Executor, meter: Meter, tmp_path: Path
) -> None:
    source = Source(
        tmp_path,
        {
            "plain": [1, 2, 3],
            "stopped": [1, 2, 3, "sleep"],
            "raises": [1, "raise"],
            "silent": [],
            "repeats": [1, 2, 1, 2, 3],
        },
        lambda key, step: Decision.STOP if (key, step) == ("stopped", 3) else None,
    )
    executor.run(source, concurrency=2)
    assert source.states() == {
        "plain": State.DONE,
        "stopped": State.STOPPED,
        "raises": State.FAILED,
        "silent": State.DONE,
        "repeats": State.DONE,
    }
    assert source.outcomes["raises"].cause == "ValueError: no luck at all"
    assert source.heard == {
        "plain": [1, 2, 3],
        "stopped": [1, 2, 3],
        "raises": [1],
        "repeats": [1, 2, 3],
    }
    assert source.seen("plain", "deep") == [{"a": [1, None]}, {"a": [2, None]}, {"a": [3, None]}]
    assert set().union(*meter.live) == set(source.outcomes)
    assert meter.live[-1] == []


def test_a_job_that_waits_for_another_is_asked_for_when_that_ends(
    executor: Executor, tmp_path: Path
) -> None:
    source = Source(tmp_path, {"first": [1, 2], "second": [1]})
    ask = source.next_job
    source.next_job = lambda: (
        None if len(source.jobs) == 1 and "first" not in source.outcomes else ask()
    )  # type: ignore[method-assign]
    executor.run(source, concurrency=2)
    assert list(source.states().items()) == [("first", State.DONE), ("second", State.DONE)]


def test_an_exhausted_meter_cuts_what_runs_and_starts_nothing(
    executor: Executor, meter: Meter, tmp_path: Path
) -> None:
    def spend(key: str, step: int) -> None:
        meter.spent = True

    source = Source(tmp_path, {"a": [1, "sleep"], "b": [2, "sleep"], "c": [3]}, spend)
    executor.run(source, concurrency=2)
    assert set(source.states().values()) == {State.CUT}
    assert [job.key for job in source.jobs][-1] == "c"
    assert source.open == set()


def test_what_the_source_raises_comes_out_after_all_jobs_were_cut(
    executor: Executor, tmp_path: Path
) -> None:
    error = ValueError("a bug in a phase")

    def fail(key: str, step: int) -> None:
        raise error

    source = Source(tmp_path, {"a": [1, "sleep"], "b": [1, "sleep"], "c": [1]}, fail)
    with pytest.raises(ValueError) as raised:
        executor.run(source, concurrency=2)
    assert raised.value is error
    assert set(source.states().values()) == {State.CUT}
    assert source.open == set()


def test_a_killed_worker_is_retried_and_goes_on_and_one_that_always_dies_fails(
    session: RaySession, meter: Meter, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Source(tmp_path, {"once": [1, "die once", 1, 2], "always": ["die"]})
    source.jobs = [replace(job, seconds=100.0) for job in source.jobs]
    RayExecutor(meter, work, session, retries=1).run(source, concurrency=2)
    assert source.states() == {"once": State.DONE, "always": State.FAILED}
    assert source.seen("once", "first") == [True, False]
    assert source.seen("once", "seconds") == [100.0, 70.0]
    assert source.outcomes["always"].cause.startswith("the worker process died 2 times")
    lives = [
        ("once" in before, "once" in after)
        for before, after in zip(meter.live, meter.live[1:], strict=False)
    ]
    assert lives.count((False, True)) == 2
    assert capfd.readouterr() == ("", "")


def test_a_hung_worker_is_ended_and_goes_on_and_one_that_always_hangs_fails(
    session: RaySession, meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = [0.0]
    monkeypatch.setattr(
        ray_executor_module,
        "Dispatcher",
        partial(Dispatcher, clock=lambda: time.monotonic() + later[0]),
    )

    def pass_time(key: str, step: int) -> None:
        later[0] += 1_000.0 if (key, step) != ("once", 2) else 0.0

    source = Source(
        tmp_path, {"once": ["life", "sleep once", "life"], "always": ["life", "sleep"]}, pass_time
    )
    source.jobs = [replace(job, still_s=900.0) for job in source.jobs]
    RayExecutor(meter, work, session, retries=1).run(source, concurrency=1)
    assert source.states() == {"once": State.DONE, "always": State.FAILED}
    assert source.heard == {"once": [1, 2], "always": [1, 2]}
    assert source.outcomes["always"].cause.startswith("the worker made no step for a long time")


def test_a_job_that_fills_a_shared_gpu_runs_again_alone(
    executor: Executor, meter: Meter, tmp_path: Path
) -> None:
    source = Source(tmp_path, {"small": [1], "large": [1, "needs a GPU", 2], "next": [1]})
    source.jobs = [replace(job, gpus=0.5, seconds=100.0) for job in source.jobs]
    executor.run(source, concurrency=2)
    assert set(source.states().values()) == {State.DONE}
    assert source.heard == {"small": [1], "large": [1, 2], "next": [1]}
    assert source.seen("large", "first") == [True, False]
    assert source.seen("large", "seconds") == [100.0, 70.0]


def test_a_worker_that_nothing_can_go_on_after_stops_everything(
    executor: Executor, meter: Meter, tmp_path: Path
) -> None:
    source = Source(tmp_path, {"a": [1, "disk full"], "b": [1], "c": [1]})
    with pytest.raises(UserError, match="no space"):
        executor.run(source, concurrency=1)
    assert source.states() == {"a": State.CUT}
    assert [job.key for job in source.jobs][-2:] == ["b", "c"]


def test_worker_processes_are_used_again_but_not_after_an_error(
    ray_executor: RayExecutor, tmp_path: Path
) -> None:
    stop = {"a": Decision.STOP}
    source = Source(
        tmp_path,
        {"a": [1], "b": [1], "raises": [1, "raise"], "c": [1]},
        lambda key, step: stop.get(key),
    )
    ray_executor.run(source, concurrency=1)
    pids = {key: source.seen(key, "pid") for key in ("a", "b", "raises", "c")}
    assert pids["a"] == pids["b"] == pids["raises"] != pids["c"]
    assert os.getpid() not in pids["a"]
    assert "no luck\nat all" in (tmp_path / "raises" / "traceback.txt").read_text()
    assert list((tmp_path / "tune").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_jobs_that_never_report_and_is_raised(
    ray_executor: RayExecutor, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    source = Source(
        tmp_path,
        {"a": [1, "sleep"], "b": ["sleep"]},
        lambda key, step: os.kill(os.getpid(), number),
    )
    with pytest.raises(KeyboardInterrupt):
        ray_executor.run(source, concurrency=2)
    assert source.states() == {"a": State.CUT, "b": State.CUT}
    assert signal.getsignal(number) is before


def test_a_worker_that_cannot_be_imported_fails_its_jobs(
    session: RaySession, meter: Meter, tmp_path: Path
) -> None:
    source = Source(tmp_path, {"a": [1]})
    RayExecutor(meter, "hssl_search.nowhere:work", session).run(source, concurrency=1)
    assert (
        source.outcomes["a"].cause == "ModuleNotFoundError: No module named 'hssl_search.nowhere'"
    )


def test_jobs_of_different_size_share_the_machine_with_as_many_threads_as_cores(
    ray_executor: RayExecutor, tmp_path: Path
) -> None:
    source = Source(tmp_path, {})
    source.jobs = [
        Job(f"{cpus:g}", "p", task([1]), str(tmp_path / f"{cpus:g}"), cpus=cpus)
        for cpus in (2.0, 0.5)
    ]
    ray_executor.run(source, concurrency=2)
    assert {key: source.seen(key, "threads") for key in ("0.5", "2")} == {"0.5": ["1"], "2": ["2"]}


def test_another_thread_ends_jobs_that_never_report(
    session: RaySession, meter: Meter, tmp_path: Path
) -> None:
    source, stop, raised = Source(tmp_path, {"a": ["sleep"]}), threading.Event(), []

    def run() -> None:
        try:
            RayExecutor(meter, work, RaySession(stop=stop)).run(source, concurrency=1)
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not any(meter.live):
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert source.states() == {"a": State.CUT}
    assert len(raised) == 1


def test_jobs_wait_for_what_others_hold_of_a_ray_that_runs_already_and_pay_nothing(
    session: RaySession, meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    class Holder:
        def ready(self) -> None: ...

    monkeypatch.setattr(dispatcher_module, "WAIT_S", 0.0)
    holder = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.ready.remote())
    joined, told = RaySession().start(), []
    assert (joined.own, joined.total("CPU"), joined.free("CPU")) == (False, 2.0, 1.0)

    def tell(sentence: str) -> None:
        told.append((sentence, meter.skips))
        ray.kill(holder)

    source = Source(tmp_path, {"large": [1]})
    source.jobs = [replace(job, cpus=2.0) for job in source.jobs]
    monkeypatch.setattr(executor_module.log, "warning", tell)
    RayExecutor(meter, work, joined).run(source, concurrency=1)
    assert source.states() == {"large": State.DONE}
    [(sentence, skips)] = told
    assert sentence.startswith(
        "large waits for 2 CPUs: of the 2 of the Ray that runs here 1 are free, something else "
        "holds the others."
    )
    assert skips > 0
    joined.shutdown()
    assert ray.is_initialized()


MEMORY = """\
Failure # 1 (occurred at 2026-11-28_09-01-31)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, \
ID: 84672d98) was 22.41GB used / 23.54GB limit (0.952)
OOM kill reason: Memory usage exceeded threshold
"""


@pytest.mark.parametrize(
    ("said", "attempts", "told"),
    [
        (
            MEMORY,
            3,
            "Ray's memory monitor ended the worker process 3 times: 22.41GB of its machine's "
            "23.54GB of memory were in use; end other",
        ),
        ("ray.exceptions.RayTaskError\n  ValueError: two\nOSError: last", 1, "OSError: last"),
        (
            "The actor died unexpectedly before finishing this task.",
            1,
            "the worker process died once: something killed it",
        ),
        ("", 2, "the worker process died 2 times: something killed it"),
    ],
)
def test_a_worker_that_died_is_told_of_with_its_cause(said: str, attempts: int, told: str) -> None:
    from hssl_search.engine.execution.ray_tune.adapters import cause_of_death

    assert cause_of_death(said, attempts).startswith(told)


FULL = """\
import sys, time
from hssl_search.engine.execution.jobs import Job, Setting, Task
from hssl_search.engine.execution.ray_tune.executor import RayExecutor
from hssl_search.engine.execution.ray_tune.session import RaySession

SETTING = Setting(
    base="", base_args={}, image_size=1, data="", probe_data=None, data_seed=0, recipe={},
    device="cpu",
)

def work(job, send):
    time.sleep(10_000)

class Meter:
    def tick(self, live): ...
    def skip(self): ...
    def exhausted(self): return False

class Source:
    jobs = [Job("a", "proxy", Task(setting=SETTING), sys.argv[1])]
    def next_job(self): return self.jobs.pop() if self.jobs else None
    def again(self, job): return job
    def on_end(self, job, outcome): print(outcome.state.value, outcome.cause)

with RaySession(cpus=1, gpus=0) as session:
    RayExecutor(Meter(), work, session, retries=1).run(Source(), concurrency=1)
"""
"""In a process of its own, whose Ray takes the machine's memory for full."""


@pytest.mark.slow(
    reason=(
        "a Ray of its own, whose memory monitor ends workers; pytest --run-slow "
        "tests/engine/execution runs it"
    )
)
def test_rays_memory_monitor_is_named_when_it_ends_workers(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RAY_memory_usage_threshold": "0.001",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = (
        r"failed Ray's memory monitor ended the worker process 2 times: [\d.]+GB of its machine's "
        r"[\d.]+GB of memory were in use; "
    )
    assert re.match(told, ended.stdout)
