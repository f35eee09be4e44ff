"""What is attached to a trial for the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.artifacts import get_all_artifact_meta

from hssl_search.engine.execution.jobs import Job, Outcome, Report, State, Task
from hssl_search.engine.records.artifacts import LOG_LINES, Artifacts
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import TrialState
from hssl_search.engine.records.study import StudyRecord

REPORTS = [Report(20, {"accuracy": 31.0}), Report(40, {"accuracy": 35.5})]


class WorkerSetup:
    """A run with one undecided trial that has a head."""

    def __init__(self, folder: Path, study: StudyRecord) -> None:
        self.run, self.study = Run.create(folder / "demo", {"name": "demo"}), study
        self.number = study.add_trial(TrialState(role="control", control="identity"))
        self.run.write_head(self.number, {"format": "hssl-head/1", "family": "identity"})
        self.job = Job(
            "proxy/0000/seed0",
            "proxy",
            Task.model_construct(name="identity head"),
            str(folder / "job"),
            trial=self.number,
        )
        self.artifacts = Artifacts(self.run, study)

    def keep(self, state: State, reports: list[Report] = REPORTS, cause: str = "") -> None:
        self.artifacts.keep(self.job, Outcome(state, cause, reports))

    def kept(self) -> dict[str, Path]:
        """file name -> where it lies."""
        found = get_all_artifact_meta(self.study.frozen(self.number), storage=self.study.storage)
        assert len({one.filename for one in found}) == len(found), "attached twice"
        return {one.filename: self.run.artifacts / one.artifact_id for one in found}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "artifacts" in record.name]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[WorkerSetup]:
    with StudyRecord.open(f"sqlite:///{tmp_path}/study.db", "demo") as study:
        yield WorkerSetup(tmp_path, study)


@pytest.mark.parametrize("state", [State.DONE, State.STOPPED])
def test_a_training_leaves_its_head(
    setup: WorkerSetup, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    setup.keep(state)
    kept = setup.kept()
    assert set(kept) == {"head.yaml"} and told(caplog) == []
    assert "family: identity" in kept["head.yaml"].read_text()


def test_a_failed_training_leaves_the_end_of_its_log(setup: WorkerSetup) -> None:
    folder = Path(setup.job.folder)
    folder.mkdir()
    (folder / "traceback.txt").write_text(
        "\n".join(f"line {number}" for number in range(10 * LOG_LINES))
    )
    setup.keep(State.FAILED, REPORTS[:1], "ValueError: the loss was nan")
    log = setup.kept()["log.txt"].read_text().splitlines()
    assert set(setup.kept()) == {"log.txt", "head.yaml"}
    assert log[:2] == ["ValueError: the loss was nan", ""]
    assert log[2:] == [f"line {number}" for number in range(9 * LOG_LINES, 10 * LOG_LINES)]


def test_without_a_traceback_the_log_is_the_cause(setup: WorkerSetup) -> None:
    setup.keep(State.FAILED, [], "the worker process died 3 times")
    assert setup.kept()["log.txt"].read_text().splitlines()[0] == "the worker process died 3 times"


def test_nothing_is_attached_twice_to_a_decided_trial_or_for_a_job_that_goes_on(
    setup: WorkerSetup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.keep(State.CUT)
    assert setup.kept() == {}
    setup.keep(State.DONE)
    before = setup.kept()
    setup.keep(State.DONE)
    setup.study.finish(setup.number, "COMPLETE", 35.5)
    setup.keep(State.FAILED, cause="never")
    assert setup.kept() == before and told(caplog) == []


def test_what_cannot_be_kept_is_told_of_and_stops_nothing(
    setup: WorkerSetup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.run.artifacts.write_text("a file where a folder should be")
    setup.keep(State.DONE)
    [sentence] = told(caplog)
    assert sentence.startswith(f"the dashboard will not show all of trial {setup.number}: ")
    assert setup.kept() == {}
