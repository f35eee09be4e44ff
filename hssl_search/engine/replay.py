"""Replaying: a training run again from its record alone, and its numbers beside those that were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hssl_search.engine.execution.jobs import Job, Plain, Report, Setting, Task
from hssl_search.engine.images import require_images
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import JobRecord
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError
from hssl_search.scratch import Scratch

PHASES = ("proxy", "confirm")
"""Those whose jobs train the base alone, or with one head; a trial's proxy is replayed unless a seed is named."""
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
        return json.dumps(self.recorded) == json.dumps(self.replayed)  # NaN is equal to NaN


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
        return [number for number in self.numbers if not number.equal]

    @property
    def equal(self) -> bool:
        return not self.different


def replay(run: Run, study: StudyRecord, trial: int, seed: int | None = None) -> Replay:
    """Train again what the trial trained alone, up to where that was recorded, in a temporary folder; nothing of the run is changed.

    Args:
        seed: of one of the trial's confirming runs; None: its proxy.

    Raises:
        UserError: for a trial that there is not, or that was never trained alone (under that seed); for data that are gone; for a
            training on a GPU where there is none.
    """
    record = _record(run, study, trial, seed)
    recorded = record.reports
    resolved = run.config()
    setting = Setting.model_validate(resolved["setting"])
    _require_device(setting.device, record.key)
    changed = require_images(setting, resolved.get("images", {}))
    replayed = {
        report.step: report.metrics
        for report in _train_again(setting, record, [report.step for report in recorded])
    }
    numbers = [
        number for report in recorded for number in _compared(report, replayed.get(report.step, {}))
    ]
    notes = [
        *([changed[0].upper() + changed[1:]] if changed else []),
        *_changed_surroundings(recorded, list(replayed.values())),
    ]
    return Replay(record.key, record.name, numbers, notes)


def _record(run: Run, study: StudyRecord, trial: int, seed: int | None) -> JobRecord:
    """Return the job record to replay."""
    count = len(study.trials())
    if not 0 <= trial < count:
        valid = f"its trials are 0 to {count - 1}" if count else "it has none yet"
        raise UserError(f"the run {run.name!r} has no trial {trial}; {valid}.")
    alone = [
        record for record in study.jobs().values() if record.phase in PHASES and record.reports
    ]
    of_trial = sorted(
        (record for record in alone if record.trial == trial),
        key=lambda record: PHASES.index(record.phase),
    )
    if not of_trial:
        trained = sorted({record.trial for record in alone if record.trial is not None})
        valid = (
            f"choose one that was: {', '.join(map(str, trained))}"
            if trained
            else "no trial of this run has been yet"
        )
        raise UserError(
            f"trial {trial} of the run {run.name!r} was never trained alone as far as a first rung; {valid}."
        )
    found = [record for record in of_trial if seed in (None, record.seed)]
    if not found:
        seeds = ", ".join(str(record.seed) for record in of_trial)
        raise UserError(
            f"trial {trial} of the run {run.name!r} was not trained under seed {seed}; choose one of {seeds}."
        )
    if found[0].task is None:
        raise UserError(
            f"the record of {found[0].key} does not say how it was trained; replay it with the version that wrote it."
        )
    return found[0]


def _require_device(device: str, key: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{key} was trained on a GPU and no GPU was found; replay it on a machine like the one that it was trained on."
        )


def _train_again(setting: Setting, record: JobRecord, rungs: list[int]) -> list[Report]:
    """What the ordinary worker reports at these steps; this process has its threads and random state back afterwards."""
    import torch

    from hssl_search.engine.worker.run_job import run_job

    task = Task.model_validate(
        {**(record.task or {}), "setting": setting, "rungs": rungs, "reserve_s": 0.0}
    )
    reports: list[Report] = []
    threads, devices = (
        torch.get_num_threads(),
        [torch.cuda.current_device()] if setting.device == "cuda" else [],
    )
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


def _compared(report: Report, replayed: Plain) -> Iterator[Number]:
    found = dict(_flat(replayed))
    for name, value in _flat(report.metrics):
        yield Number(report.step, name, value, found.get(name))


def _flat(metrics: Plain) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything that is compared, what is nested with its place."""
    for key, value in metrics.items():
        if key in UNCOMPARED:
            continue
        inner = (
            value
            if isinstance(value, dict)
            else dict(enumerate(value))
            if isinstance(value, list)
            else None
        )
        if inner is None:
            yield key, value
        else:
            yield from (
                (f"{key}.{name}", each)
                for name, each in _flat({str(place): item for place, item in inner.items()})
            )


def _changed_surroundings(recorded: Sequence[Report], replayed: Sequence[Plain]) -> Iterator[str]:
    """What was different where the training ran, on any of the machines that it ran on."""
    here = replayed[-1].get("surroundings", {}) if replayed else {}
    for key, value in here.items():
        others = {
            str(report.metrics.get("surroundings", {}).get(key, "unknown")) for report in recorded
        } - {str(value)}
        if others:
            yield f"{key} was {' or '.join(sorted(others))} and is {value} here."
