from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hssl_search.engine.execution.jobs import Job, Outcome, Report, State, Task
from hssl_search.engine.records import state as states
from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "study.db")


def opened(record: StudyRecord) -> int:
    return record.add_trial(states.TrialState())


def test_states_values_curves_and_attributes_are_what_optuna_reads_afterwards(url: str) -> None:
    with StudyRecord.open(url, "demo", new=True) as record:
        done, pruned, failed = (opened(record) for _ in range(3))
        for step, value in ((40, 30.0), (80, 35.5)):
            record.report(done, step, value)
        record.report(pruned, 40, 28.0)
        record.write_trial(
            done, states.TrialState(role="candidate", head=HeadConfig(family="mlp"), cka=0.25)
        )
        record.finish(done, "COMPLETE", 35.5)
        record.finish(pruned, "PRUNED")
        record.finish(failed, "FAIL", cause="the loss was nan at step 3")
        record.write(states.SearchState(reference={"raw pixels": 39.8}))
    study = optuna.load_study(study_name="demo", storage=url)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    ]
    assert [trial.value for trial in study.trials] == [35.5, 28.0, None]
    assert study.trials[0].intermediate_values == {40: 30.0, 80: 35.5}
    assert study.trials[0].user_attrs == {
        "role": "candidate",
        "head": HeadConfig(family="mlp").model_dump(exclude_none=True),
        "cka": 0.25,
    }
    assert study.trials[2].user_attrs == {"cause": "the loss was nan at step 3"}
    assert study.user_attrs == {"reference": {"raw pixels": 39.8}}
    assert study.best_value == 35.5


def test_reporting_and_finishing_again_changes_nothing(url: str) -> None:
    with StudyRecord.open(url, "demo") as record:
        number = opened(record)
        record.report(number, 40, 30.0)
        record.report(number, 40, 99.0)
        record.finish(number, "COMPLETE", 31.0)
        record.finish(number, "FAIL", cause="never")
        record.finish(number, "COMPLETE", 99.0)
        record.report(number, 80, 99.0)
        trial = record.frozen(number)
    assert (trial.state, trial.value, trial.intermediate_values) == (
        TrialState.COMPLETE,
        31.0,
        {40: 30.0},
    )
    assert trial.user_attrs == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_value_that_is_no_number_becomes_a_failure_with_its_cause(
    url: str, value: float | None
) -> None:
    with StudyRecord.open(url, "demo") as record:
        number = opened(record)
        record.finish(number, "COMPLETE", value)
        trial = record.frozen(number)
    assert (trial.state, trial.values) == (TrialState.FAIL, None)
    assert trial.user_attrs["cause"] == f"the score was {value}"


def test_a_failure_needs_a_cause(url: str) -> None:
    with (
        StudyRecord.open(url, "demo") as record,
        pytest.raises(ValueError, match="without a cause"),
    ):
        record.finish(opened(record), "FAIL")


def test_job_records_come_back_as_they_were(url: str) -> None:
    job = Job(
        "proxy/0007/seed0", "proxy", Task.model_construct(seed=3, name="mlp 2"), "/nowhere", trial=7
    )
    metrics = {"accuracy": 41.25, "loss": float("nan"), "per": [1.0, float("-inf")]}
    outcome = Outcome(State.FAILED, "out of memory", [Report(40, metrics)], 12.5, 4.25)
    with StudyRecord.open(url, "demo") as record:
        record.record_job(job, outcome)
    with StudyRecord.open(url, "demo") as record:
        [(key, read)] = record.job_outcomes().items()
        plain = record.job_records()[key]
        assert record.study_attributes() == {}
    assert (key, read.state, read.cause) == ("proxy/0007/seed0", State.FAILED, "out of memory")
    assert (read.seconds, read.last_s) == (12.5, 4.25)
    assert (read.reports[0].step, read.reports[0].metrics["accuracy"]) == (40, 41.25)
    assert math.isnan(read.reports[0].metrics["loss"])
    assert read.reports[0].metrics["per"] == [1.0, float("-inf")]
    assert (plain["phase"], plain["trial"], plain["seed"], plain["name"]) == (
        "proxy",
        7,
        3,
        "mlp 2",
    )


