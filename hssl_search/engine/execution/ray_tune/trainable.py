"""What runs inside a Ray worker process: one job after the other, each in a Tune trial."""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hssl_search.engine.execution.dispatcher import cause
from hssl_search.engine.execution.jobs import DeviceFull, Halt, Job, Metrics, Worker

JOB = "job"
STEP = "step"
METRICS = "metrics"
CAUSE = "cause"
FULL = "full"
HALT = "halt"
"""Keys of what goes to a worker (JOB) and of what it reports. Jobs and metrics travel as JSON text,
because Tune flattens mappings."""


def trainable(worker: Worker | str) -> Callable[[Mapping[str, str]], None]:
    """Return a function for Tune that runs jobs with `worker`: a callable, or `module:function`,
    which is imported in the worker process only."""

    def trial(config: Mapping[str, str]) -> None:
        run_in_trial(config, worker)

    return trial


def run_in_trial(config: Mapping[str, str], worker: Worker | str) -> None:
    """Run the job in `config`. Each step is reported to Tune; an error is written to the job's
    folder, reported and raised."""
    from ray import tune

    plain = json.loads(config[JOB])
    limit_threads(plain["cpus"])  # before the worker below is imported, and torch with it

    def send(step: int, metrics: Metrics) -> None:
        tune.report({STEP: step, METRICS: json.dumps(metrics)})

    try:
        # Within: a task that is refused is an error of its job, and no reason to try it again.
        resolve(worker)(Job.from_plain(plain), send)
    except Exception as error:
        _write_traceback(Path(plain["folder"]))
        tune.report(
            {
                CAUSE: cause(error),
                FULL: isinstance(error, DeviceFull),
                HALT: isinstance(error, Halt),
            }
        )
        raise  # so that Tune fails the trial, and does not use this process again


def limit_threads(cpus: float) -> None:
    """Use as many threads as the job has cores, in libraries that are loaded after this, torch
    among them.

    Threads that wait for each other sleep: spinning, two threads on busy cores were measured to
    take 45 times as long for a step.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(max(1, int(cpus)))


def resolve(worker: Worker | str) -> Any:
    """Return the worker, imported where it is given by name."""
    if not isinstance(worker, str):
        return worker
    module, _, function = worker.partition(":")
    return getattr(importlib.import_module(module), function)


def _write_traceback(folder: Path) -> None:
    with suppress(OSError):  # the error that is told may be that nothing can be written there
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
