"""The note in the Optuna dashboard that nothing runs: trials that are not decided are shown as running there."""

from __future__ import annotations

from optuna.trial import TrialState

from hssl_search.engine.records.study import StudyRecord

ATTRIBUTE = "nothing_runs"
"""Study attribute: the part of the study's note that is ours; empty while the search runs."""


def announce(study: StudyRecord, resume: str) -> None:
    """Say in the study's note that nothing runs, where a trial is shown as running.

    Args:
        resume: the command that goes on with the search.
    """
    lift(study)
    waiting = sum(trial.state is TrialState.RUNNING for trial in study.trials())
    if waiting:
        trials = (
            "1 trial that is shown as running waits"
            if waiting == 1
            else f"{waiting} trials that are shown as running wait"
        )
        told = f"**Nothing runs at the moment:** {trials} for the search to go on, with `{resume}`."
        study.set_note("\n\n".join(filter(None, [told, study.note()])))
        study.set_study(ATTRIBUTE, told)


def lift(study: StudyRecord) -> None:
    """Take that out of the note; what a person wrote there stays."""
    told = study.study_attributes().get(ATTRIBUTE)
    if told:
        study.set_note(study.note().replace(told, "").strip())
        study.set_study(ATTRIBUTE, "")
