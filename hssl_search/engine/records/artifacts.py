"""Artifacts: what the Optuna dashboard shows of a trial beside its numbers.

See `optuna-dashboard STORAGE --artifact-dir RUN/artifacts`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

from hssl_search.engine.execution.jobs import Job, Outcome, State
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord
from hssl_search.scratch import Scratch

log = logging.getLogger(__name__)

LOG, HEAD = "log.txt", "head.yaml"
LOG_LINES = 100
"""Lines that are kept of a log, at most: its end."""


class Artifacts:
    """Attaches to a trial its head, and to one that failed the end of its log.

    They are copies of what the run holds elsewhere: one that cannot be kept ends no search.
    """

    def __init__(self, run: Run, study: StudyRecord) -> None:
        self.run, self.study = run, study

    def keep(self, job: Job, outcome: Outcome) -> None:
        """Attach what the trial of a training that has ended lacks.

        It must not be decided yet: a decided trial takes no artifacts.
        """
        if job.trial is None or outcome.state is State.CUT:
            return
        try:
            self._attach(job, job.trial, outcome)
        except Exception as error:  # whatever it is, no training is lost by it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            log.warning(f"the dashboard will not show all of trial {job.trial}: {reason}")

    def _attach(self, job: Job, number: int, outcome: Outcome) -> None:
        trial = self.study.frozen(number)
        if trial.state.is_finished():
            return
        has = {meta.filename for meta in get_all_artifact_meta(trial, storage=self.study.storage)}
        self.run.artifacts.mkdir(exist_ok=True)
        with Scratch("artifacts") as folder:
            end = folder / LOG  # Optuna names an artifact after its file
            if outcome.state is State.FAILED:
                end.write_text(end_of_log(job, outcome), encoding="utf-8")
            for path in (end, self.run.trial_folder(number) / HEAD):
                # A controller may have been killed between attaching and deciding.
                if path.name not in has and path.exists():
                    self._upload(trial, path)

    def _upload(self, trial: FrozenTrial, path: Path) -> None:
        upload_artifact(
            artifact_store=FileSystemArtifactStore(self.run.artifacts),
            file_path=str(path),
            study_or_trial=trial,
            storage=self.study.storage,
            mimetype="text/plain" if path.name == HEAD else None,
        )


def end_of_log(job: Job, outcome: Outcome) -> str:
    """Return the cause, and the end of the traceback that the worker wrote, where it could."""
    written = Path(job.folder) / "traceback.txt"
    lines = (
        written.read_text(encoding="utf-8").splitlines()
        if written.exists()
        else ["The worker has written no traceback."]
    )
    return "\n".join([outcome.cause, "", *lines[-LOG_LINES:]]) + "\n"