def test_large_attributes_are_kept_whole(url: str) -> None:
    curve = [
        Report(step, {"accuracy": step / 7, "neighbours": list(range(100))}) for step in range(2000)
    ]
    with StudyRecord.open(url, "demo") as record:
        record.record_job(
            Job("full", "full", Task.model_construct(), "/nowhere"),
            Outcome(State.DONE, reports=curve),
        )
        assert record.job_outcomes()["full"].reports == curve


def test_numbers_that_json_cannot_hold_become_null_in_attributes(url: str) -> None:
    with StudyRecord.open(url, "demo") as record:
        number = opened(record)
        written = record.write_trial(number, states.TrialState(head_loss=float("nan"), cka=0.5))
        record.write(states.SearchState(config={"eta": float("inf"), "list": [float("nan")]}))
        assert record.frozen(number).user_attrs == written.attributes()
        assert written.attributes() == {"head_loss": None, "cka": 0.5}
        assert record.study_attributes() == {"config": {"eta": None, "list": [None]}}


def test_a_name_that_is_taken_in_a_shared_database_is_refused(url: str) -> None:
    with StudyRecord.open(url, "demo", new=True):
        pass
    with (
        pytest.raises(UserError, match="holds a study 'demo' already"),
        StudyRecord.open(url, "demo", new=True),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "postgresql://user:secret@127.0.0.1:1/name",
            r"failed \(.*\); check that it exists|driver that is not installed",
        ),
        ("sqlite:////nowhere/at/all/study.db", "unable to open database file"),
        ("not a url", "is no database URL that SQLAlchemy knows"),
        ("nosuchdatabase://user:secret@host/name", "is no database URL that SQLAlchemy knows"),
        ("mssql://user:secret@localhost:1/name", "driver that is not installed"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_sentence_without_the_password(
    url: str, told: str
) -> None:
    with pytest.raises(UserError, match=told) as error, StudyRecord.open(url, "demo"):
        pass
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(
        b"no database at all, but long enough to look like one" * 40
    )
    with (
        pytest.raises(UserError, match="not a database"),
        StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo"),
    ):
        pass


def test_readers_of_a_live_study_neither_block_nor_miss_anything(url: str) -> None:
    with StudyRecord.open(url, "demo") as record:
        number = opened(record)
        reader = optuna.storages.RDBStorage(url)
        with reader.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM trials").scalar() == 1
            record.report(number, 40, 30.0)
            record.finish(number, "COMPLETE", 30.0)
        assert optuna.load_study(study_name="demo", storage=reader).best_value == 30.0
        reader.engine.dispose()


def test_a_closed_study_is_one_file(url: str, tmp_path: Path) -> None:
    with StudyRecord.open(url, "demo") as record:
        opened(record)
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


KILLED = """
import os, signal, sys
from hssl_search.engine.records import state as states
from hssl_search.engine.records.study import StudyRecord
with StudyRecord.open(sys.argv[1], "demo") as record:
    record.finish(record.add_trial(states.TrialState()), "COMPLETE", 30.0)
    record.report(record.add_trial(states.TrialState()), 40, 25.0)
    record.add_trial(states.TrialState(control="identity", name="identity head"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_trials_of_a_killed_controller_are_continued_not_repeated(url: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, url], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with StudyRecord.open(url, "demo") as record:
        running = [trial for trial in record.trials() if trial.state is TrialState.RUNNING]
        assert [(trial.number, trial.user_attrs.get("control")) for trial in running] == [
            (1, None),
            (2, "identity"),
        ]
        for step, value in ((40, 99.0), (80, 27.0)):
            record.report(1, step, value)
        record.finish(1, "PRUNED")
        record.finish(2, "COMPLETE", 26.0)
        assert [trial.state for trial in record.trials()] == [
            TrialState.COMPLETE,
            TrialState.PRUNED,
            TrialState.COMPLETE,
        ]
        assert record.frozen(1).intermediate_values == {40: 25.0, 80: 27.0}
