from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest

from hssl_search.engine.records.ledger import Charge, Ledger


def test_charges_are_summed_by_phase_attempt_and_trial_and_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge("proxy/0007#1", "proxy", 1.5, trial=7)
    ledger.charge("proxy/0007#1", "proxy", 0.5, trial=7)
    ledger.append([Charge("proxy/0007#2", "proxy", 2.0, 7), Charge("screen/0#1", "screen", 4.0)])
    for read in (ledger, Ledger(tmp_path / "ledger.jsonl")):
        assert read.total() == 8.0
        assert read.by_phase() == {"proxy": 4.0, "screen": 4.0}
        assert read.by_attempt() == {"proxy/0007#1": 2.0, "proxy/0007#2": 2.0, "screen/0#1": 4.0}
        assert read.by_trial() == {7: 4.0}
        assert read.attempts("proxy/0007") == 2
        assert read.attempts("proxy/0008") == 0
        assert read.damaged == 0


def test_reading_a_ledger_writes_nothing(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").total() == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        b'{"at": "2026',
        b"\xff\xfe\x00 no text at all\n",
        b'{"attempt": "a#1", "phase": "p", "device_s": 1000.0, "from": 0, "to": 0, '
        b'"trial": null, "crc": "00000000"}\n',
        b'{"attempt": "a#1", "phase": "p", "device_s": 1000.0}\n',
        b"[1, 2]\n",
        b"\x00" * 64,
    ],
)
def test_a_damaged_line_is_counted_and_later_lines_are_read(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    first = Ledger(path)
    first.charge("a#1", "p", 1.0)
    first.close()
    with path.open("ab") as file:
        file.write(damage)
    second = Ledger(path)
    assert (second.total(), second.damaged) == (1.0, 1)
    second.charge("a#2", "p", 2.0)
    second.close()
    third = Ledger(path)
    assert (third.total(), third.damaged) == (3.0, 1)
    assert third.by_attempt() == {"a#1": 1.0, "a#2": 2.0}


def test_every_truncation_loses_only_the_last_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge("a#1", "p", 1.0)
    whole_first = path.stat().st_size
    ledger.charge("b#1", "p", 2.0)
    ledger.close()
    content = path.read_bytes()
    for length in range(whole_first, len(content) - 1):
        path.write_bytes(content[:length])
        assert Ledger(path).total() == 1.0
    path.write_bytes(content[:-1])
    assert Ledger(path).total() == 3.0


def test_every_changed_figure_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge("a#1", "p", 1.5)
    ledger.close()
    path.write_bytes(path.read_bytes().replace(b"1.5", b"9.5"))
    assert (Ledger(path).total(), Ledger(path).damaged) == (0.0, 1)


def test_what_a_failing_disk_took_half_is_charged_once_when_it_is_charged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge("a#1", "p", 1.0)
    with monkeypatch.context() as failing:
        failing.setattr("os.fsync", Mock(side_effect=OSError(28, "no space")))
        with pytest.raises(OSError, match="no space"):
            ledger.charge("b#1", "p", 2.0)
    ledger.charge("b#1", "p", 2.0)
    assert (ledger.total(), Ledger(path).total(), Ledger(path).damaged) == (3.0, 3.0, 0)


@pytest.mark.parametrize("device_s", [-1.0, float("nan"), float("inf")])
def test_an_impossible_charge_is_refused_and_nothing_is_written(
    tmp_path: Path, device_s: float
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(ValueError, match="cannot charge"):
        ledger.append([Charge("a#1", "p", 1.0), Charge("b#1", "p", device_s)])
    assert ledger.total() == 0.0
    assert list(tmp_path.iterdir()) == []


def test_time_goes_on_where_an_earlier_controller_stopped(tmp_path: Path) -> None:
    clock = [100.0]
    first = Ledger(tmp_path / "ledger.jsonl", clock=lambda: clock[0])
    clock[0] = 130.0
    first.charge("a#1", "p", 30.0)
    clock[0] = 5.0
    second = Ledger(tmp_path / "ledger.jsonl", clock=lambda: clock[0])
    clock[0] = 7.0
    second.charge("a#2", "p", 2.0)
    assert [entry["to"] for entry in second.entries()] == [30.0, 32.0]


KILLED = """
import sys, time
from pathlib import Path
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.jobs import Job, Task
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
meter = DeviceMeter(Ledger(Path(sys.argv[1])), parse_budget("1cpu-h"), 1, 0, heartbeat_s=0.2)
job = Job("proxy/0001", "proxy", Task.model_construct(), "/nowhere", trial=1)
begin = time.monotonic()
while True:
    meter.tick([job])
    print(time.monotonic() - begin, flush=True)
    time.sleep(0.01)
"""


def test_kill_9_loses_at_most_one_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [0.0]
    while told[-1] < 1.0:
        told.append(float(process.stdout.readline()))
    os.kill(process.pid, signal.SIGKILL)
    told += [
        float(line)
        for line in process.stdout.read().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    process.wait()
    read = Ledger(path)
    # the machine may be busy
    pause = 0.05 + max(after - before for before, after in pairwise(told))
    assert told[-1] - 0.2 - pause <= read.by_trial()[1] <= told[-1] + pause
    assert read.damaged == 0


def test_the_system_clock_is_only_written_never_reckoned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hssl_search.engine.budget import parse_budget
    from hssl_search.engine.records.meter import DeviceMeter

    real = time.time
    clock = [0.0]
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=lambda: clock[0])
    meter = DeviceMeter(ledger, parse_budget("1cpu-h"), 1, 0, clock=lambda: clock[0])
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    clock[0] = 3.0
    meter.tick([])
    meter.close()
    assert ledger.total() == pytest.approx(3.0)
    assert json.loads((tmp_path / "ledger.jsonl").read_text())["to"] == 3.0
