"""What is on the disk, and when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hssl_search.search.execution.jobs import Job, Outcome, State
from hssl_search.search.records.storage import flush, sqlite_url
from hssl_search.search.records.study import StudyRecord


def test_how_a_job_ended_is_on_the_disk_before_anything_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[str, bytes] = {}

    def fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        synced[path.name] = path.read_bytes()

    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo", new=True) as record:
        monkeypatch.setattr("os.fsync", fsync)
        record.set_study("reference", {})
        assert synced == {}, "what a search can find out again need not be"
        record.record_job(Job("screen/group0", "screen", {}, "/nowhere"), Outcome(State.DONE))
    assert list(synced) == ["study.db-wal"]
    assert b"job/screen/group0" in synced["study.db-wal"]


def test_nothing_is_done_for_what_has_no_log_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("name-wal").touch()
    monkeypatch.setattr("os.fsync", lambda file: pytest.fail("there is nothing to write"))
    for url in ("postgresql://user@host/name", f"sqlite:///{tmp_path}/study.db", "memory"):
        flush(url)
