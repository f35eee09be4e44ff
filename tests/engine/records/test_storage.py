"""What is on the disk, and when; how a server that does not answer is asked again."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
)

from hssl_search.engine.execution.jobs import Job, Outcome, State, Task
from hssl_search.engine.records import storage
from hssl_search.engine.records.state import SearchState, TrialState
from hssl_search.engine.records.storage import StorageError, flush
from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.engine.records.study import StudyRecord
from hssl_search.interrupts import heeding


def test_how_a_job_ended_is_on_the_disk_before_anything_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, bytes] = {}

    def fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        synced[path.name] = path.read_bytes()

    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo", new=True) as record:
        monkeypatch.setattr("os.fsync", fsync)
        record.write(SearchState(reference={}))
        assert synced == {}, "what a search can find out again need not be"
        record.record_job(
            Job("screen/group0", "screen", Task.model_construct(), "/nowhere"), Outcome(State.DONE)
        )
    assert list(synced) == ["study.db-wal"]
    assert b"job/screen/group0" in synced["study.db-wal"]


def test_nothing_is_done_for_what_has_no_log_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("name-wal").touch()
    monkeypatch.setattr("os.fsync", lambda file: pytest.fail("there is nothing to write"))
    for url in ("postgresql://user@host/name", f"sqlite:///{tmp_path}/study.db", "memory"):
        flush(url)


@pytest.mark.parametrize("name", ["run", "what is it? #2 50%"])
def test_a_study_that_may_only_be_read_is_read_and_nothing_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "study.db"
    with StudyRecord.open(sqlite_url(path), "demo", new=True) as record:
        record.write(SearchState(ended="value"))
    before = path.read_bytes(), path.stat().st_mtime_ns
    access, connect = os.access, sqlite3.connect

    def connect_without_writing(file: str, **options: Any) -> sqlite3.Connection:
        assert "immutable=1" in file, "the disk does not let SQLite make its files"
        return connect(file, **options)

    monkeypatch.setattr(
        "os.access", lambda place, mode: place != path.parent and access(place, mode)
    )
    monkeypatch.setattr("sqlite3.dbapi2.connect", connect_without_writing)
    with StudyRecord.existing(sqlite_url(path), "demo") as record:
        assert record.study_attributes() == {"ended": "value"}
        assert [one.name for one in path.parent.iterdir()] == ["study.db"], (
            "no log and no index beside it"
        )
        with pytest.raises(StorageError, match=r"attempt to write a readonly database"):
            record.write(SearchState(ended="another"))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


class Flaky(InMemoryStorage):
    """Fails in some of the calls that write, counted from 0, before or after they are carried
    out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.before, self.after = 0, set[int](), set[int]()
        self.error = gone()

    def _counted(self, call: Callable[..., Any], *values: Any, **named: Any) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if number in self.before:
            raise self.error
        answer = call(*values, **named)
        if number in self.after:
            raise self.error
        return answer

    def create_new_trial(self, *values: Any, **named: Any) -> int:
        return int(self._counted(super().create_new_trial, *values, **named))

    def set_trial_user_attr(self, *values: Any, **named: Any) -> None:
        self._counted(super().set_trial_user_attr, *values, **named)

    def set_trial_state_values(self, *values: Any, **named: Any) -> bool:
        return bool(self._counted(super().set_trial_state_values, *values, **named))

    def set_study_user_attr(self, *values: Any, **named: Any) -> None:
        self._counted(super().set_study_user_attr, *values, **named)


def gone() -> Exception:
    """As Optuna tells that a commit failed, and as a driver does."""
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError(
        "INSERT", {}, Exception("server closed the connection unexpectedly")
    )
    return error


class Driver(Exception):
    """An error as a driver raises it."""


def postgresql(state: str, what: str) -> Driver:
    error = Driver(what)
    error.sqlstate = state  # type: ignore[attr-defined]
    return error


def psycopg2(state: str, what: str) -> Driver:
    error = Driver(what)
    error.pgcode = state  # type: ignore[attr-defined]
    return error


def mysql(number: int, what: str) -> Driver:
    return Driver(number, what)


