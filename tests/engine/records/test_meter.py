from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.jobs import Job, Task
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter


def job(
    key: str, cpus: float = 1.0, gpus: float = 0.0, phase: str = "proxy", trial: int | None = None
) -> Job:
    return Job(key, phase, Task.model_construct(), "/nowhere", trial=trial, cpus=cpus, gpus=gpus)


class WorkerSetup:
    """A meter with a clock that the test turns."""

    def __init__(
        self,
        folder: Path,
        budget: str,
        tell: Callable[[float, float], None] = lambda spent_s, budget_s: None,
        cpus: float = 4,
        gpus: float = 2,
        reserve_s: float = 0.0,
        heartbeat_s: float = 2.0,
    ) -> None:
        self.now = 50.0
        self.path = folder / "ledger.jsonl"
        self.ledger = Ledger(self.path, clock=self.clock)
        self.meter = DeviceMeter(
            self.ledger, parse_budget(budget), cpus, gpus, reserve_s, self.clock, heartbeat_s, tell
        )

    def clock(self) -> float:
        return self.now

    def after(self, seconds: float, *live: Job) -> None:
        self.now += seconds
        self.meter.tick(list(live))

    def lines(self) -> int:
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0

    def wait_for_lines(self, count: int) -> bool:
        """Until another thread has written them, and at most a minute."""
        until = time.monotonic() + 60.0
        while self.lines() < count and time.monotonic() < until:
            threading.Event().wait(0.001)
        return self.lines() == count


def test_on_a_cpu_budget_jobs_pay_their_share_and_the_controller_the_rest(tmp_path: Path) -> None:
    setup = WorkerSetup(tmp_path, "10cpu-min")
    setup.after(10)
    setup.after(20, job("a", cpus=1), job("b", cpus=2, phase="screen"))
    setup.meter.close()
    assert setup.ledger.by_attempt() == {"a#1": 5.0, "b#1": 10.0, "controller#1": 15.0}
    assert setup.ledger.by_phase() == {"proxy": 5.0, "screen": 10.0, "overhead": 15.0}


def test_on_a_cpu_budget_the_total_is_wall_clock_whatever_runs(tmp_path: Path) -> None:
    setup, dice, wall = WorkerSetup(tmp_path, "10cpu-h"), random.Random(0), 0.0
    jobs = [job(str(number), cpus=dice.choice([0.5, 1, 3])) for number in range(12)]
    for _ in range(300):
        step = dice.random() * 3
        setup.after(step, *dice.sample(jobs, dice.randrange(6)))
        wall += step
    setup.meter.close()
    assert setup.ledger.total() == pytest.approx(wall, abs=1e-3)
    assert Ledger(setup.path).total() == pytest.approx(wall, abs=1e-3)


def test_on_a_gpu_budget_jobs_pay_the_gpus_they_hold_and_waiting_is_free(tmp_path: Path) -> None:
    setup = WorkerSetup(tmp_path, "10gpu-min")
    setup.after(100)
    setup.after(10, job("a", gpus=1), job("b", gpus=0.25), job("c", gpus=0))
    setup.meter.close()
    assert setup.ledger.by_attempt() == {"a#1": 10.0, "b#1": 2.5}


def test_more_gpus_asked_for_than_there_are_cost_what_there_is(tmp_path: Path) -> None:
    setup = WorkerSetup(tmp_path, "10gpu-min", gpus=2)
    setup.after(10, *(job(str(number), gpus=1) for number in range(4)))
    setup.meter.close()
    assert setup.ledger.total() == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("budget", "charged"),
    [("10gpu-min", {"a#1": 10.0}), ("10cpu-min", {"a#1": 2.5, "controller#1": 7.5})],
)
def test_within_beating_time_is_charged_while_nobody_ticks(
    tmp_path: Path, budget: str, charged: dict[str, float]
) -> None:
    setup = WorkerSetup(tmp_path, budget, heartbeat_s=0.001)
    setup.after(0.0, job("a", cpus=1, gpus=1))
    with setup.meter.beating():
        setup.now += 10.0
        assert setup.wait_for_lines(len(charged))
    assert Ledger(setup.path).by_attempt() == charged
    assert setup.meter.spent() == 10.0


def test_a_heartbeat_that_cannot_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, tried = WorkerSetup(tmp_path, "10cpu-min", heartbeat_s=0.001), threading.Event()

    def full(lines: bytes, durable: bool) -> None:
        tried.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(setup.ledger, "_write", full)
        with setup.meter.beating():
            setup.now += 10.0
            assert tried.wait(60.0)
        with pytest.raises(OSError, match="No space"):
            setup.after(1.0)
    setup.meter.close()
    assert setup.ledger.total() == Ledger(setup.path).total() == 11.0


