"""Replaying: a training is run again from its record alone, and its numbers are compared with those
that were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hssl_search.engine.execution.jobs import Job, Metrics, Report, Setting, Task
from hssl_search.engine.images import require_images
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import JobRecord
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError
from hssl_search.scratch import Scratch

PHASES = ("proxy", "confirm")
"""Phases whose jobs train the base alone, or with one head; unless a seed is named, the first."""
UNCOMPARED = ("train_s", "train_steps", "recomputed", "gpus", "surroundings")
"""What a worker reports of how it came to its numbers."""


class Differs(UserError):
    """A replay whose numbers are not those that were recorded; the command exits with code 1."""

    exit_code = 1


@dataclass(frozen=True)
class Number:
    """One recorded number, or word such as the gate's, and what came out of the replay."""

    step: int
    name: str
    """As in the record, such as `accuracy` or `heads.0.cka`."""
    recorded: Any
    replayed: Any
    """None where the replay has none."""

    @property
    def equal(self) -> bool:
        """Return whether both are the same."""
        # As JSON, in which NaN is the same as NaN.
        return json.dumps(self.recorded) == json.dumps(self.replayed)


@dataclass(frozen=True)
class Replay:
    """A training that was run again, and how it compares."""

    job: str
    """Key of the job, such as `proxy/0007/seed0`."""
    name: str
    numbers: Sequence[Number]
    notes: Sequence[str]
    """What is different here from where it was trained first, and may change numbers."""

    @property
    def different(self) -> list[Number]:
        """Return the numbers that are not the same."""
        return [number for number in self.numbers if not number.equal]

    @property
    def equal(self) -> bool:
        """Return whether all numbers are the same."""
        return not self.different


def replay(run: Run, study: StudyRecord, trial: int, seed: int | None = None) -> Replay:
    """Train again what the trial trained alone, up to where that was recorded, in a temporary
    folder; nothing of the run is changed.

    Args:
        seed: of one of the trial's confirming runs; None: its proxy.

    Raises:
        UserError: for a trial that there is not, or that was never trained alone (under that seed);
            for data that are gone; for a training on a GPU where there is none.
    """
    record = _record(run, study, trial, seed)
    recorded = record.reports
    # Not `run.resolved()`: what this version cannot continue can be replayed all the same.
    written = run.config()
    setting = Setting.model_validate(written["setting"])
    _require_device(setting.device, record.key)
    changed = require_images(setting, written.get("images", {}))
    rungs = [report.step for report in recorded]
    again = {report.step: report.metrics for report in _train_again(setting, record, rungs)}
    numbers = []
    # What is not in the record is not compared: this version may report more.
    for report in recorded:
        replayed = dict(_flat(again.get(report.step, {})))
        numbers += [
            Number(report.step, name, value, replayed.get(name))
            for name, value in _flat(report.metrics)
        ]
    notes = [
        *([changed[0].upper() + changed[1:]] if changed else []),
        *_changed_surroundings(recorded, list(again.values())),
    ]
    return Replay(record.key, record.name, numbers, notes)


def _record(run: Run, study: StudyRecord, trial: int, seed: int | None) -> JobRecord:
    """Return the job record to replay."""
    count = len(study.trials())
    if not 0 <= trial < count:
        valid = f"its trials are 0 to {count - 1}" if count else "it has none yet"
        raise UserError(f"the run {run.name!r} has no trial {trial}; {valid}.")
    records = study.jobs().values()
    alone = [record for record in records if record.phase in PHASES and record.reports]
    of_trial = [record for record in alone if record.trial == trial]
    of_trial.sort(key=lambda record: PHASES.index(record.phase))
    if not of_trial:
        trained = sorted({record.trial for record in alone if record.trial is not None})
        valid = "no trial of this run has been yet"
        if trained:
            valid = f"choose one that was: {', '.join(map(str, trained))}"
        raise UserError(
            f"trial {trial} of the run {run.name!r} was never trained alone as far as a first "
            f"rung; {valid}."
        )
    of_seed = [record for record in of_trial if seed in (None, record.seed)]
    if not of_seed:
        seeds = ", ".join(str(record.seed) for record in of_trial)
        raise UserError(
            f"trial {trial} of the run {run.name!r} was not trained under seed {seed}; choose one "
            f"of {seeds}."
        )
    if of_seed[0].task is None:
        raise UserError(
            f"the record of {of_seed[0].key} does not say how it was trained; replay it with the "
            "version that wrote it."
        )
    return of_seed[0]


def _require_device(device: str, key: str) -> None:
    import torch  # takes seconds: a trial that was never trained is told without it

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{key} was trained on a GPU and no GPU was found; replay it on a machine like the one "
            "that it was trained on."
        )


def _train_again(setting: Setting, record: JobRecord, rungs: list[int]) -> list[Report]:
    """Return what the ordinary worker reports at these steps.

    This process has its threads and its random state back afterwards.
    """
    import torch

    from hssl_search.engine.worker.run_job import run_job

    # Up to the last recorded rung, whatever was to follow, and with no time kept for the end.
    changes = {"setting": setting, "rungs": rungs, "reserve_s": 0.0}
    task = Task.model_validate({**(record.task or {}), **changes})
    reports: list[Report] = []
    threads = torch.get_num_threads()
    # Of one GPU: `fork_rng` would otherwise keep the random state of every GPU of the machine.
    devices = [torch.cuda.current_device()] if setting.device == "cuda" else []
    with Scratch("replay") as folder, torch.random.fork_rng(devices):
        job = Job(
            record.key,
            record.phase,
            task,
            str(folder / "checkpoint"),
            record.trial,
            record.cpus,
            record.gpus,
        )
        try:
            run_job(job, lambda step, metrics: reports.append(Report(step, metrics)))
        finally:
            torch.set_num_threads(threads)
    return reports


def _flat(metrics: Metrics) -> Iterator[tuple[str, Any]]:
    """Yield name and value of everything that is compared; of what is nested `heads.0.cka`."""
    for key, value in metrics.items():
        if key in UNCOMPARED:
            continue
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inner, dict):
            nested = {str(place): item for place, item in inner.items()}
            yield from ((f"{key}.{name}", item) for name, item in _flat(nested))
        else:
            yield key, value


def _changed_surroundings(recorded: Sequence[Report], replayed: Sequence[Metrics]) -> Iterator[str]:
    """Yield what was different where the training ran, on any of the machines that it ran on."""
    here = replayed[-1].get("surroundings", {}) if replayed else {}
    for key, value in here.items():
        before = {
            str(report.metrics.get("surroundings", {}).get(key, "unknown")) for report in recorded
        }
        if others := before - {str(value)}:
            yield f"{key} was {' or '.join(sorted(others))} and is {value} here."