def connector(number: int, what: str) -> Driver:
    """As MySQL Connector/Python, which gives every error that has no other the same SQLSTATE."""
    error = Driver(what)
    error.errno, error.sqlstate = number, "HY000"  # type: ignore[attr-defined]
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between questions, which nothing waits for."""
    made: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", made.append)
    monkeypatch.setattr(storage, "pause", made.append)
    return made


def patient(flaky: Flaky) -> StudyRecord:
    study = optuna.create_study(storage=flaky, study_name="demo", direction="maximize")
    storage._Patience(flaky, "postgresql://user@host/name")
    return StudyRecord(study, flaky, "postgresql://user@host/name")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_is_repeated_until_it_is_answered_and_carried_out_once(
    when: str, pauses: list[float]
) -> None:
    flaky = Flaky()
    record = patient(flaky)
    getattr(flaky, when).update(range(0, 40, 2))
    for number in range(3):
        assert record.add_trial(TrialState(seed=number)) == number
        record.write_trial(number, TrialState(cka=0.5))
        record.finish(number, "COMPLETE", 50.0)
    record.write(SearchState(ended="value"))
    assert [(trial.state.name, trial.value, trial.user_attrs) for trial in record.trials()] == [
        ("COMPLETE", 50.0, {"seed": number, "cka": 0.5}) for number in range(3)
    ]
    assert record.study_attributes() == {"ended": "value"}
    assert set(pauses) == {storage.PAUSES_S[0]} and len(pauses) >= 7, (
        "pauses are short again after each answer"
    )


def test_a_server_that_stays_silent_is_given_up_once(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(storage.time, "monotonic", lambda: next(clock))
    flaky = Flaky()
    record = patient(flaky)
    flaky.before.update(range(100))
    for _ in range(3):
        with pytest.raises(
            StorageError,
            match=r"^the storage 'postgresql://user@host/name' failed \(server closed the "
            r"connection unexpectedly\); check that it .*, then run the command again\.$",
        ):
            record.write(SearchState(ended="value"))
    assert pauses == [0.5, 1.0, 2.0, 4.0, *[8.0] * 9], (
        "for 120 seconds, and the later calls were not waited for"
    )
    assert len(caplog.messages) == 1
    flaky.before.clear()
    record.write(SearchState(ended="value"))
    assert record.study_attributes() == {"ended": "value"}


def test_whoever_interrupts_the_waiting_does_not_wait_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.time, "sleep", interrupt)
    flaky = Flaky()
    record = patient(flaky)
    flaky.before.update(range(10))
    with pytest.raises(KeyboardInterrupt):
        record.write(SearchState(ended="value"))
    with pytest.raises(StorageError):
        record.write(SearchState(ended="value"))
    assert flaky.calls == 2


def test_whoever_has_asked_to_stop_waits_for_one_more_answer_and_not_for_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flaky = Flaky()
    record = patient(flaky)
    slept: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", slept.append)
    with heeding(lambda: True):
        flaky.before.add(0)
        record.write(SearchState(ended="value"))
        assert record.study_attributes() == {"ended": "value"}
        flaky.before.update(range(100))
        with pytest.raises(KeyboardInterrupt):
            record.write(SearchState(ended="another"))
    with pytest.raises(StorageError):
        record.write(SearchState(ended="another"))
    assert slept == [storage.PAUSES_S[0]] * 2 and flaky.calls == 5


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[StudyRecord, sqlite3.Connection]]:
    """A study, and another program that is writing to its file."""
    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo", new=True) as record:
        other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield record, other
        other.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself hardly waits."""
    monkeypatch.setattr(storage, "BUSY_S", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_file_that_another_program_writes_to_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    record, other = request.getfixturevalue("writer")
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(storage, "pause", lambda seconds: other.execute("COMMIT"))
    record.write(SearchState(ended="value"))
    assert record.study_attributes() == {"ended": "value"}


@pytest.mark.usefixtures("impatient")
def test_a_request_to_stop_ends_the_waiting_for_another_program(
    request: pytest.FixtureRequest,
) -> None:
    record, other = request.getfixturevalue("writer")
    with heeding(lambda: True), pytest.raises(KeyboardInterrupt):
        record.write(SearchState(ended="value"))
    other.execute("COMMIT")
    record.write(SearchState(ended="value"))
    assert record.study_attributes() == {"ended": "value"}


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, Exception("gone")),
        InterfaceError("SELECT", {}, Exception("closed")),
        PendingRollbackError("gone"),
        DBAPIError("SELECT", {}, Exception("gone"), connection_invalidated=True),
        OperationalError(
            "SELECT", {}, postgresql("57P01", "terminating connection due to administrator command")
        ),
        OperationalError("SELECT", {}, postgresql("08006", "connection failure")),
        OperationalError("SELECT", {}, mysql(2006, "gone away")),
        OperationalError("SELECT", {}, mysql(2003, "Can't connect")),
        OperationalError("SELECT", {}, mysql(1213, "Deadlock found")),
    ],
)
def test_whatever_tells_of_a_broken_connection_is_asked_again(
    error: Exception, pauses: list[float]
) -> None:
    flaky = Flaky()
    record = patient(flaky)
    flaky.error = error
    flaky.before.add(0)
    record.write(SearchState(ended="value"))
    assert (pauses, flaky.calls) == ([storage.PAUSES_S[0]], 2)


@pytest.mark.parametrize(
    "error",
    [
        DataError("INSERT", {}, Exception("Data too long for column")),
        ValueError("a bug"),
        *(
            OperationalError("INSERT", {}, error)
            for error in (
                postgresql("53100", "No space left on device"),
                postgresql("25006", "cannot execute INSERT in a read-only transaction"),
                postgresql("53200", "out of memory"),
                postgresql("57P04", "database dropped"),
                psycopg2("53100", "No space left on device"),
                mysql(1021, "Disk full"),
                mysql(1290, "running with the --read-only option"),
                connector(1114, "The table is full"),
            )
        ),
    ],
)
def test_what_asking_again_cannot_mend_is_not_asked_again(
    error: Exception, pauses: list[float]
) -> None:
    flaky = Flaky()
    record = patient(flaky)
    flaky.error = error
    flaky.before.add(0)
    with pytest.raises(
        ValueError if isinstance(error, ValueError) else StorageError,
        match=re.escape(str(getattr(error, "orig", error))),
    ):
        record.write(SearchState(ended="value"))
    assert (pauses, flaky.calls) == ([], 1)
