"""The study: where every result of a run lands, readable by every tool that reads Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Status

from hssl_search.engine.execution.jobs import Job, Outcome, Report
from hssl_search.engine.records.state import (
    JOB_PREFIX,
    JobRecord,
    SearchState,
    TrialState,
    ended_jobs,
    joined,
    spelled,
    split,
    without_non_finite,
)
from hssl_search.engine.records.storage import (
    database_errors,
    flush,
    holds_studies,
    open_storage,
    storage_errors,
)
from hssl_search.engine.records.storage_url import shown
from hssl_search.errors import UserError

LONGEST_TEXT = 2_000
"""Characters of a trial's texts, such as the cause of a failure; MySQL holds 65,535 bytes."""
NOTE_VERSION, NOTE_PART, NOTE_LENGTH = "dashboard:note_ver", "dashboard:note_str:", 2045
"""Where optuna-dashboard keeps a study's note, in parts of at most so many characters."""
Finished = Literal["COMPLETE", "PRUNED", "FAIL"]


class MissingStudy(UserError):
    """The database has no such study."""


class StudyRecord:
    """Writes the run's Optuna study, and is the only one who does; open it with `StudyRecord.open`.

    One trial is one head candidate or one control. The states are true: COMPLETE reached full proxy
    fidelity, PRUNED was not promoted or stopped early, FAIL has its cause, RUNNING is not decided
    yet. Optuna allows no attributes after a trial is finished; what later jobs add to it, such as
    more seeds, lives in their job records.

    After a crash the trials of the dead controller are still RUNNING. They are *continued*: the
    same trial continues from its checkpoint, its curve grows where it ended, and `report` ignores
    what was reported before. The other way, closing it as FAIL and opening a new trial, would count
    a healthy head as failed, draw its parameters twice into the sampler's model and tear its curve
    in two."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.BaseStorage, url: str) -> None:
        self.study = study
        self.storage = storage
        """Also for what Optuna writes itself, such as artifacts."""
        self._url = url
        self._id = storage.get_study_id_from_name(study.study_name)
        self._own: dict[str, object] | None = None
        """The study's attributes without the job records, once they were read: nobody else writes
        them, so they are not read again."""

    @classmethod
    @contextmanager
    def open(cls, url: str, name: str, new: bool = False) -> Iterator[StudyRecord]:
        """Open the study `name` in the database at `url`; make it when it is missing.

        Args:
            new: whether a study of this name that is there already is a UserError.
        """
        # Optuna would log each trial beside the search's own lines.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with open_storage(url) as storage:
            with storage_errors(url):
                study = _create(storage, url, name, new)
            yield cls(study, storage, url)

    @classmethod
    @contextmanager
    def existing(cls, url: str, name: str) -> Iterator[StudyRecord]:
        """Open the study `name` in the database at `url`; raise MissingStudy when there is none."""
        missing = MissingStudy(
            f"the storage {shown(url)!r} holds no study {name!r}; name a run whose study is there."
        )
        # Asked first: opening would make the tables, and for SQLite the file.
        if not holds_studies(url):
            raise missing
        with open_storage(url) as storage:
            with storage_errors(url):
                try:
                    study = optuna.load_study(study_name=name, storage=storage)
                except KeyError:
                    raise missing from None
                if _name(study, storage) != name:  # as MySQL has it, `Demo` for `demo`
                    raise missing
            yield cls(study, storage, url)

    def add_trial(
        self,
        state: TrialState,
        parameters: Mapping[str, object] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
    ) -> int:
        """Add a trial that is RUNNING, in one write; return its number.

        Args:
            parameters: those of a candidate, with their distributions; none for a control.
        """
        template = optuna.trial.create_trial(
            state=Status.RUNNING,
            params=dict(parameters or {}),
            distributions=dict(distributions or {}),
            user_attrs=_kept(state.attributes()),
        )
        # A kill between several writes would leave a trial that does not say which head it is.
        with self._errors():
            trial = self.storage.create_new_trial(self._id, template_trial=template)
            return self.storage.get_trial_number_from_id(trial)

    def frozen(self, number: int) -> FrozenTrial:
        """Return the trial as it is now."""
        with self._errors():
            return self.storage.get_trial(self._trial_id(number))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as they are now; they must not be changed."""
        with self._errors():
            return self.study.get_trials(deepcopy=False)

    def write_trial(self, number: int, state: TrialState) -> TrialState:
        """Write the fields that `state` sets to a trial that is not finished.

        Returns:
            Them as the study holds them: without numbers that are not finite, long texts cut.
        """
        written = _kept(state.attributes())
        with self._errors():
            trial = self._trial_id(number)
            for key, value in written.items():
                self.storage.set_trial_user_attr(trial, key, value)
        return TrialState.model_validate(written)

    def report(self, number: int, step: int, value: float) -> None:
        """Set an intermediate value, unless the step has one or the trial is finished."""
        trial = self.frozen(number)
        if step in trial.intermediate_values or trial.state.is_finished():
            return  # a continued trial reports again what it did before the crash
        with self._errors():
            self.storage.set_trial_intermediate_value(self._trial_id(number), step, value)

    def finish(
        self, number: int, state: Finished, value: float | None = None, cause: str | None = None
    ) -> None:
        """Decide a trial, unless it is decided already.

        Args:
            value: for COMPLETE, the score at full proxy fidelity; one that is not a number makes
                the trial FAIL instead. PRUNED takes the last intermediate value.
            cause: one sentence, required for FAIL.
        """
        if self.frozen(number).state.is_finished():
            return
        if state == "COMPLETE" and (value is None or not math.isfinite(value)):
            state, cause = "FAIL", f"the score was {value}"
        if state == "FAIL" and not cause:
            raise ValueError(f"trial {number} failed without a cause")
        if cause:  # before it is finished, for Optuna takes no attributes afterwards
            self.write_trial(number, TrialState(cause=cause))
        with self._errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.tell(
                number,
                values=value if state == "COMPLETE" else None,
                state=Status[state],
                skip_if_finished=True,
            )

    @property
    def state(self) -> SearchState:
        """Return what the study holds of the search."""
        return SearchState.of(self.study_attributes())

    def write(self, state: SearchState) -> None:
        """Write the fields that `state` sets."""
        for key, value in without_non_finite(state.attributes()).items():
            self._set(key, value)
            if self._own is not None:
                self._own[key] = value

    def study_attributes(self) -> dict[str, object]:
        """Return the study's user attributes as they are, without the job records."""
        if self._own is None:  # the many job records are read with it, so once
            self._own = {
                key: value
                for key, value in self._attributes().items()
                if not key.startswith(JOB_PREFIX)
            }
        return dict(self._own)

    def announce_standstill(self, resume: str) -> None:
        """Say in the note that nothing runs, where the dashboard shows a trial as running.

        Args:
            resume: the command that continues the search.
        """
        self.lift_standstill()  # a sentence from before names an older command
        waiting = sum(trial.state is Status.RUNNING for trial in self.trials())
        if waiting:
            trials = (
                "1 trial that is shown as running waits"
                if waiting == 1
                else f"{waiting} trials that are shown as running wait"
            )
            sentence = (
                f"**Nothing runs at the moment:** {trials} for the search to continue, "
                f"with `{resume}`."
            )
            self.set_note("\n\n".join(filter(None, [sentence, self.note()])))
            self.write(SearchState(nothing_runs=sentence))

    def lift_standstill(self) -> None:
        """Take that sentence out of the note; what a person wrote there stays."""
        if sentence := self.state.nothing_runs:
            self.set_note(self.note().replace(sentence, "").strip())
            self.write(SearchState(nothing_runs=""))

    def note(self) -> str:
        """Return the study's note in the Optuna dashboard."""
        with self._errors():
            attributes = self.storage.get_study_system_attrs(self._id)
        parts = sorted(
            (int(key.removeprefix(NOTE_PART)), str(text))
            for key, text in attributes.items()
            if key.startswith(NOTE_PART)
        )
        return "".join(text for _, text in parts)

    def set_note(self, body: str) -> None:
        """Write the study's note as `optuna_dashboard.save_note` does, whose import takes
        seconds."""
        with self._errors():
            attributes = self.storage.get_study_system_attrs(self._id)
            parts = [
                body[start : start + NOTE_LENGTH] for start in range(0, len(body), NOTE_LENGTH)
            ]
            written = sum(key.startswith(NOTE_PART) for key in attributes)
            # Optuna deletes no attribute: parts of a longer note from before are emptied.
            for number in range(max(len(parts), written)):
                self.storage.set_study_system_attr(
                    self._id, f"{NOTE_PART}{number}", parts[number] if number < len(parts) else ""
                )
            self.storage.set_study_system_attr(
                self._id, NOTE_VERSION, int(attributes.get(NOTE_VERSION, 0)) + 1
            )

    def record_job(self, job: Job, outcome: Outcome) -> None:
        """Keep how a job ended, on the disk when this returns.

        A resumed search reads the record instead of running the job again, and a replay runs the
        job again from it.
        """
        record = JobRecord(
            key=job.key,
            phase=job.phase,
            state=outcome.state,
            cause=outcome.cause,
            trial=job.trial,
            seed=job.task.seed,
            name=job.task.name,
            task=job.task.model_dump(mode="json", exclude={"setting"}),
            cpus=job.cpus,
            gpus=job.gpus,
            seconds=round(outcome.seconds, 3),
            last_s=None if outcome.last_s is None else round(outcome.last_s, 3),
            reports=[Report(each.step, spelled(each.metrics)) for each in outcome.reports],
        )
        self._set(JOB_PREFIX + job.key, record.attributes())
        flush(self._url)

    def job_records(self) -> dict[str, object]:
        """Return the job records by job key, as they are."""
        return {
            key.removeprefix(JOB_PREFIX): value
            for key, value in self._attributes().items()
            if key.startswith(JOB_PREFIX)
        }

    def jobs(self) -> dict[str, JobRecord]:
        """Return the record of every ended job by its key."""
        return {job.key: job for job in ended_jobs(self._attributes())}

    def job_outcomes(self) -> dict[str, Outcome]:
        """Return the outcome of every ended job by its key."""
        return {key: job.outcome() for key, job in self.jobs().items()}

    def _set(self, key: str, value: Any) -> None:
        with self._errors():
            for name, part in split(key, value):
                self.storage.set_study_user_attr(self._id, name, part)

    def _attributes(self) -> dict[str, object]:
        with self._errors():
            return joined(self.storage.get_study_user_attrs(self._id))

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _errors(self) -> AbstractContextManager[None]:
        return database_errors(self._url)


