"""Jobs worked off in pieces: what each reports is appended to one file at once, and started again
they continue where they were.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import (
    Decision,
    Job,
    Meter,
    Outcome,
    Plain,
    Report,
    Send,
    State,
    Worker,
)
from hssl_search.engine.execution.ray_tune.trainable import resolve
from hssl_search.engine.phases.runner import Phase
from hssl_search.engine.worker.run_job import run_job

TIMES = ("train_s", "train_steps", "core_s", "wall_s")
"""What a report says of the time since the one before."""
ABOUT = ("kind", "name", "heads", "steps", "rungs", "seed")
"""What a record says of its job."""


class Deadline:
    """A meter that charges nothing and ends the work at a time; infinite minutes end nothing.
    `kept_s`: seconds before it within which no job begins any more.
    """

    def __init__(self, minutes: float, kept_s: float = 0.0) -> None:
        self.at, self.kept_s = time.monotonic() + 60 * minutes, kept_s

    def left(self) -> float:
        return self.at - time.monotonic()

    def tick(self, live: list[Job]) -> None:
        pass

    def skip(self) -> None:
        pass

    def exhausted(self) -> bool:
        return self.left() <= 0


class Recorded(Phase):
    """Jobs whose reports are appended to a file as they come; those that the file says are done are
    not handed out.

    A job that was cut continues from the checkpoint in its folder, which goes away when it ends.
    One that failed is tried again.
    """

    def __init__(self, jobs: Iterable[Job], path: Path, deadline: Deadline) -> None:
        self.path, self.deadline, self.known = path, deadline, read(path)
        super().__init__(
            [job for job in jobs if self.known.get(job.key, {}).get("state") != State.DONE.value],
            {},
        )

    def next_job(self) -> Job | None:
        if self.deadline.left() <= self.deadline.kept_s:
            return None
        job = super().next_job()
        return None if job is None else replace(job, seconds=self.deadline.left())

    def on_report(self, job: Job, report: Report) -> Decision:
        self._append({"key": job.key, "step": report.step, "metrics": report.metrics})
        return Decision.CONTINUE

    def on_end(self, job: Job, outcome: Outcome) -> None:
        reached = outcome.reports[-1].step if outcome.reports else 0
        if outcome.state is State.CUT or (outcome.state is State.DONE and reached < job.task.steps):
            return
        shutil.rmtree(job.folder, ignore_errors=True)
        about = job.task.model_dump(mode="json", include=set(ABOUT))
        self._append(
            {"key": job.key, "state": outcome.state.value, "cause": outcome.cause, **about}
        )
        print(f"{job.key}: {outcome.state.value} {outcome.cause}", flush=True)

    def _append(self, line: Plain) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        _add(self.known, line)


def execute(
    worker: str | Worker,
    jobs: Sequence[Job],
    path: Path,
    deadline: Deadline,
    meter: Meter,
    at_once: int = 1,
) -> Recorded:
    """Run what is not done yet: in this process or, several at once, through Ray.

    Args:
        worker: a function; for Ray one that workers can import, as `package.module:function`.
        deadline: no job begins after it.
        meter: ends jobs that run.
    """
    source = Recorded(jobs, path, deadline)
    if at_once == 1:
        InlineExecutor(resolve(worker), meter).run(source)
    elif source.waiting():
        from hssl_search.engine.execution.ray_tune.executor import RayExecutor

        with RayExecutor(meter, worker) as executor:
            executor.run(source, at_once)
    return source


def read(path: Path) -> dict[str, Plain]:
    """Return by the keys of their jobs `reports`, by step, and once a job has ended its `state` and
    what it was. A torn last line is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole, _, torn = text.rpartition("\n")
    if torn:
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    known: dict[str, Plain] = {}
    for line in whole.splitlines():
        _add(known, json.loads(line))
    return known


def ended(known: dict[str, Plain]) -> dict[str, Plain]:
    """Return only the jobs that came to their end, well or not."""
    return {key: record for key, record in known.items() if record.get("state")}


def at_rungs(record: Plain) -> Iterator[tuple[int, Plain]]:
    """Yield (step, metrics) at each rung of a training; what it took until a piece ended between
    two rungs is counted to the next one."""
    spent = dict.fromkeys(TIMES, 0.0)
    for report in record["reports"]:
        spent = {name: spent[name] + report["metrics"].get(name, 0.0) for name in TIMES}
        if report["step"] in record["rungs"]:
            yield report["step"], {**report["metrics"], **spent}
            spent = dict.fromkeys(TIMES, 0.0)


def step_s(record: Plain) -> float:
    """Return the wall-clock seconds of a step of a training, over all that was timed of it."""
    metrics = [report["metrics"] for report in record["reports"]]
    return sum(one["train_s"] for one in metrics if "train_s" in one) / sum(
        one["train_steps"] for one in metrics if "train_s" in one
    )


def _add(known: dict[str, Plain], line: Plain) -> None:
    record = known.setdefault(line["key"], {"key": line["key"], "reports": []})
    if "step" in line:
        # one that may have been lost is reported again
        if line["step"] not in [report["step"] for report in record["reports"]]:
            record["reports"].append({"step": line["step"], "metrics": line["metrics"]})
    else:
        record.update(line)


def timed(send: Send) -> Send:
    """Add to each report `core_s` and `wall_s`: processor and wall-clock seconds of the worker
    since the one before, or since now."""
    since = [time.process_time(), time.monotonic()]

    def with_times(step: int, metrics: dict[str, Any]) -> None:
        now = [time.process_time(), time.monotonic()]
        core_s, wall_s = (after - before for after, before in zip(now, since, strict=True))
        since[:] = now
        send(step, {**metrics, "core_s": core_s, "wall_s": wall_s})

    return with_times


def run_timed(job: Job, send: Send) -> None:
    """Run the tool's own worker, timed."""
    run_job(job, timed(send))
