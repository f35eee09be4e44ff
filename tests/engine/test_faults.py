"""What may happen to the machine under a search: nothing is lost by it."""

from __future__ import annotations

import itertools
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from hssl_search import api, cli
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import Job, Send, Task
from hssl_search.engine.phases.runner import Phase
from hssl_search.engine.records import storage
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError, disk_errors, disk_is_full
from hssl_search.training.checkpoint import CheckpointFolder

Lab = Any
"""See conftest.py."""


class Disk:
    """A file system of one megabyte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, but: int = 0) -> None:
        """To the last byte, or to so many before it."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (4096, 1):
                while _written(file, size):
                    pass
            file.truncate(file.tell() - but)

    def free(self) -> None:
        self._filler.unlink()


def _written(file: Any, size: int) -> bool:
    try:
        return bool(file.write(b"x" * size))
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounted where the first search of `make_lab` will lie."""
    folder = tmp_path / "0"
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounting.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounting.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", True),
        ("(sqlite3.OperationalError) database or disk is full", True),
        ("CUDA driver error code: 281", False),
        ("status code: 2800", False),
    ],
)
def test_a_full_disk_is_told_from_other_errors_of_libraries(said: str, full: bool) -> None:
    assert disk_is_full(RuntimeError(said)) is full


def test_a_ledger_on_a_full_disk_raises_and_goes_on_with_no_charge_lost_or_doubled(
    disk: Disk,
) -> None:
    ledger = Ledger(disk.folder / "ledger.jsonl")
    ledger.charge("a#1", "proxy", 1.0)
    disk.fill()
    with pytest.raises(OSError) as raised:
        for _ in range(100):  # until the file's last page is full
            ledger.charge("a#1", "proxy", 1.0)
    assert disk_is_full(raised.value)
    charged = ledger.total()
    disk.free()
    ledger.charge("b#1", "proxy", 100.0)
    ledger.close()
    again = Ledger(ledger.path)
    assert again.total() == ledger.total() == charged + 100.0
    assert again.by_attempt() == {"a#1": charged, "b#1": 100.0}
    assert again.damaged <= 1


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before_it_whole(disk: Disk) -> None:
    folder, weights = CheckpointFolder(disk.folder / "checkpoint"), {"weight": torch.arange(1000.0)}
    first = folder.save(10, weights, weights, {})
    disk.fill()
    with pytest.raises(Exception) as raised:
        folder.save(20, weights, weights, {})
    assert disk_is_full(raised.value)
    assert folder.latest() == first
    disk.free()
    assert folder.save(20, weights, weights, {}) == folder.latest()


def test_a_study_on_a_full_disk_says_so_and_keeps_what_it_had(disk: Disk) -> None:
    url = sqlite_url(disk.folder / "study.db")
    with StudyRecord.open(url, "demo", new=True) as record:
        record.write(SearchState(ended="before"))
        disk.fill()
        with pytest.raises(
            UserError, match=r"free some space there, then run the command again\.$"
        ):
            for number in range(1000):
                record.write(
                    SearchState(config={"number": number, "text": "x" * 500 * (number + 1)})
                )
    disk.free()
    with StudyRecord.open(url, "demo") as record:
        record.write(SearchState(nothing_runs="after"))
        assert (record.state.ended, record.state.nothing_runs) == ("before", "after")


@pytest.mark.parametrize("left", [0, 40_960], ids=["nothing", "no study"])
def test_a_run_that_a_full_disk_does_not_hold_is_refused_and_made_when_there_is_space(
    disk: Disk,
    left: int,
    resolved: ResolvedSearch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(disk.folder)
    monkeypatch.setattr(api, "prepared", lambda *_: nullcontext((resolved, None)))
    monkeypatch.setattr(api, "_work", lambda run, *values: run)
    disk.fill(but=left)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--base", "test_resnet", "--budget", "1cpu-h"])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert re.search(
        r"(no space is left on the disk of runs/demo|disk is full\)); .*run the command again\.$",
        told,
    )
    assert not list(disk.folder.glob("runs/*"))
    disk.free()
    cli.main(["--base", "test_resnet", "--budget", "1cpu-h"])
    assert Run.open(Path("runs/demo")).study_db.exists()


@pytest.mark.parametrize(
    ("command", "left", "remedy"),
    [
        ("resume", 0, r"continue with `hssl-search resume`: .*"),
        ("report", 100_000, "run the command again"),
    ],
)
def test_what_cannot_be_written_to_a_run_on_a_full_disk_is_told_in_one_sentence(
    disk: Disk,
    command: str,
    left: int,
    remedy: str,
    resolved: ResolvedSearch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(disk.folder)
    run = Run.create(Path("runs/demo"), resolved.as_plain())
    with StudyRecord.open(run.storage_url, "demo", new=True) as study:
        study.write(SearchState(config={}))
    large = bytes(2**20)
    monkeypatch.setattr(
        "hssl_search.reporting.files.write_report",
        lambda folder, *records: (folder / "report.html").write_bytes(large),
    )
    disk.fill(but=left)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "demo"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(
        rf"hssl-search: no space is left on the disk of {disk.folder}/runs/demo; free some, then "
        rf"{remedy}\.\n",
        told,
    )


@pytest.mark.parametrize("full_at", [1, 9, 17])
def test_a_search_on_a_full_disk_stops_with_one_sentence_and_goes_on(
    make_lab: Callable[..., Lab], disk: Disk, full_at: int
) -> None:
    lab, seen = make_lab(budget="20cpu-min"), itertools.count(1)

    def fill(key: str, step: int) -> None:
        if next(seen) == full_at:
            disk.fill()

    lab.at_rung = fill
    sentence = (
        f"no space is left on the disk of {lab.run.folder}; free some, then continue with "
        "`hssl-search resume`"
    )
    with pytest.raises(UserError, match=sentence), disk_errors(lab.run.folder):
        lab.search()
    before, records = lab.charged(), lab.study.job_records()
    ended = {key: record for key, record in records.items() if record["state"] != "cut"}
    disk.free()
    assert lab.search()["state"] == "better"
    assert all(trial.state.is_finished() for trial in lab.study.trials())
    after = lab.study.job_records()
    assert {key: after[key] for key in ended} == ended
    assert all(
        after[key]["reports"][: len(record["reports"])] == record["reports"]
        for key, record in records.items()
    )
    assert before < lab.charged() <= lab.budget.seconds


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that holds the database's write lock."""
    with closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def test_a_database_that_another_program_writes_to_is_waited_for_a_minute_and_more(
    tmp_path: Path,
) -> None:
    assert storage.PATIENCE_S >= 60
    path = tmp_path / "study.db"
    with StudyRecord.open(sqlite_url(path), "demo", new=True) as record, writing(path) as other:
        release = threading.Timer(0.5, other.rollback)
        release.start()
        record.write(SearchState(ended="value"))
        release.join()
        assert record.state.ended == "value"