def test_lines_are_written_at_heartbeats_and_when_a_job_ends(tmp_path: Path) -> None:
    setup = WorkerSetup(tmp_path, "10gpu-min")
    work = job("a", gpus=1, trial=3)
    setup.after(0.5, work)
    setup.after(1.0, work)
    assert setup.lines() == 0
    setup.after(0.5, work)
    assert setup.lines() == 1
    setup.after(0.5, work)
    setup.after(0.0)
    assert setup.lines() == 2
    assert [
        (entry["device_s"], entry["from"], entry["to"], entry["trial"])
        for entry in setup.ledger.entries()
    ] == [
        (2.0, 0.0, 2.0, 3),
        (0.5, 2.0, 2.5, 3),
    ]


def test_only_heartbeats_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, waits = WorkerSetup(tmp_path, "10gpu-min"), list[int]()
    monkeypatch.setattr("os.fsync", waits.append)
    for key in ("a", "b"):
        setup.after(0.3, job(key, gpus=1))
        setup.after(0.3)
    assert (setup.lines(), len(waits)) == (2, 0)
    setup.after(2.0, job("c", gpus=1))
    assert (setup.lines(), len(waits)) == (3, 1)


def test_each_return_of_a_job_is_a_new_attempt_across_controllers(tmp_path: Path) -> None:
    setup = WorkerSetup(tmp_path, "10gpu-min")
    work = job("a", gpus=1)
    setup.after(1, work)
    setup.after(0)
    setup.after(2, work)
    setup.meter.close()
    again = WorkerSetup(tmp_path, "10gpu-min")
    again.after(4, work)
    again.meter.close()
    assert again.ledger.by_attempt() == {"a#1": 1.0, "a#2": 2.0, "a#3": 4.0}


def test_the_controllers_time_before_the_first_job_of_a_resumed_run_is_its_own_attempt(
    tmp_path: Path,
) -> None:
    for seconds in (3, 5):
        setup = WorkerSetup(tmp_path, "10cpu-min")
        setup.after(seconds)
        setup.meter.close()
    assert setup.ledger.by_attempt() == {"controller#1": 3.0, "controller#2": 5.0}


def test_the_budget_is_exhausted_with_what_is_not_yet_written_and_without_the_reserve(
    tmp_path: Path,
) -> None:
    setup = WorkerSetup(tmp_path, "10gpu-s", reserve_s=4.0)
    work = job("a", gpus=1)
    setup.after(5.5, work)
    assert (setup.meter.exhausted(), setup.meter.remaining()) == (False, pytest.approx(0.5))
    setup.after(0.75, work)
    assert setup.meter.exhausted()
    assert setup.meter.remaining() == 0.0
    assert setup.meter.spent() == pytest.approx(6.25)
    setup.meter.reserve_s = 0.0
    assert setup.meter.remaining() == pytest.approx(3.75)


def test_what_an_earlier_controller_spent_counts(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.jsonl").charge("a#1", "proxy", 9.0)
    setup = WorkerSetup(tmp_path, "10gpu-s")
    assert setup.meter.remaining() == pytest.approx(1.0)


def test_who_watches_is_told_at_every_tick_what_is_spent(tmp_path: Path) -> None:
    told = list[tuple[float, float]]()
    setup = WorkerSetup(tmp_path, "10gpu-min", lambda *seconds: told.append(seconds))
    setup.after(0.5, job("a", gpus=1))
    setup.after(0.5, job("a", gpus=1), job("b", gpus=1))
    assert told == [(0.5, 600.0), (1.5, 600.0)]
    setup.meter.close()


@pytest.mark.parametrize("budget", ["10cpu-min", "10gpu-min"])
def test_time_in_which_others_hold_what_jobs_need_is_not_charged(
    tmp_path: Path, budget: str
) -> None:
    setup = WorkerSetup(tmp_path, budget)
    one = job("a", cpus=4, gpus=1)
    setup.after(10, one)
    setup.now += 100
    setup.meter.skip()
    with setup.meter.beating():
        setup.now += 1000
    setup.meter.skip()
    assert setup.meter.spent() == 10.0
    setup.after(0, one)
    setup.after(5, one)
    setup.meter.close()
    assert setup.ledger.total() == 15.0