def _create(storage: optuna.storages.BaseStorage, url: str, name: str, new: bool) -> optuna.Study:
    taken = UserError(
        f"the storage {shown(url)!r} holds a study {name!r} already; give this run another --name."
    )
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=not new
        )
        if _name(study, storage) != name:
            raise taken
        return study
    except optuna.exceptions.DuplicatedStudyError:
        raise taken from None
    except (
        sqlalchemy.exc.DataError,
        sqlalchemy.exc.StatementError,
        StorageInternalError,
        UnicodeError,
    ) as error:
        # An encoding such as latin1 does not hold every letter; any other cause is not the name's.
        if name.isascii():
            raise
        raise UserError(
            f"the storage {shown(url)!r} cannot hold the name {name!r}; give this run another "
            "--name, of ASCII letters, or the database the encoding UTF-8."
        ) from error


def _name(study: optuna.Study, storage: optuna.storages.BaseStorage) -> str:
    """Return how the database spells the study's name: to MySQL, `demo` and `Demo` are the same."""
    return storage.get_study_name_from_id(study._study_id)


def _kept(attributes: Mapping[str, object]) -> dict[str, object]:
    """Return a trial's attributes as the study keeps them: JSON, and long texts cut."""
    kept: dict[str, object] = without_non_finite(attributes)
    for key, value in kept.items():
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            kept[key] = f"{value[:LONGEST_TEXT]} ... ({len(value):,} characters)"
    return kept