def test_a_database_that_stays_locked_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BUSY_S", 0.1)
    path = tmp_path / "study.db"
    with StudyRecord.open(sqlite_url(path), "demo", new=True) as record:
        monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
        record.write(SearchState(ended="before"))
        with (
            writing(path),
            pytest.raises(UserError, match=r"end that program, then run the command again\.$"),
        ):
            record.write(SearchState(nothing_runs="during"))
        record.write(SearchState(nothing_runs="after"))
        assert (record.state.ended, record.state.nothing_runs) == ("before", "after")


def test_a_reader_that_stays_in_the_database_keeps_no_one_from_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BUSY_S", 0.1)
    path = tmp_path / "study.db"
    with (
        StudyRecord.open(sqlite_url(path), "demo", new=True) as record,
        closing(sqlite3.connect(path)) as reader,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        record.write(SearchState(ended="value"))
        assert record.state.ended == "value"


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_by_an_hour_changes_no_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * next(jumps))
    meter = DeviceMeter(
        Ledger(tmp_path / "ledger.jsonl"), parse_budget("1cpu-h"), total_cpus=1, total_gpus=0
    )
    phase = Phase(
        [
            Job(f"proxy/{number}", "proxy", Task.model_construct(), str(tmp_path), still_s=900.0)
            for number in range(3)
        ],
        {},
    )

    def work(job: Job, send: Send) -> None:
        time.time()
        send(1, {})

    InlineExecutor(work, meter).run(phase)
    meter.close()
    assert {outcome.state.value for outcome in phase.outcomes.values()} == {"done"}
    assert 0 <= Ledger(tmp_path / "ledger.jsonl").total() < 1800
    assert all(0 <= outcome.seconds < 1800 for outcome in phase.outcomes.values())
