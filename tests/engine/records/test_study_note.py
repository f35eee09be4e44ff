"""The note that nothing runs, read by the Optuna dashboard's own function."""

from __future__ import annotations

import pytest
from optuna_dashboard import get_note, save_note

from hssl_search.engine.records.state import TrialState
from hssl_search.engine.records.study import NOTE_LENGTH, StudyRecord

RESUME = "hssl-search resume runs/demo --budget +2cpu-min"


def test_where_a_trial_is_shown_as_running_the_note_says_that_nothing_runs_until_the_search_goes_on(
    study: StudyRecord,
) -> None:
    study.add_trial(TrialState(control="none"))
    study.announce_standstill(RESUME)
    assert (
        get_note(study.study)
        == study.note()
        == (
            "**Nothing runs at the moment:** 1 trial that is shown as running waits for the "
            f"search to continue, with `{RESUME}`."
        )
    )
    study.lift_standstill()
    assert get_note(study.study) == ""


def test_it_is_said_once_and_with_the_newest_command(study: StudyRecord) -> None:
    study.add_trial(TrialState(control="none"))
    study.add_trial(TrialState(control="identity"))
    study.announce_standstill("hssl-search resume runs/demo")
    study.announce_standstill(RESUME)
    assert get_note(study.study).count("Nothing runs") == 1
    assert "2 trials that are shown as running wait " in study.note() and RESUME in study.note()


def test_where_all_trials_are_decided_there_is_no_note(study: StudyRecord) -> None:
    study.finish(study.add_trial(TrialState(control="none")), "COMPLETE", 40.0)
    study.announce_standstill(RESUME)
    assert get_note(study.study) == ""


@pytest.mark.parametrize("written", ["My own words.", "long " * NOTE_LENGTH])
def test_what_a_person_wrote_stays(study: StudyRecord, written: str) -> None:
    study.add_trial(TrialState(control="none"))
    save_note(study.study, written.strip())
    study.announce_standstill(RESUME)
    assert get_note(study.study).startswith("**Nothing runs") and get_note(study.study).endswith(
        written.strip()
    )
    save_note(study.study, f"{get_note(study.study)} And more.")
    study.lift_standstill()
    assert get_note(study.study) == f"{written.strip()} And more."
